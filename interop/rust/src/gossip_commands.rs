//! The commands of pubsub.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep_until};

use crate::commands::{done, parse, parse_peer};
use crate::control::{Reply, fields};
use crate::gossip::{self, Verdict};
use crate::node::Node;
use crate::random;
use crate::router::MAX_RPC;

const NAMES: [&str; 9] = [
    "subscribe",
    "validate",
    "publish",
    "publish-bytes",
    "flood",
    "received",
    "mesh",
    "score",
    "rpcs",
];
const MAX_FLOOD: u64 = 10_000_000;
const MAX_RATE: u64 = 1_000_000;
const MAX_DELAY: u64 = 10 * 60 * 1000; // milliseconds
const MAX_SIZE: u64 = MAX_RPC as u64;

/// Whether it is a command of pubsub.
pub fn knows(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Runs one command with its arguments.
pub async fn run(node: &Node, name: &str, args: &[&str]) -> Reply {
    match (name, args) {
        ("subscribe", [topic]) => {
            let topic = topic.to_string();
            node.gossip(move |gossip, router| gossip.subscribe(router, &topic))
                .await?;
            done()
        }
        ("validate", [topic, mode @ ..]) => {
            let (topic, verdict) = (topic.to_string(), parse_verdict(mode)?);
            node.gossip(move |gossip, _| {
                gossip.validate(&topic, verdict);
                Ok(())
            })
            .await?;
            done()
        }
        ("publish", [topic, size]) => publish(node, topic, size, random::seed()).await,
        ("publish", [topic, size, seed]) => {
            publish(node, topic, size, parse(seed, 0, u64::MAX)?).await
        }
        ("publish-bytes", [topic, data]) => {
            let data = STANDARD.decode(data).map_err(|error| error.to_string())?;
            let id = publish_one(node, topic, data).await?;
            Ok(fields(json!({"id": id})))
        }
        ("flood", [topic, count, size, rate]) => {
            let count = parse(count, 1, MAX_FLOOD)?;
            let size = parse(size, 0, MAX_SIZE)? as usize;
            flood(node, topic, count, size, parse(rate, 0, MAX_RATE)?).await
        }
        ("received", [topic]) => {
            let topic = topic.to_string();
            let received = node.gossip(move |gossip, router| gossip.received(router, &topic));
            Ok(fields(received.await?))
        }
        ("mesh", [topic]) => {
            let topic = topic.to_string();
            let peers = node
                .gossip(move |_, router| Ok(gossip::mesh(router, &topic)))
                .await?;
            Ok(fields(json!({"peers": peers})))
        }
        ("score", [peer]) => {
            let peer = parse_peer(peer)?;
            let score = node
                .gossip(move |_, router| {
                    let score = router.peer_score(&peer);
                    score.ok_or_else(|| "no score: not known to pubsub".into())
                })
                .await?;
            Ok(fields(json!({"score": score})))
        }
        ("rpcs", []) => {
            let dropped = node.gossip(|gossip, _| Ok(gossip.dropped())).await?;
            let (received, sent) = node.tap.clone().unwrap_or_default().counts();
            Ok(fields(
                json!({"in": received, "out": sent, "dropped": dropped}),
            ))
        }
        _ => Err(format!("{name}: wrong number of arguments, {}", args.len()).into()),
    }
}

async fn publish(node: &Node, topic: &str, size: &str, seed: u64) -> Reply {
    let data = random::bytes(seed, parse(size, 0, MAX_SIZE)? as usize);
    let sha256 = format!("{:x}", Sha256::digest(&data));
    let id = publish_one(node, topic, data).await?;
    Ok(fields(json!({"id": id, "sha256": sha256})))
}

async fn publish_one(node: &Node, topic: &str, data: Vec<u8>) -> Result<String, String> {
    let topic = topic.to_string();
    let id = node
        .gossip(move |_, router| gossip::publish(router, &topic, data))
        .await?;
    id.map(|id| id.to_string())
        .ok_or_else(|| "the queues of all peers are full".into())
}

/// Keeps to a timetable: after a delay it catches up.
async fn flood(node: &Node, topic: &str, count: u64, size: usize, rate: u64) -> Reply {
    let seed = random::seed();
    let started = Instant::now();
    for number in 0..count {
        if rate > 0 {
            let due = Duration::from_secs_f64(number as f64 / rate as f64);
            if due > started.elapsed() {
                sleep_until(started + due).await;
            }
        }
        let topic = topic.to_string();
        let data = random::bytes(seed.wrapping_add(number), size);
        node.gossip(move |_, router| gossip::publish(router, &topic, data))
            .await
            .map_err(|error| format!("published {number} of {count}: {error}"))?;
    }
    Ok(fields(json!({"seconds": started.elapsed().as_secs_f64()})))
}

fn parse_verdict(words: &[&str]) -> Result<Verdict, String> {
    match words {
        ["accept"] => Ok(Verdict::Accept),
        ["reject"] => Ok(Verdict::Reject),
        ["ignore"] => Ok(Verdict::Ignore),
        ["delay", ms] => Ok(Verdict::Delay(Duration::from_millis(parse(
            ms, 0, MAX_DELAY,
        )?))),
        _ => Err(format!(
            "expected accept, reject, ignore or delay MS, got {words:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        assert_eq!(parse_verdict(&["reject"]), Ok(Verdict::Reject));
        let delayed = Verdict::Delay(Duration::from_millis(250));
        assert_eq!(parse_verdict(&["delay", "250"]), Ok(delayed));
        for words in [
            &["delay"][..],
            &["delay", "-1"],
            &["accept", "5"],
            &["maybe"],
            &[],
        ] {
            assert!(parse_verdict(words).is_err(), "{words:?}");
        }
    }
}
