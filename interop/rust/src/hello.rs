//! The network handshake's message and rules (docs/wire.md). Over which stream it is spoken, and when, is admission.rs.
//!
//! ```text
//! initiator ── Hello ──> recipient: checks; sends its own only if it admits
//!           <── Hello ──
//! ```

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::RangeInclusive;

use futures::{AsyncRead, AsyncWrite};
use libp2p::StreamProtocol;

use crate::frames;
use crate::protobuf::{Fields, Value, put_bytes};

pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/vouch/handshake/1.0.0");

const MAX_HELLO: usize = 256;
const MAX_NAME: usize = 32;
const NETWORK_ID: RangeInclusive<usize> = 1..=64; // bytes
const CLIENT_VERSION_FIELD: u64 = 1;
const NETWORK_ID_FIELD: u64 = 2;

/// The only message, the same in both directions. It is valid.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    client_version: String,
    network_id: Vec<u8>,
}

impl Hello {
    /// `client_version` is NAME/N.N.N; the error says what was expected.
    pub fn new(client_version: &str, network_id: &[u8]) -> Result<Self, String> {
        if !client_version
            .split_once('/')
            .is_some_and(|(name, version)| is_name(name) && is_version(version))
        {
            return Err(format!(
                "client version: expected NAME/N.N.N, got {client_version:?}"
            ));
        }
        if !NETWORK_ID.contains(&network_id.len()) {
            let size = network_id.len();
            return Err(format!("network ID: expected 1 to 64 bytes, got {size}"));
        }
        Ok(Self {
            client_version: client_version.into(),
            network_id: network_id.into(),
        })
    }

    pub fn client_version(&self) -> &str {
        &self.client_version
    }

    pub fn network_id(&self) -> &[u8] {
        &self.network_id
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_bytes(
            &mut bytes,
            CLIENT_VERSION_FIELD,
            self.client_version.as_bytes(),
        );
        put_bytes(&mut bytes, NETWORK_ID_FIELD, &self.network_id);
        bytes
    }

    /// Unknown fields are skipped, and the last of several counts.
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (mut client_version, mut network_id) = (&[][..], &[][..]);
        for field in Fields(bytes) {
            match field? {
                (CLIENT_VERSION_FIELD, Value::Bytes(value)) => client_version = value,
                (NETWORK_ID_FIELD, Value::Bytes(value)) => network_id = value,
                (number @ (CLIENT_VERSION_FIELD | NETWORK_ID_FIELD), _) => {
                    return Err(format!("expected bytes in field {number}"));
                }
                _ => {}
            }
        }
        let client_version = std::str::from_utf8(client_version)
            .map_err(|_| "the client version isn't UTF-8".to_string())?;
        Self::new(client_version, network_id)
    }
}

/// Whether it is the name of a client.
pub fn is_name(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(known)
}

/// Whether it is N.N.N, of numbers without leading zeros.
pub fn is_version(text: &str) -> bool {
    let is_number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    text.split('.').count() == 3 && text.split('.').all(is_number)
}

/// Orders two N.N.N. Numbers have any size: the longer is the larger, and among equally long ones digits decide.
fn compare(one: &str, other: &str) -> Ordering {
    let size = |part: &str| part.len();
    let keyed = |text| str::split(text, '.').map(move |part: &str| (size(part), part.to_owned()));
    keyed(one).cmp(keyed(other))
}

/// What this peer says of itself, and asks of others.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub own: Hello,
    /// A client's name, and its lowest N.N.N.
    pub min_versions: HashMap<String, String>,
}

impl Policy {
    fn check(&self, hello: &Hello) -> Result<(), String> {
        if hello.network_id != self.own.network_id {
            let shown = |id: &[u8]| id.escape_ascii().to_string();
            return Err(format!(
                "network ID mismatch: expected \"{}\", got \"{}\"",
                shown(&self.own.network_id),
                shown(&hello.network_id)
            ));
        }
        if let Some((name, version)) = hello.client_version.split_once('/')
            && let Some(lowest) = self.min_versions.get(name)
            && compare(version, lowest) == Ordering::Less
        {
            return Err(format!(
                "client version too low: {}, expected at least {lowest}",
                hello.client_version
            ));
        }
        Ok(())
    }

