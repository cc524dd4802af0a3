/** The commands that `control.js` runs: each takes its words and a signal, and gives what goes into the reply. */

import { randomBytes } from 'node:crypto'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { BYTES_ID, MAX_ECHO, RESET_ID, echoOnce, echoPattern, expectReset } from './bytes.js'
import { parseCount } from './count.js'
import { dhtCommands } from './dht.js'
import { ECHO_ID, echoer } from './echo.js'
import { gossipCommands } from './gossip_commands.js'
import { messageCommands } from './message_commands.js'
import { MAX_PERF, PERF_ID, measure } from './perf.js'
import { Reader, using, write } from './streams.js'

const PING_ID = '/ipfs/ping/1.0.0'
const PING_BYTES = 32
const MAX_PINGS = 1_000_000
const MAX_STREAMS = 4096
const MAX_LOAD = 1 << 24 // streams or requests in one command
const STREAM_PAYLOAD = 32 // bytes
const REQUEST_PAYLOAD = 128
const RESET_TRIAL = 1000 // bytes

/** All commands, on that node. */
export function commands (node) {
  const withPeer = run => ([peer, ...words], signal) => run(node, peerIdFromString(peer), words, signal)
  return {
    connect: { usage: 'MULTIADDR', args: 1, run: (words, signal) => connect(node, words, signal) },
    disconnect: { usage: 'PEER', args: 1, run: withPeer(disconnect) },
    peers: { usage: '', args: 0, run: () => peers(node) },
    identify: { usage: 'PEER', args: 1, run: withPeer(identify) },
    'push-identify': { usage: '', args: 0, run: async () => ({ protocol: await node.pushIdentify() }) },
    protocols: { usage: 'PEER', args: 1, run: withPeer(protocols) },
    ping: { usage: 'PEER [N]', args: 1, run: withPeer(ping) },
    perf: { usage: 'PEER UP DOWN [STREAMS]', args: 3, run: withPeer(perf) },
    both: { usage: 'PEER BYTES', args: 2, run: withPeer(both) },
    streams: { usage: 'PEER N WIDTH', args: 3, run: withPeer(manyStreams) },
    requests: { usage: 'PEER N STREAMS', args: 3, run: withPeer(manyRequests) },
    echo: { usage: 'PEER BYTES STREAMS', args: 3, run: withPeer(echo) },
    reset: { usage: 'PEER', args: 1, run: withPeer(reset) },
    'was-reset': { usage: 'PEER', args: 1, run: withPeer(wasReset) },
    ...messageCommands(node),
    ...dhtCommands(node),
    ...gossipCommands(node)
  }
}

/** Dials exactly the given address and waits until the connection is admitted; it doesn't wait for identify. */
async function connect (node, [text], signal) {
  const addr = multiaddr(text)
  const peer = addr.getComponents().at(-1)
  if (peer?.name !== 'p2p' || addr.getComponents().length < 2) {
    throw new Error(`expected an address with /p2p/PEER at its end, got "${text}"`)
  }
  const id = peerIdFromString(peer.value)
  if (node.connections(id).length > 0) {
    await node.admitted(node.connection(id), signal)
    return { peer: peer.value, already: true }
  }
  const reached = { peer: peer.value, already: false }
  const started = performance.now()
  const connection = await atStage('dial', reached, () => node.dial(addr, signal))
  reached.addr = connection.remoteAddr.toString()
  reached.dial_ms = performance.now() - started
  const admission = await atStage('admission', reached, () => node.admitted(connection, signal))
  return {
    ...reached,
    total_ms: performance.now() - started,
    ...(admission === undefined ? {} : { admission_ms: admission })
  }
}

/** What `work` gives; if it fails the reply has these fields, and the stage. */
async function atStage (stage, fields, work) {
  try {
    return await work()
  } catch (error) {
    throw Object.assign(error, { fields: { ...fields, stage } })
  }
}

async function peers (node) {
  const byPeer = Map.groupBy(node.connections(), ({ remotePeer }) => remotePeer.toString())
  return {
    peers: [...byPeer].map(([peer, connections]) => ({
      peer,
      direction: connections[0].direction,
      admitted: connections.some(connection => node.isAdmitted(connection)),
      streams: connections.reduce((sum, { streams }) => sum + streams.length, 0),
      connections: connections.length
    }))
  }
}

async function protocols (node, peer) {
  return { peer: peer.toString(), protocols: (await node.protocols(peer)).toSorted() }
}

async function disconnect (node, peer, _words, signal) {
  const connections = node.connections(peer)
  await Promise.all(connections.map(connection => connection.close({ signal })))
  return { peer: peer.toString(), closed: connections.length }
}

async function identify (node, peer, _words, signal) {
  const said = await node.identified(peer, signal)
  return {
    peer: peer.toString(),
    agent: said.agentVersion,
    protocol_version: said.protocolVersion,
    protocols: said.protocols.toSorted(),
    addrs: said.listenAddrs.map(String),
    signed_record: said.signedPeerRecord !== undefined
  }
}

