import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BYTES_ID, differsAt, echoPattern, expectPattern, pattern } from '../bytes.js'
import { Reader, write } from '../streams.js'
import { pair } from './pair.js'

const byteOf = (k, i) => (i * 31 + (i >> 8) * 17 + k) & 0xff

test('the pattern is what it is said to be', () => {
  for (const k of [0, 1, 255, 256, 999]) {
    const block = pattern(k)
    for (const i of [0, 1, 255, 256, 65535, 65536, 65537, 1_000_003]) {
      assert.equal(block[i % block.length], byteOf(k, i))
    }
  }
})

test('a byte that differs is found, also over the end of a period', () => {
  const offset = 65_530
  const data = Uint8Array.from({ length: 140_000 }, (_, i) => byteOf(7, offset + i))
  assert.equal(differsAt(data, pattern(7), offset), -1)
  assert.equal(differsAt(data, pattern(8), offset), 0)
  for (const place of [0, 5, 6, 70_000, 139_999]) {
    const spoiled = data.slice()
    spoiled[place] ^= 1
    assert.equal(differsAt(spoiled, pattern(7), offset), place)
  }
})

test('bytes come back', async t => {
  const { run } = await pair(t)
  for (const [bytes, streams] of [[0, 1], [1, 1], [65_537, 3], [64, 300], [16 << 20, 1]]) {
    const reply = await run('echo', bytes, streams)
    assert.ok(reply.ok, `${bytes} bytes, ${streams} streams: ${reply.error}`)
  }
})

test('streams are reset by either side, and the connection lives on', async t => {
  const { run } = await pair(t)
  for (const command of ['reset', 'was-reset', 'reset', 'was-reset']) {
    assert.equal((await run(command)).error, undefined)
  }
})

test('what is wrong with an echo is told', async t => {
  const { open } = await pair(t)
  const answered = async (answer, count) => {
    const stream = await open(BYTES_ID)
    await write(stream, answer)
    await stream.close()
    return expectPattern(new Reader(stream), count, pattern(0))
  }
  await answered(pattern(0).subarray(0, 100), 100)
  await assert.rejects(answered(pattern(0).subarray(0, 99), 100), /expected 100 bytes back, got 99/)
  await assert.rejects(answered(pattern(0).subarray(0, 101), 100), /got more/)
  await assert.rejects(answered(pattern(1).subarray(0, 100), 100), /byte 0: expected 0, got 1/)
})

test('a reader that is slow makes the sender wait, and gets everything', async t => {
  const { open } = await pair(t)
  const [one, two] = [await open(BYTES_ID), await open(BYTES_ID)]
  const total = 64 << 20
  let sent = 0
  const sending = (async () => {
    for (; sent < total; sent += 65_536) {
      await write(one, pattern(0))
    }
    await one.close()
  })()
  const reader = new Reader(one)
  assert.equal((await reader.exactly(1)).length, 1)
  let before
  do { // until nothing moves any more
    before = sent
    await new Promise(resolve => setTimeout(resolve, 300))
  } while (sent > before)
  assert.ok(sent < total, 'the sender never had to wait')
  await echoPattern(two, 1 << 20, 1) // another stream isn't held up
  let received = 1
  for (let data; (data = await reader.read()) !== undefined; received += data.byteLength) {
    assert.equal(differsAt(data, pattern(0), received), -1)
  }
  await sending
  assert.equal(received, total)
})

test('a lost connection is no end of a stream', async t => {
  const { client, open } = await pair(t)
  const stream = await open(BYTES_ID)
  const reading = new Reader(stream).read()
  client.connections()[0].abort(new Error('lost'))
  await assert.rejects(reading)
})
