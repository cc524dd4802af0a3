/** Signed messages (docs/wire.md) without streams: their bytes, their signatures, and which of them are rejected. */

import { publicKeyFromProtobuf, publicKeyToProtobuf } from '@libp2p/crypto/keys'
import { peerIdFromPublicKey } from '@libp2p/peer-id'
import { BYTES, VARINT, bytesField, fields, textOf, varintField } from './protobuf.js'

/** Bytes of a frame. */
export const MAX_MESSAGE = 2 << 20
/** The type of an answer that says why there is none. */
export const ERROR_TYPE = 0xffffffff
export const ONE_WAY = 0
export const REQUEST = 1
export const RESPONSE = 2

const PREFIX = 'vouch-message:1:' // before the message, in what is signed
const MAX_AGE = 600_000 // milliseconds
const MAX_AHEAD = 30_000
/** Reasons for which only the message goes, since they aren't its sender's fault. */
const DROPPED = new Set(['timestamp', 'unasked'])
const NO_BYTES = Buffer.alloc(0)

/** A peer's message broke a rule; `reason` is the word of the event rejected. */
export class Rejection extends Error {
  name = 'Rejection'

  constructor (reason, detail) {
    super(`${reason}: ${detail}`)
    this.reason = reason
    this.detail = detail
  }

  /** Whether only the message goes; any other rejection ends the stream. */
  get dropped () {
    return DROPPED.has(this.reason)
  }
}

/** A Message's bytes. `requestId` and `timestampMs` are BigInts; the fields that are left out are empty or zero. */
export function encodeMessage (message) {
  return Buffer.concat([
    bytesField(1, message.author ?? NO_BYTES),
    bytesField(2, message.networkId ?? NO_BYTES),
    bytesField(3, message.clientVersion ?? ''),
    bytesField(4, message.protocol ?? ''),
    varintField(5, message.type ?? 0),
    varintField(6, message.kind ?? ONE_WAY),
    varintField(7, message.requestId ?? 0),
    varintField(8, message.timestampMs ?? 0),
    bytesField(9, message.payload ?? NO_BYTES),
    bytesField(10, message.recipient ?? NO_BYTES),
    varintField(11, message.more ?? false)
  ])
}

/** The Message in these bytes: the last of duplicates counts, what is unknown is skipped. Throws for what is none. */
export function decodeMessage (bytes) {
  const found = collect(bytes)
  const data = number => found.get(number * 8 + BYTES) ?? NO_BYTES
  const count = number => found.get(number * 8 + VARINT) ?? 0n
  return {
    author: data(1),
    networkId: data(2),
    clientVersion: textOf(data(3)),
    protocol: textOf(data(4)),
    type: Number(count(5) & 0xffffffffn),
    kind: Number(count(6) & 0xffffffffn),
    requestId: count(7),
    timestampMs: count(8),
    payload: data(9),
    recipient: data(10),
    more: count(11) !== 0n
  }
}

/** A SignedMessage's bytes. */
export function encodeSigned ({ message, signature }) {
  return Buffer.concat([bytesField(1, message), bytesField(2, signature)])
}

export function decodeSigned (bytes) {
  const found = collect(bytes)
  return { message: found.get(8 + BYTES) ?? NO_BYTES, signature: found.get(16 + BYTES) ?? NO_BYTES }
}

/** That key's signature of a Message's bytes. */
export async function sign (message, key) {
  return Buffer.from(await key.sign(signedPart(message)))
}

/** What direct messages are checked against: `self` is this node's peer ID in bytes; without `signatures` none is asked for. */
export class Rules {
  constructor ({ networkId, self, signatures }) {
    this.networkId = networkId
    this.self = self
    this.signatures = signatures
  }

  /** The Message in a frame from a peer on a stream of that sub-protocol. Throws Rejection. `now`: milliseconds since 1970. */
  async check (frame, from, protocol, now) {
    const signed = parsed('SignedMessage', () => decodeSigned(frame))
    const message = parsed('Message', () => decodeMessage(signed.message))
    const { author, peer } = authorOf(message.author)
    if (!peer.equals(from)) {
      throw new Rejection('author', `expected the connection's peer ${from}, got another's key`)
    }
    if (this.signatures && !await verified(author, signed)) {
      throw new Rejection('signature', `${signed.signature.length} bytes that aren't the author's over this message`)
    }
    this.#checkFields(message, protocol, now)
    return message
  }

  #checkFields (message, protocol, now) {
    const { kind, requestId, timestampMs } = message
    const age = BigInt(now) - timestampMs
    if (!message.networkId.equals(this.networkId)) {
      throw new Rejection('network_id', `expected "${this.networkId}", got "${message.networkId}"`)
    }
    if (message.protocol !== protocol) {
      throw new Rejection('protocol', `expected the stream's "${protocol}", got "${message.protocol}"`)
    }
    if (!message.recipient.equals(this.self)) {
      throw new Rejection('recipient', `expected ${hex(this.self)}, got ${hex(message.recipient)}`)
    }
    if (kind > RESPONSE) {
      throw new Rejection('kind', `expected 0 to ${RESPONSE}, got ${kind}`)
    }
    if (kind === ONE_WAY && requestId !== 0n) {
      throw new Rejection('malformed', `expected no request_id in a one-way message, got ${requestId}`)
    }
    if (kind !== RESPONSE && message.more) {
      throw new Rejection('malformed', `expected more only in an answer, got it in kind ${kind}`)
    }
    if (age > MAX_AGE || age < -MAX_AHEAD) {
      throw new Rejection('timestamp', `expected at most ${MAX_AGE} ms back and ${MAX_AHEAD} ahead, got ${age} back`)
    }
  }
}

/** The last value of each field, by its tag. */
function collect (bytes) {
  const found = new Map()
  for (const { number, type, value } of fields(bytes)) {
    found.set(number * 8 + type, value)
  }
  return found
}

function parsed (what, parse) {
  try {
    return parse()
  } catch (error) {
    throw new Rejection('malformed', `not a ${what}: ${error.message}`)
  }
}

/**
 * The key and its peer ID. There is one form of a key only: its owner would have many peer IDs otherwise. js-libp2p has no
 * peer IDs of ECDSA keys, nor connections with such peers.
 */
function authorOf (bytes) {
  try {
    const author = publicKeyFromProtobuf(bytes)
    if (bytes.equals(publicKeyToProtobuf(author))) {
      return { author, peer: peerIdFromPublicKey(author) }
    }
  } catch (error) {
    throw new Rejection('author', `expected a public key: ${error.message}`)
  }
  throw new Rejection('author', 'expected a public key in its one form')
}

async function verified (author, { message, signature }) {
  try {
    return await author.verify(signedPart(message), signature)
  } catch {
    return false // a signature that can't be one, for some types of keys
  }
}

function signedPart (message) {
  return Buffer.concat([Buffer.from(PREFIX), message])
}

function hex (bytes) {
  return Buffer.from(bytes).toString('hex')
}
