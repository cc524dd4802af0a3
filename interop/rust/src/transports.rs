//! The transports: TCP and WebSocket with one security and Yamux, and QUIC, which has both built in. An address says
//! which of them it is for.
//!
//! ```text
//! /tcp/PORT       ── security ── Yamux ─┐
//! /tcp/PORT/ws    ── security ── Yamux ─┼─ admission ─ tap ─> swarm
//! /udp/PORT/quic-v1 ────────────────────┘
//! ```

use std::error::Error;
use std::io;
use std::time::Duration;

use futures::future::Either;
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{PeerId, Transport, noise, quic, tcp, tls, yamux};
use libp2p_websocket as websocket;

use crate::admission::Admission;
use crate::tap::{self, Tap};

/// How long a connection may take to be secured and multiplexed.
const TIMEOUT: Duration = Duration::from_secs(10);

pub type Connections = Boxed<(PeerId, StreamMuxerBox)>;

/// What is offered over TCP and WebSocket: this one alone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Security {
    #[default]
    Noise,
    Tls,
}

/// All transports. Without an admission each connection that is secured is handed on.
pub fn build(
    key: &Keypair,
    security: Security,
    muxer: yamux::Config,
    admission: Option<Admission>,
    tap: Option<Tap>,
) -> Result<Connections, Box<dyn Error>> {
    let over_tcp = tcp::tokio::Transport::new(tcp::Config::default());
    let over_ws = websocket::Config::new(tcp::tokio::Transport::new(tcp::Config::default()));
    let over_tcp = secured(over_tcp, key, security, muxer.clone())?;
    let over_ws = secured(over_ws, key, security, muxer)?;
    let over_quic = quic::tokio::Transport::new(quic::Config::new(key))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    // WebSocket comes first: TCP takes its addresses too
    let either = over_ws.or_transport(over_tcp).or_transport(over_quic);
    let connected = TransportTimeout::new(
        either.map(|either, _| match either {
            Either::Left(Either::Left(connection) | Either::Right(connection)) => connection,
            Either::Right(connection) => connection,
        }),
        TIMEOUT,
    );
    let Some(admission) = admission else {
        return Ok(tapped(connected.boxed(), tap));
    };
    let admitted = connected.and_then(move |(peer, muxer), endpoint| async move {
        let admitted = admission.decide(peer, muxer, endpoint).await;
        admitted.map(|held| (peer, StreamMuxerBox::new(held)))
    });
    let admitted = admitted.map_err(|error| error.either(io::Error::other, io::Error::other));
    Ok(tapped(admitted.boxed(), tap))
}

fn secured<T>(
    transport: T,
    key: &Keypair,
    security: Security,
    muxer: yamux::Config,
) -> Result<Connections, Box<dyn Error>>
where
    T: Transport<
            Output: AsyncRead + AsyncWrite + Send + Unpin + 'static,
            Error: Send + Sync + 'static,
            Dial: Send,
            ListenerUpgrade: Send,
        > + Send
        + Unpin
        + 'static,
{
    let upgrade = transport.upgrade(Version::V1Lazy);
    Ok(match security {
        Security::Noise => upgrade
            .authenticate(noise::Config::new(key)?)
            .multiplex(muxer)
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed(),
        Security::Tls => upgrade
            .authenticate(tls::Config::new(key)?)
            .multiplex(muxer)
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed(),
    })
}

fn tapped(connections: Connections, tap: Option<Tap>) -> Connections {
    let Some(tap) = tap else {
        return connections;
    };
    connections
        .map(move |(peer, muxer), _| (peer, StreamMuxerBox::new(tap::Muxer::new(muxer, tap))))
        .boxed()
}
