/**
 * Sends signed messages and asks for answers. What this peer says on its own streams is here, what it answers on its
 * peers' is in served.js.
 */

import { publicKeyToProtobuf } from '@libp2p/crypto/keys'
import {
  ERROR_TYPE, MAX_MESSAGE, ONE_WAY, REQUEST, RESPONSE, Rejection, Rules, encodeMessage, encodeSigned, sign
} from './envelope.js'
import { FrameError, readFrame, writeFrame } from './frames.js'
import { Reader, using } from './streams.js'

const MAX_IN_FLIGHT = 1 << 16 // requests on one stream

/** The stream protocol of a sub-protocol. */
export function messageProtocol (name) {
  return `/vouch/msg/${name}/1.0.0`
}

export class Messenger {
  key
  #own
  #author
  #rules
  #send
  #open
  #conversations = new Map() // by peer and protocol

  /** `own` is this peer's Hello, `signatures` whether there are any, `send` takes events, `open(peer, id, signal)` opens a stream. */
  constructor ({ key, self, own, signatures }, send, open) {
    this.key = key
    this.#own = own
    this.#author = publicKeyToProtobuf(key.publicKey)
    this.#rules = new Rules({ networkId: own.networkId, self: Buffer.from(self.toMultihash().bytes), signatures })
    this.#send = send
    this.#open = open
  }

  /** The stream to that peer, which is opened at first use and when the last one has ended. */
  async conversation (peer, protocol, signal) {
    const name = `${peer} ${protocol}`
    if (!this.#conversations.get(name)?.alive) {
      const stream = await this.#open(peer, messageProtocol(protocol), signal)
      this.#conversations.set(name, new Conversation(this, stream, peer, protocol))
    }
    return this.#conversations.get(name)
  }

  /** Asks on a stream of its own and gives each part of the answer, the last one too, to `take(part, i)`. */
  async requestParts (peer, protocol, type, payload, take, signal) {
    const stream = await this.#open(peer, messageProtocol(protocol), signal)
    try {
      await using([stream], signal, async () => {
        const requestId = 1n
        await this.write(stream, peer, { protocol, type, kind: REQUEST, requestId, payload })
        const reader = new Reader(stream)
        for (let i = 0, more = true; more; i++) {
          const part = await this.receive(reader, peer, protocol)
          if (part === undefined) {
            throw new Error(`expected part ${i} of the answer, got the end`)
          }
          if (part.kind !== RESPONSE || part.requestId !== requestId) {
            const got = `one of kind ${part.kind} to ${part.requestId}`
            throw new Rejection(part.kind === RESPONSE ? 'malformed' : 'kind', `expected part ${i} of the answer, got ${got}`)
          }
          take(answered(part), i)
          more = part.more
        }
        await stream.close()
      })
    } catch (error) {
      this.tell(peer, protocol, error)
      throw error
    }
  }

  /** Signs and sends one message: `fields` are those that aren't the same in all to that peer. */
  async write (stream, peer, fields) {
    const frame = await this.seal(this.compose(peer, fields))
    if (frame.length > MAX_MESSAGE) {
      throw new Error(`expected a message of at most ${MAX_MESSAGE} bytes, got ${frame.length}`)
    }
    await writeFrame(stream, frame)
  }

  /** Fills in what every message to a peer says. */
  compose (peer, fields) {
    return {
      author: this.#author,
      ...this.#own,
      timestampMs: BigInt(Date.now()),
      recipient: peer.toMultihash().bytes,
      ...fields
    }
  }

