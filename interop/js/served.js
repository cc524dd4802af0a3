/**
 * The sub-protocols "interop" and "interop-parts", served alike; the second is for peers that can't answer with and
 * without parts in one. Types of requests:
 *
 *     1 the same payload           2 "N INDEX": "INDEX", once N are held, the last first
 *     3 an error answer            4 "COUNT SIZE": so many parts, byte i & 0xff of each repeated
 *     5 no answer                  any other: an error answer
 */

import { ERROR_TYPE, MAX_MESSAGE, ONE_WAY, REQUEST, RESPONSE, Rejection } from './envelope.js'
import { Reader } from './streams.js'

export const SUB_PROTOCOLS = ['interop', 'interop-parts']
export const REVERSED = 2
export const PARTS = 4
/** Requests of type 2 that may be held on a stream. */
export const MAX_HELD_REQUESTS = 1 << 12

const ECHO = 1
const FAILS = 3
const SILENCE = 5

/** The handler of a sub-protocol's streams. What it is asked it does one by one: while its writes wait it reads no more. */
export function messageHandler (messenger, protocol) {
  return async (stream, connection) => {
    try {
      await new Server(messenger, stream, connection.remotePeer, protocol).serve()
      await stream.close()
    } catch (error) {
      messenger.tell(connection.remotePeer, protocol, error)
      throw error
    }
  }
}

/** Two counts of at most `bound` with a space between them. Throws for anything else. */
export function parsePair (text, bound) {
  const [, one, other] = /^(\d+) (\d+)$/.exec(text) ?? []
  if (one === undefined || Number(one) > bound || Number(other) > bound) {
    throw new Error(`expected two counts of at most ${bound}, got "${text}"`)
  }
  return [Number(one), Number(other)]
}

class Server {
  #messenger
  #stream
  #peer
  #protocol
  #held = []

  constructor (messenger, stream, peer, protocol) {
    this.#messenger = messenger
    this.#stream = stream
    this.#peer = peer
    this.#protocol = protocol
  }

  /** Answers until the peer's proper end. */
  async serve () {
    const reader = new Reader(this.#stream)
    for (let message; (message = await this.#messenger.receive(reader, this.#peer, this.#protocol)) !== undefined;) {
      if (message.kind === ONE_WAY) {
        this.#messenger.tellMessage(this.#peer, message)
      } else if (message.kind === REQUEST) {
        await this.#answer(message)
      } else { // nothing is asked on a peer's stream
        const unasked = new Rejection('unasked', `an answer, to ${message.requestId}, on the peer's own stream`)
        this.#messenger.tell(this.#peer, this.#protocol, unasked)
      }
    }
  }

  async #answer (request) {
    try {
      switch (request.type) {
        case ECHO: return await this.#reply(request, ECHO, request.payload)
        case REVERSED: return await this.#hold(request)
        case FAILS: throw new Refusal(`no such thing: ${request.payload}`)
        case PARTS: return await this.#parts(request)
        case SILENCE: return
        default: throw new Refusal(`no such type: ${request.type}`)
      }
    } catch (error) {
      if (!(error instanceof Refusal)) {
        throw error
      }
      await this.#reply(request, ERROR_TYPE, Buffer.from(error.message))
    }
  }

  /** Keeps a request until it and those before it are as many as it says. */
  async #hold (request) {
    const [count] = pairOf(request, MAX_HELD_REQUESTS)
    this.#held.push(request)
    if (this.#held.length < count) {
      return
    }
    for (const held of this.#held.splice(0).reverse()) {
      await this.#reply(held, REVERSED, Buffer.from(held.payload.toString().split(' ')[1]))
    }
  }

  async #parts (request) {
    const [count, size] = pairOf(request, MAX_MESSAGE / 2)
    if (count < 1) {
      throw new Refusal(`expected COUNT SIZE, got "${request.payload}"`)
    }
    for (let i = 0; i < count; i++) {
      await this.#reply(request, PARTS, Buffer.alloc(size, i & 0xff), i < count - 1)
    }
  }

  #reply ({ requestId }, type, payload, more = false) {
    const fields = { protocol: this.#protocol, kind: RESPONSE, requestId, type, payload, more }
    return this.#messenger.write(this.#stream, this.#peer, fields)
  }
}

/** Why a request is answered with an error. */
class Refusal extends Error {}

function pairOf ({ payload }, bound) {
  try {
    return parsePair(payload.toString(), bound)
  } catch (error) {
    throw new Refusal(`expected COUNT SIZE: ${error.message}`)
  }
}
