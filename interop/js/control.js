/**
 * The line language: commands come in one a line, messages go out one JSON object a line.
 *
 * A command is {usage, args, run}: `run(words, signal)` gives what goes into the reply; at least `args` words must
 * follow the name; the signal ends at the timeout. Commands run one by one, and one that fails ends nothing else. What an
 * error has as `fields` goes into the reply too.
 */

import { on, once, setMaxListeners } from 'node:events'
import { createServer } from 'node:net'

/** The most bytes of a command. */
const MAX_LINE = 4 << 20

/** Milliseconds without reading after which a client of `serve` is taken for gone. */
const CLIENT_TIMEOUT = 5000

/** Gives a function that writes one message to that stream. */
export function output (stream) {
  return message => { stream.write(`${JSON.stringify(message)}\n`) }
}

/** Runs commands until `quit`, giving true, or the end of the input. `timeout`: milliseconds for each. */
export async function control (input, send, commands, timeout) {
  for await (const line of lines(input, MAX_LINE)) {
    const [name, ...words] = line.split(/\s+/).filter(Boolean)
    if (name === 'quit') {
      send({ reply: name, ok: true })
      return true
    }
    if (name !== undefined) {
      send(await reply(name, words, commands, timeout))
    }
  }
}

/**
 * Runs the commands of whoever connects with `address` (HOST:PORT), one client after the other, until one says quit. Each
 * is sent `hello` first, then its replies and the events: `attach` is told whose those are, undefined for nobody's.
 */
export async function serve (address, hello, attach, commands, timeout) {
  const split = address.lastIndexOf(':')
  const server = createServer({ pauseOnConnect: true })
  server.listen(Number(address.slice(split + 1)), address.slice(0, split))
  await once(server, 'listening')
  try {
    for await (const [client] of on(server, 'connection')) {
      if (await serveClient(client, hello, attach, commands, timeout)) {
        return
      }
    }
  } finally {
    server.close()
  }
}

async function serveClient (client, hello, attach, commands, timeout) {
  client.on('error', () => {}) // its end comes with it
  client.setTimeout(CLIENT_TIMEOUT, () => { if (client.writableLength > 0) client.destroy() })
  const send = output(client)
  attach(send)
  try {
    send(hello)
    const quit = await control(client, send, commands, timeout)
    await new Promise(resolve => { client.end(resolve) })
    return quit
  } catch (error) {
    console.error(`control: ${error.message}`)
    return false
  } finally {
    attach(undefined)
    client.destroy()
  }
}

/** Runs one command; its reply. */
export async function reply (name, words, commands, timeout) {
  try {
    const command = Object.hasOwn(commands, name) ? commands[name] : undefined
    if (command === undefined) {
      throw new Error(`unknown command "${name}"`)
    }
    if (words.length < command.args) {
      throw new Error(`usage: ${name} ${command.usage}`)
    }
    return { ...await bounded(signal => command.run(words, signal), timeout), reply: name, ok: true }
  } catch (error) {
    return { ...error.fields, reply: name, ok: false, error: describe(error) }
  }
}

/** What `work` gives. Rejects at the timeout even if `work` doesn't heed its signal. */
async function bounded (work, timeout) {
  const ending = new AbortController()
  setMaxListeners(0, ending.signal) // a thousand streams may wait for it
  let timer
  const late = new Promise((_resolve, reject) => {
    timer = setTimeout(() => {
      const error = new Error(`expected to be done within ${timeout} ms`)
      ending.abort(error)
      reject(error)
    }, timeout)
  })
  try {
    return await Promise.race([work(ending.signal), late])
  } finally {
    clearTimeout(timer)
  }
}

/** An error's text, with those that it gathers. */
function describe (error) {
  const parts = (error.errors ?? []).map(describe)
  const own = error.name === 'Error' ? error.message : `${error.name}: ${error.message}`
  return [own, ...parts].join('; ')
}

/** The lines of a stream of bytes; what follows the last line end counts as one. Throws over `max` bytes. */
export async function * lines (input, max) {
  let rest = []
  let length = 0
  for await (const data of input) {
    let start = 0
    for (let end; (end = data.indexOf(10, start)) >= 0; start = end + 1) {
      yield Buffer.concat([...rest, data.subarray(start, end)]).toString()
      rest = []
      length = 0
    }
    rest.push(data.subarray(start))
    length += data.length - start
    if (length > max) {
      throw new Error(`expected a command of at most ${max} bytes, got more`)
    }
  }
  if (length > 0) {
    yield Buffer.concat(rest).toString()
  }
}
