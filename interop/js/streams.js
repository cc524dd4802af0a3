/**
 * Reading and writing js-libp2p's streams with backpressure, which its own iterator doesn't give: that one takes all
 * that comes into memory, and ends with the peer's FIN even if data before it is still held back.
 *
 *     message -> held here -> read()
 *                  \--over MAX_HELD bytes: stream.pause(), no window updates, so the peer stops at the window's end
 */

/** Bytes that may wait for their reader. */
const MAX_HELD = 256 << 10
/**
 * Bytes that js-libp2p may hold of a paused stream. It resets one with more, and its default of 4 MiB is less than the
 * window that its Yamux lets a fast peer fill. Over QUIC a pause slows no peer: the library reads on by itself (its
 * `sendPause` does nothing), so a reader that is further behind than this loses its stream. A machine that is busy
 * lets one fall behind by tens of megabytes, so there is room for the most that the matrix sends at once, 100 MiB.
 */
const MAX_PAUSED = 128 << 20

/** The peer's proper end came amid what was to be read. */
export class EndError extends Error {
  name = 'EndError'
}

/** Reads a stream, one caller at a time. From its creation on it alone reads the stream. */
export class Reader {
  #stream
  #held = []
  #length = 0
  #resuming = false
  #finished // whether the peer's FIN has come, which a lost connection is told from by this alone
  #ended = false
  #error
  #wake = () => {}

  constructor (stream) {
    this.#stream = stream
    stream.maxReadBufferLength = MAX_PAUSED
    this.#finished = stream.status === 'open' && stream.remoteWriteStatus === 'closed'
    this.#ended = stream.readableEnded
    stream.addEventListener('remoteCloseWrite', () => { this.#finished = true })
    stream.addEventListener('end', () => {
      this.#ended = true
      this.#wake()
    })
    stream.addEventListener('close', ({ error }) => {
      this.#error ??= error ?? (this.#finished ? undefined : new Error('expected the end of the stream, lost it'))
      this.#wake()
    })
    stream.addEventListener('message', ({ data }) => this.#take(data))
  }

  /** The next bytes, undefined at the peer's end. Throws if the stream was reset or lost. */
  async read () {
    while (this.#held.length === 0) {
      if (this.#error !== undefined) {
        throw this.#error
      }
      if (this.#ended) {
        if (this.#finished) {
          return undefined
        }
        throw new Error('expected the end of the stream, lost it')
      }
      await new Promise(resolve => { this.#wake = resolve }) // not paused: what is held is less than MAX_HELD
    }
    const data = this.#held.shift()
    this.#length -= data.byteLength
    if (this.#length <= MAX_HELD / 2) {
      this.#resume()
    }
    return data
  }

  /** The next byte, undefined at the peer's end. */
  async byte () {
    const data = await this.read()
    if (data === undefined) {
      return undefined
    }
    this.#putBack(data.subarray(1))
    return data[0]
  }

  /** Exactly that many bytes. Throws EndError if the end comes before. */
  async exactly (count) {
    const parts = []
    let missing = count
    while (missing > 0) {
      const data = await this.read()
      if (data === undefined) {
        throw new EndError(`expected ${count} bytes, got ${count - missing} and the end`)
      }
      const part = data.subarray(0, Math.min(missing, data.byteLength))
      parts.push(part)
      missing -= part.byteLength
      this.#putBack(data.subarray(part.byteLength))
    }
    return Buffer.concat(parts)
  }

  #putBack (data) {
    if (data.byteLength > 0) {
      this.#held.unshift(data)
      this.#length += data.byteLength
    }
  }

  #take (data) {
    for (const part of data instanceof Uint8Array ? [data] : data) {
      this.#held.push(part)
      this.#length += part.byteLength
    }
    this.#pause()
    this.#wake()
  }

  #pause () {
    if (this.#length > MAX_HELD && !this.#resuming && this.#stream.readStatus === 'readable') {
      this.#stream.pause()
    }
  }

  #resume () {
    if (this.#stream.readStatus !== 'paused') {
      return
    }
    // resume() delivers first and then opens the window, even if it was told to pause meanwhile
    this.#resuming = true
    try {
      this.#stream.resume()
    } catch (error) {
      // it delivers what it held, and then tells a connection that may be gone
      if (this.#stream.status === 'open') {
        throw error
      }
    } finally {
      this.#resuming = false
    }
    this.#pause()
  }
}

/** Sends these bytes; done when more may be sent. The bytes mustn't change later. Throws if the stream has ended. */
export async function write (stream, data) {
  if (!stream.send(data)) {
    await drained(stream)
  }
}

// not stream.onDrain(), whose promise stays fulfilled after the first time (@libp2p/utils 7.4)
function drained (stream) {
  return new Promise((resolve, reject) => {
    const forget = () => {
      stream.removeEventListener('drain', onDrain)
      stream.removeEventListener('close', onClose)
    }
    const onDrain = () => { forget(); resolve() }
    const onClose = ({ error }) => { forget(); reject(error ?? new Error('expected to send more, the stream was closed')) }
    stream.addEventListener('drain', onDrain)
    stream.addEventListener('close', onClose)
  })
}

/** Does `work` with the streams, which are reset if it fails or takes longer than the signal allows. */
export async function using (streams, signal, work) {
  const abort = error => streams.forEach(stream => stream.abort(error))
  const onAbort = () => abort(signal.reason)
  signal?.addEventListener('abort', onAbort)
  try {
    signal?.throwIfAborted()
    return await work()
  } catch (error) {
    abort(error)
    throw error
  } finally {
    signal?.removeEventListener('abort', onAbort)
  }
}
