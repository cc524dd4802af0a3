/**
 * @libp2p/tls 3.1 over @libp2p/websockets 10.1: a connection over which much goes both ways is aborted, unseen.
 *
 * While its sending waits, TLS pauses the connection beneath it. A WebSocket isn't paused by that: what comes meanwhile is
 * collected, and over 4 MiB the connection is aborted, which its peer doesn't see (websocket_abort.js).
 *
 * Two hosts of js-libp2p: on each of 64 streams one asks for 512 KiB, and later sends as many, over a link that brings
 * nothing back meanwhile. The same over TCP with TLS and over WebSocket with Noise shows what should come: everything,
 * late. Ends with status 0 if only WebSocket with TLS loses the connection, else with 1.
 */

import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { webSockets } from '@libp2p/websockets'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { createConnection, createServer } from 'node:net'

const PROTOCOL = '/both-ways/1.0.0'
const STREAMS = 64
const SIZE = 512 * 1024
// milliseconds
const UPLOAD_AFTER = 2000
const HELD_BACK = 5000
const PATIENCE = 15000

/** Both ways together. */
const BYTES = STREAMS * (1 + 2 * SIZE)
const LIMITS = { maxInboundStreams: STREAMS, maxOutboundStreams: STREAMS }

async function start (security, listen) {
  return createLibp2p({
    addresses: { listen },
    transports: [tcp(), webSockets()],
    connectionEncrypters: [security()],
    streamMuxers: [yamux({ ...LIMITS, maxEarlyStreams: STREAMS })]
  })
}

/** A link to a port, whose bytes towards the dialler can be held back. */
async function startLink (port) {
  const back = []
  const link = createServer(near => {
    const far = createConnection(port, '127.0.0.1')
    near.pipe(far)
    far.pipe(near)
    near.on('error', () => far.destroy())
    far.on('error', () => near.destroy())
    back.push([far, near])
  })
  await new Promise(resolve => link.listen(0, '127.0.0.1', resolve))
  return {
    port: link.address().port,
    hold () { back.forEach(([far, near]) => { far.unpipe(near); far.pause() }) },
    release () { back.forEach(([far, near]) => far.pipe(near)) },
    close () { back.flat().forEach(socket => socket.destroy()); link.close() }
  }
}

/** What comes back over such a link, and why the other host has ended the connection, if it has. */
async function run (security, transport) {
  const ws = transport === 'ws' ? '/ws' : ''
  const server = await start(security, [`/ip4/127.0.0.1/tcp/0${ws}`])
  const client = await start(security, [])
  const link = await startLink(Number(server.getMultiaddrs()[0].toString().split('/')[4]))
  let [received, ended] = [0, 'not ended']
  let over
  const done = new Promise(resolve => { over = resolve })
  server.addEventListener('connection:open', ({ detail }) => {
    detail.addEventListener('close', ({ error }) => {
      ended = `${error?.name}: ${error?.message}`
      over()
    })
  })
  function count ({ data }) {
    received += data.byteLength
    if (received === BYTES) over()
  }
  await server.handle(PROTOCOL, stream => {
    stream.addEventListener('message', () => stream.send(new Uint8Array(SIZE)), { once: true })
    stream.addEventListener('message', count)
  }, LIMITS)
  const connection = await client.dial(multiaddr(`/ip4/127.0.0.1/tcp/${link.port}${ws}/p2p/${server.peerId}`))
  const streams = await Promise.all(Array.from({ length: STREAMS }, () => connection.newStream(PROTOCOL, LIMITS)))
  streams.forEach(stream => stream.addEventListener('message', count))
  link.hold()
  setTimeout(() => link.release(), HELD_BACK)
  streams.forEach(stream => stream.send(new Uint8Array(1)))
  await new Promise(resolve => setTimeout(resolve, UPLOAD_AFTER))
  streams.forEach(stream => stream.send(new Uint8Array(SIZE)))
  await Promise.race([done, new Promise(resolve => setTimeout(resolve, PATIENCE))])
  const result = { received, ended }
  link.close()
  await Promise.all([server.stop(), client.stop()])
  return result
}

const results = {}
for (const [transport, security] of [['tcp', tls], ['ws', noise], ['ws', tls]]) {
  results[`${transport} ${security.name}`] = await run(security, transport)
}
console.log(`of ${BYTES} bytes:`, results)
const { 'ws tls': broken, ...others } = results
const wellOtherwise = Object.values(others).every(({ received }) => received === BYTES)
process.exit(wellOtherwise && broken.ended.startsWith('StreamBufferError') ? 0 : 1)
