/**
 * The JavaScript peer of the interop tests: a plain js-libp2p host, which doesn't know vouch's handshake, driven through
 * standard input.
 *
 * It prints one JSON object a line: first {"event":"listening",…}, then one {"reply":COMMAND,"ok":…} for each command,
 * in order, and events (disconnected, perf) as they happen. Logs go to standard error. It ends with its input.
 */

import { parseArgs } from 'node:util'
import { commands } from './commands.js'
import { control, output, serve } from './control.js'
import { Node } from './node.js'

const USAGE = `main.js [flags]
  --listen MULTIADDR   repeatable (default /ip4/127.0.0.1/tcp/0)
  --agent TEXT         sent in identify (default js-interop/1.0.0)
  --seed TEXT          derive the identity from this instead of a random one
  --control HOST:PORT  take commands from who connects there, one client after the other, not from standard input
  --timeout SECONDS    bound for each command, such as 10s (the default) or 500ms`

/** Milliseconds for closing what is still open at the end. */
const STOP_TIMEOUT = 2000

const FLAGS = {
  listen: { type: 'string', multiple: true, default: ['/ip4/127.0.0.1/tcp/0'] },
  agent: { type: 'string', default: 'js-interop/1.0.0' },
  seed: { type: 'string' },
  control: { type: 'string' },
  timeout: { type: 'string', default: '10s' }
}

/** The command line's flags, the timeout in milliseconds. Throws for one that isn't known. */
function parse (argv) {
  const flags = parseArgs({ args: argv, options: FLAGS }).values
  const [, count, unit] = /^(\d+(?:\.\d+)?)(ms|s)?$/.exec(flags.timeout) ?? []
  if (count === undefined) {
    throw new Error(`--timeout: expected a time such as 10s or 500ms, got "${flags.timeout}"`)
  }
  return { ...flags, timeout: Number(count) * (unit === 'ms' ? 1 : 1000) }
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
