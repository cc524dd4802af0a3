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
 * They stop with the test. `run` runs a command of the client's with the server's peer ID as its first word, `open` opens
 * one stream to the server, `serve` changes a handler of the server's, `events` are those of both, of which `happened(name)`
 * takes the next one. `all` are the client and the server, as functions that run any command, with their `peer` IDs.
 * `options` are of both nodes.
 */
export async function pair (t, options = {}) {
  const events = []
  let wake = () => {}
  const send = event => {
    events.push(event)
    wake()
  }
  const start = () => Node.start({ ...OPTIONS, ...options }, send)
  const [client, server] = await Promise.all([start(), start()])
  t.after(() => Promise.all([client.stop(), server.stop()]))
  const all = [client, server].map(node => Object.assign(
    (name, ...words) => reply(name, words.map(String), commands(node), TIMEOUT),
    { peer: node.peerId.toString() }
  ))
  const { peer, addrs } = server.listening()
  const connected = await all[0]('connect', addrs[0])
  return {
    connected,
    client,
    server,
    all,
    events,
    happened: async name => {
      for (;;) {
        const at = events.findIndex(({ event }) => event === name)
        if (at >= 0) {
          return events.splice(at, 1)[0]
        }
        await new Promise(resolve => { wake = resolve })
      }
    },
    open: protocol => client.openOne(server.peerId, protocol),
    run: (name, ...words) => all[0](name, peer, ...words)
  }
}
