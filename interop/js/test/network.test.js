import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { test } from 'node:test'
import { pseudoRandom } from '../gossip_commands.js'
import { parseParameter } from '../gossip.js'
import { pair } from './pair.js'

const base64 = text => Buffer.from(text).toString('base64')

const PATIENCE = 10_000

async function eventually (check) {
  const deadline = Date.now() + PATIENCE
  while (!await check()) {
    assert.ok(Date.now() < deadline, `expected within ${PATIENCE} ms: ${check}`)
    await sleep(20)
  }
}

test('the DHT keeps values, the greater the better, and providers', async t => {
  const { all } = await pair(t, { kad: '/vouch/test' })
  const [one, other] = all
  for (const [each, neighbour] of [[one, other], [other, one]]) {
    await eventually(async () => (await each('table')).peers.includes(neighbour.peer))
  }
  assert.deepEqual((await one('put', '/v/harbour', base64('buoy'))).sent_to, [other.peer])
  assert.equal((await other('get', '/v/harbour')).value, base64('buoy'))
  await other('put', '/v/harbour', base64('lantern'))
  assert.equal((await one('get', '/v/harbour')).value, base64('lantern'))
  assert.match((await one('get', '/v/unknown')).error, /not found/)
  const multihash = `1220${createHash('sha256').update('lantern').digest('hex')}`
  assert.ok((await one('provide', multihash)).ok)
  // nobody answers ADD_PROVIDER: it has been sent, and may still be on its way
  const providers = async () => (await other('find-providers', multihash)).providers.map(({ peer }) => peer)
  await eventually(async () => (await providers()).length > 0)
  assert.deepEqual(await providers(), [one.peer])
  const { found, named_by: namedBy } = await other('find-peer', one.peer)
  assert.deepEqual([found, namedBy], [true, [one.peer]])
  assert.deepEqual((await other('bootstrap')).peers, [one.peer])
  assert.deepEqual((await other('closest', '00')).peers, [one.peer])
})

for (const mode of ['signed', 'unsigned']) {
  test(`gossip and its verdicts: ${mode}`, async t => {
    const parameters = Object.fromEntries([parseParameter('HeartbeatInterval=100')])
    const { all, happened, events } = await pair(t, { pubsub: { mode, parameters, flood: false } })
    const [one, other] = all
    for (const each of all) {
      await each('subscribe', 'harbour')
    }
    await eventually(async () => (await one('mesh', 'harbour')).peers.length === 1)
    const sent = await one('publish', 'harbour', 300, 7)
    const { id, sha256, size, from } = await happened('gossip')
    assert.deepEqual({ id, sha256, size, from }, { id: sent.id, sha256: sent.sha256, size: 300, from: one.peer })
    assert.equal(sent.sha256, createHash('sha256').update(pseudoRandom(7n, 300)).digest('hex'))
    if (mode === 'unsigned') {
      const whole = createHash('sha256').update('harbour\0').update(pseudoRandom(7n, 300)).digest('hex')
      assert.equal(id, whole.slice(0, 40))
    }

    for (const verdict of ['ignore', 'reject']) {
      await other('validate', 'harbour', verdict)
      await one('publish', 'harbour', 100)
    }
    await eventually(async () => (await other('score', one.peer)).score < -5)
    assert.equal(events.some(({ event }) => event === 'gossip'), false)
    await other('validate', 'harbour', 'delay', '50')
    const { count, unique } = await other('received', 'harbour')
    assert.deepEqual([count, unique], [1, 1])
  })
}

test('identify push tells who is connected', async t => {
  const { all: [one, other], happened } = await pair(t)
  await Promise.all([one('identify', other.peer), other('identify', one.peer)])
  const { protocol } = await one('push-identify')
  for (let told = []; !told.includes(protocol);) {
    told = (await happened('identified')).protocols
  }
  assert.ok((await other('identify', one.peer)).protocols.includes(protocol))
})

test('the bytes that belong to a seed are those that the Go peer makes', () => {
  assert.equal(pseudoRandom(1234567n, 1000).toString('hex', 0, 8), '85fc08fb17d09e59')
  assert.deepEqual(pseudoRandom(5n, 20).subarray(0, 12), pseudoRandom(5n, 12))
})

test('who ends a connection for an error says so', async t => {
  const { client, happened } = await pair(t)
  client.connections()[0].abort(new Error('the harbour is closed'))
  const told = [await happened('disconnected'), await happened('disconnected')]
  assert.ok(told.some(({ error }) => error === 'Error: the harbour is closed'))
})
