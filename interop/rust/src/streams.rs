//! The streams that peers open: each gets a task that serves its protocol.
//!
//! libp2p-stream opens ours, but doesn't take these: it keeps one stream for a protocol until it is fetched, and
//! drops what comes meanwhile, so that of many at once some are lost.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{DeniedUpgrade, InboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId,
    FromSwarm, NetworkBehaviour, NotifyHandler, Stream, SubstreamProtocol, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, StreamProtocol};
use serde_json::json;

use crate::control::Output;
use crate::messages::{self, Messages, To};
use crate::{bytes, echo, hello, perf, ping, serving};

/// Served once it is asked for: what is told to peers by identify push.
pub const PUSHED: StreamProtocol = StreamProtocol::new("/vouch/pushed/1.0.0");

const SERVED: [StreamProtocol; 7] = [
    ping::PROTOCOL,
    perf::PROTOCOL,
    bytes::BYTES,
    bytes::RESET,
    echo::PROTOCOL,
    messages::INTEROP,
    messages::INTEROP_PARTS,
];

/// What streams are served with.
#[derive(Clone)]
pub struct Services {
    pub output: Output,
    pub messages: Arc<Messages>,
}

impl Services {
    /// A stream whose task ends before it has closed it is reset, as it is dropped then.
    async fn serve(self, protocol: StreamProtocol, stream: Stream, peer: PeerId) -> io::Result<()> {
        if let Some(name) = messages::sub_protocol(&protocol) {
            let from = To {
                peer,
                protocol: name,
            };
            serving::serve(&self.messages, stream, from).await;
            Ok(())
        } else if protocol == ping::PROTOCOL {
            ping::serve(stream).await
        } else if protocol == echo::PROTOCOL {
            echo::serve(stream).await
        } else if protocol == bytes::BYTES || protocol == PUSHED {
            bytes::serve_bytes(stream).await
        } else if protocol == bytes::RESET {
            bytes::serve_reset(stream).await
        } else {
            let (received, sent) = perf::serve(stream).await?;
            self.output.send(json!({
                "event": "perf", "peer": peer.to_string(), "received": received, "sent": sent,
            }));
            Ok(())
        }
    }
}

/// The protocols that are served, which may become more.
type Served = Arc<RwLock<Vec<StreamProtocol>>>;

/// Serves on all connections. It tells of each transfer that was served, and closes a connection on which a stream of
/// the handshake is opened: its own was before this behaviour saw it.
pub struct Behaviour {
    services: Services,
    served: Served,
    connections: HashMap<ConnectionId, PeerId>,
    events: VecDeque<ToSwarm<Infallible, ()>>,
}

impl Behaviour {
    /// With the `handshake` it is said to be spoken too.
    pub fn new(services: Services, handshake: bool) -> Self {
        let mut served = SERVED.to_vec();
        served.extend(handshake.then_some(hello::PROTOCOL));
        Self {
            services,
            served: Arc::new(RwLock::new(served)),
            connections: HashMap::new(),
            events: VecDeque::new(),
        }
    }

    /// Serves one more protocol, of which identify tells the peers.
    pub fn add(&mut self, protocol: StreamProtocol) {
        let mut served = self
            .served
            .write()
            .unwrap_or_else(|error| error.into_inner());
        if served.contains(&protocol) {
            return;
        }
        served.push(protocol);
        for (id, peer) in &self.connections {
            self.events.push_back(ToSwarm::NotifyHandler {
                peer_id: *peer,
                handler: NotifyHandler::One(*id),
                event: (),
            });
        }
    }

    fn handler(&self, peer: PeerId) -> Handler {
        Handler {
            peer,
            services: self.services.clone(),
            served: self.served.clone(),
            handshakes: 0,
        }
    }
}

/// A stream of the handshake was opened.
#[derive(Debug)]
pub struct Handshake;

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(made) => {
                self.connections.insert(made.connection_id, made.peer_id);
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.connections.remove(&closed.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer_id: PeerId,
        id: ConnectionId,
        _: THandlerOutEvent<Self>,
    ) {
        eprintln!("{peer_id}: a second handshake stream, or one by the wrong side: closed");
        self.events.push_back(ToSwarm::CloseConnection {
            peer_id,
            connection: CloseConnection::One(id),
        });
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        match self.events.pop_front() {
            Some(event) => Poll::Ready(event),
            None => Poll::Pending,
        }
    }
}

/// Serves on one connection.
pub struct Handler {
    peer: PeerId,
    services: Services,
    served: Served,
    /// Streams of the handshake, untold.
    handshakes: usize,
}

impl ConnectionHandler for Handler {
    /// There is one more protocol: being told makes the connection look.
    type FromBehaviour = ();
    type ToBehaviour = Handshake;
    type InboundProtocol = AnyServed;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<AnyServed> {
        let served = self
            .served
            .read()
            .unwrap_or_else(|error| error.into_inner());
        SubstreamProtocol::new(AnyServed(served.clone()), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Handshake>> {
        if self.handshakes == 0 {
            return Poll::Pending;
        }
        self.handshakes -= 1;
        Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Handshake))
    }

    fn on_behaviour_event(&mut self, (): ()) {}

    fn on_connection_event(&mut self, event: ConnectionEvent<AnyServed, DeniedUpgrade>) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
            protocol: (protocol, stream),
            ..
        }) = event
        {
            if protocol == hello::PROTOCOL {
                self.handshakes += 1;
            } else {
                let services = self.services.clone();
                tokio::spawn(services.serve(protocol, stream, self.peer));
            }
        }
    }
}

/// An inbound stream of any protocol that is served, and which it is.
pub struct AnyServed(Vec<StreamProtocol>);

impl UpgradeInfo for AnyServed {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for AnyServed {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}
