//! What a signed message to this peer must say (docs/wire.md), and why one is rejected.

use std::fmt;

use libp2p::PeerId;
use libp2p::identity::PublicKey;

use crate::envelope::{Message, ONE_WAY, RESPONSE, Signed};

const MAX_AGE_MS: i128 = 10 * 60 * 1000;
const MAX_AHEAD_MS: i128 = 30 * 1000;

/// The words of the event "rejected".
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    Oversize,
    Malformed,
    Author,
    Signature,
    NetworkId,
    Protocol,
    Recipient,
    Kind,
    Timestamp,
    /// An answer that is late, or that nobody asked for.
    Unasked,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Self::Oversize => "oversize",
            Self::Malformed => "malformed",
            Self::Author => "author",
            Self::Signature => "signature",
            Self::NetworkId => "network_id",
            Self::Protocol => "protocol",
            Self::Recipient => "recipient",
            Self::Kind => "kind",
            Self::Timestamp => "timestamp",
            Self::Unasked => "unasked",
        }
    }
}

/// What a peer's message breaks.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    pub reason: Reason,
    pub detail: String,
}

impl Rejection {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { reason, detail }
    }

    /// Whether only the message goes, since it isn't its sender's fault; any other rejection ends the stream.
    pub fn dropped(&self) -> bool {
        matches!(self.reason, Reason::Timestamp | Reason::Unasked)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.name(), self.detail)
    }
}

/// What direct messages are checked against.
pub struct Rules {
    pub network_id: Vec<u8>,
    pub own: PeerId,
    /// Whether signatures are asked for.
    pub signatures: bool,
}

