import assert from 'node:assert/strict'
import { test } from 'node:test'
import { multiaddr } from '@multiformats/multiaddr'
import { commands } from '../commands.js'
import { reply } from '../control.js'
import { ECHO_ID } from '../echo.js'
import { writeFrame } from '../frames.js'
import { HANDSHAKE_ID, decodeHello, encodeHello } from '../handshake.js'
import { Node } from '../node.js'
import { varint } from '../protobuf.js'
import { Reader, write } from '../streams.js'
import { OPTIONS } from './pair.js'

const HEADER = '/multistream/1.0.0'
const HELLO = { clientVersion: 'js-test/1.0.0', networkId: OPTIONS.networkId }
const MAX_HELD = 16

/** A node with its events; `happened(name)` waits for one. */
async function started (t, options = {}) {
  const events = []
  let wake = () => {}
  const node = await Node.start({ ...OPTIONS, ...options }, event => {
    events.push(event)
    wake()
  })
  t.after(() => node.stop())
  const happened = async name => {
    for (;;) {
      const at = events.findIndex(({ event }) => event === name)
      if (at >= 0) {
        return events.splice(at, 1)[0]
      }
      await new Promise(resolve => { wake = resolve })
    }
  }
  return { node, events, happened, addr: node.listening().addrs[0], run: (...words) => reply(words[0], words.slice(1), commands(node), 10_000) }
}

/** A recipient, and a plain host's connection to it, which doesn't shake hands by itself. */
async function stranger (t, listen = OPTIONS.listen) {
  const recipient = await started(t, { listen })
  const { node } = await started(t, { handshake: false, listen: [] })
  const connection = await node.dial(multiaddr(recipient.addr), AbortSignal.timeout(5000))
  return { recipient, connection }
}

/** Opens a stream without a protocol and says these lines; what is answered comes from the reader's `line`. */
async function speak (connection, ...lines) {
  const stream = await connection.muxer.createStream({})
  const reader = new Reader(stream)
  await write(stream, Buffer.concat(lines.map(line => Buffer.concat([varint(line.length + 1), Buffer.from(`${line}\n`)]))))
  const line = async () => {
    const length = await reader.byte()
    return length === undefined ? undefined : (await reader.exactly(length)).toString().trimEnd()
  }
  return { stream, line }
}

async function silence (promise) {
  const timer = new Promise(resolve => setTimeout(resolve, 100, 'silence'))
  assert.equal(await Promise.race([promise, timer]), 'silence')
}

const listens = [['/ip4/127.0.0.1/tcp/0'], ['/ip4/127.0.0.1/udp/0/quic-v1']]

for (const listen of listens) {
  test(`streams are held until admission: ${listen}`, async t => {
    const { recipient, connection } = await stranger(t, listen)
    const held = await speak(connection, HEADER, '/nobody/serves/this', ECHO_ID)
    assert.equal(await held.line(), HEADER)
    await writeFrame(held.stream, Buffer.from('ahoy'))
    const answer = held.line()
    await silence(answer)
    const closed = await speak(connection, HEADER, ECHO_ID)
    await closed.stream.close()

    const handshake = await speak(connection, HEADER, HANDSHAKE_ID)
    assert.equal(await handshake.line(), HEADER)
    assert.equal(await handshake.line(), HANDSHAKE_ID)
    await silence(answer)
    await writeFrame(handshake.stream, encodeHello(HELLO))
    assert.equal(decodeHello(Buffer.from(await handshake.line())).clientVersion, OPTIONS.clientVersion)
    assert.equal((await recipient.happened('admitted')).direction, 'inbound')

    assert.equal(await answer, 'na')
    assert.equal(await held.line(), ECHO_ID)
    assert.equal(await held.line(), 'ahoy')
    assert.equal(await closed.line(), HEADER)
    assert.equal(await closed.line(), ECHO_ID)
    assert.equal(await closed.line(), undefined)

    await speak(connection, HEADER, HANDSHAKE_ID) // a second one
    await recipient.happened('disconnected')
  })
}

