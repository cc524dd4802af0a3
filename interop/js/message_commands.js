/** The commands for signed messages: a payload is base64, or - for none. */

import { peerIdFromString } from '@libp2p/peer-id'
import { parseCount } from './count.js'
import { ERROR_TYPE, MAX_MESSAGE } from './envelope.js'
import { FORGERIES, forge } from './forge.js'
import { MAX_HELD_REQUESTS, PARTS, REVERSED, SUB_PROTOCOLS, parsePair } from './served.js'

const [INTEROP] = SUB_PROTOCOLS
const MAX_TIMEOUT = 600_000 // milliseconds

export function messageCommands ({ messenger, openOne }) {
  const withPeer = run => ([peer, ...words], signal) => run(messenger, peerIdFromString(peer), words, signal)
  return {
    send: { usage: 'PEER TYPE BASE64', args: 3, run: withPeer(send) },
    request: { usage: 'PEER TYPE BASE64 [TIMEOUT_MS]', args: 3, run: withPeer(request) },
    'requests-reversed': { usage: 'PEER N', args: 2, run: withPeer(requestsReversed) },
    parts: { usage: 'PEER COUNT SIZE [PROTOCOL]', args: 3, run: withPeer(parts) },
    forge: {
      usage: `PEER ${FORGERIES.join('|')}`,
      args: 2,
      run: withPeer((_messenger, peer, [what], signal) => forge(messenger, openOne, peer, INTEROP, what, signal))
    }
  }
}

async function send (messenger, peer, [type, payload], signal) {
  const said = parsePayload(type, payload)
  const conversation = await messenger.conversation(peer, INTEROP, signal)
  await conversation.send(...said)
  return { peer: peer.toString() }
}

/** Asks once. A timeout ends only this request. */
async function request (messenger, peer, [type, payload, timeout], signal) {
  const said = parsePayload(type, payload)
  const limits = timeout === undefined ? [] : [AbortSignal.timeout(parseCount(timeout, 'milliseconds', MAX_TIMEOUT, 1))]
  const conversation = await messenger.conversation(peer, INTEROP, signal)
  const answer = await conversation.request(...said, AbortSignal.any([signal, ...limits]))
  return { peer: peer.toString(), type: answer.type, payload: answer.payload.toString('base64') }
}

/** Asks many at once over one stream; the peer holds them all and answers the last first. Each must get its own answer. */
async function requestsReversed (messenger, peer, [text], signal) {
  const count = parseCount(text, 'requests', MAX_HELD_REQUESTS, 1)
  const conversation = await messenger.conversation(peer, INTEROP, signal)
  const started = performance.now()
  await Promise.all(Array.from({ length: count }, async (_, i) => {
    const { payload } = await conversation.request(REVERSED, Buffer.from(`${count} ${i}`), signal)
    if (payload.toString() !== String(i)) {
      throw new Error(`request ${i}: expected its own number, got "${payload}"`)
    }
  }))
  return { peer: peer.toString(), seconds: (performance.now() - started) / 1000 }
}

/** Asks for an answer in parts and checks each. */
async function parts (messenger, peer, [countText, sizeText, protocol = INTEROP], signal) {
  const payload = `${countText} ${sizeText}`
  const [count, size] = parsePair(payload, MAX_MESSAGE / 2)
  const started = performance.now()
  let got = 0
  await messenger.requestParts(peer, protocol, PARTS, Buffer.from(payload), (part, i) => {
    if (got === count && !part.more && part.payload.length === 0) {
      return // only says that the part before was the last
    }
    if (!part.payload.equals(Buffer.alloc(size, i & 0xff))) {
      throw new Error(`part ${i}: expected ${size} times byte ${i & 0xff}, got ${part.payload.length} bytes, others`)
    }
    got++
  }, signal)
  if (got !== count) {
    throw new Error(`expected ${count} parts, got ${got}`)
  }
  return { peer: peer.toString(), seconds: (performance.now() - started) / 1000 }
}

function parsePayload (type, text) {
  const payload = Buffer.from(text === '-' ? '' : text, 'base64')
  if (text !== '-' && payload.toString('base64') !== text) {
    throw new Error('expected a payload as base64, or - for none')
  }
  return [parseCount(type, 'type', ERROR_TYPE), payload]
}
