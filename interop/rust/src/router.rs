//! Pubsub's router: what can be set on it, and the score.

use std::time::Duration;

use libp2p::gossipsub::{
    self, MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds, TopicScoreParams,
    ValidationMode,
};
use libp2p::identity::Keypair;
use sha2::{Digest, Sha256};

/// The most that an RPC, and a message in it, may have.
pub const MAX_RPC: usize = 1 << 20;

/// A message's ID where messages aren't signed.
const UNSIGNED_ID: usize = 20;

/// The flags of pubsub. Counts and times are the library's defaults, but for the first heartbeat: it would come after
/// five seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `--pubsub signed|unsigned`.
    pub mode: Option<Mode>,
    /// `--flood-publish on|off`.
    pub flood_publish: bool,
    /// `--gossip-param NAME=VALUE`.
    params: Vec<(String, u32)>,
}

/// Whether messages are signed, which says what their ID is too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Author and sequence number.
    Signed,
    /// The start of SHA-256 of topic, a zero byte and data.
    Unsigned,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: None,
            flood_publish: false,
            params: vec![("HeartbeatInitialDelay".into(), 100)],
        }
    }
}

impl Settings {
    /// Takes NAME=VALUE; a duration is in milliseconds. The names are those of go-libp2p-pubsub.
    pub fn set(&mut self, param: &str) -> Result<(), String> {
        let (name, value) = param
            .split_once('=')
            .and_then(|(name, value)| Some((name, value.parse().ok()?)))
            .ok_or_else(|| format!("expected NAME=NUMBER, got {param:?}"))?;
        apply(&mut gossipsub::ConfigBuilder::default(), name, value)?;
        self.params.push((name.into(), value));
        Ok(())
    }

    fn config(&self, mode: Mode) -> Result<gossipsub::Config, String> {
        let mut builder = gossipsub::ConfigBuilder::default();
        for (name, value) in &self.params {
            apply(&mut builder, name, *value)?;
        }
        builder
            .validate_messages()
            .max_transmit_size(MAX_RPC)
            .flood_publish(self.flood_publish)
            .validation_mode(match mode {
                Mode::Signed => ValidationMode::Strict,
                Mode::Unsigned => ValidationMode::Anonymous,
            })
            .message_id_fn(match mode {
                Mode::Signed => signed_id,
                Mode::Unsigned => unsigned_id,
            });
        let config = builder.build().map_err(|error| error.to_string())?;
        // the library checks these only for topics with parameters of their own
        let (low, mesh, high) = (config.mesh_n_low(), config.mesh_n(), config.mesh_n_high());
        let outbound = config.mesh_outbound_min();
        if outbound > low || low > mesh || mesh > high || outbound * 2 > mesh {
            return Err(format!(
                "expected Dout <= Dlo <= D <= Dhi and Dout <= D/2, got {outbound}, {low}, {mesh}, {high}"
            ));
        }
        Ok(config)
    }

    /// The router, if there is to be one.
    pub fn router(&self, key: &Keypair) -> Result<Option<gossipsub::Behaviour>, String> {
        let Some(mode) = self.mode else {
            return Ok(None);
        };
        let author = match mode {
            Mode::Signed => MessageAuthenticity::Signed(key.clone()),
            Mode::Unsigned => MessageAuthenticity::Anonymous,
        };
        let mut router = gossipsub::Behaviour::new(author, self.config(mode)?)?;
        router.with_peer_score(score_params(), thresholds())?;
        Ok(Some(router))
    }
}

fn apply(builder: &mut gossipsub::ConfigBuilder, name: &str, value: u32) -> Result<(), String> {
    let count = value as usize;
    let duration = Duration::from_millis(value.into());
    match name {
        "D" => builder.mesh_n(count),
        "Dlo" => builder.mesh_n_low(count),
        "Dhi" => builder.mesh_n_high(count),
        "Dscore" => builder.retain_scores(count),
        "Dout" => builder.mesh_outbound_min(count),
        "Dlazy" => builder.gossip_lazy(count),
        "HistoryLength" => builder.history_length(count),
        "HistoryGossip" => builder.history_gossip(count),
        "IDontWantMessageThreshold" => builder.idontwant_message_size_threshold(count),
        "OutboundQueue" => builder.connection_handler_queue_len(count),
        "HeartbeatInterval" if value > 0 => builder.heartbeat_interval(duration),
        "HeartbeatInitialDelay" => builder.heartbeat_initial_delay(duration),
        "PruneBackoff" => builder.prune_backoff(duration),
        "IWantFollowupTime" => builder.iwant_followup_time(duration),
        "HeartbeatInterval" => return Err("expected a HeartbeatInterval above 0".into()),
        _ => return Err(format!("unknown parameter {name:?}")),
    };
    Ok(())
}

