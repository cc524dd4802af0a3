//! Admission (docs/wire.md): each connection, whatever its transport, is handed to the swarm only after the handshake.
//! So nothing of the library runs on it before: no identify, no ping, no pubsub.
//!
//! ```text
//! transport ── secured, multiplexed ── handshake ─┬─ admitted ─> swarm
//!                      DEADLINE from here         └─ refused: held streams reset, connection closed
//! ```
//!
//! Where this falls short of the protocol: what comes on held streams is bounded by their number and the muxer's windows,
//! not by 64 KiB; a peer that refused is dialled again whenever a command asks for it, without a backoff; and more than one
//! connection with a peer may stay.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::AsyncWriteExt;
use libp2p::PeerId;
use libp2p::core::ConnectedPoint;
use libp2p::core::muxing::{StreamMuxerBox, SubstreamBox};
use serde_json::json;

use crate::control::Output;
use crate::held::{self, Held};
use crate::hello::{self, Policy};

const DEADLINE: Duration = Duration::from_secs(5);

/// How long closing a refused connection may take.
const CLOSING: Duration = Duration::from_secs(1);

/// Why a connection wasn't admitted.
#[derive(Debug)]
pub struct Refusal(String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused: {}", self.0)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// Whether an error of a dial is one of these: transports wrap errors in errors.
    pub fn is_in(error: &io::Error) -> bool {
        let inner = error.get_ref();
        inner.is_some_and(|inner| match inner.downcast_ref::<io::Error>() {
            Some(error) => Self::is_in(error),
            None => inner.is::<Self>(),
        })
    }
}

/// Runs the handshake on connections. Clones are the same.
#[derive(Clone)]
pub struct Admission {
    policy: Arc<Policy>,
    output: Output,
    /// How long the last of our own with a peer took, until somebody asks.
    took: Arc<Mutex<HashMap<PeerId, Duration>>>,
}

impl Admission {
    pub fn new(policy: Policy, output: Output) -> Self {
        Self {
            policy: Arc::new(policy),
            output,
            took: Arc::default(),
        }
    }

    /// How long the handshake on the last connection took that we made with the peer.
    pub fn took(&self, peer: PeerId) -> Option<Duration> {
        self.took.lock().ok()?.remove(&peer)
    }

    /// Decides on a connection. That one was admitted is told by whoever takes it.
    pub async fn decide(
        self,
        peer: PeerId,
        muxer: StreamMuxerBox,
        endpoint: ConnectedPoint,
    ) -> Result<Held, Refusal> {
        let mut held = Held::new(muxer);
        let started = Instant::now();
        let shaken = shake(&mut held, &self.policy, endpoint.is_dialer());
        let reason = match tokio::time::timeout(DEADLINE, shaken).await {
            Ok(Ok(stream)) => {
                held::linger(stream, DEADLINE);
                if let (true, Ok(mut took)) = (endpoint.is_dialer(), self.took.lock()) {
                    took.insert(peer, started.elapsed());
                }
                return Ok(held);
            }
            Ok(Err(reason)) => reason,
            Err(_) => format!("not admitted within {DEADLINE:?}"),
        };
        let _ = tokio::time::timeout(CLOSING, held.close()).await;
        let (peer, direction) = (peer.to_string(), direction(&endpoint));
        self.output.send(
            json!({"event": "refused", "peer": peer, "direction": direction, "reason": reason}),
        );
        self.output
            .send(json!({"event": "disconnected", "peer": peer, "direction": direction}));
        Err(Refusal(reason))
    }
}

/// Which way a connection was made.
pub fn direction(endpoint: &ConnectedPoint) -> &'static str {
    if endpoint.is_dialer() {
        "outbound"
    } else {
        "inbound"
    }
}

/// The whole handshake in either role; its stream, closed on this side, if the peer is to be admitted.
async fn shake(held: &mut Held, policy: &Policy, initiator: bool) -> Result<SubstreamBox, String> {
    if initiator {
        let mut stream = poll_fn(|cx| match held.poll_open(cx) {
            Poll::Pending => waiting(held, cx),
            opened => opened.map_err(ended),
        })
        .await?;
        let speaking = async {
            let selected = held::select(&mut stream, hello::PROTOCOL.as_ref()).await;
            selected.map_err(|error| error.to_string())?;
            policy.initiate(&mut stream).await?;
            close(stream).await
        };
        while_held(held, speaking).await
    } else {
        let stream = poll_fn(|cx| held.poll_handshake(cx)).await.map_err(ended)?;
        let speaking = async {
            let mut stream = stream.accept().await.map_err(|error| error.to_string())?;
            policy.respond(&mut stream).await?;
            close(stream).await
        };
        while_held(held, speaking).await
    }
}

async fn close(mut stream: SubstreamBox) -> Result<SubstreamBox, String> {
    let closed = stream.close().await;
    closed
        .map(|()| stream)
        .map_err(|error| format!("closing the handshake stream: {error}"))
}

/// Does it while the connection goes on, and meets what comes on it.
async fn while_held<T>(
    held: &mut Held,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let mut work = std::pin::pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Pending => waiting(held, cx),
        done => done,
    })
    .await
}

/// The connection goes on; a handshake stream that the peer opens meanwhile is one too many.
fn waiting<T>(held: &mut Held, cx: &mut std::task::Context<'_>) -> Poll<Result<T, String>> {
    held.poll_handshake(cx).map(|polled| match polled {
        Ok(_) => Err("handshake stream by the wrong side, or a second one".into()),
        Err(error) => Err(ended(error)),
    })
}

fn ended(error: io::Error) -> String {
    format!("connection ended before a valid Hello: {error}")
}
