/**
 * Pubsub: js-libp2p's gossipsub with its defaults, but for the score and what identifies a message.
 *
 *     signed    StrictSign; an ID is the author and the sequence number
 *     unsigned  StrictNoSign; an ID is the first 20 bytes of SHA-256 of topic, a zero byte and data
 *
 * The score is of rejected messages alone, as the Go peer has it (interop/go/gossip.go): all else would depend on how fast
 * a test is. Where this peer differs: it sends IHAVE and IWANT of at most 5,000 IDs, and has no bound of RPCs in its queue.
 */

import { createHash } from 'node:crypto'
import { StrictNoSign, StrictSign, gossipsub } from '@libp2p/gossipsub'

/** Bytes of an RPC. */
export const MAX_RPC = 1 << 20

const UNSIGNED_ID = 20 // bytes
const MAX_SEEN = 1 << 20 // IDs that are kept to tell how many were different
const TOPIC_SCORE = {
  topicWeight: 1,
  timeInMeshWeight: 0,
  timeInMeshQuantum: 1000,
  timeInMeshCap: 1,
  firstMessageDeliveriesWeight: 0,
  firstMessageDeliveriesDecay: 0.5,
  firstMessageDeliveriesCap: 1,
  meshMessageDeliveriesWeight: 0,
  meshMessageDeliveriesDecay: 0.5,
  meshMessageDeliveriesCap: 1,
  meshMessageDeliveriesThreshold: 1,
  meshMessageDeliveriesWindow: 10,
  meshMessageDeliveriesActivation: 1000,
  meshFailurePenaltyWeight: 0,
  meshFailurePenaltyDecay: 0.5,
  invalidMessageDeliveriesWeight: -10,
  invalidMessageDeliveriesDecay: 0.95
}
const SCORE = {
  topics: {},
  IPColocationFactorWeight: 0,
  behaviourPenaltyWeight: 0,
  decayInterval: 1000,
  decayToZero: 0.01,
  retainScore: 600_000
}
const THRESHOLDS = {
  gossipThreshold: -20,
  publishThreshold: -50,
  graylistThreshold: -200,
  acceptPXThreshold: 10,
  opportunisticGraftThreshold: 1
}
/** The Go peer's names of parameters, by which they are given. */
const PARAMETERS = {
  D: 'D',
  Dlo: 'Dlo',
  Dhi: 'Dhi',
  Dscore: 'Dscore',
  Dout: 'Dout',
  Dlazy: 'Dlazy',
  HistoryLength: 'mcacheLength',
  HistoryGossip: 'mcacheGossip',
  IDontWantMessageThreshold: 'idontwantMinDataSize',
  HeartbeatInterval: 'heartbeatInterval',
  PruneBackoff: 'pruneBackoff',
  IWantFollowupTime: 'gossipsubIWantFollowupMs'
}

/** The name and value of a parameter, as the library has them, of NAME=VALUE. */
export function parseParameter (text) {
  const [, name, value] = /^(\w+)=(\d{1,9})$/.exec(text) ?? []
  if (name === undefined || !Object.hasOwn(PARAMETERS, name)) {
    throw new Error(`expected one of ${Object.keys(PARAMETERS).join(', ')} and =NUMBER, got "${text}"`)
  }
  return [PARAMETERS[name], Number(value)]
}

/** The node's part in pubsub: its topics, and what was seen on them. */
export class Gossip {
  #options
  #send
  #pubsub
  #own
  #lastId // of the message that was published last
  #topics = new Map()
  #verdicts = new Map()

  /** `mode` is signed or unsigned, `parameters` the library's names and values, `flood` whether all peers are published to. */
  constructor (options, send) {
    this.#options = options
    this.#send = send
  }

  /** The library's service, which the host makes once. */
  service = components => {
    const { mode, parameters, flood } = this.#options
    this.#own = components.peerId
    this.#pubsub = gossipsub({
      ...parameters,
      globalSignaturePolicy: mode === 'signed' ? StrictSign : StrictNoSign,
      msgIdFn: message => this.#idOf(message),
      msgIdToStrFn: hex,
      floodPublish: flood,
      allowPublishToZeroTopicPeers: true,
      maxInboundDataLength: MAX_RPC,
      scoreParams: SCORE,
      scoreThresholds: THRESHOLDS
    })(components)
    this.#pubsub.addEventListener('gossipsub:message', ({ detail: { propagationSource, msgId, msg } }) => {
      this.#send(this.#delivered(propagationSource, msgId, msg))
    })
    return this.#pubsub
  }

  subscribe (topic) {
    if (!this.#topics.has(topic)) {
      this.#topics.set(topic, { count: 0, seen: new Set(), first: null, last: null })
      this.#scored(topic)
      this.#pubsub.subscribe(topic)
    }
  }

  /** The verdict on what comes from other peers from now on: accept, reject or ignore, after that many milliseconds. */
  validate (topic, verdict, delay = 0) {
    this.#scored(topic)
    this.#verdicts.set(topic, { result: verdict, delay })
    this.#pubsub.topicValidators.set(topic, async () => {
      const { result, delay } = this.#verdicts.get(topic)
      if (delay > 0) {
        await new Promise(resolve => setTimeout(resolve, delay))
      }
      return result
    })
  }

  /** Publishes; the message's ID in hex. */
  async publish (topic, data) {
    this.#scored(topic)
    await this.#pubsub.publish(topic, data)
    return hex(this.#options.mode === 'signed' ? this.#lastId : unsignedId({ topic, data }))
  }

  /** How many messages were delivered, and when. Throws if there is no subscription. */
  received (topic) {
    const { count, seen, first, last } = this.#topics.get(topic) ?? {}
    if (count === undefined) {
      throw new Error('not subscribed')
    }
    return { count, unique: seen.size, first_ms: first, last_ms: last }
  }

  mesh (topic) {
    return this.#pubsub.getMeshPeers(topic).toSorted()
  }

  score (peer) {
    return this.#pubsub.getScore(peer)
  }

  // publish() doesn't tell the ID of its message
  #idOf (message) {
    if (message.type !== 'signed') {
      return unsignedId(message)
    }
    const id = signedId(message)
    if (message.from.equals(this.#own)) {
      this.#lastId = id
    }
    return id
  }

  // the library takes a topic's score when it first sees the topic
  #scored (topic) {
    this.#pubsub.opts.scoreParams.topics[topic] = TOPIC_SCORE
  }

  #delivered (from, id, { topic, data }) {
    const now = performance.timeOrigin + performance.now()
    const seen = this.#topics.get(topic)
    seen.count++
    seen.first ??= now
    seen.last = now
    if (seen.seen.size < MAX_SEEN) {
      seen.seen.add(id)
    }
    const sha256 = createHash('sha256').update(data).digest('hex')
    return { event: 'gossip', topic, from: from.toString(), id, size: data.byteLength, sha256, at_ms: now }
  }
}

/** By author and sequence number. */
function signedId (message) {
  const sequence = Buffer.alloc(8)
  sequence.writeBigUInt64BE(message.sequenceNumber)
  return Buffer.concat([message.from.toMultihash().bytes, sequence])
}

function unsignedId ({ topic, data }) {
  return createHash('sha256').update(topic).update('\0').update(data).digest().subarray(0, UNSIGNED_ID)
}

function hex (bytes) {
  return Buffer.from(bytes).toString('hex')
}
