/**
 * js-libp2p's host put together: TCP, WebSocket and QUIC, by multiaddr alone; Noise or TLS where the transport doesn't
 * bring its own; Yamux.
 *
 * js-libp2p as its users have it, but for its limits: those under test are the other side's, and its own are low
 * (32 inbound streams of a protocol, 5 connections a second from one address).
 */

import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify, identifyPush } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { webSockets } from '@libp2p/websockets'
import { createLibp2p } from 'libp2p'

/** Of one protocol, on one connection. */
export const MANY_STREAMS = { maxInboundStreams: 4096, maxOutboundStreams: 4096 }

const MAX_CONNECTIONS = 1024
/** Milliseconds for the whole of a stream of pings; the default of 10,000 cuts long ones. */
const PING_TIMEOUT = 300_000
const IDENTIFY_STREAMS = { maxInboundStreams: 16, maxOutboundStreams: 16 }
const SECURITY = { noise, tls }
/** What QUIC allows a peer; the library's defaults are 256 streams, and 10 s until an idle connection ends. */
const QUIC = { maxConcurrentStreamLimit: 4096, maxIdleTimeout: 30_000 }

/** Which kinds of security there are. */
export const SECURITIES = Object.keys(SECURITY)

/**
 * The host, not started yet. `services` are those beside identify and ping; unless `eager`, connections are identified
 * only when somebody asks for it.
 */
export async function createHost ({ key, listen, agent, security, eager, services }) {
  return createLibp2p({
    privateKey: key,
    addresses: { listen },
    nodeInfo: { userAgent: agent },
    transports: [tcp(), webSockets(), ...await quicIfAny()],
    connectionEncrypters: [SECURITY[security]()],
    streamMuxers: [yamux({ ...MANY_STREAMS, maxEarlyStreams: MANY_STREAMS.maxInboundStreams })],
    connectionManager: {
      maxConnections: MAX_CONNECTIONS,
      maxIncomingPendingConnections: MAX_CONNECTIONS,
      inboundConnectionThreshold: MAX_CONNECTIONS
    },
    services: {
      identify: identify({ ...IDENTIFY_STREAMS, runOnConnectionOpen: eager }),
      identifyPush: identifyPush(IDENTIFY_STREAMS),
      // the connection monitor's pings count as outbound ones, and one that finds no room ends the connection
      ping: ping({ ...MANY_STREAMS, timeout: PING_TIMEOUT }),
      ...services
    },
    start: false // no peer can see it half assembled
  })
}

/** QUIC is a native module, which isn't there for every platform: without it the peer does all else. */
async function quicIfAny () {
  try {
    const { quic } = await import('@chainsafe/libp2p-quic')
    return [quic(QUIC)]
  } catch (error) {
    console.error(`no QUIC: ${error.message}`)
    return []
  }
}
