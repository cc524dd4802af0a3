/**
 * @libp2p/websockets 10.1: a connection that is aborted stays open on the wire.
 *
 * Two hosts of js-libp2p, connected over WebSocket: one aborts the connection, the other waits to see it closed. The
 * abort calls WebSocket.close(1006), a code that it doesn't take. The same over TCP shows what should come. Ends with
 * status 0 if the WebSocket isn't closed within 3 s, else with 1.
 */

import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'
import { webSockets } from '@libp2p/websockets'
import { createLibp2p } from 'libp2p'

const PATIENCE = 3000 // milliseconds

async function start (listen, security) {
  return createLibp2p({
    addresses: { listen: [listen] },
    transports: [tcp(), webSockets()],
    connectionEncrypters: [security()],
    streamMuxers: [yamux()]
  })
}

/** Whether the dialled host sees the connection closed when the other, or it, aborts it. */
async function closed (listen, security, who) {
  const [server, client] = [await start(listen, security), await start(listen, security)]
  const connection = await client.dial(server.getMultiaddrs())
  while (server.getConnections().length === 0) {
    await new Promise(resolve => setTimeout(resolve, 10))
  }
  const [accepted] = server.getConnections()
  const [aborting, watching] = who === 'client' ? [connection, accepted] : [accepted, connection]
  const gone = new Promise(resolve => watching.addEventListener('close', () => resolve(true)))
  aborting.abort(new Error('aborted'))
  return Promise.race([gone, new Promise(resolve => setTimeout(resolve, PATIENCE, false))])
}

const results = {}
for (const [name, listen] of [['tcp', '/ip4/127.0.0.1/tcp/0'], ['ws', '/ip4/127.0.0.1/tcp/0/ws']]) {
  for (const security of [noise, tls]) {
    for (const who of ['client', 'server']) {
      results[`${name} ${security.name} ${who}`] = await closed(listen, security, who)
    }
  }
}
console.log('closed for its peer:', results)
const [overTcp, overWebSocket] = ['tcp', 'ws'].map(name => Object.entries(results).filter(([key]) => key.startsWith(name)).map(([, value]) => value))
process.exit(overTcp.every(Boolean) && !overWebSocket.every(Boolean) ? 0 : 1)
