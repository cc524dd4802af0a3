//! The streams that peers open: each gets a task that serves its protocol.
//!
//! libp2p-stream opens ours, but doesn't take these: it keeps one stream for a protocol until it is fetched, and
//! drops what comes meanwhile, so that of many at once some are lost.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{DeniedUpgrade, InboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, Stream, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};
use libp2p::{PeerId, StreamProtocol};
use serde_json::json;

use crate::control::Output;
use crate::{bytes, perf, ping};

const SERVED: [StreamProtocol; COUNT] =
    [ping::PROTOCOL, perf::PROTOCOL, bytes::BYTES, bytes::RESET];
const COUNT: usize = 4;

/// Serves on all connections. It tells of each transfer that was served.
pub struct Behaviour {
    output: Output,
}

impl Behaviour {
    pub fn new(output: Output) -> Self {
        Self { output }
    }

    fn handler(&self, peer: PeerId) -> Handler {
        Handler {
            peer,
            output: self.output.clone(),
        }
    }
}

/// A stream whose task ends before it has closed it is reset, as it is dropped then.
async fn serve(
    protocol: StreamProtocol,
    stream: Stream,
    peer: PeerId,
    output: Output,
) -> io::Result<()> {
    if protocol == ping::PROTOCOL {
        ping::serve(stream).await
    } else if protocol == bytes::BYTES {
        bytes::serve_bytes(stream).await
    } else if protocol == bytes::RESET {
        bytes::serve_reset(stream).await
    } else {
        let (received, sent) = perf::serve(stream).await?;
        output.send(json!({
            "event": "perf", "peer": peer.to_string(), "received": received, "sent": sent,
        }));
        Ok(())
    }
}

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

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// Serves on one connection.
pub struct Handler {
    peer: PeerId,
    output: Output,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = AnyServed;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<AnyServed> {
        SubstreamProtocol::new(AnyServed, ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Infallible>> {
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<AnyServed, DeniedUpgrade>) {
        if let ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
            protocol: (protocol, stream),
            ..
        }) = event
        {
            tokio::spawn(serve(protocol, stream, self.peer, self.output.clone()));
        }
    }
}

/// An inbound stream of any protocol that is served, and which it is.
pub struct AnyServed;

impl UpgradeInfo for AnyServed {
    type Info = StreamProtocol;
    type InfoIter = std::array::IntoIter<StreamProtocol, COUNT>;

    fn protocol_info(&self) -> Self::InfoIter {
        SERVED.into_iter()
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
