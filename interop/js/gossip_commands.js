/** The commands for pubsub. */

import { createHash, randomBytes } from 'node:crypto'
import { parseCount } from './count.js'
import { MAX_RPC } from './gossip.js'

const MAX_FLOOD = 10_000_000
const MAX_RATE = 1_000_000
const MAX_DELAY = 600_000 // milliseconds
const VERDICTS = ['accept', 'reject', 'ignore']

export function gossipCommands ({ gossip }) {
  const withGossip = run => async (words, signal) => {
    if (gossip === undefined) {
      throw new Error('no pubsub: it needs --pubsub')
    }
    return run(gossip, words, signal) ?? {}
  }
  return {
    subscribe: { usage: 'TOPIC', args: 1, run: withGossip((gossip, [topic]) => gossip.subscribe(topic)) },
    validate: { usage: 'TOPIC accept|reject|ignore|delay [MS]', args: 2, run: withGossip(validate) },
    publish: { usage: 'TOPIC SIZE [SEED]', args: 2, run: withGossip(publish) },
    'publish-bytes': { usage: 'TOPIC BASE64', args: 2, run: withGossip(publishBytes) },
    flood: { usage: 'TOPIC N SIZE RATE', args: 4, run: withGossip(flood) },
    received: { usage: 'TOPIC', args: 1, run: withGossip((gossip, [topic]) => gossip.received(topic)) },
    mesh: { usage: 'TOPIC', args: 1, run: withGossip((gossip, [topic]) => ({ peers: gossip.mesh(topic) })) },
    score: { usage: 'PEER', args: 1, run: withGossip((gossip, [peer]) => ({ score: gossip.score(peer) })) }
  }
}

function validate (gossip, [topic, mode, ...rest]) {
  if (VERDICTS.includes(mode) && rest.length === 0) {
    return gossip.validate(topic, mode)
  }
  if (mode !== 'delay' || rest.length !== 1) {
    throw new Error(`expected accept, reject, ignore or delay MS, got "${[mode, ...rest].join(' ')}"`)
  }
  return gossip.validate(topic, 'accept', parseCount(rest[0], 'milliseconds', MAX_DELAY))
}

async function publish (gossip, [topic, size, seed]) {
  const data = pseudoRandom(parseSeed(seed), parseCount(size, 'bytes', MAX_RPC))
  const id = await gossip.publish(topic, data)
  return { id, sha256: createHash('sha256').update(data).digest('hex') }
}

async function publishBytes (gossip, [topic, text]) {
  return { id: await gossip.publish(topic, Buffer.from(text, 'base64')) }
}

/** Keeps to a timetable: after a delay it catches up. */
async function flood (gossip, [topic, ...texts], signal) {
  const count = parseCount(texts[0], 'messages', MAX_FLOOD, 1)
  const size = parseCount(texts[1], 'bytes', MAX_RPC)
  const rate = parseCount(texts[2], 'messages a second', MAX_RATE)
  const seed = parseSeed()
  const started = performance.now()
  for (let i = 0; i < count; i++) {
    const due = rate > 0 ? started + i * 1000 / rate - performance.now() : 0
    if (due > 0 || i % 100 === 0) { // now and then the others have their turn, whatever the rate
      await new Promise(resolve => setTimeout(resolve, due))
    }
    signal.throwIfAborted()
    await gossip.publish(topic, pseudoRandom(seed + BigInt(i), size))
  }
  return { seconds: (performance.now() - started) / 1000 }
}

function parseSeed (text) {
  if (text === undefined) {
    return randomBytes(8).readBigUInt64LE()
  }
  if (!/^\d{1,20}$/.test(text)) {
    throw new Error(`expected a seed, got "${text}"`)
  }
  return BigInt.asUintN(64, BigInt(text))
}

/** The bytes that belong to a seed: the numbers of SplitMix64, little-endian. The Go and the Rust peer make the same. */
export function pseudoRandom (seed, size) {
  const data = Buffer.alloc(size + 8)
  const wrap = value => BigInt.asUintN(64, value)
  for (let at = 0, state = seed; at < size; at += 8) {
    state = wrap(state + 0x9e3779b97f4a7c15n)
    let z = wrap((state ^ (state >> 30n)) * 0xbf58476d1ce4e5b9n)
    z = wrap((z ^ (z >> 27n)) * 0x94d049bb133111ebn)
    data.writeBigUInt64LE(z ^ (z >> 31n), at)
  }
  return data.subarray(0, size)
}
