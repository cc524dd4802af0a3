import assert from 'node:assert/strict'
import { test } from 'node:test'
import { generateKeyPair, publicKeyToProtobuf } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import {
  ONE_WAY, REQUEST, RESPONSE, Rules, decodeMessage, encodeMessage, encodeSigned, sign
} from '../envelope.js'
import { bytesField, varintField } from '../protobuf.js'

const NOON = 1_800_000_000_000
const RULES = new Rules({ networkId: Buffer.from('harbour'), self: Buffer.from('self'), signatures: true })

/** A key, its peer ID and a message of it to self. */
async function author (type = 'Ed25519', bits) {
  const key = await generateKeyPair(type, bits)
  const message = {
    author: Buffer.from(publicKeyToProtobuf(key.publicKey)),
    networkId: Buffer.from('harbour'),
    clientVersion: 'a/1.0.0',
    protocol: 'blocks',
    type: 7,
    kind: REQUEST,
    requestId: 300n,
    timestampMs: BigInt(NOON),
    payload: Buffer.from('ahoy'),
    recipient: Buffer.from('self')
  }
  return { key, peer: peerIdFromPrivateKey(key), message }
}

async function frameOf (bytes, key) {
  return encodeSigned({ message: bytes, signature: await sign(bytes, key) })
}

/** The reason for which it is rejected, or undefined. */
async function reasonOf (frame, peer, rules = RULES) {
  try {
    await rules.check(frame, peer, 'blocks', NOON)
  } catch (error) {
    assert.equal(error.name, 'Rejection', error.stack)
    return error.reason
  }
}

test('the bytes of a Message', () => {
  const bytes = encodeMessage({
    author: Buffer.from('k'),
    networkId: Buffer.from([0xff]),
    clientVersion: 'a/1.0.0',
    protocol: 'blocks',
    type: 0xffffffff,
    kind: RESPONSE,
    requestId: 300n,
    timestampMs: 1n,
    payload: Buffer.from('pp'),
    recipient: Buffer.from('r'),
    more: true
  })
  const expected = '\x0a\x01k\x12\x01\xff\x1a\x07a/1.0.0\x22\x06blocks\x28\xff\xff\xff\xff\x0f\x30\x02\x38\xac\x02\x40\x01\x4a\x02pp\x52\x01r\x58\x01'
  assert.equal(bytes.toString('latin1'), expected)
  assert.equal(decodeMessage(bytes).type, 0xffffffff)
  assert.equal(encodeMessage({}).length, 0)
  const signed = encodeSigned({ message: Buffer.from('m'), signature: Buffer.from('s') })
  assert.equal(signed.toString('latin1'), '\x0a\x01m\x12\x01s')
})

test('keys of all types that js-libp2p has peers of', async () => {
  for (const [type, bits] of [['Ed25519'], ['secp256k1'], ['RSA', 2048]]) {
    const { key, peer, message } = await author(type, bits)
    const got = await RULES.check(await frameOf(encodeMessage(message), key), peer, 'blocks', NOON)
    assert.equal(got.requestId, 300n)
    assert.equal(got.payload.toString(), 'ahoy')
  }
  const { key, peer, message } = await author()
  const ecdsa = publicKeyToProtobuf((await generateKeyPair('ECDSA', 'P-256')).publicKey)
  assert.equal(await reasonOf(await frameOf(encodeMessage({ ...message, author: ecdsa }), key), peer), 'author')
})

