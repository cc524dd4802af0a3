import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Policy, compareVersions, decodeHello, encodeHello, parseMinVersion } from '../handshake.js'
import { bytesField, varintField } from '../protobuf.js'

const OWN = { clientVersion: 'js-interop/1.2.3', networkId: Buffer.from('vouch-local') }
const VERSION = bytesField(1, 'a/1.0.0')
const ID = bytesField(2, 'n')

const join = (...parts) => Buffer.concat(parts)
const raw = (...bytes) => Buffer.from(bytes)
const named = version => join(bytesField(1, version), ID)

test('the bytes of a Hello', () => {
  const bytes = encodeHello({ clientVersion: 'a/0.1.2', networkId: raw(0xff) })
  assert.deepEqual(bytes, Buffer.from('\x0a\x07a/0.1.2\x12\x01\xff', 'latin1'))
})

test('what is a Hello', () => {
  const long = `${'a'.repeat(32)}/1.0.0`
  for (const [bytes, version] of [
    [join(VERSION, ID), 'a/1.0.0'],
    [join(ID, VERSION), 'a/1.0.0'],
    [join(VERSION, ID, bytesField(1, 'b/2.0.0')), 'b/2.0.0'],
    [join(varintField(9, 7), VERSION, bytesField(3, 'x'), ID), 'a/1.0.0'],
    [join(raw(0x1b, 0x08, 0x01, 0x1c), VERSION, ID, raw(0x25, 1, 2, 3, 4)), 'a/1.0.0'], // a group, and fixed32
    [named(long), long],
    [join(VERSION, bytesField(2, 'n'.repeat(64))), 'a/1.0.0']
  ]) {
    assert.equal(decodeHello(bytes).clientVersion, version)
  }
})

test('what is no Hello', () => {
  for (const [what, bytes] of Object.entries({
    empty: raw(),
    'no version': ID,
    'no network ID': VERSION,
    'empty version': join(raw(0x0a, 0), ID),
    'empty network ID': join(VERSION, raw(0x12, 0)),
    'network ID too long': join(VERSION, bytesField(2, 'n'.repeat(65))),
    'name too long': named(`${'a'.repeat(33)}/1.0.0`),
    'no name': named('/1.0.0'),
    'name with a space': named('a b/1.0.0'),
    'two numbers': named('a/1.0'),
    'four numbers': named('a/1.0.0.0'),
    'leading zero': named('a/1.00.0'),
    suffix: named('a/1.0.0-rc1'),
    'trailing newline': named('a/1.0.0\n'),
    'not ASCII digits': named('a/1.0.٣'),
    'not UTF-8': join(bytesField(1, raw(0xff)), VERSION, ID),
    'wrong type, version': join(varintField(1, 7), VERSION, ID),
    'wrong type, ID': join(VERSION, ID, varintField(2, 7)),
    truncated: join(VERSION, ID.subarray(0, -1)),
    'truncated unknown field': join(VERSION, ID, raw(0x1a, 5)),
    'a group without end': join(VERSION, ID, raw(0x1b)),
    'field number zero': join(VERSION, ID, raw(0x02, 0)),
    'a varint over 64 bits': join(VERSION, ID, raw(0x48, ...Array(9).fill(0xff), 2))
  })) {
    assert.throws(() => decodeHello(bytes), /^Error: not a Hello: /, what)
  }
})

test('who passes', () => {
  const policy = new Policy(OWN, new Map([parseMinVersion('py=1.10.0')]))
  for (const [clientVersion, network, expected] of [
    ['js-interop/1.2.3', 'vouch-local'],
    ['rust/0.0.0', 'vouch-local'],
    ['py/1.10.0', 'vouch-local'],
    ['py/2.0.0', 'vouch-local'],
    ['py/1.9.9', 'vouch-local', /version too low/],
    ['py/1.18446744073709551616.0', 'vouch-local'],
    ['PY/0.0.0', 'vouch-local'],
    ['py/1.10.0', 'other', /network ID mismatch/],
    ['py/1.10.0', 'vouch', /network ID mismatch/],
    ['py/0.0.0', 'other', /network ID mismatch/]
  ]) {
    const check = () => policy.check({ clientVersion, networkId: Buffer.from(network) })
    expected === undefined ? check() : assert.throws(check, expected, `${clientVersion} ${network}`)
  }
  assert.equal(compareVersions('1.2.3', '1.2.3'), 0)
  for (const bad of ['py', 'py=1.0', '=1.0.0', 'py=1.0.0=1.0.0']) {
    assert.throws(() => parseMinVersion(bad), /expected NAME=N.N.N/)
  }
  assert.throws(() => new Policy({ ...OWN, clientVersion: 'js' }), /expected NAME\/N.N.N/)
})
