//! The commands: what they take, and what they do on the node.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::AsyncWriteExt;
use futures::io::BufReader;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};
use serde_json::json;

use crate::control::{Failure, Reply, fields};
use crate::node::{Connected, Node, sorted_protocols};
use crate::pattern::Pattern;
use crate::streams::PUSHED;
use crate::{bytes, discovery_commands, echo, gossip_commands, messages_commands, perf, ping};

/// The largest number of streams, or pings, in one command.
const MAX_COUNT: u64 = 100_000;

/// The largest number of requests.
const MAX_REQUESTS: u64 = 10_000_000;

/// What `streams` and `requests` send in each frame.
const STREAM_PAYLOAD: usize = 32;
const REQUEST_PAYLOAD: usize = 128;

/// The commands on one node.
pub struct Commands {
    node: Arc<Node>,
    timeout: Duration,
}

impl Commands {
    /// `timeout` bounds each command.
    pub fn new(node: Node, timeout: Duration) -> Self {
        let node = Arc::new(node);
        Self { node, timeout }
    }

    /// Runs one command with its arguments.
    pub async fn run(&self, name: &str, args: &[&str]) -> Reply {
        match tokio::time::timeout(self.timeout, self.run_untimed(name, args)).await {
            Ok(reply) => reply,
            Err(_) => Err(format!("took longer than {:?}", self.timeout).into()),
        }
    }

    async fn run_untimed(&self, name: &str, args: &[&str]) -> Reply {
        match (name, args) {
            ("connect", [addr]) => self.connect(addr).await,
            ("identify", [peer]) => self.identify(parse_peer(peer)?).await,
            ("push-identify", []) => {
                self.node.push_identify().await?;
                Ok(fields(json!({"protocol": PUSHED.to_string()})))
            }
            ("peers", []) => {
                let peers = self.node.peers().await?;
                Ok(fields(json!({"peers": peers})))
            }
            ("disconnect", [peer]) => {
                self.node.disconnect(parse_peer(peer)?).await?;
                done()
            }
            ("ping", [peer]) => self.ping(parse_peer(peer)?, 1).await,
            ("ping", [peer, count]) => {
                self.ping(parse_peer(peer)?, parse(count, 1, MAX_COUNT)?)
                    .await
            }
            ("perf", [peer, up, down]) => self.perf(parse_peer(peer)?, up, down, "1").await,
            ("perf", [peer, up, down, streams]) => {
                self.perf(parse_peer(peer)?, up, down, streams).await
            }
            ("both", [peer, count]) => {
                self.both(parse_peer(peer)?, parse(count, 0, perf::MAX_BYTES)?)
                    .await
            }
            ("streams", [peer, count, width]) => {
                self.streams(parse_peer(peer)?, count, width).await
            }
            ("requests", [peer, count, streams]) => {
                self.requests(parse_peer(peer)?, count, streams).await
            }
            ("echo", [peer, length, streams]) => {
                self.echo(
                    parse_peer(peer)?,
                    parse(length, 0, perf::MAX_BYTES)?,
                    streams,
                )
                .await
            }
            ("reset", [peer]) => {
                let peer = parse_peer(peer)?;
                bytes::reset_mine(self.open(peer, bytes::BYTES).await?).await?;
                self.echo(peer, 1000, "1").await?;
                done()
            }
            ("was-reset", [peer]) => {
                let peer = parse_peer(peer)?;
                bytes::was_reset(self.open(peer, bytes::RESET).await?).await?;
                self.echo(peer, 1000, "1").await?;
                done()
            }
            (name, args) if messages_commands::knows(name) => {
                messages_commands::run(&self.node, name, args).await
            }
            (name, args) if discovery_commands::knows(name) => {
                discovery_commands::run(&self.node, name, args).await
            }
            (name, args) if gossip_commands::knows(name) => {
                gossip_commands::run(&self.node, name, args).await
            }
            _ => Err(format!(
                "unknown command, or wrong number of arguments: {name:?}, {}",
                args.len()
            )
            .into()),
        }
    }

