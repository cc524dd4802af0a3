//! The running host: the task that drives it, and the handle through which the commands ask it for things.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::ConnectedPoint;
use libp2p::core::transport::TransportError;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol, Swarm, gossipsub, identify};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::admission::{Admission, Refusal, direction};
use crate::control::Output;
use crate::conversation::Conversation;
use crate::discovery::{self, Discovery};
use crate::gossip::Gossip;
use crate::host::{self, Behaviour, BehaviourEvent};
use crate::messages::{self, Messages};
use crate::options::Options;
use crate::streams::{PUSHED, Services};
use crate::tap::Tap;
use crate::version::libp2p_version;

const QUEUE: usize = 16;

pub type Answer<T> = oneshot::Sender<Result<T, String>>;

/// What came of a wish to be connected; an error beside it says why there is no connection.
pub enum Connected {
    Already,
    /// By that address, and how long admission took, where it is asked for.
    Now(Multiaddr, Option<Duration>),
    /// There was a connection, but by neither side's will: why.
    Refused(String),
}

/// What is done with pubsub, which may not be there.
type GossipWork = Box<dyn FnOnce(&mut Gossip, Option<&mut gossipsub::Behaviour>) + Send>;

/// What is done with what finds peers.
type DiscoveryWork = Box<dyn FnOnce(&mut Discovery, &mut discovery::Behaviour) + Send>;

enum Request {
    Connect(PeerId, Vec<Multiaddr>, Answer<Connected>),
    NeedConnected(PeerId, Answer<()>),
    Identify(PeerId, Answer<identify::Info>),
    PushIdentify(Answer<()>),
    Peers(Answer<Vec<Value>>),
    Disconnect(PeerId, Answer<()>),
    Gossip(GossipWork),
    Discovery(DiscoveryWork),
}

/// The running host, as the commands see it. Whoever stops waiting for an answer loses nothing but that.
pub struct Node {
    requests: mpsc::Sender<Request>,
    opening: libp2p_stream::Control,
    messages: Arc<Messages>,
    conversations: tokio::sync::Mutex<HashMap<PeerId, Arc<Conversation>>>,
    /// Counts what pubsub says; it is there when pubsub is.
    pub tap: Option<Tap>,
}

impl Node {
    /// Connects, if it isn't.
    pub async fn connect(&self, peer: PeerId, addr: Multiaddr) -> Result<Connected, String> {
        self.ask(|answer| Request::Connect(peer, vec![addr], answer))
            .await
    }

    /// What the peer has said in identify, once it has.
    pub async fn identify(&self, peer: PeerId) -> Result<identify::Info, String> {
        self.ask(|answer| Request::Identify(peer, answer)).await
    }

    /// Serves one more protocol, of which the peers are told.
    pub async fn push_identify(&self) -> Result<(), String> {
        self.ask(Request::PushIdentify).await
    }

    /// Who is connected, as the reply to the command tells it.
    pub async fn peers(&self) -> Result<Vec<Value>, String> {
        self.ask(Request::Peers).await
    }

    /// This peer as the author of messages.
    pub fn messages(&self) -> &Messages {
        &self.messages
    }

    /// The stream of signed messages to a peer, which is opened at first use and when the last one has ended.
    pub async fn conversation(&self, peer: PeerId) -> Result<Arc<Conversation>, String> {
        let mut conversations = self.conversations.lock().await;
        if let Some(conversation) = conversations.get(&peer)
            && conversation.is_alive()
        {
            return Ok(conversation.clone());
        }
        let mut streams = self.open(peer, messages::INTEROP, 1).await?;
        let stream = streams.pop().ok_or("no stream")?;
        let name = messages::SUB_PROTOCOLS[0];
        let conversation = Conversation::start(self.messages.clone(), stream, peer, name);
        conversations.insert(peer, conversation.clone());
        Ok(conversation)
    }

    /// Closes the connections with a peer; returns when the last is.
    pub async fn disconnect(&self, peer: PeerId) -> Result<(), String> {
        self.ask(|answer| Request::Disconnect(peer, answer)).await
    }

