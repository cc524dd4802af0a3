/**
 * An inbound stream whose protocol is negotiated by hand, line by line, so that the answer may come late. Between the
 * lines the stream is paused, and what has come of it stays in it.
 *
 *     peer: /multistream/1.0.0 -- ID ...            [data]
 *     here:                      /multistream/1.0.0 ...wait... ID
 */

import { varint } from './protobuf.js'

const HEADER = '/multistream/1.0.0'
const MAX_LINE = 1024 // bytes, with the line end
const NEGOTIATION_TIMEOUT = 10_000 // milliseconds between two lines

export class HeldStream {
  #stream
  #greeted = false

  /** `count` is told the number of bytes of all that comes until the protocol is settled. */
  constructor (stream, count) {
    this.#stream = stream
    count(stream.readBufferLength)
    const { onData } = stream // js-libp2p tells of what comes while a stream is paused in no other way
    stream.onData = data => {
      count(data.byteLength)
      onData.call(stream, data)
    }
  }

  /** The protocol that the peer asks for; it is answered the header alone. */
  async next () {
    if (!this.#greeted) {
      const header = await this.#line()
      if (header !== HEADER) {
        throw new Error(`expected ${HEADER}, got "${header}"`)
      }
      this.#say(HEADER)
      this.#greeted = true
    }
    return this.#line()
  }

  /** Answers that there is no such protocol, or which there are; the next one that the peer asks for. */
  refuse (id, protocols) {
    this.#say(id === 'ls' ? protocols.map(each => line(each).toString('latin1')).join('') : 'na')
    return this.next()
  }

  /** Answers that this is the protocol. The stream is as if nothing had been read of it then. */
  accept (id) {
    const stream = this.#stream
    this.#say(id)
    delete stream.onData
    stream.protocol = id
    if (stream.readStatus === 'paused') {
      stream.resume()
    }
  }

  #say (text) {
    this.#stream.send(line(text))
  }

  async #line () {
    const stream = this.#stream
    if (stream.readableEnded || stream.status !== 'open') {
      throw new Error('expected a protocol, got the end')
    }
    return new Promise((resolve, reject) => {
      let bytes = Buffer.alloc(0)
      const settle = (outcome, value) => {
        clearTimeout(timer)
        stream.removeEventListener('message', take)
        stream.removeEventListener('close', onEnd)
        stream.removeEventListener('end', onEnd)
        outcome(value)
      }
      const take = ({ data }) => {
        bytes = Buffer.concat([bytes, data.subarray()])
        try {
          const found = firstLine(bytes)
          if (found !== undefined) {
            stream.pause()
            stream.push(bytes.subarray(found.end))
            settle(resolve, found.text)
          }
        } catch (error) {
          settle(reject, error)
        }
      }
      const onEnd = ({ error }) => settle(reject, error ?? new Error('expected a protocol, got the end'))
      const timer = setTimeout(() => settle(reject, new Error('expected a protocol, got none in time')), NEGOTIATION_TIMEOUT)
      stream.addEventListener('close', onEnd)
      stream.addEventListener('end', onEnd)
      stream.addEventListener('message', take)
      if (stream.readStatus === 'paused') {
        stream.resume()
      }
    })
  }
}

function line (text) {
  const bytes = Buffer.from(`${text}\n`, 'latin1')
  return Buffer.concat([varint(bytes.length), bytes])
}

/** The line that the bytes begin with and where it ends, undefined if it isn't whole. Throws for what can't be one. */
function firstLine (bytes) {
  if (bytes.length === 0 || (bytes[0] >= 0x80 && bytes.length === 1)) {
    return undefined
  }
  const [length, start] = bytes[0] < 0x80 ? [bytes[0], 1] : [(bytes[0] & 0x7f) + bytes[1] * 128, 2]
  if (length < 1 || length > MAX_LINE) {
    throw new Error(`expected a line of 1 to ${MAX_LINE} bytes, got ${length}`)
  }
  const end = start + length
  if (bytes.length < end) {
    return undefined
  }
  const text = bytes.toString('latin1', start, end)
  if (!text.endsWith('\n')) {
    throw new Error('expected a line end, got none')
  }
  return { text: text.slice(0, -1), end }
}