impl Rules {
    /// Opens what came from a peer on a stream of a sub-protocol, at a time in Unix milliseconds.
    pub fn check(
        &self,
        frame: &[u8],
        from: PeerId,
        protocol: &str,
        now_ms: u64,
    ) -> Result<Message, Rejection> {
        let malformed = |what: &'static str| {
            move |error: String| Rejection::new(Reason::Malformed, format!("not a {what}: {error}"))
        };
        let signed = Signed::decode(frame).map_err(malformed("SignedMessage"))?;
        let message = Message::decode(&signed.message).map_err(malformed("Message"))?;
        let author = PublicKey::try_decode_protobuf(&message.author).map_err(|error| {
            Rejection::new(Reason::Author, format!("expected a public key: {error}"))
        })?;
        if author.to_peer_id() != from {
            let text = format!("expected the connection's peer {from}, got another's key");
            return Err(Rejection::new(Reason::Author, text));
        }
        if self.signatures
            && !author.verify(&Signed::signed_bytes(&signed.message), &signed.signature)
        {
            let size = signed.signature.len();
            let text = format!("{size} bytes that aren't the author's over this message");
            return Err(Rejection::new(Reason::Signature, text));
        }
        self.check_fields(&message, protocol, now_ms)?;
        Ok(message)
    }

    fn check_fields(
        &self,
        message: &Message,
        protocol: &str,
        now_ms: u64,
    ) -> Result<(), Rejection> {
        let age = i128::from(now_ms) - i128::from(message.timestamp_ms);
        let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let (reason, detail) = if message.network_id != self.network_id {
            let (own, theirs) = (shown(&self.network_id), shown(&message.network_id));
            let text = format!("expected \"{own}\", got \"{theirs}\"");
            (Reason::NetworkId, text)
        } else if message.protocol != protocol {
            let text = format!(
                "expected the stream's {protocol:?}, got {:?}",
                message.protocol
            );
            (Reason::Protocol, text)
        } else if message.recipient != self.own.to_bytes() {
            let text = format!(
                "expected {}, got other {} bytes",
                self.own,
                message.recipient.len()
            );
            (Reason::Recipient, text)
        } else if message.kind > RESPONSE {
            let text = format!("expected 0 to {RESPONSE}, got {}", message.kind);
            (Reason::Kind, text)
        } else if message.kind == ONE_WAY && message.request_id != 0 {
            let id = message.request_id;
            let text = format!("expected no request_id in a one-way message, got {id}");
            (Reason::Malformed, text)
        } else if message.kind != RESPONSE && message.more {
            let kind = message.kind;
            let text = format!("expected more only in an answer, got it in kind {kind}");
            (Reason::Malformed, text)
        } else if !(-MAX_AHEAD_MS..=MAX_AGE_MS).contains(&age) {
            let text = format!(
                "expected at most {MAX_AGE_MS} ms back and {MAX_AHEAD_MS} ahead, got {age} back"
            );
            (Reason::Timestamp, text)
        } else {
            return Ok(());
        };
        Err(Rejection::new(reason, detail))
    }
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;
    use crate::envelope::REQUEST;

    const NOON: u64 = 1_800_000_000_000;

    struct Author {
        key: Keypair,
        rules: Rules,
    }

    impl Author {
        fn new() -> Self {
            Self {
                key: Keypair::generate_ed25519(),
                rules: Rules {
                    network_id: b"harbour".into(),
                    own: PeerId::random(),
                    signatures: true,
                },
            }
        }

        fn message(&self) -> Message {
            Message {
                author: self.key.public().encode_protobuf(),
                network_id: b"harbour".into(),
                client_version: "a/1.0.0".into(),
                protocol: "blocks".into(),
                of_type: 7,
                kind: REQUEST,
                request_id: 300,
                timestamp_ms: NOON,
                payload: b"ahoy".into(),
                recipient: self.rules.own.to_bytes(),
                more: false,
            }
        }

        fn signed(&self, message: Vec<u8>) -> Signed {
            let signature = self.key.sign(&Signed::signed_bytes(&message)).unwrap();
            Signed { message, signature }
        }

        fn reason(&self, frame: &[u8]) -> Option<Reason> {
            let from = self.key.public().to_peer_id();
            let checked = self.rules.check(frame, from, "blocks", NOON);
            checked.err().map(|rejection| rejection.reason)
        }
    }

    #[test]
    fn fields() {
        let author = Author::new();
        let other = Author::new();
        type Change<'a> = &'a dyn Fn(&mut Message);
        let at =
            |offset: i64| move |m: &mut Message| m.timestamp_ms = (NOON as i64 + offset) as u64;
        let changes: [(Change, Option<Reason>); 21] = [
            (&|_| {}, None),
            (
                &|m| m.network_id = b"harbour2".into(),
                Some(Reason::NetworkId),
            ),
            (&|m| m.network_id.clear(), Some(Reason::NetworkId)),
            (&|m| m.protocol = "sync".into(), Some(Reason::Protocol)),
            (&|m| m.author = other.message().author, Some(Reason::Author)),
            (&|m| m.author.clear(), Some(Reason::Author)),
            (
                &|m| m.recipient = PeerId::random().to_bytes(),
                Some(Reason::Recipient),
            ),
            (&|m| m.recipient.clear(), Some(Reason::Recipient)),
            (&|m| m.kind = 3, Some(Reason::Kind)),
            (&|m| (m.kind, m.request_id) = (ONE_WAY, 0), None),
            (&|m| m.kind = ONE_WAY, Some(Reason::Malformed)),
            (&|m| m.more = true, Some(Reason::Malformed)),
            (&|m| (m.kind, m.more) = (RESPONSE, true), None),
            (&at(-600_000), None),
            (&at(-600_001), Some(Reason::Timestamp)),
            (&at(30_000), None),
            (&at(30_001), Some(Reason::Timestamp)),
            (&|m| m.timestamp_ms = 0, Some(Reason::Timestamp)),
            (&|m| m.timestamp_ms = u64::MAX, Some(Reason::Timestamp)),
            (
                &|m| m.timestamp_ms = i64::MAX as u64,
                Some(Reason::Timestamp),
            ),
            (&|m| m.of_type = u32::MAX, None),
        ];
        for (i, (change, expected)) in changes.iter().enumerate() {
            let mut message = author.message();
            change(&mut message);
            let frame = author.signed(message.encode()).encode();
            assert_eq!(author.reason(&frame), *expected, "change {i}");
        }
    }

    #[test]
    fn envelopes() {
        let (author, other) = (Author::new(), Author::new());
        let message = author.message().encode();
        let signed = author.signed(message.clone());
        let (unsigned, bare) = (Vec::new(), author.key.sign(&message).unwrap());
        let with = |signature| Signed {
            message: message.clone(),
            signature,
        };
        let signature_alone = Signed {
            message: Vec::new(),
            signature: signed.signature.clone(),
        };
        let swapped = [signature_alone.encode(), with(Vec::new()).encode()].concat();
        for (frame, expected) in [
            (
                other.signed(message.clone()).encode(),
                Some(Reason::Signature),
            ),
            (with(unsigned).encode(), Some(Reason::Signature)),
            (with(bare).encode(), Some(Reason::Signature)),
            (
                other.signed(other.message().encode()).encode(),
                Some(Reason::Author),
            ),
            (Vec::new(), Some(Reason::Author)),
            (b"\x0a\x05\x00".into(), Some(Reason::Malformed)),
            (
                author.signed(b"\x0a\x05\x00".into()).encode(),
                Some(Reason::Malformed),
            ),
            (
                author.signed(b"\x1a\x01\xff".into()).encode(),
                Some(Reason::Malformed),
            ),
            ([&signed.encode()[..], b"\x1a\x01x"].concat(), None),
            (swapped, None),
            ([b"\x0a\x01x", &signed.encode()[..]].concat(), None),
        ] {
            assert_eq!(author.reason(&frame), expected, "{frame:x?}");
        }
        // what is signed are the message's bytes, also those that nobody here would make
        let unusual = [&message[..], b"\x98\x06\x01\x4a\x04last"].concat();
        let frame = author.signed(unusual).encode();
        let from = author.key.public().to_peer_id();
        let opened = author.rules.check(&frame, from, "blocks", NOON).unwrap();
        assert_eq!(opened.payload, b"last");
    }

    #[test]
    fn every_bit_counts() {
        let author = Author::new();
        let frame = author.signed(author.message().encode()).encode();
        for bit in 0..8 * frame.len() {
            let mut changed = frame.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(author.reason(&changed).is_some(), "bit {bit}");
        }
    }

    #[test]
    fn without_signatures() {
        let mut author = Author::new();
        author.rules.signatures = false;
        let unsigned = Signed {
            message: author.message().encode(),
            signature: Vec::new(),
        };
        assert_eq!(author.reason(&unsigned.encode()), None);
        let third = PeerId::random();
        let checked = author
            .rules
            .check(&unsigned.encode(), third, "blocks", NOON);
        assert_eq!(checked.unwrap_err().reason, Reason::Author);
    }
}
