/**
 * The running peer: a js-libp2p host on TCP, Noise and Yamux that serves ping, identify, perf, bytes and reset.
 *
 * js-libp2p as its users have it, but for its limits: those under test are the other side's, and its own are low
 * (32 inbound streams of a protocol, 5 connections a second from one address). What each connection's peer said in
 * identify is kept as long as the connection.
 */

import { createHash } from 'node:crypto'
import { setMaxListeners } from 'node:events'
import { readFileSync } from 'node:fs'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { generateKeyPair, generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { createLibp2p } from 'libp2p'
import { BYTES_ID, RESET_ID, serveBytes, serveReset } from './bytes.js'
import { PERF_ID, perfHandler } from './perf.js'

/** Streams of one protocol, and of one connection. */
const MAX_STREAMS = 4096
const MAX_CONNECTIONS = 1024
/** Milliseconds for the whole of a stream of pings; the default of 10,000 cuts long ones. */
const PING_TIMEOUT = 300_000

const MANY_STREAMS = { maxInboundStreams: MAX_STREAMS, maxOutboundStreams: MAX_STREAMS }

export class Node {
  #libp2p
  #identified = new Map() // connection ID -> what identify said
  #changed = new EventTarget()

  /** Starts it: `listen` multiaddrs, `agent`, `seed` or none. `send` takes its events. */
  static async start ({ listen, agent, seed }, send) {
    const node = new Node()
    node.#libp2p = await createLibp2p({
      privateKey: await newIdentity(seed),
      addresses: { listen },
      nodeInfo: { userAgent: agent },
      transports: [tcp()],
      connectionEncrypters: [noise()],
      streamMuxers: [yamux(MANY_STREAMS)],
      connectionManager: {
        maxConnections: MAX_CONNECTIONS,
        maxIncomingPendingConnections: MAX_CONNECTIONS,
        inboundConnectionThreshold: MAX_CONNECTIONS
      },
      // the connection monitor's pings count as outbound ones, and one that finds no room ends the connection
      services: { identify: identify(), ping: ping({ ...MANY_STREAMS, timeout: PING_TIMEOUT }) },
      start: false // no peer can see it half assembled
    })
    node.#watch(send)
    await node.#serve(PERF_ID, perfHandler(send))
    await node.#serve(BYTES_ID, serveBytes)
    await node.#serve(RESET_ID, serveReset)
    await node.#libp2p.start()
    return node
  }

  stop () {
    return this.#libp2p.stop()
  }

  /** The event that says where it listens. */
  listening () {
    return {
      event: 'listening',
      peer: this.#libp2p.peerId.toString(),
      addrs: this.#libp2p.getMultiaddrs().map(String),
      pid: process.pid,
      versions: versions()
    }
  }

  /** Dials exactly that multiaddr. */
  dial (addr, signal) {
    return this.#libp2p.dial(addr, { signal, force: true })
  }

  connections (peer) {
    return this.#libp2p.getConnections(peer)
  }

  /** A connection to that peer. Throws if there is none. */
  connection (peer) {
    const [connection] = this.connections(peer).filter(({ status }) => status === 'open')
    if (connection === undefined) {
      throw new Error(`not connected with ${peer}`)
    }
    return connection
  }

  /** Opens that many streams at once on one connection; all of them, or it throws and none stays open. */
  async open (peer, protocol, count, signal) {
    const connection = this.connection(peer)
    const opening = Array.from({ length: count }, () => connection.newStream(protocol, { ...MANY_STREAMS, signal }))
    const opened = await Promise.allSettled(opening)
    const failed = opened.find(({ status }) => status === 'rejected')
    if (failed !== undefined) {
      opened.forEach(({ value }) => value?.abort(failed.reason))
      throw failed.reason
    }
    return opened.map(({ value }) => value)
  }

  /** What that peer said in identify on the present connection, once it has. */
  async identified (peer, signal) {
    const { id } = this.connection(peer)
    while (!this.#identified.has(id)) {
      this.connection(peer)
      await nextEvent(this.#changed, signal)
    }
    return this.#identified.get(id)
  }

  #watch (send) {
    setMaxListeners(0, this.#changed)
    this.#libp2p.addEventListener('peer:identify', ({ detail }) => {
      this.#identified.set(detail.connection.id, detail)
      this.#changed.dispatchEvent(new Event('change'))
    })
    this.#libp2p.addEventListener('connection:close', ({ detail }) => {
      this.#identified.delete(detail.id)
      this.#changed.dispatchEvent(new Event('change'))
      send({ event: 'disconnected', peer: detail.remotePeer.toString(), direction: detail.direction })
    })
  }

  #serve (protocol, handler) {
    return this.#libp2p.handle(protocol, async (stream, connection) => {
      try {
        await handler(stream, connection)
      } catch (error) {
        if (error.name !== 'StreamResetError') {
          console.error(`${protocol} from ${connection.remotePeer}: ${error.message}`)
        }
        stream.abort(error)
      }
    }, MANY_STREAMS)
  }
}

function nextEvent (target, signal) {
  return new Promise((resolve, reject) => {
    const settle = () => {
      target.removeEventListener('change', settle)
      signal?.removeEventListener('abort', settle)
      signal?.aborted ? reject(signal.reason) : resolve()
    }
    target.addEventListener('change', settle)
    signal?.addEventListener('abort', settle)
  })
}

/** The Ed25519 key that belongs to the seed, or a random one. */
function newIdentity (seed) {
  if (seed === undefined) {
    return generateKeyPair('Ed25519')
  }
  return generateKeyPairFromSeed('Ed25519', createHash('sha256').update(`vouch-interop-js/${seed}`).digest())
}

/** What this program runs on. */
function versions () {
  const { dependencies } = JSON.parse(readFileSync(new URL('package.json', import.meta.url)))
  const short = Object.entries(dependencies).map(([name, version]) => [name.replace(/^@.*?\//, ''), version])
  return { ...Object.fromEntries(short), node: process.versions.node }
}
