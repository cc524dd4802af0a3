/** The rules of /vouch/handshake/1.0.0 (docs/wire.md), without streams: what a Hello is, and who passes. */

import { BYTES, bytesField, fields, textOf } from './protobuf.js'

export const HANDSHAKE_ID = '/vouch/handshake/1.0.0'
/** Bytes of a Hello. */
export const MAX_HELLO = 256

const MAX_NETWORK_ID = 64 // bytes
const NAME = /^[A-Za-z0-9._-]{1,32}$/
const VERSION = /^(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*)){2}$/

/** A Hello's bytes. */
export function encodeHello ({ clientVersion, networkId }) {
  return Buffer.concat([bytesField(1, clientVersion), bytesField(2, networkId)])
}

/** A valid Hello; unknown fields are skipped, and the last of duplicates counts. Throws for what is none. */
export function decodeHello (bytes) {
  const hello = { clientVersion: '', networkId: Buffer.alloc(0) }
  try {
    for (const { number, type, value } of fields(bytes)) {
      if (number !== 1 && number !== 2) {
        continue
      }
      if (type !== BYTES) {
        throw new Error(`field ${number} has type ${type}`)
      }
      if (number === 1) {
        hello.clientVersion = textOf(value)
      } else {
        hello.networkId = Buffer.from(value)
      }
    }
    return validHello(hello)
  } catch (error) {
    throw new Error(`not a Hello: ${error.message}`)
  }
}

/** The Hello itself. Throws naming the field that isn't valid. */
export function validHello (hello) {
  const [name, version] = split(hello.clientVersion)
  if (!NAME.test(name) || !VERSION.test(version)) {
    throw new Error(`client version ${JSON.stringify(hello.clientVersion)}, expected NAME/N.N.N`)
  }
  const { length } = hello.networkId
  if (length < 1 || length > MAX_NETWORK_ID) {
    throw new Error(`network ID of ${length} bytes, expected 1 to ${MAX_NETWORK_ID}`)
  }
  return hello
}

/** The name and the version of NAME=N.N.N. */
export function parseMinVersion (text) {
  const [, name, version] = /^([^=]*)=(.*)$/s.exec(text) ?? []
  if (!NAME.test(name) || !VERSION.test(version)) {
    throw new Error(`expected NAME=N.N.N, got "${text}"`)
  }
  return [name, version]
}

/** What this peer says of itself (`own`, a Hello) and asks of others (`minVersions`, a Map of names to N.N.N). */
export class Policy {
  constructor (own, minVersions = new Map()) {
    this.own = validHello(own)
    this.minVersions = minVersions
  }

  /** Throws saying why that Hello's sender isn't let in. */
  check ({ clientVersion, networkId }) {
    if (!networkId.equals(this.own.networkId)) {
      throw new Error(`network ID mismatch: expected "${this.own.networkId}", got "${networkId}"`)
    }
    const [name, version] = split(clientVersion)
    const lowest = this.minVersions.get(name)
    if (lowest !== undefined && compareVersions(version, lowest) < 0) {
      throw new Error(`client version too low: ${clientVersion}, expected at least ${lowest}`)
    }
  }
}

/** Orders two N.N.N, whose numbers may have any size. */
export function compareVersions (one, other) {
  const others = other.split('.').map(BigInt)
  for (const [i, number] of one.split('.').map(BigInt).entries()) {
    if (number !== others[i]) {
      return number < others[i] ? -1 : 1
    }
  }
  return 0
}

function split (clientVersion) {
  const at = clientVersion.indexOf('/')
  return at < 0 ? [clientVersion, ''] : [clientVersion.slice(0, at), clientVersion.slice(at + 1)]
}
