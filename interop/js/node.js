/**
 * The running peer: a host that runs the handshake on its connections, unless told not to, and serves ping, identify, perf,
 * echo, bytes, reset and signed messages, and if asked to the DHT and pubsub.
 *
 * What each connection's peer said in identify is kept as long as the connection.
 */

import { createHash } from 'node:crypto'
import { setMaxListeners } from 'node:events'
import { readFileSync } from 'node:fs'
import { generateKeyPair, generateKeyPairFromSeed } from '@libp2p/crypto/keys'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { Admission } from './admission.js'
import { BYTES_ID, RESET_ID, serveBytes, serveReset } from './bytes.js'
import { dht } from './dht.js'
import { ECHO_ID, serveEcho } from './echo.js'
import { Gossip } from './gossip.js'
import { HANDSHAKE_ID, Policy } from './handshake.js'
import { MANY_STREAMS, createHost } from './host.js'
import { Messenger, messageProtocol } from './messenger.js'
import { PERF_ID, perfHandler } from './perf.js'
import { SUB_PROTOCOLS, messageHandler } from './served.js'

const KEYS = { ed25519: ['Ed25519'], secp256k1: ['secp256k1'], rsa: ['RSA', 2048] }
/** The types of keys that an identity may have. */
export const KEY_TYPES = Object.keys(KEYS)

const PUSHED_ID = '/vouch/pushed/1.0.0'

export class Node {
  /** Undefined without a DHT; the library's service. */
  dht
  /** Undefined without pubsub. */
  gossip
  messenger
  #libp2p
  #admission // undefined: the handshake isn't spoken
  #identified = new Map() // connection ID -> what identify said
  #changed = new EventTarget()

