//! How peers are found: Kademlia, rendezvous and mDNS, each of them only if a flag asks for it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::error::Error;

use libp2p::identity::Keypair;
use libp2p::kad::store::MemoryStore;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{Multiaddr, PeerId, StreamProtocol, identify, kad, mdns, rendezvous};
use serde_json::json;

use crate::control::Output;
use crate::node::Answer;

pub type Kad = kad::Behaviour<MemoryStore>;

/// The flags.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// `--kad PREFIX`: a DHT server on PREFIX/kad/1.0.0.
    pub kad: Option<String>,
    /// `--rendezvous client|server`; a server is a client too.
    pub rendezvous: Option<Role>,
    /// `--rendezvous-min-ttl SECONDS`: the shortest registration that the server takes, instead of two hours.
    pub min_ttl: Option<u64>,
    /// `--mdns`: finds peers on the local network, on every interface but loopback, and connects to them.
    pub mdns: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    Client,
    Server,
}

#[derive(NetworkBehaviour)]
pub struct Behaviour {
    pub kad: Toggle<Kad>,
    pub client: Toggle<rendezvous::client::Behaviour>,
    server: Toggle<rendezvous::server::Behaviour>,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

impl Settings {
    /// Whether others are to be told where this host is.
    pub fn announces(&self) -> bool {
        self.kad.is_some() || self.rendezvous.is_some()
    }

    pub fn behaviour(&self, key: &Keypair) -> Result<Behaviour, Box<dyn Error + Send + Sync>> {
        let peer = key.public().to_peer_id();
        let mut server = rendezvous::server::Config::default();
        if let Some(seconds) = self.min_ttl {
            server = server.with_min_ttl(seconds);
        }
        let serves = self.rendezvous == Some(Role::Server);
        let mdns = match self.mdns {
            true => Some(mdns::tokio::Behaviour::new(mdns::Config::default(), peer)?),
            false => None,
        };
        Ok(Behaviour {
            kad: self.kademlia(peer)?.into(),
            client: self
                .rendezvous
                .map(|_| rendezvous::client::Behaviour::new(key.clone()))
                .into(),
            server: serves
                .then(|| rendezvous::server::Behaviour::new(server))
                .into(),
            mdns: mdns.into(),
        })
    }

    fn kademlia(&self, peer: PeerId) -> Result<Option<Kad>, Box<dyn Error + Send + Sync>> {
        let Some(prefix) = &self.kad else {
            return Ok(None);
        };
        let name = StreamProtocol::try_from_owned(format!("{prefix}/kad/1.0.0"))?;
        let mut kad = Kad::with_config(peer, MemoryStore::new(peer), kad::Config::new(name));
        kad.set_mode(Some(kad::Mode::Server));
        Ok(Some(kad))
    }
}

/// All that a query found out, and how many requests it took.
pub struct Outcome {
    pub results: Vec<kad::QueryResult>,
    pub requests: u32,
}

/// What a rendezvous point answered.
pub struct Registrations {
    pub found: Vec<rendezvous::Registration>,
    pub cookie: rendezvous::Cookie,
}

/// Peers to connect to, with their addresses.
pub type Found = BTreeMap<PeerId, Vec<Multiaddr>>;

/// Who waits for what. A rendezvous point answers in the order in which it was asked, or fails all.
pub struct Discovery {
    output: Output,
    queries: HashMap<kad::QueryId, (Vec<kad::QueryResult>, Answer<Outcome>)>,
    registering: VecDeque<(PeerId, Answer<u64>)>,
    discovering: VecDeque<(PeerId, Answer<Registrations>)>,
}

impl Discovery {
    pub fn new(output: Output) -> Self {
        Self {
            output,
            queries: HashMap::new(),
            registering: VecDeque::new(),
            discovering: VecDeque::new(),
        }
    }

    /// Answers when the query has ended.
    pub fn await_query(&mut self, id: kad::QueryId, answer: Answer<Outcome>) {
        self.queries.insert(id, (Vec::new(), answer));
    }

    /// Answers with the seconds that a registration at `point` holds.
    pub fn await_registration(&mut self, point: PeerId, answer: Answer<u64>) {
        self.registering.push_back((point, answer));
    }

    /// Answers with what `point` tells.
    pub fn await_registrations(&mut self, point: PeerId, answer: Answer<Registrations>) {
        self.discovering.push_back((point, answer));
    }

    /// A peer has said where it is and what it speaks: what speaks Kademlia goes into the table, which knows no
    /// addresses of who has dialled us.
    pub fn identified(&self, behaviour: &mut Behaviour, peer: PeerId, info: &identify::Info) {
        let Some(kad) = behaviour.kad.as_mut() else {
            return;
        };
        if kad
            .protocol_names()
            .iter()
            .any(|name| info.protocols.contains(name))
        {
            for addr in &info.listen_addrs {
                kad.add_address(&peer, addr.clone());
            }
        }
    }

