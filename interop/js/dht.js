/**
 * A server of the DHT on PREFIX/kad/1.0.0, and the commands for it: the library with its defaults, save that addresses of
 * all kinds count, for tests run on loopback, that it takes values under /v/ too, the greater the better, and that a
 * query is run at once, also with nobody in the table.
 */

import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { peerIdFromString } from '@libp2p/peer-id'
import { CID } from 'multiformats/cid'
import * as raw from 'multiformats/codecs/raw'
import * as Digest from 'multiformats/hashes/digest'
import { parseCount } from './count.js'

const PK = '/pk/'
const DEFAULT_PROVIDERS = 20
const MAX_PROVIDERS = 10_000
const MAX_TABLE = 4096

/** The library's service. */
export function dht (prefix) {
  return kadDHT({
    protocol: `${prefix}/kad/1.0.0`,
    clientMode: false,
    peerInfoMapper: passthroughMapper,
    allowQueryWithZeroPeers: true,
    validators: { v: async () => {} },
    selectors: { v: (_key, values) => values.reduce((best, value, i) => Buffer.compare(value, values[best]) > 0 ? i : best, 0) }
  })
}

export function dhtCommands (node) {
  const withDht = run => async (words, signal) => {
    if (node.dht === undefined) {
      throw new Error('no DHT: it needs --kad')
    }
    return run(node.dht, words, signal, node)
  }
  return {
    'find-peer': { usage: 'PEER', args: 1, run: withDht(findPeer) },
    table: { usage: '', args: 0, run: withDht(table) },
    bootstrap: { usage: '', args: 0, run: withDht(bootstrap) },
    put: { usage: 'KEY BASE64', args: 2, run: withDht(put) },
    get: { usage: 'KEY', args: 1, run: withDht(get) },
    provide: { usage: 'MULTIHASH', args: 1, run: withDht(provide) },
    'find-providers': { usage: 'MULTIHASH [LIMIT]', args: 1, run: withDht(findProviders) },
    closest: { usage: 'HEX', args: 1, run: withDht(closest) }
  }
}

/** Looks a peer up by asking others, also one that is connected or known. */
async function findPeer (dht, [text], signal, node) {
  const peer = peerIdFromString(text)
  const queried = []
  const namedBy = []
  const addrs = new Set()
  for await (const event of dht.getClosestPeers(peer.toMultihash().bytes, { signal })) {
    if (event.name === 'SEND_QUERY') {
      queried.push(event.to.toString())
    } else if (event.name === 'PEER_RESPONSE') {
      const named = event.closer.find(({ id }) => id.equals(peer))
      if (named !== undefined) {
        namedBy.push(event.from.toString())
        named.multiaddrs.forEach(addr => addrs.add(addr.toString()))
      }
    }
  }
  const connected = node.connections(peer).length > 0
  return { peer: text, found: namedBy.length > 0, addrs: [...addrs], connected, queried, named_by: namedBy }
}

async function table (dht) {
  const peers = [...dht.routingTable.kb.toIterable()].slice(0, MAX_TABLE)
  return { peers: peers.map(({ peerId }) => peerId.toString()) }
}

/** Looks for this node's own neighbours, as the library does by itself every five minutes. */
async function bootstrap (dht, _words, signal, node) {
  await last(dht.getClosestPeers(node.peerId.toMultihash().bytes, { signal }))
  return table(dht)
}

/** Tells who was sent the value. */
async function put (dht, [key, value], signal) {
  const sentTo = []
  for await (const event of dht.put(recordKey(key), Buffer.from(value, 'base64'), { signal })) {
    if (event.name === 'SEND_QUERY' && event.messageName === 'PUT_VALUE') {
      sentTo.push(event.to.toString())
    }
  }
  return { sent_to: sentTo }
}

async function get (dht, [key], signal) {
  const found = await last(dht.get(recordKey(key), { signal }), 'VALUE')
  if (found === undefined) {
    throw new Error(`not found: ${key}`)
  }
  return { value: Buffer.from(found.value).toString('base64') }
}

async function provide (dht, [key], signal) {
  await last(dht.provide(providerKey(key), { signal }))
  return {}
}

async function findProviders (dht, [key, text = String(DEFAULT_PROVIDERS)], signal) {
  const limit = parseCount(text, 'providers', MAX_PROVIDERS, 1)
  const providers = new Map()
  for await (const event of dht.findProviders(providerKey(key), { signal })) {
    for (const { id, multiaddrs } of event.name === 'PROVIDER' ? event.providers : []) {
      providers.set(id.toString(), { peer: id.toString(), addrs: multiaddrs.map(String) })
    }
    if (providers.size >= limit) {
      break
    }
  }
  return { providers: [...providers.values()].slice(0, limit) }
}

async function closest (dht, [text], signal) {
  const peers = []
  for await (const event of dht.getClosestPeers(parseHex(text), { signal })) {
    if (event.name === 'FINAL_PEER') {
      peers.push(event.peer.id.toString())
    }
  }
  return { peers }
}

/** The last event of that name, or of any, when there are no more. */
async function last (events, name) {
  let found
  for await (const event of events) {
    if (name === undefined || event.name === name) {
      found = event
    }
  }
  return found
}

/** /pk/PEER is the key of that peer's public key, which has the peer ID's bytes; anything else is taken as it is. */
function recordKey (text) {
  if (!text.startsWith(PK)) {
    return Buffer.from(text)
  }
  return Buffer.concat([Buffer.from(PK), peerIdFromString(text.slice(PK.length)).toMultihash().bytes])
}

/** A multihash in hex, which is all of a CID that the DHT looks at. */
function providerKey (text) {
  return CID.createV1(raw.code, Digest.decode(parseHex(text)))
}

function parseHex (text) {
  const bytes = Buffer.from(text, 'hex')
  if (bytes.length === 0 || bytes.length * 2 !== text.length) {
    throw new Error(`expected bytes in hex, got "${text}"`)
  }
  return bytes
}
