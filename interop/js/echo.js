/** /vouch/echo/1.0.0: frames are sent back one by one until the end. */

import { readFrame, writeFrame } from './frames.js'
import { Reader } from './streams.js'

export const ECHO_ID = '/vouch/echo/1.0.0'

const MAX_FRAME = 64 << 10 // bytes

export async function serveEcho (stream) {
  const reader = new Reader(stream)
  for (let frame; (frame = await readFrame(reader, MAX_FRAME)) !== undefined;) {
    await writeFrame(stream, frame)
  }
  await stream.close()
}

/** A function that sends one frame on the stream and checks that it comes back. */
export function echoer (stream) {
  const reader = new Reader(stream)
  return async payload => {
    await writeFrame(stream, payload)
    const echoed = await readFrame(reader, MAX_FRAME)
    if (!payload.equals(echoed ?? Buffer.alloc(0))) {
      throw new Error(`expected the ${payload.length} bytes sent to come back, got ${echoed?.length ?? 'the end'}`)
    }
  }
}