async function ping (node, peer, [text = '1'], signal) {
  const count = parseCount(text, 'pings', MAX_PINGS, 1)
  const [stream] = await node.open(peer, PING_ID, 1, signal)
  return using([stream], signal, async () => {
    const reader = new Reader(stream)
    const rtts = []
    while (rtts.length < count) {
      const payload = randomBytes(PING_BYTES)
      const started = performance.now()
      await write(stream, payload)
      const echoed = await reader.exactly(PING_BYTES)
      rtts.push((performance.now() - started) * 1000)
      if (!payload.equals(echoed)) {
        throw new Error(`expected the ${PING_BYTES} bytes sent to come back, got others`)
      }
    }
    await stream.close()
    return { peer: peer.toString(), rtt_us: rtts }
  })
}

async function perf (node, peer, [up, down, streams = '1'], signal) {
  const counts = [parseCount(up, 'bytes', MAX_PERF), parseCount(down, 'bytes', MAX_PERF)]
  const all = Array.from({ length: parseCount(streams, 'streams', MAX_STREAMS, 1) }, () => counts)
  const { results, seconds } = await transfers(node, peer, all, signal)
  return {
    peer: peer.toString(),
    upload_s: Math.max(...results.map(({ upload }) => upload)),
    download_s: Math.max(...results.map(({ download }) => download)),
    seconds
  }
}

async function both (node, peer, [text], signal) {
  const count = parseCount(text, 'bytes', MAX_PERF)
  const { seconds } = await transfers(node, peer, [[count, 0], [0, count]], signal)
  return { peer: peer.toString(), seconds }
}

/** Runs a perf stream for each [up, down] at once; the results, and the seconds from first byte to last end. */
async function transfers (node, peer, counts, signal) {
  const streams = await node.open(peer, PERF_ID, counts.length, signal)
  return using(streams, signal, async () => {
    const started = performance.now()
    const results = await Promise.all(streams.map((stream, k) => measure(stream, ...counts[k])))
    return { results, seconds: (performance.now() - started) / 1000 }
  })
}

async function echo (node, peer, [bytes, count], signal) {
  const each = parseCount(bytes, 'bytes', MAX_ECHO)
  const streams = await node.open(peer, BYTES_ID, parseCount(count, 'streams', MAX_STREAMS, 1), signal)
  return using(streams, signal, async () => {
    const started = performance.now()
    await Promise.all(streams.map((stream, k) => echoPattern(stream, each, k)))
    return { peer: peer.toString(), seconds: (performance.now() - started) / 1000 }
  })
}

/** Opens N echo streams, WIDTH at a time, and uses each for one frame. */
async function manyStreams (node, peer, [count, width], signal) {
  const payload = Buffer.alloc(STREAM_PAYLOAD)
  return load(node, peer, count, width, signal, async next => {
    while (next()) {
      const [stream] = await node.open(peer, ECHO_ID, 1, signal)
      await using([stream], signal, async () => {
        await echoer(stream)(payload)
        await stream.close()
      })
    }
  })
}

/** Asks N times over that many echo streams, each of which asks its next when it has its answer. */
async function manyRequests (node, peer, [count, width], signal) {
  const payload = Buffer.alloc(REQUEST_PAYLOAD)
  const streams = await node.open(peer, ECHO_ID, parseCount(width, 'streams', MAX_STREAMS, 1), signal)
  const idle = [...streams]
  return using(streams, signal, () => load(node, peer, count, width, signal, async next => {
    const stream = idle.pop()
    const ask = echoer(stream)
    while (next()) {
      await ask(payload)
    }
    await stream.close()
  }))
}

/** Runs `work` as often at once as `width` says; its `next()` tells whether one more of the `count` is to be done. */
async function load (node, peer, count, width, signal, work) {
  let left = parseCount(count, 'streams or requests', MAX_LOAD, 1)
  const workers = parseCount(width, 'streams at a time', MAX_STREAMS, 1)
  await node.admitted(node.connection(peer), signal)
  const started = performance.now()
  await Promise.all(Array.from({ length: workers }, () => work(() => left-- > 0)))
  return { peer: peer.toString(), seconds: (performance.now() - started) / 1000 }
}

async function reset (node, peer, _words, signal) {
  const [stream] = await node.open(peer, BYTES_ID, 1, signal)
  await using([stream], signal, async () => {
    await echoOnce(stream, RESET_TRIAL)
    stream.abort(new Error('reset, as told'))
  })
  await echo(node, peer, [String(RESET_TRIAL), '1'], signal)
  return { peer: peer.toString() }
}

async function wasReset (node, peer, _words, signal) {
  const [stream] = await node.open(peer, RESET_ID, 1, signal)
  await using([stream], signal, () => expectReset(stream))
  await echo(node, peer, [String(RESET_TRIAL), '1'], signal)
  return { peer: peer.toString() }
}