  /**
   * Starts it. `listen` multiaddrs, `agent`, `seed` or none, `keyType`, `security`; `networkId`, `clientVersion`, `minVersions`,
   * `handshake`, `signatures`; `kad` a prefix or none, `pubsub` the options of Gossip or none. `send` takes its events.
   */
  static async start (options, send) {
    const node = new Node()
    const own = { clientVersion: options.clientVersion, networkId: options.networkId }
    const policy = new Policy(own, options.minVersions)
    const key = await newIdentity(options.seed, options.keyType)
    const services = {}
    if (options.kad !== undefined) {
      services.dht = dht(options.kad)
    }
    if (options.pubsub !== undefined) {
      node.gossip = new Gossip(options.pubsub, send)
      services.pubsub = node.gossip.service
    }
    node.#libp2p = await createHost({ ...options, key, eager: !options.handshake, services })
    node.dht = node.#libp2p.services.dht
    const self = peerIdFromPrivateKey(key)
    node.messenger = new Messenger({ key, self, own, signatures: options.signatures }, send, node.openOne)
    node.#watch(send)
    if (options.handshake) {
      node.#admission = new Admission(policy, () => node.#libp2p.getProtocols(), send)
      await node.serve(HANDSHAKE_ID, (stream, connection) => node.#admission.respond(stream, connection))
    }
    await node.serve(PERF_ID, perfHandler(send))
    await node.serve(ECHO_ID, serveEcho)
    await node.serve(BYTES_ID, serveBytes)
    await node.serve(RESET_ID, serveReset)
    for (const name of SUB_PROTOCOLS) {
      await node.serve(messageProtocol(name), messageHandler(node.messenger, name))
    }
    await node.#libp2p.start()
    return node
  }

  stop () {
    return this.#libp2p.stop()
  }

  get peerId () {
    return this.#libp2p.peerId
  }

  /** The event that says where it listens. */
  listening () {
    return {
      event: 'listening',
      peer: this.#libp2p.peerId.toString(),
      addrs: this.#libp2p.getMultiaddrs().map(String),
      pid: process.pid,
      versions: versions()
    }
  }

  /** Dials exactly that multiaddr. The connection isn't admitted yet. */
  dial (addr, signal) {
    return this.#libp2p.dial(addr, { signal, force: true })
  }

  /** Waits until the connection is admitted: the milliseconds of its handshake, undefined without one. Throws why it isn't. */
  async admitted (connection, signal) {
    return this.#admission?.wait(connection, signal)
  }

  isAdmitted (connection) {
    return this.#admission?.admitted(connection) ?? false
  }

  /** All connections, or those to that peer. */
  connections (peer) {
    return this.#libp2p.getConnections(peer)
  }

  /** A connection to that peer, an admitted one if there is one. Throws if there is none. */
  connection (peer) {
    const open = this.connections(peer).filter(({ status }) => status === 'open')
    if (open.length === 0) {
      throw new Error(`not connected with ${peer}`)
    }
    return open.find(connection => this.isAdmitted(connection)) ?? open[0]
  }

  /** Opens that many streams at once on one connection, once it is admitted; all, or it throws and none stays open. */
  async open (peer, protocol, count, signal) {
    const connection = this.connection(peer)
    const opening = Array.from({ length: count }, () => connection.newStream(protocol, { ...MANY_STREAMS, signal }))
    const opened = await Promise.allSettled(opening)
    const failed = opened.find(({ status }) => status === 'rejected')
    if (failed !== undefined) {
      opened.forEach(({ value }) => value?.abort(failed.reason))
      throw failed.reason
    }
    return opened.map(({ value }) => value)
  }

  /** Opens one stream. */
  openOne = async (peer, protocol, signal) => {
    const [stream] = await this.open(peer, protocol, 1, signal)
    return stream
  }

  /** What that peer said in identify on the present connection, once it has. */
  async identified (peer, signal) {
    const { id } = this.connection(peer)
    while (!this.#identified.has(id)) {
      this.connection(peer)
      await nextEvent(this.#changed, signal)
    }
    return this.#identified.get(id)
  }

  /** Serves one more protocol, so that the library's identify push tells all connected peers, a second later. */
  async pushIdentify () {
    await this.#libp2p.unhandle(PUSHED_ID)
    await this.serve(PUSHED_ID, stream => stream.close())
    return PUSHED_ID
  }

  /** The protocols that peer is known to have. */
  async protocols (peer) {
    return (await this.#libp2p.peerStore.has(peer)) ? (await this.#libp2p.peerStore.get(peer)).protocols : []
  }

  /** Has a handler serve a protocol, in place of who did. One that throws resets its stream. */
  serve (protocol, handler) {
    return this.#libp2p.handle(protocol, async (stream, connection) => {
      try {
        await handler(stream, connection)
      } catch (error) {
        if (error.name !== 'StreamResetError') {
          console.error(`${protocol} from ${connection.remotePeer}: ${error.message}`)
        }
        stream.abort(error)
      }
    }, { ...MANY_STREAMS, force: true })
  }

  #watch (send) {
    setMaxListeners(0, this.#changed)
    this.#libp2p.addEventListener('connection:open', ({ detail: connection }) => {
      this.#admission?.watch(connection, () => {
        this.#libp2p.services.identify.identify(connection).catch(error => {
          console.error(`identify of ${connection.remotePeer}: ${error.message}`)
        })
      })
      connection.addEventListener('close', ({ error, local }) => {
        this.#identified.delete(connection.id)
        this.#changed.dispatchEvent(new Event('change'))
        const why = local && error !== undefined ? { error: `${error.name}: ${error.message}` } : {}
        send({ event: 'disconnected', peer: connection.remotePeer.toString(), direction: connection.direction, ...why })
      }, { once: true }) // one that is aborted may be told as closed twice
    })
    this.#libp2p.addEventListener('peer:identify', ({ detail }) => {
      const told = Object.fromEntries(Object.entries(detail).filter(([, value]) => value !== undefined))
      this.#identified.set(detail.connection.id, { ...this.#identified.get(detail.connection.id), ...told })
      this.#changed.dispatchEvent(new Event('change'))
      send({ event: 'identified', peer: detail.peerId.toString(), protocols: detail.protocols.toSorted() })
    })
  }
}

function nextEvent (target, signal) {
  return new Promise((resolve, reject) => {
    const settle = () => {
      target.removeEventListener('change', settle)
      signal?.removeEventListener('abort', settle)
      signal?.aborted ? reject(signal.reason) : resolve()
    }
    target.addEventListener('change', settle)
    signal?.addEventListener('abort', settle)
  })
}

/** The Ed25519 key that belongs to the seed, or a random one of that type. */
function newIdentity (seed, keyType = 'ed25519') {
  if (seed === undefined) {
    return generateKeyPair(...KEYS[keyType])
  }
  return generateKeyPairFromSeed('Ed25519', createHash('sha256').update(`vouch-interop-js/${seed}`).digest())
}

/** What this program runs on. */
function versions () {
  const { dependencies } = JSON.parse(readFileSync(new URL('package.json', import.meta.url)))
  const short = Object.entries(dependencies).map(([name, version]) => [name.replace(/^@.*?\//, ''), version])
  return { ...Object.fromEntries(short), node: process.versions.node }
}
