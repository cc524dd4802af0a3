/** Frames: an unsigned varint length in its shortest form, then that many bytes. */

import { varint } from './protobuf.js'
import { EndError, write } from './streams.js'

/** What comes is no frame: too long ("oversize"), or cut off or badly written ("malformed"). */
export class FrameError extends Error {
  name = 'FrameError'

  constructor (reason, text) {
    super(text)
    this.reason = reason
  }
}

/** The next frame's bytes, undefined at the peer's end between two frames. Throws FrameError, or if the stream is lost. */
export async function readFrame (reader, bound) {
  let length = 0
  for (let place = 1, byte = 0x80; byte >= 0x80; place *= 128) {
    byte = await reader.byte()
    if (byte === undefined && place === 1) {
      return undefined
    }
    if (byte === undefined || place > 2 ** 56 || (byte === 0 && place > 1)) {
      throw new FrameError('malformed', `expected a length in its shortest form, got ${byte ?? 'the end'}`)
    }
    length += (byte & 0x7f) * place
  }
  if (length > bound) {
    throw new FrameError('oversize', `expected at most ${bound} bytes, got ${length}`)
  }
  try {
    return await reader.exactly(length)
  } catch (error) {
    throw error instanceof EndError ? new FrameError('malformed', error.message) : error
  }
}

/** Length and bytes at once, so that they share a packet. */
export function frameOf (bytes) {
  return Buffer.concat([varint(bytes.length), bytes])
}

/** Sends one frame; done when more may be sent. */
export function writeFrame (stream, bytes) {
  return write(stream, frameOf(bytes))
}