  /** A message's frame, without its length. */
  async seal (fields) {
    const message = encodeMessage(fields)
    return encodeSigned({ message, signature: this.#rules.signatures ? await sign(message, this.key) : Buffer.alloc(0) })
  }

  /**
   * The next message that passes the rules, undefined at the peer's proper end; those that are only dropped are told
   * and skipped. Throws Rejection, or if the stream is lost.
   */
  async receive (reader, peer, protocol) {
    for (;;) {
      try {
        const frame = await readFrame(reader, MAX_MESSAGE)
        return frame === undefined ? undefined : await this.#rules.check(frame, peer, protocol, Date.now())
      } catch (error) {
        if (error instanceof FrameError) {
          throw new Rejection(error.reason, error.message)
        }
        if (!error.dropped) {
          throw error
        }
        this.tell(peer, protocol, error)
      }
    }
  }

  /** Sends the event rejected, if the error is a Rejection. */
  tell (peer, protocol, error) {
    if (error instanceof Rejection) {
      const { reason, detail, dropped } = error
      this.#send({ event: 'rejected', peer: peer.toString(), protocol, reason, detail, dropped })
    }
  }

  /** Sends the event message. */
  tellMessage (peer, { protocol, type, payload }) {
    this.#send({ event: 'message', peer: peer.toString(), protocol, type, payload: payload.toString('base64') })
  }
}

/** The one stream to a peer for a sub-protocol: messages go out, answers come back in any order. */
class Conversation {
  alive = true
  #messenger
  #stream
  #peer
  #protocol
  #last = 0n // request_id
  #waiting = new Map() // by request_id

  constructor (messenger, stream, peer, protocol) {
    this.#messenger = messenger
    this.#stream = stream
    this.#peer = peer
    this.#protocol = protocol
    this.#read()
  }

  /** Sends what nobody answers. */
  async send (type, payload) {
    await this.#write({ kind: ONE_WAY, type, payload })
  }

  /** The answer's message. Throws "remote: …" if the peer's handler failed, and if there is none when the signal ends. */
  async request (type, payload, signal) {
    if (this.#waiting.size >= MAX_IN_FLIGHT) {
      throw new Error(`expected at most ${MAX_IN_FLIGHT} requests in flight`)
    }
    const requestId = ++this.#last
    try {
      const answer = new Promise((resolve, reject) => {
        this.#waiting.set(requestId, { resolve, reject })
        signal.addEventListener('abort', () => reject(new Error('no answer: deadline exceeded')), { once: true })
      })
      const [message] = await Promise.all([answer, this.#write({ kind: REQUEST, requestId, type, payload })])
      return answered(message)
    } finally {
      this.#waiting.delete(requestId)
    }
  }

  async #write (fields) {
    try {
      await this.#messenger.write(this.#stream, this.#peer, { protocol: this.#protocol, ...fields })
    } catch (error) {
      this.#end(error) // half a frame may be on its way
      throw error
    }
  }

  /** Hands out answers until the stream ends, which fails all that wait. */
  async #read () {
    const reader = new Reader(this.#stream)
    try {
      for (let answer; (answer = await this.#messenger.receive(reader, this.#peer, this.#protocol)) !== undefined;) {
        this.#take(answer)
      }
      this.#end(new Error('the peer has ended it'))
    } catch (error) {
      this.#messenger.tell(this.#peer, this.#protocol, error)
      this.#end(error)
    }
  }

  #take (answer) {
    if (answer.kind !== RESPONSE) {
      throw new Rejection('kind', `expected answers on our own stream, got kind ${answer.kind}`)
    }
    if (answer.more) {
      throw new Rejection('malformed', 'expected a whole answer on the shared stream, got a part')
    }
    const waiter = this.#waiting.get(answer.requestId)
    if (waiter === undefined) {
      const unasked = new Rejection('unasked', `nobody waits for request ${answer.requestId}`)
      this.#messenger.tell(this.#peer, this.#protocol, unasked)
    }
    this.#waiting.delete(answer.requestId)
    waiter?.resolve(answer)
  }

  #end (error) {
    this.alive = false
    this.#stream.abort(error)
    for (const { reject } of this.#waiting.values()) {
      reject(new Error(`the stream ended before the answer: ${error.message}`))
    }
    this.#waiting.clear()
  }
}

/** The answer itself. Throws what it says if it is an error. */
function answered (answer) {
  if (answer.type === ERROR_TYPE) {
    throw new Error(`remote: ${answer.payload}`)
  }
  return answer
}
