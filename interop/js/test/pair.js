/** Two connected nodes in this process, for tests. */

import { commands } from '../commands.js'
import { reply } from '../control.js'
import { Node } from '../node.js'

export const OPTIONS = {
  listen: ['/ip4/127.0.0.1/tcp/0'],
  agent: 'js-interop/1.0.0',
  security: 'noise',
  networkId: Buffer.from('vouch-local'),
  clientVersion: 'js-interop/1.0.0',
  handshake: true,
  signatures: true
}
const TIMEOUT = 10_000

/**
 * They stop with the test. `run` runs a command with the server's peer ID as its first word, `open` opens one stream
 * to the server, `events` are those of both. `options` are of both nodes.
 */
export async function pair (t, options = {}) {
  const events = []
  const send = event => { events.push(event) }
  const start = () => Node.start({ ...OPTIONS, ...options }, send)
  const [client, server] = await Promise.all([start(), start()])
  t.after(() => Promise.all([client.stop(), server.stop()]))
  const { peer, addrs } = server.listening()
  const connected = await reply('connect', addrs, commands(client), TIMEOUT)
  const { remotePeer } = client.connections()[0]
  return {
    connected,
    client,
    server,
    events,
    open: async protocol => (await client.open(remotePeer, protocol, 1))[0],
    run: (name, ...words) => reply(name, [peer, ...words.map(String)], commands(client), TIMEOUT)
  }
}
