/**
 * @chainsafe/libp2p-quic 2.1: a stream that the peer has reset looks like one that it has ended.
 *
 * Two hosts of js-libp2p, connected over QUIC: one resets a stream, the other waits for the stream's close. The same over
 * TCP and Yamux shows what should come. Ends with status 0 if QUIC doesn't tell of the reset, else with 1.
 */

import { quic } from '@chainsafe/libp2p-quic'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { tcp } from '@libp2p/tcp'
import { createLibp2p } from 'libp2p'

const PROTOCOL = '/reset/1.0.0'

async function start (listen) {
  return createLibp2p({
    addresses: { listen: [listen] },
    transports: [tcp(), quic()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()]
  })
}

/** What a host sees of a stream that its peer resets. */
async function seen (listen) {
  const [server, client] = [await start(listen), await start(listen)]
  await server.handle(PROTOCOL, stream => {
    stream.addEventListener('message', () => stream.abort(new Error('reset')))
  })
  const stream = await client.dialProtocol(server.getMultiaddrs(), PROTOCOL)
  const told = await new Promise(resolve => {
    stream.addEventListener('remoteCloseWrite', () => resolve('its end'))
    stream.addEventListener('close', ({ error }) => resolve(error?.name ?? 'its end'))
    stream.send(new Uint8Array(1))
  })
  await Promise.all([server.stop(), client.stop()])
  return told
}

const overTcp = await seen('/ip4/127.0.0.1/tcp/0')
const overQuic = await seen('/ip4/127.0.0.1/udp/0/quic-v1')
console.log(`a stream that was reset: over TCP ${overTcp}, over QUIC ${overQuic}`)
process.exit(overTcp === 'StreamResetError' && overQuic === 'its end' ? 0 : 1)
