/**
 * The JavaScript peer of the interop tests: a js-libp2p host that speaks vouch's handshake and is driven through standard
 * input.
 *
 * It prints one JSON object a line: first {"event":"listening",…}, then one {"reply":COMMAND,"ok":…} for each command,
 * in order, and events (admitted, refused, disconnected, identified, perf, message, rejected, gossip) as they happen. Logs
 * go to standard error. It ends with its input. The commands and events are those of the Go peer, which documents them
 * (interop/go/main.go); besides, identified {"peer","protocols"} comes each time a peer has said who it is, by itself too,
 * and disconnected has an "error" where this host has ended the connection for one.
 */

import { parseArgs } from 'node:util'
import { commands } from './commands.js'
import { control, output, serve } from './control.js'
import { parseParameter } from './gossip.js'
import { parseMinVersion } from './handshake.js'
import { SECURITIES } from './host.js'
import { KEY_TYPES, Node } from './node.js'

const USAGE = `main.js [flags]
  --listen MULTIADDR        repeatable: …/tcp/PORT, …/tcp/PORT/ws or …/udp/PORT/quic-v1 (default /ip4/127.0.0.1/tcp/0)
  --security noise|tls      over TCP and WebSocket (default noise)
  --network-id TEXT         network that peers must be of (default vouch-local)
  --client-version NAME/N.N.N  sent in the handshake (default js-interop/1.0.0)
  --min-version NAME=N.N.N  lowest version of a client, repeatable
  --handshake=false         a plain libp2p host that doesn't know the handshake
  --unsigned                send messages unsigned, and check no signatures
  --kad PREFIX              DHT on PREFIX/kad/1.0.0 (default no DHT)
  --pubsub signed|unsigned  speak gossipsub (default no pubsub)
  --gossip-param NAME=VALUE a parameter of gossipsub, repeatable
  --flood-publish on|off    publish to all peers of a topic (default off)
  --agent TEXT              sent in identify (default js-interop/1.0.0)
  --seed TEXT               derive the identity from this instead of a random one
  --control HOST:PORT       take commands from who connects there, one client after the other, not from standard input
  --key-type TYPE           of a random identity: ed25519 (default), secp256k1 or rsa
  --timeout SECONDS         bound for each command, such as 10s (the default) or 500ms`

/** Milliseconds for closing what is still open at the end. */
const STOP_TIMEOUT = 2000

const VERSION = 'js-interop/1.0.0'
const FLAGS = {
  listen: { type: 'string', multiple: true, default: ['/ip4/127.0.0.1/tcp/0'] },
  security: { type: 'string', default: 'noise' },
  'network-id': { type: 'string', default: 'vouch-local' },
  'client-version': { type: 'string', default: VERSION },
  'min-version': { type: 'string', multiple: true, default: [] },
  handshake: { type: 'string', default: 'true' },
  unsigned: { type: 'boolean', default: false },
  kad: { type: 'string' },
  pubsub: { type: 'string' },
  'gossip-param': { type: 'string', multiple: true, default: [] },
  'flood-publish': { type: 'string', default: 'off' },
  agent: { type: 'string', default: VERSION },
  seed: { type: 'string' },
  'key-type': { type: 'string', default: 'ed25519' },
  control: { type: 'string' },
  timeout: { type: 'string', default: '10s' }
}

/** The command line's flags as Node takes them, and the timeout in milliseconds. Throws for one that isn't known. */
function parse (argv) {
  const flags = parseArgs({ args: argv, options: FLAGS }).values
  const { listen, agent, seed, control, kad } = flags
  const mode = oneOf(flags, 'pubsub', [undefined, 'signed', 'unsigned'])
  return {
    listen,
    agent,
    seed,
    control,
    kad,
    keyType: oneOf(flags, 'key-type', KEY_TYPES),
    security: oneOf(flags, 'security', SECURITIES),
    networkId: Buffer.from(flags['network-id']),
    clientVersion: flags['client-version'],
    minVersions: new Map(flags['min-version'].map(parseMinVersion)),
    handshake: oneOf(flags, 'handshake', ['true', 'false']) === 'true',
    signatures: !flags.unsigned,
    pubsub: mode && {
      mode,
      parameters: Object.fromEntries(flags['gossip-param'].map(parseParameter)),
      flood: oneOf(flags, 'flood-publish', ['on', 'off']) === 'on'
    },
    timeout: milliseconds(flags.timeout)
  }
}

function oneOf (flags, name, values) {
  if (!values.includes(flags[name])) {
    throw new Error(`--${name}: expected ${values.filter(Boolean).join(' or ')}, got "${flags[name]}"`)
  }
  return flags[name]
}

function milliseconds (text) {
  const [, count, unit] = /^(\d+(?:\.\d+)?)(ms|s)?$/.exec(text) ?? []
  if (count === undefined) {
    throw new Error(`--timeout: expected a time such as 10s or 500ms, got "${text}"`)
  }
  return Number(count) * (unit === 'ms' ? 1 : 1000)
}

async function run (options) {
  const print = output(process.stdout)
  let send = print
  const node = await Node.start(options, message => send(message))
  send(node.listening())
  try {
    if (options.control === undefined) {
      await control(process.stdin, send, commands(node), options.timeout)
    } else {
      const attach = to => { send = to ?? print }
      await serve(options.control, node.listening(), attach, commands(node), options.timeout)
    }
  } finally {
    await Promise.race([node.stop(), new Promise(resolve => setTimeout(resolve, STOP_TIMEOUT))])
  }
}

let options
try {
  options = parse(process.argv.slice(2))
} catch (error) {
  console.error(`${error.message}\n${USAGE}`)
  process.exit(2)
}
try {
  await run(options)
} catch (error) {
  console.error(error)
  process.exit(1)
}
// timers and sockets that js-libp2p leaves behind would keep the process
process.exit(0)
