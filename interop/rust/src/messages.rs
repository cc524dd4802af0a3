//! Signed messages: what every message says, and how one comes off a stream. What is asked is conversation.rs, what
//! is answered serving.rs.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{AsyncRead, AsyncWrite};
use libp2p::identity::Keypair;
use libp2p::{PeerId, StreamProtocol};
use serde_json::json;

use crate::control::Output;
use crate::envelope::{Message, Signed};
use crate::frames;
use crate::hello::Hello;
use crate::rules::{Reason, Rejection, Rules};

/// The sub-protocols that are served, alike, and their streams' protocols. The second is for peers that can't answer
/// with and without parts in one.
pub const SUB_PROTOCOLS: [&str; 2] = ["interop", "interop-parts"];
pub const INTEROP: StreamProtocol = StreamProtocol::new("/vouch/msg/interop/1.0.0");
pub const INTEROP_PARTS: StreamProtocol = StreamProtocol::new("/vouch/msg/interop-parts/1.0.0");

/// The sub-protocol that a stream's protocol is for, if it is one of them.
pub fn sub_protocol(of: &StreamProtocol) -> Option<&'static str> {
    let known = [INTEROP, INTEROP_PARTS]
        .iter()
        .position(|known| known == of);
    known.map(|number| SUB_PROTOCOLS[number])
}

/// The most that a frame may have.
pub const MAX_MESSAGE: usize = 2 << 20;

/// How long sending a message may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why no more messages come on a stream.
#[derive(Debug)]
pub enum Ended {
    /// The peer has ended it.
    Properly,
    Rejected(Rejection),
    Lost(String),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Properly => f.write_str("the peer has ended it"),
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Lost(error) => f.write_str(error),
        }
    }
}

/// What a message is about, to whom.
#[derive(Clone, Copy)]
pub struct To<'a> {
    pub peer: PeerId,
    /// The sub-protocol.
    pub protocol: &'a str,
}

/// This peer as an author and a recipient.
pub struct Messages {
    key: Keypair,
    own: Hello,
    rules: Rules,
    output: Output,
}

impl Messages {
    /// Without `signatures` none are made, and none asked for.
    pub fn new(key: Keypair, own: Hello, signatures: bool, output: Output) -> Self {
        let rules = Rules {
            network_id: own.network_id().into(),
            own: key.public().to_peer_id(),
            signatures,
        };
        Self {
            key,
            own,
            rules,
            output,
        }
    }

    pub fn key(&self) -> &Keypair {
        &self.key
    }

    /// Fills in what every message to a peer says.
    pub fn compose(&self, to: To, kind: u32, of_type: u32, payload: Vec<u8>) -> Message {
        Message {
            author: self.key.public().encode_protobuf(),
            network_id: self.own.network_id().into(),
            client_version: self.own.client_version().into(),
            protocol: to.protocol.into(),
            of_type,
            kind,
            timestamp_ms: epoch_ms(),
            payload,
            recipient: to.peer.to_bytes(),
            ..Message::default()
        }
    }

    /// A message's frame.
    pub fn seal(&self, message: &Message) -> Result<Vec<u8>, String> {
        let mut signed = Signed {
            message: message.encode(),
            signature: Vec::new(),
        };
        if self.rules.signatures {
            let signature = self.key.sign(&Signed::signed_bytes(&signed.message));
            signed.signature = signature.map_err(|error| error.to_string())?;
        }
        let frame = signed.encode();
        if frame.len() > MAX_MESSAGE {
            let size = frame.len();
            return Err(format!(
                "a message of {size} bytes, at most {MAX_MESSAGE} allowed"
            ));
        }
        Ok(frame)
    }

    /// The next message that passes the rules; those that are only dropped are told, and skipped.
    pub async fn receive(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        from: To<'_>,
    ) -> Result<Message, Ended> {
        loop {
            let frame = match frames::read(stream, MAX_MESSAGE).await {
                Ok(frame) => frame,
                Err(frames::Error::End) => return Err(Ended::Properly),
                Err(frames::Error::TooLong(text)) => {
                    return Err(Ended::Rejected(Rejection::new(Reason::Oversize, text)));
                }
                Err(frames::Error::Broken(text)) => {
                    return Err(Ended::Rejected(Rejection::new(Reason::Malformed, text)));
                }
                Err(frames::Error::Io(error)) => return Err(Ended::Lost(error.to_string())),
            };
            match self
                .rules
                .check(&frame, from.peer, from.protocol, epoch_ms())
            {
                Ok(message) => return Ok(message),
                Err(rejection) if rejection.dropped() => self.tell(from, &rejection),
                Err(rejection) => return Err(Ended::Rejected(rejection)),
            }
        }
    }

    /// Tells that something was rejected or dropped.
    pub fn tell(&self, from: To, rejection: &Rejection) {
        self.output.send(json!({
            "event": "rejected",
            "peer": from.peer.to_string(),
            "protocol": from.protocol,
            "reason": rejection.reason.name(),
            "detail": rejection.detail,
            "dropped": rejection.dropped(),
        }));
    }

    /// Tells of a stream's end, if it was for a message that was rejected.
    pub fn tell_end(&self, from: To, ended: &Ended) {
        if let Ended::Rejected(rejection) = ended {
            self.tell(from, rejection);
        }
    }

    /// Tells of a message that nobody answers.
    pub fn tell_message(&self, from: To, message: &Message) {
        self.output.send(json!({
            "event": "message",
            "peer": from.peer.to_string(),
            "protocol": from.protocol,
            "type": message.of_type,
            "payload": STANDARD.encode(&message.payload),
        }));
    }
}

/// Sends a frame. After an error half of it may be on its way: the stream is good for nothing more.
pub async fn send(stream: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> Result<(), String> {
    match tokio::time::timeout(WRITE_TIMEOUT, frames::write(stream, frame)).await {
        Ok(sent) => sent.map_err(|error| error.to_string()),
        Err(_) => Err(format!("sending took longer than {WRITE_TIMEOUT:?}")),
    }
}

fn epoch_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_millis() as u64
}