/// The score: P4 alone, as in the Go peer (interop/go/gossip.go tells what an invalid message costs).
fn score_params() -> PeerScoreParams {
    PeerScoreParams {
        topic_score_cap: 0.0,
        app_specific_weight: 0.0,
        ip_colocation_factor_weight: 0.0,
        behaviour_penalty_weight: 0.0,
        slow_peer_weight: 0.0,
        decay_interval: Duration::from_secs(1),
        decay_to_zero: 0.01,
        retain_score: Duration::from_secs(600),
        ..PeerScoreParams::default()
    }
}

fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -20.0,
        publish_threshold: -50.0,
        graylist_threshold: -200.0,
        accept_px_threshold: 10.0,
        opportunistic_graft_threshold: 1.0,
    }
}

/// What every topic that is subscribed to counts for.
pub fn topic_score() -> TopicScoreParams {
    TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.0,
        first_message_deliveries_weight: 0.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -10.0,
        invalid_message_deliveries_decay: 0.95,
        ..TopicScoreParams::default()
    }
}

fn signed_id(message: &gossipsub::Message) -> MessageId {
    let mut id = message.source.map_or(Vec::new(), |peer| peer.to_bytes());
    id.extend(message.sequence_number.unwrap_or_default().to_be_bytes());
    id.into()
}

fn unsigned_id(message: &gossipsub::Message) -> MessageId {
    let hash = Sha256::new()
        .chain_update(message.topic.as_str())
        .chain_update([0])
        .chain_update(&message.data)
        .finalize();
    MessageId::new(&hash[..UNSIGNED_ID])
}

#[cfg(test)]
mod tests {
    use libp2p::PeerId;
    use libp2p::gossipsub::TopicHash;

    use super::*;

    fn set(params: &[&str]) -> Result<Settings, String> {
        let mut settings = Settings::default();
        for param in params {
            settings.set(param)?;
        }
        Ok(settings)
    }

    #[test]
    fn parameters_reach_the_router() {
        let settings = set(&["D=3", "Dlo=2", "Dhi=4", "Dout=1", "HeartbeatInterval=200"]).unwrap();
        let config = settings.config(Mode::Unsigned).unwrap();
        assert_eq!((config.mesh_n(), config.mesh_n_high()), (3, 4));
        assert_eq!(config.heartbeat_interval(), Duration::from_millis(200));
        assert_eq!(config.heartbeat_initial_delay(), Duration::from_millis(100));
        for param in ["", "D", "D=", "D=-1", "D=1.5", "d=3", "HeartbeatInterval=0"] {
            assert!(set(&[param]).is_err(), "{param:?}");
        }
        assert!(set(&["D=20"]).unwrap().config(Mode::Signed).is_err());
    }

    #[test]
    fn ids_are_what_the_go_peer_makes_them() {
        let author = PeerId::random();
        let message = gossipsub::Message {
            source: Some(author),
            data: b"hello".to_vec(),
            sequence_number: Some(7),
            topic: TopicHash::from_raw("t"),
        };
        let expected = [&author.to_bytes()[..], &[0, 0, 0, 0, 0, 0, 0, 7]].concat();
        assert_eq!(signed_id(&message).0, expected);
        assert_eq!(unsigned_id(&message).0, Sha256::digest(b"t\0hello")[..20]);
    }

    #[test]
    fn both_routers_start() {
        for mode in [Mode::Signed, Mode::Unsigned] {
            let settings = Settings {
                mode: Some(mode),
                ..Settings::default()
            };
            assert!(
                settings
                    .router(&Keypair::generate_ed25519())
                    .unwrap()
                    .is_some()
            );
        }
    }
}
