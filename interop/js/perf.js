/**
 * /perf/1.0.0: how fast bytes go each way (https://github.com/libp2p/specs/blob/master/perf/perf.md).
 *
 *     client: [8 bytes, big-endian: how many it wants] [its upload] end -->
 *                                                     <-- [as many bytes as were wanted] end :server
 */

import { Reader, write } from './streams.js'

export const PERF_ID = '/perf/1.0.0'
/** The most bytes each way. */
export const MAX_PERF = 16 * 2 ** 30

const COUNT_BYTES = 8
const PERF_TIMEOUT = 300_000 // milliseconds, for the whole stream
const BLOCK = new Uint8Array(64 << 10)

/** Gives a handler that takes an upload to its end, then sends what was asked for, and tells how much that was. */
export function perfHandler (send) {
  return async (stream, connection) => {
    const timer = setTimeout(() => stream.abort(new Error('perf took too long')), PERF_TIMEOUT)
    try {
      const [received, sent] = await serve(stream)
      send({ event: 'perf', peer: connection.remotePeer.toString(), received, sent })
    } finally {
      clearTimeout(timer)
    }
  }
}

/** Serves one stream; the bytes of upload and download. */
export async function serve (stream) {
  const reader = new Reader(stream)
  const asked = (await reader.exactly(COUNT_BYTES)).readBigUInt64BE()
  if (asked > BigInt(MAX_PERF)) {
    throw new Error(`expected to be asked for at most ${MAX_PERF} bytes, got ${asked}`)
  }
  const received = await discard(reader, MAX_PERF)
  await fill(stream, Number(asked))
  await stream.close()
  return [received, Number(asked)]
}

/**
 * Uploads and then downloads on an open stream: the seconds of each. The upload lasts until the first byte, or the
 * end, of what comes back. Throws if that isn't as much as was asked for.
 */
export async function measure (stream, up, down) {
  const reader = new Reader(stream)
  const count = Buffer.alloc(COUNT_BYTES)
  count.writeBigUInt64BE(BigInt(down))
  const started = performance.now()
  await write(stream, count)
  await fill(stream, up)
  await stream.close()
  const first = await reader.read()
  const turned = performance.now()
  const received = first === undefined ? 0 : first.byteLength + await discard(reader, Math.max(0, down - first.byteLength))
  const ended = performance.now()
  if (received !== down) {
    throw new Error(`expected the ${down} bytes asked for, got ${received}`)
  }
  return { upload: (turned - started) / 1000, download: (ended - turned) / 1000 }
}

/** Reads to the end and counts. Throws over the bound. */
async function discard (reader, bound) {
  let received = 0
  for (let data; (data = await reader.read()) !== undefined;) {
    received += data.byteLength
    if (received > bound) {
      throw new Error(`expected at most ${bound} bytes, got more`)
    }
  }
  return received
}

/** Sends that many bytes, whatever they are. */
async function fill (stream, count) {
  for (let left = count; left > 0; left -= BLOCK.length) {
    await write(stream, left < BLOCK.length ? BLOCK.subarray(0, left) : BLOCK)
  }
}