    /// New streams on a connection that is there. They are opened one after the other.
    pub async fn open(
        &self,
        peer: PeerId,
        protocol: StreamProtocol,
        count: usize,
    ) -> Result<Vec<Stream>, String> {
        self.need_connected(peer).await?; // or it would dial
        let mut opening = self.opening.clone();
        let mut streams = Vec::new();
        for number in 0..count {
            match opening.open_stream(peer, protocol.clone()).await {
                Ok(stream) => streams.push(stream),
                Err(error) => return Err(format!("stream {number} of {count}: {error}")),
            }
        }
        Ok(streams)
    }

    /// Fails unless there is a connection.
    pub async fn need_connected(&self, peer: PeerId) -> Result<(), String> {
        self.ask(|answer| Request::NeedConnected(peer, answer))
            .await
    }

    /// Does something with what finds peers.
    pub async fn discovery<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Discovery, &mut discovery::Behaviour, Answer<T>) + Send + 'static,
    ) -> Result<T, String> {
        self.ask(|answer| {
            Request::Discovery(Box::new(move |discovery, behaviour| {
                work(discovery, behaviour, answer)
            }))
        })
        .await
    }

    /// Does something with pubsub.
    pub async fn gossip<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Gossip, &mut gossipsub::Behaviour) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        self.ask(|answer| {
            Request::Gossip(Box::new(move |gossip, router| {
                let _ = answer.send(match router {
                    Some(router) => work(gossip, router),
                    None => Err("no pubsub: it needs --pubsub".into()),
                });
            }))
        })
        .await
    }

    async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, String> {
        let (answer, answered) = oneshot::channel();
        let gone = || "the host has ended".to_string();
        self.requests
            .send(request(answer))
            .await
            .map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// Starts a host, and says that it listens; the host, and what it said.
pub async fn start(options: &Options, output: &Output) -> Result<(Node, Value), Box<dyn Error>> {
    let tap = options.gossip.mode.map(|_| Tap::default());
    let key = host::identity(options.seed.as_deref());
    let admission = options
        .handshake
        .then(|| Admission::new(options.policy.clone(), output.clone()));
    let own = options.policy.own.clone();
    let messages = Messages::new(key.clone(), own, !options.unsigned, output.clone());
    let messages = Arc::new(messages);
    let services = Services {
        output: output.clone(),
        messages: messages.clone(),
    };
    let (swarm, addrs) =
        host::build(&key, options, services, admission.clone(), tap.clone()).await?;
    let peer = *swarm.local_peer_id();
    let listening = json!({
        "event": "listening",
        "peer": peer.to_string(),
        "addrs": addrs.iter().map(|addr| format!("{addr}/p2p/{peer}")).collect::<Vec<_>>(),
        "pid": std::process::id(),
        "versions": {"rust-libp2p": libp2p_version()},
    });
    output.send(listening.clone());
    let opening = swarm.behaviour().opening.new_control();
    let (requests, incoming) = mpsc::channel(QUEUE);
    let driver = Driver {
        swarm,
        admission,
        output: output.clone(),
        gossip: Gossip::new(output.clone()),
        discovery: Discovery::new(output.clone()),
        dials: HashMap::new(),
        connections: HashMap::new(),
        identified: HashMap::new(),
        identifying: Vec::new(),
        closing: Vec::new(),
    };
    tokio::spawn(driver.run(incoming));
    let node = Node {
        requests,
        opening,
        messages,
        conversations: Default::default(),
        tap,
    };
    Ok((node, listening))
}

/// What drives the swarm, and keeps who waits for what.
struct Driver {
    swarm: Swarm<Behaviour>,
    /// None: the handshake isn't spoken.
    admission: Option<Admission>,
    output: Output,
    gossip: Gossip,
    discovery: Discovery,
    dials: HashMap<ConnectionId, Answer<Connected>>,
    /// Whose connections there are, and which way each was made.
    connections: HashMap<ConnectionId, (PeerId, &'static str)>,
    identified: HashMap<PeerId, identify::Info>,
    identifying: Vec<(PeerId, Answer<identify::Info>)>,
    closing: Vec<(PeerId, Answer<()>)>,
}

impl Driver {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.happened(event),
                request = requests.recv() => match request {
                    Some(request) => self.asked(request),
                    None => return,
                },
                Some(message) = self.gossip.ripe() => {
                    if let Some(router) = self.swarm.behaviour_mut().gossip.as_mut() {
                        self.gossip.accept(router, message);
                    }
                }
            }
        }
    }

    fn asked(&mut self, request: Request) {
        match request {
            Request::Connect(peer, _, answer) if self.swarm.is_connected(&peer) => {
                let _ = answer.send(Ok(Connected::Already));
            }
            Request::Connect(peer, addrs, answer) => {
                let dial = DialOpts::peer_id(peer)
                    .addresses(addrs)
                    .condition(PeerCondition::Always)
                    .build();
                let id = dial.connection_id();
                match self.swarm.dial(dial) {
                    Ok(()) => {
                        self.dials.insert(id, answer);
                    }
                    Err(error) => {
                        let _ = answer.send(Err(error.to_string()));
                    }
                }
            }
            Request::NeedConnected(peer, answer) => {
                let _ = answer.send(self.need_connected(peer));
            }
            Request::Identify(peer, answer) => {
                if let Err(error) = self.need_connected(peer) {
                    let _ = answer.send(Err(error));
                } else if let Some(info) = self.identified.get(&peer) {
                    let _ = answer.send(Ok(info.clone()));
                } else {
                    self.identifying.push((peer, answer));
                }
            }
            Request::PushIdentify(answer) => {
                self.swarm.behaviour_mut().serving.add(PUSHED);
                let _ = answer.send(Ok(()));
            }
            Request::Peers(answer) => {
                let _ = answer.send(Ok(self.peers()));
            }
            Request::Gossip(work) => {
                work(&mut self.gossip, self.swarm.behaviour_mut().gossip.as_mut());
            }
            Request::Discovery(work) => {
                work(
                    &mut self.discovery,
                    &mut self.swarm.behaviour_mut().discovery,
                );
            }
            Request::Disconnect(peer, answer) => {
                if self.swarm.disconnect_peer_id(peer).is_ok() {
                    self.closing.push((peer, answer));
                } else {
                    let _ = answer.send(Err("not connected".into()));
                }
            }
        }
    }

    fn need_connected(&self, peer: PeerId) -> Result<(), String> {
        match self.swarm.is_connected(&peer) {
            true => Ok(()),
            false => Err("not connected".into()),
        }
    }

    fn happened(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished {
                connection_id,
                peer_id,
                endpoint,
                ..
            } => self.established(connection_id, peer_id, &endpoint),
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => {
                if let Some(answer) = self.dials.remove(&connection_id) {
                    let _ = answer.send(match refusal(&error) {
                        Some(reason) => Ok(Connected::Refused(reason)),
                        None => Err(error.to_string()),
                    });
                }
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                endpoint,
                num_established,
                cause,
                ..
            } => {
                self.connections.remove(&connection_id);
                self.closed(
                    peer_id,
                    &endpoint,
                    num_established,
                    cause.map(|error| error.to_string()),
                );
            }
            SwarmEvent::Behaviour(BehaviourEvent::Gossip(event)) => {
                if let Some(router) = self.swarm.behaviour_mut().gossip.as_mut() {
                    self.gossip.happened(router, event);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Discovery(event)) => {
                for (peer, addrs) in self.discovery.happened(event) {
                    self.found(peer, addrs);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) => match event {
                identify::Event::Received { peer_id, info, .. } => {
                    for answer in take(&mut self.identifying, peer_id) {
                        let _ = answer.send(Ok(info.clone()));
                    }
                    let behaviour = &mut self.swarm.behaviour_mut().discovery;
                    self.discovery.identified(behaviour, peer_id, &info);
                    self.output.send(json!({
                        "event": "identified",
                        "peer": peer_id.to_string(),
                        "agent": info.agent_version,
                        "protocols": sorted_protocols(&info),
                    }));
                    self.identified.insert(peer_id, info);
                }
                identify::Event::Error { peer_id, error, .. } => {
                    for answer in take(&mut self.identifying, peer_id) {
                        let _ = answer.send(Err(error.to_string()));
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// Connects to a peer, and tells how that went.
    fn found(&mut self, peer: PeerId, addrs: Vec<Multiaddr>) {
        let (answer, answered) = oneshot::channel();
        self.asked(Request::Connect(peer, addrs.clone(), answer));
        let output = self.output.clone();
        tokio::spawn(async move {
            if let Ok(outcome) = answered.await {
                let outcome = outcome.and_then(|connected| match connected {
                    Connected::Refused(reason) => Err(reason),
                    _ => Ok(()),
                });
                discovery::tell_found(&output, peer, &addrs, outcome);
            }
        });
    }

    fn established(&mut self, id: ConnectionId, peer: PeerId, endpoint: &ConnectedPoint) {
        let way = direction(endpoint);
        self.connections.insert(id, (peer, way));
        let took = self.admission.as_ref().and_then(|admission| {
            self.output.send(json!({
                "event": "admitted", "peer": peer.to_string(), "direction": way,
            }));
            admission.took(peer)
        });
        if let Some(answer) = self.dials.remove(&id) {
            let mut addr = endpoint.get_remote_address().clone();
            if let Some(Protocol::P2p(_)) = addr.iter().last() {
                addr.pop();
            }
            let _ = answer.send(Ok(Connected::Now(addr, took)));
        }
    }

    fn peers(&self) -> Vec<Value> {
        let mut peers = BTreeMap::new();
        for (peer, way) in self.connections.values() {
            let (_, count) = peers.entry(peer).or_insert((*way, 0));
            *count += 1;
        }
        let admitted = self.admission.is_some();
        let shown = peers.into_iter().map(|(peer, (way, count))| {
            json!({"peer": peer.to_string(), "direction": way, "admitted": admitted, "connections": count})
        });
        shown.collect()
    }

    fn closed(
        &mut self,
        peer: PeerId,
        endpoint: &ConnectedPoint,
        left: u32,
        cause: Option<String>,
    ) {
        self.output.send(json!({
            "event": "disconnected",
            "peer": peer.to_string(),
            "direction": direction(endpoint),
            "cause": cause,
        }));
        if left > 0 {
            return;
        }
        self.identified.remove(&peer);
        for answer in take(&mut self.identifying, peer) {
            let _ = answer.send(Err("the connection has ended".into()));
        }
        for answer in take(&mut self.closing, peer) {
            let _ = answer.send(Ok(()));
        }
    }
}

/// Why admission failed, if that is what ended a dial.
fn refusal(error: &DialError) -> Option<String> {
    let DialError::Transport(errors) = error else {
        return None;
    };
    errors.iter().find_map(|(_, error)| match error {
        TransportError::Other(error) if Refusal::is_in(error) => Some(error.to_string()),
        _ => None,
    })
}

/// What a peer has said that it speaks.
pub fn sorted_protocols(info: &identify::Info) -> Vec<String> {
    let mut protocols: Vec<_> = info.protocols.iter().map(|id| id.to_string()).collect();
    protocols.sort();
    protocols
}

/// Removes and returns who waits for that peer.
fn take<T>(waiting: &mut Vec<(PeerId, T)>, peer: PeerId) -> Vec<T> {
    let (theirs, others) = waiting.drain(..).partition(|(of, _)| *of == peer);
    *waiting = others;
    let theirs: Vec<(PeerId, T)> = theirs;
    theirs.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn take_leaves_the_others() {
        let (one, two) = (PeerId::random(), PeerId::random());
        let mut waiting = vec![(one, 1), (two, 2), (one, 3)];
        assert_eq!(take(&mut waiting, one), [1, 3]);
        assert_eq!(waiting, [(two, 2)]);
    }
}