    async fn connect(&self, addr: &str) -> Reply {
        let (peer, addr) = parse_addr(addr)?;
        let started = Instant::now();
        let failed = |stage: &str, text: String| Failure {
            text,
            fields: fields(json!({"peer": peer.to_string(), "already": false, "stage": stage})),
        };
        let connected = self.node.connect(peer, addr).await;
        let total_ms = started.elapsed().as_secs_f64() * 1e3;
        match connected.map_err(|error| failed("dial", error))? {
            Connected::Already => Ok(fields(json!({
                "peer": peer.to_string(), "already": true, "total_ms": total_ms,
            }))),
            Connected::Refused(reason) => Err(failed("admission", reason)),
            Connected::Now(addr, took) => {
                let took_ms = took.map(|took| took.as_secs_f64() * 1e3);
                let mut reply = fields(json!({
                    "peer": peer.to_string(),
                    "already": false,
                    "addr": addr.to_string(),
                    "dial_ms": total_ms - took_ms.unwrap_or_default(),
                    "total_ms": total_ms,
                }));
                if let Some(took_ms) = took_ms {
                    reply.insert("admission_ms".into(), json!(took_ms));
                }
                Ok(reply)
            }
        }
    }

    async fn identify(&self, peer: PeerId) -> Reply {
        let info = self.node.identify(peer).await?;
        Ok(fields(json!({
            "peer": peer.to_string(),
            "agent": info.agent_version,
            "protocol_version": info.protocol_version,
            "protocols": sorted_protocols(&info),
            "addrs": info.listen_addrs.iter().map(|addr| addr.to_string()).collect::<Vec<_>>(),
            "signed_record": info.signed_peer_record.is_some(),
        })))
    }

    async fn ping(&self, peer: PeerId, count: u64) -> Reply {
        let stream = self.open(peer, ping::PROTOCOL).await?;
        let times = ping::measure(stream, count).await?;
        Ok(fields(json!({"rtt_us": times})))
    }

    async fn perf(&self, peer: PeerId, up: &str, down: &str, streams: &str) -> Reply {
        let up = parse(up, 0, perf::MAX_BYTES)?;
        let down = parse(down, 0, perf::MAX_BYTES)?;
        let count = parse(streams, 1, MAX_COUNT)? as usize;
        self.transfer(peer, vec![(up, down); count]).await
    }

    async fn both(&self, peer: PeerId, count: u64) -> Reply {
        self.transfer(peer, vec![(count, 0), (0, count)]).await
    }

    /// One stream for each pair of uploaded and downloaded bytes, all at once.
    async fn transfer(&self, peer: PeerId, amounts: Vec<(u64, u64)>) -> Reply {
        let streams = self.node.open(peer, perf::PROTOCOL, amounts.len()).await?;
        let started = Instant::now();
        let transfers = streams.into_iter().zip(amounts);
        let times = at_once(transfers.map(|(mut stream, (up, down))| async move {
            perf::measure(&mut stream, up, down)
                .await
                .map_err(|error| error.to_string())
        }))
        .await?;
        let seconds = started.elapsed().as_secs_f64();
        let longest =
            |of: fn(&perf::Times) -> Duration| times.iter().map(of).max().unwrap_or_default();
        Ok(fields(json!({
            "upload_s": longest(|times| times.upload).as_secs_f64(),
            "download_s": longest(|times| times.download).as_secs_f64(),
            "seconds": seconds,
        })))
    }

    async fn echo(&self, peer: PeerId, length: u64, streams: &str) -> Reply {
        let count = parse(streams, 1, MAX_COUNT)? as usize;
        let streams = self.node.open(peer, bytes::BYTES, count).await?;
        let started = Instant::now();
        at_once(
            streams
                .into_iter()
                .enumerate()
                .map(|(k, stream)| bytes::echo(stream, k, length)),
        )
        .await?;
        Ok(fields(json!({"seconds": started.elapsed().as_secs_f64()})))
    }

    /// So many streams of one frame each, `width` of them at a time.
    async fn streams(&self, peer: PeerId, count: &str, width: &str) -> Reply {
        let count = parse(count, 1, MAX_COUNT)?;
        let width = parse(width, 1, MAX_COUNT)?.min(count);
        let left = Arc::new(AtomicU64::new(count));
        let started = Instant::now();
        at_once((0..width).map(|_| {
            let (node, left) = (self.node.clone(), left.clone());
            async move {
                let pattern = Pattern::new(0, STREAM_PAYLOAD as u64);
                while take_one(&left) {
                    let mut streams = node.open(peer, echo::PROTOCOL, 1).await?;
                    let mut stream = streams.pop().ok_or("no stream")?;
                    echo::ask(&mut stream, pattern.at(0, STREAM_PAYLOAD)).await?;
                    stream.close().await.map_err(|error| error.to_string())?;
                }
                Ok(())
            }
        }))
        .await?;
        Ok(fields(json!({"seconds": started.elapsed().as_secs_f64()})))
    }

