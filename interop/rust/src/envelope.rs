//! Signed messages as bytes (docs/wire.md): Message, and SignedMessage around it. What they must say is rules.rs.

use crate::protobuf::{Fields, Value, put_bytes, put_number};

/// Before the message, in what is signed.
pub const PREFIX: &[u8] = b"vouch-message:1:";

/// The type of an answer that says why there is none.
pub const ERROR_TYPE: u32 = u32::MAX;

pub const ONE_WAY: u32 = 0;
pub const REQUEST: u32 = 1;
pub const RESPONSE: u32 = 2;

/// What is signed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// A libp2p PublicKey.
    pub author: Vec<u8>,
    pub network_id: Vec<u8>,
    pub client_version: String,
    pub protocol: String,
    pub of_type: u32,
    pub kind: u32,
    pub request_id: u64,
    pub timestamp_ms: u64,
    pub payload: Vec<u8>,
    /// A peer ID.
    pub recipient: Vec<u8>,
    pub more: bool,
}

impl Message {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.payload.len() + 256);
        put_bytes(&mut bytes, 1, &self.author);
        put_bytes(&mut bytes, 2, &self.network_id);
        put_bytes(&mut bytes, 3, self.client_version.as_bytes());
        put_bytes(&mut bytes, 4, self.protocol.as_bytes());
        put_number(&mut bytes, 5, self.of_type.into());
        put_number(&mut bytes, 6, self.kind.into());
        put_number(&mut bytes, 7, self.request_id);
        put_number(&mut bytes, 8, self.timestamp_ms);
        put_bytes(&mut bytes, 9, &self.payload);
        put_bytes(&mut bytes, 10, &self.recipient);
        put_number(&mut bytes, 11, self.more.into());
        bytes
    }

    /// As any proto3 parser does: the last of several counts, and what is unknown, or of another type than its field,
    /// is skipped.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut message = Self::default();
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(value)) => message.author = value.into(),
                (2, Value::Bytes(value)) => message.network_id = value.into(),
                (3, Value::Bytes(value)) => message.client_version = text(value)?,
                (4, Value::Bytes(value)) => message.protocol = text(value)?,
                (5, Value::Varint(value)) => message.of_type = value as u32,
                (6, Value::Varint(value)) => message.kind = value as u32,
                (7, Value::Varint(value)) => message.request_id = value,
                (8, Value::Varint(value)) => message.timestamp_ms = value,
                (9, Value::Bytes(value)) => message.payload = value.into(),
                (10, Value::Bytes(value)) => message.recipient = value.into(),
                (11, Value::Varint(value)) => message.more = value != 0,
                _ => {}
            }
        }
        Ok(message)
    }
}

fn text(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes);
    text.map(Into::into)
        .map_err(|_| "a string isn't UTF-8".into())
}

/// What a frame holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signed {
    /// A Message's bytes; what was signed, byte for byte.
    pub message: Vec<u8>,
    pub signature: Vec<u8>,
}

impl Signed {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.message.len() + 128);
        put_bytes(&mut bytes, 1, &self.message);
        put_bytes(&mut bytes, 2, &self.signature);
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut signed = Self::default();
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(value)) => signed.message = value.into(),
                (2, Value::Bytes(value)) => signed.signature = value.into(),
                _ => {}
            }
        }
        Ok(signed)
    }

    /// What the signature is over.
    pub fn signed_bytes(message: &[u8]) -> Vec<u8> {
        [PREFIX, message].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes() {
        let message = Message {
            author: b"k".into(),
            network_id: [0xff].into(),
            client_version: "a/1.0.0".into(),
            protocol: "blocks".into(),
            of_type: u32::MAX,
            kind: RESPONSE,
            request_id: 300,
            timestamp_ms: 1,
            payload: b"pp".into(),
            recipient: b"r".into(),
            more: true,
        };
        let bytes = b"\x0a\x01k\x12\x01\xff\x1a\x07a/1.0.0\x22\x06blocks\x28\xff\xff\xff\xff\x0f\x30\x02\x38\xac\x02\
            \x40\x01\x4a\x02pp\x52\x01r\x58\x01";
        assert_eq!(message.encode(), bytes);
        assert_eq!(Message::decode(bytes), Ok(message));
        assert_eq!(Message::default().encode(), b"");
        let signed = Signed {
            message: b"m".into(),
            signature: b"s".into(),
        };
        assert_eq!(signed.encode(), b"\x0a\x01m\x12\x01s");
        assert_eq!(Signed::decode(b"\x12\x01s\x0a\x01x\x0a\x01m"), Ok(signed));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error() {
        for byte in 0..=u8::MAX {
            for tail in [&b""[..], b"\x01", b"\x01x", b"\xff\xff\xff\xff\xff"] {
                let bytes = [&[byte], tail].concat();
                let _ = (Message::decode(&bytes), Signed::decode(&bytes));
            }
        }
        assert!(Message::decode(b"\x1a\x01\xff").is_err());
        assert!(Message::decode(b"\x0a\x05\x00").is_err());
    }
}
