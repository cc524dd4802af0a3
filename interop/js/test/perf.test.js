import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MAX_PERF, PERF_ID } from '../perf.js'
import { Reader, write } from '../streams.js'
import { pair } from './pair.js'

test('perf moves what was asked', async t => {
  const { run, events } = await pair(t)
  for (const [up, down, streams] of [[0, 0, 1], [1, 0, 1], [0, 1, 1], [65_536, 65_537, 1], [3 << 20, 5 << 20, 4], [10, 20, 300]]) {
    events.length = 0
    const reply = await run('perf', up, down, streams)
    assert.ok(reply.ok, reply.error)
    assert.ok(reply.seconds >= Math.max(reply.upload_s, reply.download_s))
    const served = events.filter(({ event }) => event === 'perf')
    assert.equal(served.length, streams)
    assert.ok(served.every(({ received, sent }) => received === up && sent === down))
  }
  assert.ok((await run('both', 1 << 20)).seconds > 0)
})

test('the perf server counts, and refuses what it should', async t => {
  const { open } = await pair(t)
  const count = n => { const b = Buffer.alloc(8); b.writeBigUInt64BE(BigInt(n)); return b }
  const ask = async said => {
    const stream = await open(PERF_ID)
    await write(stream, said)
    await stream.close()
    const reader = new Reader(stream)
    return reader.exactly(5).then(async got => [got.length, await reader.read()])
  }
  assert.deepEqual(await ask(Buffer.concat([count(5), Buffer.from('upload')])), [5, undefined])
  for (const said of [Buffer.alloc(3), count(MAX_PERF + 1)]) {
    await assert.rejects(ask(said), { name: 'StreamResetError' })
  }
})

test('pings take their time on one stream', async t => {
  const { run } = await pair(t)
  const { rtt_us: rtts } = await run('ping', 20)
  assert.equal(rtts.length, 20)
  assert.ok(rtts.every(rtt => rtt > 0))
})

test('peers are identified, and a peer that is gone is told', async t => {
  const { connected, run, events } = await pair(t)
  assert.ok(connected.total_ms > 0)
  const said = await run('identify')
  assert.equal(said.agent, 'js-interop/1.0.0')
  assert.ok(['/ipfs/ping/1.0.0', PERF_ID].every(id => said.protocols.includes(id)))
  assert.equal((await run('disconnect')).closed, 1)
  assert.ok(events.some(({ event }) => event === 'disconnected'))
  assert.match((await run('ping')).error, /not connected/)
})
