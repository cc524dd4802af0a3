import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { test } from 'node:test'
import { control, lines, reply, serve } from '../control.js'
import { parseCount } from '../count.js'

const COMMANDS = {
  say: { usage: 'WORD', args: 1, run: async ([word]) => ({ word }) },
  fail: { usage: '', args: 0, run: async () => { throw new TypeError('no') } },
  hang: { usage: '', args: 0, run: () => new Promise(() => {}) }
}

async function linesOf (parts, max = 100) {
  return Array.fromAsync(lines(parts.map(part => Buffer.from(part)), max))
}

test('lines are the same however they are cut', async () => {
  for (const parts of [['one\ntwo\n\nthr', 'ee'], ['o', 'n', 'e', '\n', 'two\n\n', 'three'], ['one\ntwo\n\nthree']]) {
    assert.deepEqual(await linesOf(parts), ['one', 'two', '', 'three'])
  }
  assert.deepEqual(await linesOf([]), [])
  assert.deepEqual(await linesOf(['x\n']), ['x'])
})

test('a line over the bound is an error', async () => {
  await assert.rejects(linesOf(['x'.repeat(60), 'x'.repeat(60)]), /at most 100 bytes/)
})

test('commands are answered one by one, whatever becomes of them', async () => {
  const sent = []
  await control([Buffer.from('say  a\n\nfail\nsay\nwhat\ntoString\nquit\nsay b\n')], m => sent.push(m), COMMANDS, 1000)
  assert.deepEqual(sent, [
    { reply: 'say', ok: true, word: 'a' },
    { reply: 'fail', ok: false, error: 'TypeError: no' },
    { reply: 'say', ok: false, error: 'usage: say WORD' },
    { reply: 'what', ok: false, error: 'unknown command "what"' },
    { reply: 'toString', ok: false, error: 'unknown command "toString"' },
    { reply: 'quit', ok: true }
  ])
})

test('a command that hangs is given up', async () => {
  assert.match((await reply('hang', [], COMMANDS, 10)).error, /within 10 ms/)
})

test('counts are whole, decimal and bounded', () => {
  assert.equal(parseCount('0', 'bytes', 10), 0)
  assert.equal(parseCount('10', 'bytes', 10), 10)
  for (const bad of ['11', '-1', '1.5', '0x1', '1e1', '', 'x', '99999999999999999999']) {
    assert.throws(() => parseCount(bad, 'bytes', 10), /expected a count of bytes from 0 to 10/)
  }
  assert.throws(() => parseCount('0', 'streams', 10, 1))
})

test('whoever connects is served, one after the other, until quit', async () => {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address()
  probe.close()
  const attached = []
  const served = serve(`127.0.0.1:${port}`, { event: 'listening' }, send => attached.push(send), COMMANDS, 1000)
  const ask = async text => {
    const client = connect(port, '127.0.0.1')
    client.end(text)
    return (await Array.fromAsync(lines(client, 1000))).filter(Boolean).map(line => JSON.parse(line))
  }
  const [first, second] = await Promise.all([ask('say a\n'), ask('say b\n')])
  assert.deepEqual(first, [{ event: 'listening' }, { word: 'a', reply: 'say', ok: true }])
  assert.deepEqual(second, [{ event: 'listening' }, { word: 'b', reply: 'say', ok: true }])
  assert.deepEqual(await ask('quit\n'), [{ event: 'listening' }, { reply: 'quit', ok: true }])
  await served
  assert.deepEqual(attached.map(Boolean), [true, false, true, false, true, false])
})
