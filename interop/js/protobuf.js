/**
 * As much of protobuf's wire format as this peer's own messages need: a field is the varint number << 3 | type, then
 * a varint (type 0), or a length and as many bytes (type 2).
 */

export const VARINT = 0
export const BYTES = 2

const FIXED = { 1: 8, 5: 4 } // bytes of a value, by type
const GROUP = 3
const GROUP_END = 4
const MAX_NUMBER = 2 ** 29 - 1
const MAX_GROUPS = 100 // in each other
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * The fields of a message in their order, as {number, type, value}: the value is a BigInt, or bytes that share the
 * message's memory, or undefined for other types. Throws for what is no message.
 */
export function * fields (bytes) {
  const cursor = { bytes, at: 0 }
  while (cursor.at < bytes.length) {
    const { number, type } = readTag(cursor)
    yield { number, type, value: readValue(cursor, number, type) }
  }
}

/** A string's bytes as text. Throws if they aren't UTF-8. */
export function textOf (bytes) {
  return UTF8.decode(bytes)
}

/** A field of bytes or text; nothing if it is empty, as proto3 has it. */
export function bytesField (number, value) {
  const bytes = Buffer.from(value)
  return bytes.length === 0 ? bytes : Buffer.concat([varint((number << 3) | BYTES), varint(bytes.length), bytes])
}

/** A field of a number, a BigInt or a boolean; nothing if it is zero. */
export function varintField (number, value) {
  return Number(value) === 0 ? Buffer.alloc(0) : Buffer.concat([varint((number << 3) | VARINT), varint(value)])
}

/** An unsigned varint. */
export function varint (value) {
  const bytes = []
  let rest = BigInt(value)
  for (; rest >= 0x80n; rest >>= 7n) {
    bytes.push(Number(rest & 0x7fn) | 0x80)
  }
  return Buffer.from([...bytes, Number(rest)])
}

function readTag (cursor) {
  const tag = readVarint(cursor)
  const number = Number(tag >> 3n)
  if (number < 1 || number > MAX_NUMBER) {
    throw new Error(`expected a field's number from 1 to ${MAX_NUMBER}, got ${number}`)
  }
  return { number, type: Number(tag & 7n) }
}

function readValue (cursor, number, type, depth = 0) {
  if (type === VARINT) {
    return readVarint(cursor)
  }
  if (type === BYTES) {
    return readBytes(cursor, readVarint(cursor))
  }
  if (type in FIXED) {
    readBytes(cursor, FIXED[type])
  } else if (type === GROUP && depth < MAX_GROUPS) {
    skipGroup(cursor, number, depth)
  } else {
    throw new Error(`expected a field's type, got ${type}`)
  }
}

function skipGroup (cursor, number, depth) {
  for (;;) {
    const inner = readTag(cursor)
    if (inner.type !== GROUP_END) {
      readValue(cursor, inner.number, inner.type, depth + 1)
    } else if (inner.number === number) {
      return
    } else {
      throw new Error(`expected the end of group ${number}, got that of ${inner.number}`)
    }
  }
}

function readVarint (cursor) {
  let value = 0n
  for (let shift = 0n; shift < 70n; shift += 7n) {
    const byte = cursor.bytes[cursor.at++]
    if (byte === undefined) {
      throw new Error('expected a varint, got the end')
    }
    value |= BigInt(byte & 0x7f) << shift
    if (byte < 0x80) {
      break
    }
  }
  if (value >= 1n << 64n || cursor.bytes[cursor.at - 1] >= 0x80) {
    throw new Error('expected a varint of at most 64 bits')
  }
  return value
}

function readBytes (cursor, length) {
  const end = cursor.at + Number(length)
  if (end > cursor.bytes.length) {
    throw new Error(`expected ${length} bytes, got ${cursor.bytes.length - cursor.at} and the end`)
  }
  const bytes = cursor.bytes.subarray(cursor.at, end)
  cursor.at = end
  return bytes
}
