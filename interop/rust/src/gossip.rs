//! Pubsub: the topics that commands have named, and the verdicts on what comes on them.
//!
//! A message is delivered (told as an event, and counted) when it has been accepted, as in the Go peer; the library
//! itself hands it over before.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::FuturesUnordered;
use libp2p::PeerId;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, MessageId, PublishError, TopicHash};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::control::Output;
use crate::router::topic_score;

/// How many messages may wait for a delayed verdict; what comes beyond is ignored.
const MAX_PENDING: usize = 10_000;

/// How many IDs are kept for each topic, to tell how many were different.
const MAX_SEEN: usize = 1 << 20;

/// What this peer says to what it receives on a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Verdict {
    #[default]
    Accept,
    Reject,
    Ignore,
    /// Accept, later.
    Delay(Duration),
}

/// What was delivered on a topic, if it is subscribed to, and what is said to what comes.
#[derive(Default)]
struct Topic {
    verdict: Verdict,
    count: u64,
    seen: HashSet<MessageId>,
    first_and_last: Option<(f64, f64)>,
}

/// A message that waits to be accepted: all that is told of it then.
pub struct Pending {
    id: MessageId,
    from: PeerId,
    topic: TopicHash,
    size: usize,
    sha256: String,
}

/// The peer's part in pubsub, beside the router.
pub struct Gossip {
    output: Output,
    topics: HashMap<TopicHash, Topic>,
    delayed: FuturesUnordered<BoxFuture<'static, Pending>>,
    dropped: usize,
}

impl Gossip {
    pub fn new(output: Output) -> Self {
        Self {
            output,
            topics: HashMap::new(),
            delayed: FuturesUnordered::new(),
            dropped: 0,
        }
    }

    /// Subscribes, if it isn't.
    pub fn subscribe(
        &mut self,
        router: &mut gossipsub::Behaviour,
        name: &str,
    ) -> Result<(), String> {
        let topic = IdentTopic::new(name);
        router.set_topic_params(topic.clone(), topic_score())?;
        router
            .subscribe(&topic)
            .map_err(|error| error.to_string())?;
        self.topics.entry(topic.hash()).or_default();
        Ok(())
    }

    /// Sets the verdict for what comes from now on.
    pub fn validate(&mut self, name: &str, verdict: Verdict) {
        let topic = TopicHash::from_raw(name);
        self.topics.entry(topic).or_default().verdict = verdict;
    }

    /// What was delivered so far.
    pub fn received(&self, router: &gossipsub::Behaviour, name: &str) -> Result<Value, String> {
        let hash = TopicHash::from_raw(name);
        let topic = match self.topics.get(&hash) {
            Some(topic) if router.topics().any(|other| *other == hash) => topic,
            _ => return Err("not subscribed".into()),
        };
        Ok(json!({
            "count": topic.count,
            "unique": topic.seen.len(),
            "first_ms": topic.first_and_last.map(|(first, _)| first),
            "last_ms": topic.first_and_last.map(|(_, last)| last),
        }))
    }

    /// How many messages for one peer were dropped, because its queue was full or they waited there for too long.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// The next message whose verdict was delayed until now; None if there is none.
    pub async fn ripe(&mut self) -> Option<Pending> {
        self.delayed.next().await
    }

    /// Takes what the router tells.
    pub fn happened(&mut self, router: &mut gossipsub::Behaviour, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message {
                propagation_source,
                message_id,
                message,
            } => self.came(router, propagation_source, message_id, message),
            gossipsub::Event::SlowPeer {
                failed_messages, ..
            } => {
                self.dropped += failed_messages.total_queue_full() + failed_messages.timeout;
            }
            _ => {}
        }
    }

    fn came(
        &mut self,
        router: &mut gossipsub::Behaviour,
        from: PeerId,
        id: MessageId,
        message: gossipsub::Message,
    ) {
        let mut verdict = self
            .topics
            .get(&message.topic)
            .map_or(Verdict::Accept, |topic| topic.verdict);
        if self.delayed.len() >= MAX_PENDING && matches!(verdict, Verdict::Delay(_)) {
            verdict = Verdict::Ignore;
        }
        let acceptance = match verdict {
            Verdict::Reject => MessageAcceptance::Reject,
            Verdict::Ignore => MessageAcceptance::Ignore,
            Verdict::Accept | Verdict::Delay(_) => {
                let pending = Pending {
                    id,
                    from,
                    size: message.data.len(),
                    sha256: format!("{:x}", Sha256::digest(&message.data)),
                    topic: message.topic,
                };
                match verdict {
                    Verdict::Delay(delay) => self.delayed.push(
                        async move {
                            tokio::time::sleep(delay).await;
                            pending
                        }
                        .boxed(),
                    ),
                    _ => self.accept(router, pending),
                }
                return;
            }
        };
        router.report_message_validation_result(&id, &from, acceptance);
    }

    /// Lets a message travel on, and delivers it.
    pub fn accept(&mut self, router: &mut gossipsub::Behaviour, message: Pending) {
        let Pending {
            id,
            from,
            topic,
            size,
            sha256,
        } = message;
        if !router.report_message_validation_result(&id, &from, MessageAcceptance::Accept) {
            eprintln!(
                "the verdict on {id} came when the router had forgotten it: HistoryLength heartbeats"
            );
            return;
        }
        let now = epoch_ms();
        let seen = self.topics.entry(topic.clone()).or_default();
        seen.count += 1;
        seen.first_and_last = Some((seen.first_and_last.map_or(now, |(first, _)| first), now));
        if seen.seen.len() < MAX_SEEN {
            seen.seen.insert(id.clone());
        }
        self.output.send(json!({
            "event": "gossip",
            "topic": topic.as_str(),
            "from": from.to_string(),
            "id": id.to_string(),
            "size": size,
            "sha256": sha256,
            "at_ms": now,
        }));
    }
}

/// Publishes; the ID. None: the queues of all peers were full.
pub fn publish(
    router: &mut gossipsub::Behaviour,
    name: &str,
    data: Vec<u8>,
) -> Result<Option<MessageId>, String> {
    match router.publish(TopicHash::from_raw(name), data) {
        Ok(id) => Ok(Some(id)),
        Err(PublishError::AllQueuesFull(_)) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// The peers in the mesh of a topic, sorted.
pub fn mesh(router: &gossipsub::Behaviour, name: &str) -> Vec<String> {
    let topic = TopicHash::from_raw(name);
    let mut peers: Vec<_> = router.mesh_peers(&topic).map(PeerId::to_string).collect();
    peers.sort();
    peers
}

/// Milliseconds since 1970.
fn epoch_ms() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64() * 1e3
}