    /// Takes an event; the peers to connect to.
    pub fn happened(&mut self, event: BehaviourEvent) -> Found {
        let mut found = Found::new();
        match event {
            BehaviourEvent::Kad(event) => self.queried(event),
            BehaviourEvent::Client(event) => self.answered(event),
            BehaviourEvent::Server(event) => self.served(event),
            BehaviourEvent::Mdns(mdns::Event::Discovered(pairs)) => {
                for (peer, mut addr) in pairs {
                    if let Some(Protocol::P2p(_)) = addr.iter().last() {
                        addr.pop();
                    }
                    found.entry(peer).or_default().push(addr);
                }
            }
            BehaviourEvent::Mdns(mdns::Event::Expired(_)) => {}
        }
        found
    }

    fn queried(&mut self, event: kad::Event) {
        let kad::Event::OutboundQueryProgressed {
            id,
            result,
            stats,
            step,
        } = event
        else {
            return;
        };
        let Some((results, _)) = self.queries.get_mut(&id) else {
            return; // its own refreshing
        };
        results.push(result);
        if step.last
            && let Some((results, answer)) = self.queries.remove(&id)
        {
            let _ = answer.send(Ok(Outcome {
                results,
                requests: stats.num_requests(),
            }));
        }
    }

    fn answered(&mut self, event: rendezvous::client::Event) {
        use rendezvous::client::Event;
        match event {
            Event::Registered {
                rendezvous_node,
                ttl,
                ..
            } => answer(&mut self.registering, rendezvous_node, Ok(ttl)),
            Event::RegisterFailed {
                rendezvous_node,
                error,
                ..
            } => answer(
                &mut self.registering,
                rendezvous_node,
                Err(format!("{error:?}")),
            ),
            Event::Discovered {
                rendezvous_node,
                registrations,
                cookie,
            } => answer(
                &mut self.discovering,
                rendezvous_node,
                Ok(Registrations {
                    found: registrations,
                    cookie,
                }),
            ),
            Event::DiscoverFailed {
                rendezvous_node,
                error,
                ..
            } => answer(
                &mut self.discovering,
                rendezvous_node,
                Err(format!("{error:?}")),
            ),
            Event::Expired { .. } => {}
        }
    }

    fn served(&self, event: rendezvous::server::Event) {
        use rendezvous::server::Event;
        let (what, peer, namespace) = match event {
            Event::PeerRegistered { peer, registration } => {
                ("registered", peer, registration.namespace)
            }
            Event::PeerNotRegistered {
                peer, namespace, ..
            } => ("not-registered", peer, namespace),
            Event::PeerUnregistered { peer, namespace } => ("unregistered", peer, namespace),
            Event::RegistrationExpired(registration) => (
                "expired",
                registration.record.peer_id(),
                registration.namespace,
            ),
            Event::DiscoverServed { .. } | Event::DiscoverNotServed { .. } => return,
        };
        self.output.send(
            json!({"event": what, "peer": peer.to_string(), "namespace": namespace.to_string()}),
        );
    }
}

/// Tells a peer found by mDNS, once it is known whether it could be connected to.
pub fn tell_found(output: &Output, peer: PeerId, addrs: &[Multiaddr], outcome: Result<(), String>) {
    output.send(json!({
        "event": "mdns",
        "peer": peer.to_string(),
        "addrs": addrs.iter().map(|addr| addr.to_string()).collect::<Vec<_>>(),
        "connected": outcome.is_ok(),
        "error": outcome.err(),
    }));
}

/// Gives it to who has waited longest for that peer.
fn answer<T>(waiting: &mut VecDeque<(PeerId, Answer<T>)>, peer: PeerId, result: Result<T, String>) {
    if let Some(place) = waiting.iter().position(|(of, _)| *of == peer)
        && let Some((_, answer)) = waiting.remove(place)
    {
        let _ = answer.send(result);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn only_what_was_asked_for_is_there() {
        let key = Keypair::generate_ed25519();
        let none = Settings::default().behaviour(&key).unwrap();
        assert!(!none.kad.is_enabled() && !none.client.is_enabled() && !none.server.is_enabled());
        let settings = Settings {
            kad: Some("/vouch/test".into()),
            rendezvous: Some(Role::Server),
            ..Settings::default()
        };
        let some = settings.behaviour(&key).unwrap();
        assert!(some.client.is_enabled() && some.server.is_enabled() && !some.mdns.is_enabled());
        let kad = some.kad.as_ref().unwrap();
        assert_eq!(
            kad.protocol_names(),
            &[StreamProtocol::new("/vouch/test/kad/1.0.0")]
        );
        let wrong = Settings {
            kad: Some("vouch".into()),
            ..Settings::default()
        };
        assert!(wrong.behaviour(&key).is_err());
    }

    #[test]
    fn answers_go_to_who_asked_first() {
        let (one, other) = (PeerId::random(), PeerId::random());
        let mut waiting = VecDeque::new();
        let mut answered = Vec::new();
        for peer in [other, one, one] {
            let (answer, receiver) = oneshot::channel();
            waiting.push_back((peer, answer));
            answered.push(receiver);
        }
        answer(&mut waiting, one, Ok(5));
        assert_eq!(answered[1].try_recv(), Ok(Ok(5)));
        assert!(answered[0].try_recv().is_err() && answered[2].try_recv().is_err());
        answer(&mut waiting, PeerId::random(), Ok(6));
        assert_eq!(waiting.len(), 2);
    }
}
