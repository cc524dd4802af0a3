/** One message with one fault, sent on a stream of its own, and what becomes of that stream. */

import { generateKeyPair, publicKeyToProtobuf } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { MAX_MESSAGE, ONE_WAY, RESPONSE, decodeSigned, encodeMessage, encodeSigned, sign } from './envelope.js'
import { frameOf } from './frames.js'
import { messageProtocol } from './messenger.js'
import { varint } from './protobuf.js'
import { Reader, write } from './streams.js'

const WATCH = 2000 // milliseconds that the stream is watched
const NO_MESSAGE = Buffer.from('\x0a\x7fshorter than it says', 'latin1')

/** Changes of the message before it is signed. */
const BEFORE = {
  none: {},
  network_id: ({ networkId }) => ({ networkId: Buffer.concat([networkId, Buffer.from('2')]) }),
  protocol: ({ protocol }) => ({ protocol: `${protocol}2` }),
  old: ({ timestampMs }) => ({ timestampMs: timestampMs - 660_000n }),
  ahead: ({ timestampMs }) => ({ timestampMs: timestampMs + 35_000n }),
  kind: { kind: RESPONSE, requestId: 1n }
}
/** Changes of what was signed. */
const AFTER = {
  signature: ({ message, signature }) => ({ message, signature: flipped(signature, signature.length >> 1) }),
  unsigned: ({ message }) => ({ message, signature: Buffer.alloc(0) }),
  bit: ({ message, signature }) => ({ message: flipped(message, message.indexOf('forged')), signature })
}
/** Whole others: each takes the honest message and the key, and gives the stream's bytes. */
const INSTEAD = {
  // another's message, truly signed by that other
  author: async message => {
    const other = await generateKeyPair('Ed25519')
    return frameOf(await signed({ ...message, author: publicKeyToProtobuf(other.publicKey) }, other))
  },
  // truly signed, for somebody else
  recipient: async (message, key) => {
    const other = peerIdFromPrivateKey(await generateKeyPair('Ed25519'))
    return frameOf(await signed({ ...message, recipient: other.toMultihash().bytes }, key))
  },
  malformed: () => frameOf(NO_MESSAGE),
  'malformed-message': async (_message, key) => frameOf(encodeSigned({ message: NO_MESSAGE, signature: await sign(NO_MESSAGE, key) })),
  oversize: () => varint(MAX_MESSAGE + 1)
}

export const FORGERIES = [...Object.keys(BEFORE), ...Object.keys(AFTER), ...Object.keys(INSTEAD)]

/** Sends it; {outcome}: reset or closed by the peer, disconnected, or open for as long as it is watched. */
export async function forge (messenger, open, peer, protocol, what, signal) {
  if (!FORGERIES.includes(what)) {
    throw new Error(`expected one of ${FORGERIES.join(', ')}, got "${what}"`)
  }
  const fields = { protocol, kind: ONE_WAY, type: 1, payload: Buffer.from('forged') }
  const bytes = await forged(messenger.compose(peer, fields), messenger, what)
  const stream = await open(peer, messageProtocol(protocol), signal)
  try {
    await write(stream, bytes)
    return { peer: peer.toString(), outcome: await outcomeOf(stream) }
  } finally {
    stream.abort(new Error('watched to the end'))
  }
}

async function forged (message, messenger, what) {
  if (what in INSTEAD) {
    return INSTEAD[what](message, messenger.key)
  }
  const change = BEFORE[what] ?? {}
  const changed = { ...message, ...(typeof change === 'function' ? change(message) : change) }
  const honest = await signed(changed, messenger.key)
  return frameOf(what in AFTER ? encodeSigned(AFTER[what](decodeSigned(honest))) : honest)
}

async function signed (fields, key) {
  const message = encodeMessage(fields)
  return encodeSigned({ message, signature: await sign(message, key) })
}

async function outcomeOf (stream) {
  const reader = new Reader(stream)
  const end = (async () => {
    while (await reader.read() !== undefined); // what it says is of no interest
    return 'closed'
  })().catch(error => error.name === 'StreamResetError' ? 'reset' : 'disconnected')
  let timer
  const watched = new Promise(resolve => { timer = setTimeout(resolve, WATCH, 'open') })
  return Promise.race([end, watched]).finally(() => clearTimeout(timer))
}

function flipped (bytes, at) {
  const changed = Buffer.from(bytes)
  changed[at] ^= 1
  return changed
}