    /// Speaks the initiator's part on a negotiated stream. No error: admit.
    pub async fn initiate(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Result<(), String> {
        self.send(stream).await?;
        self.receive(stream).await
    }

    /// Speaks the recipient's part: its own Hello goes only to a peer that has passed. No error: admit.
    pub async fn respond(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Result<(), String> {
        self.receive(stream).await?;
        self.send(stream).await
    }

    async fn send(&self, stream: &mut (impl AsyncWrite + Unpin)) -> Result<(), String> {
        let sent = frames::write(stream, &self.own.encode()).await;
        sent.map_err(|error| error.to_string())
    }

    async fn receive(&self, stream: &mut (impl AsyncRead + Unpin)) -> Result<(), String> {
        let no_hello = |error: String| format!("not a Hello: {error}");
        let frame = frames::read(stream, MAX_HELLO)
            .await
            .map_err(|error| no_hello(error.into()))?;
        self.check(&Hello::decode(&frame).map_err(no_hello)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::pipe;

    fn field(number: u64, value: &str) -> Vec<u8> {
        [
            &[(number << 3 | 2) as u8, value.len() as u8],
            value.as_bytes(),
        ]
        .concat()
    }

    fn policy(client_version: &str, network_id: &str) -> Policy {
        Policy {
            own: Hello::new(client_version, network_id.as_bytes()).unwrap(),
            min_versions: HashMap::new(),
        }
    }

    #[test]
    fn bytes() {
        let hello = Hello::new("a/0.1.2", &[0xff]).unwrap();
        assert_eq!(hello.encode(), b"\x0a\x07a/0.1.2\x12\x01\xff");
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }

    #[test]
    fn what_is_a_hello() {
        let (version, id) = (field(1, "a/1.0.0"), field(2, "n"));
        let longest = format!("{}/1.0.0", "a".repeat(32));
        let number = |number: u8| vec![number << 3, 7];
        for (parts, expected) in [
            (vec![version.clone(), id.clone()], "a/1.0.0"),
            (vec![id.clone(), version.clone()], "a/1.0.0"),
            (
                vec![version.clone(), id.clone(), field(1, "b/2.0.0")],
                "b/2.0.0",
            ),
            (
                vec![number(9), version.clone(), field(3, "x"), id.clone()],
                "a/1.0.0",
            ),
            (vec![field(1, &longest), id.clone()], &longest),
            (vec![version.clone(), field(2, &"n".repeat(64))], "a/1.0.0"),
        ] {
            let hello = Hello::decode(&parts.concat()).unwrap();
            assert_eq!(hello.client_version(), expected);
        }
    }

    #[test]
    fn what_is_none() {
        let (version, id) = (field(1, "a/1.0.0"), field(2, "n"));
        let mut wrong = vec![
            Vec::new(),
            version.clone(),
            id.clone(),
            [version.clone(), field(2, "")].concat(),
            [version.clone(), field(2, &"n".repeat(65))].concat(),
            [version.clone(), id[..2].to_vec()].concat(),
            [&version[..], &id, &[0x1a, 5]].concat(),
            [&version[..], &id, &[2, 0]].concat(),
            [&[8, 7], &version[..], &id].concat(),
            [&version[..], &id, &[16, 7]].concat(),
            [&[0x0a, 1, 0xff], &id[..]].concat(),
        ];
        for text in [
            "",
            "/1.0.0",
            "a b/1.0.0",
            "a/1.0",
            "a/1.0.0.0",
            "a/1.00.0",
            "a/1.0.0-rc1",
            "a/1.0.0\n",
            "a/1.0.٣",
            "a",
            &format!("{}/1.0.0", "a".repeat(33)),
        ] {
            wrong.push([field(1, text), id.clone()].concat());
        }
        for bytes in wrong {
            assert!(Hello::decode(&bytes).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn who_passes() {
        let mut policy = policy("rust-interop/1.2.3", "vouch-local");
        policy.min_versions.insert("py".into(), "1.10.0".into());
        for (version, network, expected) in [
            ("rust-interop/1.2.3", "vouch-local", ""),
            ("go/0.0.0", "vouch-local", ""),
            ("py/1.10.0", "vouch-local", ""),
            ("py/2.0.0", "vouch-local", ""),
            ("py/1.18446744073709551616.0", "vouch-local", ""),
            ("PY/0.0.0", "vouch-local", ""),
            ("py/1.9.9", "vouch-local", "client version too low"),
            ("py/1.10.0", "other", "network ID mismatch"),
            ("py/1.10.0", "vouch", "network ID mismatch"),
            ("py/0.0.0", "other", "network ID mismatch"),
        ] {
            let hello = Hello::new(version, network.as_bytes()).unwrap();
            let said = policy.check(&hello).err().unwrap_or_default();
            assert!(
                said.starts_with(expected) && said.is_empty() == expected.is_empty(),
                "{version} {network}: {said}"
            );
        }
    }

    /// Both roles against each other; a side that refuses hangs up.
    async fn shake(initiator: Policy, recipient: Policy) -> [Result<(), String>; 2] {
        let (mut one, mut other) = pipe();
        let initiate = async move { initiator.initiate(&mut one).await };
        let respond = async move { recipient.respond(&mut other).await };
        let (initiated, responded) = futures::join!(initiate, respond);
        [initiated, responded]
    }

    #[tokio::test]
    async fn both_roles() {
        let same = policy("rust-interop/1.2.3", "vouch-local");
        let other = policy("py/1.0.0", "other");
        let mut strict = same.clone();
        let lowest = ("rust-interop".to_string(), "2.0.0".to_string());
        strict.min_versions.extend([lowest]);

        assert_eq!(shake(same.clone(), same.clone()).await, [Ok(()), Ok(())]);
        // the recipient refuses without a word: the initiator only sees the end
        let [initiated, responded] = shake(same.clone(), other).await;
        assert!(initiated.unwrap_err().contains("the stream has ended"));
        assert!(responded.unwrap_err().contains("network ID"));
        let [initiated, responded] = shake(strict, same).await;
        assert!(initiated.unwrap_err().contains("version too low"));
        assert_eq!(responded, Ok(()));
    }
}
