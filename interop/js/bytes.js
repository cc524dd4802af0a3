/**
 * /vouch/bytes/1.0.0 sends back the bytes that come, as they come, and ends when its reader does; it doesn't read on
 * while its own sending waits. /vouch/reset/1.0.0 reads one byte and resets the stream.
 *
 * What is echoed is a pattern that tells places and streams apart: the byte at offset i of stream k is
 * (i*31 + (i>>8)*17 + k) & 0xff. It repeats after 64 KiB.
 */

import { Reader, write } from './streams.js'

export const BYTES_ID = '/vouch/bytes/1.0.0'
export const RESET_ID = '/vouch/reset/1.0.0'
/** The most bytes to echo on one stream. */
export const MAX_ECHO = 16 * 2 ** 30

const PERIOD = 1 << 16
const BLOCKS = new Map() // by k & 0xff

export async function serveBytes (stream) {
  const reader = new Reader(stream)
  for (let data; (data = await reader.read()) !== undefined;) {
    await write(stream, data)
  }
  await stream.close()
}

export async function serveReset (stream) {
  await new Reader(stream).exactly(1)
  stream.abort(new Error('reset, as this protocol does'))
}

/** One period of the pattern of stream k, shared by all who ask. */
export function pattern (k) {
  const key = k & 0xff
  let block = BLOCKS.get(key)
  if (block === undefined) {
    block = Buffer.alloc(PERIOD)
    for (let i = 0; i < PERIOD; i++) {
      block[i] = i * 31 + (i >> 8) * 17 + key
    }
    BLOCKS.set(key, block)
  }
  return block
}

/** Where bytes that belong at an offset of the pattern differ from it first, or -1. */
export function differsAt (data, block, offset) {
  for (let done = 0; done < data.byteLength;) {
    const start = (offset + done) % PERIOD
    const length = Math.min(data.byteLength - done, PERIOD - start)
    if (block.compare(data, done, done + length, start, start + length) !== 0) {
      let i = 0
      while (data[done + i] === block[start + i]) i++
      return done + i
    }
    done += length
  }
  return -1
}

/** Sends `count` bytes of stream k's pattern while reading them back to the end. Throws saying what differed. */
export async function echoPattern (stream, count, k) {
  const block = pattern(k)
  await Promise.all([sendPattern(stream, count, block), expectPattern(new Reader(stream), count, block)])
}

async function sendPattern (stream, count, block) {
  for (let left = count; left > 0; left -= PERIOD) {
    await write(stream, left < PERIOD ? block.subarray(0, left) : block)
  }
  await stream.close()
}

/** Reads `count` bytes of a pattern and the end. Throws saying what differed. */
export async function expectPattern (reader, count, block) {
  let received = 0
  for (let data; (data = await reader.read()) !== undefined; received += data.byteLength) {
    const place = differsAt(data, block, received)
    if (place >= 0) {
      const at = received + place
      throw new Error(`byte ${at}: expected ${block[at % PERIOD]}, got ${data[place]}`)
    }
    if (received + data.byteLength > count) {
      throw new Error(`expected ${count} bytes back, got more`)
    }
  }
  if (received !== count) {
    throw new Error(`expected ${count} bytes back, got ${received} and the end`)
  }
}

/** Has one block echoed and keeps the stream open. */
export async function echoOnce (stream, count) {
  const sent = pattern(0).subarray(0, count)
  const reader = new Reader(stream)
  await write(stream, sent)
  if (differsAt(await reader.exactly(count), sent, 0) >= 0) {
    throw new Error(`expected the ${count} bytes sent to come back, got others`)
  }
}

/** Says one byte and waits for the peer's reset. Throws if anything else comes. */
export async function expectReset (stream) {
  const reader = new Reader(stream)
  let data
  try {
    await write(stream, new Uint8Array(1))
    data = await reader.read()
  } catch (error) {
    if (error.name === 'StreamResetError') {
      return
    }
    throw error
  }
  throw new Error(`expected the stream to be reset, got ${data === undefined ? 'its end' : `${data.byteLength} bytes`}`)
}