test('both sides admit, over each transport', async t => {
  for (const listen of [...listens, ['/ip4/127.0.0.1/tcp/0/ws']]) {
    for (const security of ['noise', 'tls']) {
      const one = await started(t, { listen, security })
      const other = await started(t, { listen, security })
      const connected = await one.run('connect', other.addr)
      assert.ok(connected.ok, connected.error)
      assert.ok(connected.total_ms >= connected.admission_ms)
      assert.equal((await one.happened('admitted')).direction, 'outbound')
      assert.equal((await other.happened('admitted')).direction, 'inbound')
      assert.equal((await other.run('identify', one.node.peerId.toString())).agent, OPTIONS.agent)
      assert.deepEqual((await one.run('peers')).peers.map(({ admitted }) => admitted), [true])
    }
  }
})

test('another network, and too low a version, are refused by whoever looks first', async t => {
  const recipient = await started(t, { minVersions: new Map([['js-interop', '1.0.1']]) })
  for (const options of [{ networkId: Buffer.from('other') }, {}]) {
    const initiator = await started(t, options)
    const { ok, stage, error } = await initiator.run('connect', recipient.addr)
    assert.deepEqual({ ok, stage }, { ok: false, stage: 'admission' }, error)
    await initiator.happened('refused')
    await initiator.happened('disconnected')
    const { reason } = await recipient.happened('refused')
    assert.match(reason, options.networkId === undefined ? /version too low/ : /network ID mismatch/)
    await recipient.happened('disconnected')
    for (const { events, node } of [initiator, recipient]) {
      assert.deepEqual(events, [])
      assert.deepEqual(node.connections(), [])
    }
  }

  const strict = await started(t, { minVersions: new Map([['js-interop', '2.0.0']]) })
  const lax = await started(t)
  assert.match((await strict.run('connect', lax.addr)).error, /version too low/)
  await lax.happened('admitted') // it was content, and loses the connection then
  await lax.happened('disconnected')
  assert.deepEqual(strict.events.map(({ event }) => event), ['refused', 'disconnected'])
})

test('what comes too much before admission', async t => {
  const { recipient, connection } = await stranger(t)
  // the plain host has opened identify by itself: one of those held
  const streams = await Promise.all(Array.from({ length: MAX_HELD - 1 }, () => speak(connection, HEADER, ECHO_ID)))
  await Promise.all(streams.map(({ line }) => line()))
  const excess = await speak(connection, HEADER, ECHO_ID)
  await assert.rejects(async () => {
    await excess.line()
    await excess.line()
  }, { name: 'StreamResetError' })
  assert.deepEqual(recipient.events, [])
  await Promise.allSettled(streams.map(({ stream }) => write(stream, Buffer.alloc((64 << 10) / streams.length))))
  assert.match((await recipient.happened('refused')).reason, /at most 65536 bytes/)
  await recipient.happened('disconnected')
})

test('what is no handshake', async t => {
  for (const said of [Buffer.from([0x81, 0x02]), Buffer.from([3, 1, 2, 3]), Buffer.from([0])]) {
    const { recipient, connection } = await stranger(t)
    const { stream } = await speak(connection, HEADER, HANDSHAKE_ID)
    await write(stream, said)
    assert.ok((await recipient.happened('refused')).reason)
    await recipient.happened('disconnected')
  }
})

test('a handshake stream opened by the recipient ends the connection', async t => {
  const [initiator, recipient] = [await started(t), await started(t)]
  await initiator.run('connect', recipient.addr)
  await recipient.happened('admitted')
  const [connection] = recipient.node.connections()
  await speak(connection, HEADER, HANDSHAKE_ID)
  await Promise.all([initiator.happened('disconnected'), recipient.happened('disconnected')])
})

test('a peer that says nothing is refused at the deadline', async t => {
  const { recipient } = await stranger(t)
  assert.match((await recipient.happened('refused')).reason, /not admitted within 5000 ms/)
  await recipient.happened('disconnected')
})
