import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RESPONSE, REQUEST } from '../envelope.js'
import { Reader } from '../streams.js'
import { messageProtocol } from '../messenger.js'
import { pair } from './pair.js'

const AHOY = Buffer.from('ahoy').toString('base64')

test('messages, requests and their errors', async t => {
  const { run, happened } = await pair(t)
  assert.ok((await run('send', 9, AHOY)).ok)
  const { protocol, type, payload } = await happened('message')
  assert.deepEqual([protocol, type, payload], ['interop', 9, AHOY])

  for (const payload of [AHOY, '-']) {
    const answer = await run('request', 1, payload)
    assert.deepEqual([answer.type, answer.payload], [1, payload === '-' ? '' : payload], answer.error)
  }
  assert.equal((await run('request', 3, AHOY)).error, 'remote: no such thing: ahoy')
  assert.equal((await run('request', 99, AHOY)).error, 'remote: no such type: 99')
  assert.equal((await run('request', 5, AHOY, 20)).error, 'no answer: deadline exceeded')
  for (const words of [
    ['requests-reversed', 100], ['requests-reversed', 100],
    ['parts', 1, 0], ['parts', 300, 1], ['parts', 3, 1_000_000], ['parts', 2, 1, 'interop-parts']
  ]) {
    assert.equal((await run(...words)).error, undefined, words.join(' '))
  }
  for (const words of [
    ['parts', 0, 1], ['parts', 'x', 1], ['send', 'x', '-'], ['send', 1, '?'], ['send', 4294967296, '-'],
    ['request', 1, '-', 'x'], ['requests-reversed', 100_000], ['forge', 'nothing']
  ]) {
    assert.equal((await run(...words)).ok, false, words.join(' '))
  }
})

test('forgeries are rejected', async t => {
  const { run, happened } = await pair(t)
  for (const [what, reason] of Object.entries({
    signature: 'signature',
    unsigned: 'signature',
    bit: 'signature',
    network_id: 'network_id',
    protocol: 'protocol',
    author: 'author',
    recipient: 'recipient',
    malformed: 'malformed',
    'malformed-message': 'malformed',
    oversize: 'oversize'
  })) {
    assert.equal((await run('forge', what)).outcome, 'reset', what)
    assert.equal((await happened('rejected')).reason, reason)
  }
})

test('what is not their fault is dropped', async t => {
  const { run, happened } = await pair(t)
  const watched = ['old', 'ahead', 'kind', 'none'].map(async what => assert.equal((await run('forge', what)).outcome, 'open'))
  await Promise.all(watched)
  const reasons = [await happened('rejected'), await happened('rejected'), await happened('rejected')]
  assert.deepEqual(reasons.map(({ reason }) => reason).sort(), ['timestamp', 'timestamp', 'unasked'])
  assert.ok(reasons.every(({ dropped }) => dropped))
  assert.equal((await happened('message')).payload, Buffer.from('forged').toString('base64'))
})

test('answers are checked', async t => {
  const { all: [client], server, run, happened } = await pair(t)
  for (const [spoil, reason, waits] of [
    [{ requestId: 7n }, 'unasked', true],
    [{ timestampMs: 1n }, 'timestamp', true],
    [{ networkId: Buffer.alloc(0) }, 'network_id', false],
    [{ kind: REQUEST }, 'kind', false],
    [{ more: true }, 'malformed', false]
  ]) {
    await server.serve(messageProtocol('interop'), async (stream, { remotePeer }) => {
      const { messenger } = server
      const { requestId } = await messenger.receive(new Reader(stream), remotePeer, 'interop')
      await messenger.write(stream, remotePeer, { protocol: 'interop', kind: RESPONSE, requestId, type: 1, ...spoil })
    })
    const { error } = await run('request', 1, '-', waits ? 500 : 5000)
    assert.match(error, waits ? /deadline exceeded/ : /the stream ended before the answer/, reason)
    assert.equal((await happened('rejected')).reason, reason)
    await run('disconnect')
    await client('connect', server.listening().addrs[0])
  }
})

test('without signatures', async t => {
  const { run } = await pair(t, { signatures: false })
  assert.equal((await run('requests-reversed', 10)).error, undefined)
})
