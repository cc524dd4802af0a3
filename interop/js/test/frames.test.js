import assert from 'node:assert/strict'
import { test } from 'node:test'
import { frameOf, readFrame } from '../frames.js'
import { EndError } from '../streams.js'

/** A Reader of those bytes and the end. */
function readerOf (text) {
  const bytes = Buffer.from(text, 'latin1')
  let at = 0
  return {
    byte: async () => bytes[at++],
    exactly: async count => {
      if (bytes.length - at < count) {
        throw new EndError('cut off')
      }
      return bytes.subarray(at, at += count)
    }
  }
}

test('frames', async () => {
  assert.equal((await readFrame(readerOf('\x03abcd'), 3)).toString(), 'abc')
  assert.equal((await readFrame(readerOf('\x00'), 3)).length, 0)
  assert.equal(await readFrame(readerOf(''), 3), undefined)
  const large = Buffer.alloc(300, 1)
  assert.deepEqual(await readFrame(readerOf(frameOf(large).toString('latin1')), 300), large)
})

test('what is no frame', async () => {
  for (const [text, reason] of [
    ['\x04abcd', 'oversize'],
    ['\x03ab', 'malformed'],
    ['\x03', 'malformed'],
    ['\x80', 'malformed'],
    ['\x83\x00abc', 'malformed'],
    ['\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01', 'malformed'],
    ['\xff\xff\xff\xff\xff\xff\xff\x01', 'oversize']
  ]) {
    await assert.rejects(readFrame(readerOf(text), 3), { name: 'FrameError', reason })
  }
})