test('the rules', async () => {
  const { key, peer, message } = await author()
  const other = await author()
  const at = milliseconds => ({ timestampMs: BigInt(NOON + milliseconds) })
  for (const [what, change, reason] of [
    ['as it is', {}],
    ['another network', { networkId: Buffer.from('harbour2') }, 'network_id'],
    ['no network', { networkId: undefined }, 'network_id'],
    ['another protocol', { protocol: 'sync' }, 'protocol'],
    ['another author', { author: other.message.author }, 'author'],
    ['no author', { author: undefined }, 'author'],
    ['an author in another form', { author: Buffer.concat([message.author, varintField(3, 1)]) }, 'author'],
    ['another recipient', { recipient: Buffer.from('third') }, 'recipient'],
    ['no recipient', { recipient: undefined }, 'recipient'],
    ['unknown kind', { kind: 3 }, 'kind'],
    ['one way', { kind: ONE_WAY, requestId: 0n }],
    ['one way with an ID', { kind: ONE_WAY }, 'malformed'],
    ['request with more', { more: true }, 'malformed'],
    ['response with more', { kind: RESPONSE, more: true }],
    ['not UTF-8', { clientVersion: Buffer.from([0xff]) }, 'malformed'],
    ['oldest', at(-600_000)],
    ['too old', at(-600_001), 'timestamp'],
    ['furthest ahead', at(30_000)],
    ['too far ahead', at(30_001), 'timestamp'],
    ['no time', { timestampMs: 0n }, 'timestamp'],
    ['the last of all times', { timestampMs: 2n ** 64n - 1n }, 'timestamp'],
    ['the end of signed time', { timestampMs: 2n ** 63n - 1n }, 'timestamp']
  ]) {
    assert.equal(await reasonOf(await frameOf(encodeMessage({ ...message, ...change }), key), peer), reason, what)
  }
})

test('signatures', async () => {
  const { key, peer, message } = await author()
  const other = await author()
  const bytes = encodeMessage(message)
  const signature = await sign(bytes, key)
  const frame = encodeSigned({ message: bytes, signature })
  const nonsense = Buffer.from([0x0a, 0x05, 0x00])
  for (const [what, changed, reason] of [
    ["another's signature", await frameOf(bytes, other.key), 'signature'],
    ["another's message", await frameOf(encodeMessage(other.message), other.key), 'author'],
    ['no signature', encodeSigned({ message: bytes, signature: '' }), 'signature'],
    ['signed without prefix', encodeSigned({ message: bytes, signature: await key.sign(bytes) }), 'signature'],
    ['nothing', Buffer.alloc(0), 'author'],
    ['not a SignedMessage', nonsense, 'malformed'],
    ['not a Message', encodeSigned({ message: nonsense, signature }), 'malformed'],
    ['an unknown field', Buffer.concat([frame, bytesField(3, 'x')])],
    ['signature first', Buffer.concat([bytesField(2, signature), bytesField(1, bytes)])],
    ['the last message holds', Buffer.concat([bytesField(1, 'x'), frame])],
    // what is signed is the message's bytes, also those that this side wouldn't make
    ['unusual bytes', await frameOf(Buffer.concat([bytes, varintField(99, 1), bytesField(9, 'last')]), key)]
  ]) {
    assert.equal(await reasonOf(changed, peer), reason, what)
  }
})

test('every bit counts', async () => {
  const { key, peer, message } = await author()
  const frame = await frameOf(encodeMessage(message), key)
  for (let bit = 0; bit < 8 * frame.length; bit++) {
    const changed = Buffer.from(frame)
    changed[bit >> 3] ^= 1 << (bit & 7)
    assert.notEqual(await reasonOf(changed, peer), undefined, `bit ${bit}`)
  }
})

test('without signatures', async () => {
  const { peer, message } = await author()
  const rules = new Rules({ ...RULES, signatures: false })
  const frame = encodeSigned({ message: encodeMessage(message), signature: '' })
  assert.equal(await reasonOf(frame, peer, rules), undefined)
  assert.equal(await reasonOf(frame, (await author()).peer, rules), 'author')
})

test('any bytes give a message or a rejection', async () => {
  const { peer } = await author()
  for (let i = 0; i < 2000; i++) {
    const frame = crypto.getRandomValues(Buffer.alloc(i % 40))
    frame[0] = 0x0a
    frame[1] = frame.length - 2
    assert.notEqual(await reasonOf(frame, peer), undefined)
  }
})