    /// So many requests over streams that stay open, each asking its next when it has its answer.
    async fn requests(&self, peer: PeerId, count: &str, streams: &str) -> Reply {
        let left = Arc::new(AtomicU64::new(parse(count, 1, MAX_REQUESTS)?));
        let width = parse(streams, 1, MAX_COUNT)? as usize;
        let streams = self.node.open(peer, echo::PROTOCOL, width).await?;
        let started = Instant::now();
        at_once(streams.into_iter().map(|stream| {
            let left = left.clone();
            async move {
                let pattern = Pattern::new(0, REQUEST_PAYLOAD as u64);
                let mut stream = BufReader::new(stream);
                while take_one(&left) {
                    echo::ask(&mut stream, pattern.at(0, REQUEST_PAYLOAD)).await?;
                }
                stream.close().await.map_err(|error| error.to_string())
            }
        }))
        .await?;
        Ok(fields(json!({"seconds": started.elapsed().as_secs_f64()})))
    }

    async fn open(&self, peer: PeerId, protocol: StreamProtocol) -> Result<Stream, String> {
        let mut streams = self.node.open(peer, protocol, 1).await?;
        streams.pop().ok_or_else(|| "no stream".into())
    }
}

/// Runs all, each in a task of its own; they end with the first error, or when nobody waits any more.
pub async fn at_once<T: Send + 'static>(
    work: impl Iterator<Item = impl Future<Output = Result<T, String>> + Send + 'static>,
) -> Result<Vec<T>, String> {
    let mut tasks = tokio::task::JoinSet::new();
    for each in work {
        tasks.spawn(each);
    }
    let mut results = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        results.push(joined.map_err(|error| error.to_string())??);
    }
    Ok(results)
}

/// Takes one of what is left, if there is.
fn take_one(left: &AtomicU64) -> bool {
    let less = |left: u64| left.checked_sub(1);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
        .is_ok()
}

pub fn done() -> Reply {
    Ok(fields(json!({})))
}

pub fn parse_peer(text: &str) -> Result<PeerId, String> {
    PeerId::from_str(text).map_err(|error| format!("expected a peer ID, got {text:?}: {error}"))
}

/// A complete address as the peer it names and what is before that.
fn parse_addr(text: &str) -> Result<(PeerId, Multiaddr), String> {
    let mut addr = Multiaddr::from_str(text).map_err(|error| error.to_string())?;
    match addr.pop() {
        Some(Protocol::P2p(peer)) if !addr.is_empty() => Ok((peer, addr)),
        _ => Err(format!(
            "expected an address before /p2p/PEER, got {text:?}"
        )),
    }
}

pub fn parse(text: &str, low: u64, high: u64) -> Result<u64, String> {
    let count = text
        .parse()
        .ok()
        .filter(|count| (low..=high).contains(count));
    count.ok_or_else(|| format!("expected a number from {low} to {high}, got {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_bounds() {
        assert_eq!(parse("0", 0, 5), Ok(0));
        assert_eq!(parse("5", 0, 5), Ok(5));
        for text in ["6", "-1", "", "1.5", "99999999999999999999"] {
            assert!(parse(text, 0, 5).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_end_in_a_peer() {
        let peer = PeerId::random();
        let (of, addr) = parse_addr(&format!("/ip4/127.0.0.1/tcp/4001/p2p/{peer}")).unwrap();
        assert_eq!(
            (of, addr.to_string()),
            (peer, "/ip4/127.0.0.1/tcp/4001".into())
        );
        for text in [
            &format!("/p2p/{peer}"),
            "/ip4/127.0.0.1/tcp/4001",
            "",
            "harbour",
        ] {
            assert!(parse_addr(text).is_err(), "{text}");
        }
    }
}
