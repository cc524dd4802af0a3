/**
 * The handshake of docs/wire.md on every connection, whoever asked for it.
 *
 *     connection:open -> its muxer's streams come here, its newStream() waits
 *         outbound: a handshake stream is opened  \
 *         inbound:  one is waited for              > admitted: held streams go on, newStream() opens
 *         DEADLINE, or the connection's end       /  refused: all streams are reset, the connection is closed
 *
 * js-libp2p has no place for this, so its Connection is changed, each by itself: what opens streams (identify, the DHT,
 * pubsub, the connection monitor's pings, commands) uses newStream(), and what peers open comes by the muxer's event.
 *
 * Where this falls short of the protocol: a peer that refused is dialled again whenever a command or the DHT asks for it,
 * without a backoff; and of two connections to a peer both are kept.
 */

import { MAX_HELLO, HANDSHAKE_ID, decodeHello, encodeHello } from './handshake.js'
import { readFrame, writeFrame } from './frames.js'
import { HeldStream } from './held.js'
import { Reader, using } from './streams.js'

const DEADLINE = 5000 // milliseconds
const CLOSE_TIMEOUT = 1000
const MAX_HELD = 16 // streams
const MAX_HELD_BYTES = 64 << 10 // on all of them

export class Admission {
  #policy
  #protocols
  #send
  #entries = new WeakMap() // by connection

  /** `protocols` gives what is served now, `send` takes the events. */
  constructor (policy, protocols, send) {
    this.#policy = policy
    this.#protocols = protocols
    this.#send = send
  }

  /** Takes a connection in hand, before anything can come or go on it. `onAdmitted` is called once, if it is. */
  watch (connection, onAdmitted) {
    const entry = new Entry(connection, this.#protocols, error => this.#tell(connection, error))
    this.#entries.set(connection, entry)
    entry.decided.then(onAdmitted, () => {})
    if (connection.direction === 'outbound') {
      this.#initiate(entry)
    }
  }

  admitted (connection) {
    return this.#entries.get(connection)?.admitted ?? false
  }

  /** Returns the milliseconds that the handshake took, once the connection is admitted. Throws why it isn't. */
  async wait (connection, signal) {
    return or(this.#entries.get(connection).decided, signal)
  }

  /** The handler of the handshake protocol: the recipient's side. */
  async respond (stream, connection) {
    const entry = this.#entries.get(connection)
    if (connection.direction === 'outbound' || entry.started) {
      const error = new Error('handshake stream by the wrong side, or a second one')
      entry.decide(error)
      await end(connection, error) // it may have been admitted before
      return
    }
    entry.started = true
    await entry.attempt(stream, async () => {
      this.#policy.check(await receive(stream))
      await writeFrame(stream, encodeHello(this.#policy.own))
      await stream.close()
    })
  }

  async #initiate (entry) {
    try {
      const stream = await entry.newStream(HANDSHAKE_ID, { signal: entry.deadline })
      await entry.attempt(stream, async () => {
        await writeFrame(stream, encodeHello(this.#policy.own))
        this.#policy.check(await receive(stream))
      })
      await stream.close()
    } catch (error) {
      entry.decide(error)
    }
  }

  #tell (connection, error) {
    const { remotePeer, direction } = connection
    const event = { event: 'admitted', peer: remotePeer.toString(), direction }
    this.#send(error === undefined ? event : { ...event, event: 'refused', reason: error.message })
  }
}

/** Reads the peer's Hello, after which it has nothing more to say. */
async function receive (stream) {
  const frame = await readFrame(new Reader(stream), MAX_HELLO)
  if (frame === undefined) {
    throw new Error('not a Hello: the stream has ended')
  }
  return decodeHello(frame)
}

/** The admission of one connection. `decided` is fulfilled with the milliseconds it took, or rejected with why not. */
class Entry {
  started = false // a handshake stream has been seen
  admitted = false
  deadline = AbortSignal.timeout(DEADLINE)
  #connection
  #protocols
  #tell
  #over = false
  #began = performance.now()
  #streams = 0 // that are held, or haven't named their protocol yet
  #bytes = 0
  #settle

  constructor (connection, protocols, tell) {
    this.#connection = connection
    this.#protocols = protocols
    this.#tell = tell
    this.decided = new Promise((resolve, reject) => { this.#settle = { resolve, reject } })
    this.decided.catch(() => {}) // that nobody asks is no fault
    this.newStream = connection.newStream
    connection.newStream = async (ids, options) => {
      await or(this.decided, options?.signal)
      return this.newStream(ids, options)
    }
    const { muxer, onIncomingStream } = connection
    muxer.removeEventListener('stream', onIncomingStream)
    muxer.addEventListener('stream', event => this.admitted ? onIncomingStream(event) : this.#hold(event.detail))
    connection.addEventListener('close', () => this.decide(new Error('connection ended before a valid Hello')))
    this.deadline.addEventListener('abort', () => this.decide(new Error(`not admitted within ${DEADLINE} ms`)))
  }

  /** Settles it, once. */
  decide (error) {
    if (this.#over) {
      return
    }
    this.#over = true
    this.admitted = error === undefined
    this.#tell(error)
    if (this.admitted) {
      this.#settle.resolve(performance.now() - this.#began)
    } else {
      this.#settle.reject(new Error(`refused: ${error.message}`))
      end(this.#connection, error)
    }
  }

  /** Admits if `work` succeeds within the deadline. */
  async attempt (stream, work) {
    try {
      await using([stream], this.deadline, work)
      this.decide()
    } catch (error) {
      this.decide(error)
    }
  }

  async #hold (stream) {
    this.#streams++
    const held = new HeldStream(stream, count => this.#count(count))
    try {
      let id = await held.next()
      if (id !== HANDSHAKE_ID) {
        if (this.#streams > MAX_HELD && !this.admitted) {
          throw new Error(`expected at most ${MAX_HELD} streams before admission, got more`)
        }
        await this.decided
        while (!this.#protocols().includes(id)) {
          id = await held.refuse(id, this.#protocols())
        }
      }
      held.accept(id)
    } catch (error) {
      stream.abort(error)
      return
    } finally {
      this.#streams--
    }
    this.#connection.onIncomingStream({ detail: stream }) // it takes a stream whose protocol is settled as it is
  }

  #count (bytes) {
    this.#bytes += bytes
    if (this.#bytes > MAX_HELD_BYTES && !this.admitted) {
      this.decide(new Error(`expected at most ${MAX_HELD_BYTES} bytes before admission, got more`))
    }
  }
}

/**
 * Resets a connection's streams and closes it, with a close that its peer sees: abort() leaves a WebSocket open, as it
 * passes the code 1006 on, which close() doesn't take (@libp2p/websockets 10.1).
 */
async function end (connection, error) {
  connection.streams.slice().forEach(stream => stream.abort(error))
  try {
    await connection.close({ signal: AbortSignal.timeout(CLOSE_TIMEOUT) })
  } catch {
    connection.abort(error)
  }
}

/** What the promise gives, unless the signal ends first. */
function or (promise, signal) {
  signal?.throwIfAborted()
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason)
    signal?.addEventListener('abort', onAbort, { once: true })
    promise.then(resolve, reject).finally(() => signal?.removeEventListener('abort', onAbort))
  })
}
