//! Messages with one fault each, which a peer should reject or drop.

use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::PeerId;
use libp2p::identity::Keypair;

use crate::envelope::{ONE_WAY, RESPONSE, Signed};
use crate::frames::framed;
use crate::messages::{MAX_MESSAGE, Messages, To};
use crate::protobuf::put_varint;

/// How long a stream is watched after a forged message.
const WATCH: Duration = Duration::from_secs(2);

const NO_MESSAGE: &[u8] = b"\x0a\x7fshorter than it says";

const FAULTS: [&str; 14] = [
    "none",
    "signature",
    "unsigned",
    "bit",
    "network_id",
    "protocol",
    "old",
    "ahead",
    "kind",
    "author",
    "recipient",
    "malformed",
    "malformed-message",
    "oversize",
];

/// The bytes of a one-way message with that fault, frame and all.
pub fn forged(messages: &Messages, to: To, fault: &str) -> Result<Vec<u8>, String> {
    if !FAULTS.contains(&fault) {
        return Err(format!("expected one of {FAULTS:?}, got {fault:?}"));
    }
    let mut key = messages.key().clone();
    let mut message = messages.compose(to, ONE_WAY, 1, b"forged".into());
    match fault {
        "network_id" => message.network_id.push(b'2'),
        "protocol" => message.protocol.push('2'),
        "old" => message.timestamp_ms -= 11 * 60 * 1000,
        "ahead" => message.timestamp_ms += 35 * 1000,
        "kind" => (message.kind, message.request_id) = (RESPONSE, 1),
        // another's, truly signed by that other
        "author" => {
            key = Keypair::generate_ed25519();
            message.author = key.public().encode_protobuf();
        }
        // truly signed, for somebody else
        "recipient" => message.recipient = PeerId::random().to_bytes(),
        _ => {}
    }
    let sign = |message: Vec<u8>| {
        let signature = key.sign(&Signed::signed_bytes(&message));
        let signature = signature.map_err(|error| error.to_string())?;
        Ok::<_, String>(Signed { message, signature })
    };
    let mut signed = sign(message.encode())?;
    match fault {
        "signature" => signed.signature[32] ^= 1,
        "unsigned" => signed.signature.clear(),
        "bit" => {
            message.payload[0] ^= 1;
            signed.message = message.encode();
        }
        "malformed" => return Ok(framed(NO_MESSAGE)),
        "malformed-message" => signed = sign(NO_MESSAGE.into())?,
        "oversize" => {
            let mut length = Vec::new();
            put_varint(&mut length, MAX_MESSAGE as u64 + 1);
            return Ok(length);
        }
        _ => {}
    }
    Ok(framed(&signed.encode()))
}

/// Sends it, and tells what became of the stream: reset or closed by the peer, or open for as long as it is watched.
pub async fn outcome(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    bytes: &[u8],
) -> Result<&'static str, String> {
    let sending = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    sending.await.map_err(|error| error.to_string())?;
    let ended = async {
        while stream.read(&mut [0; 64]).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    Ok(match tokio::time::timeout(WATCH, ended).await {
        Err(_) => "open",
        Ok(Err(_)) => "reset",
        // over Yamux a reset reads as an end: only a write tells the two apart
        Ok(Ok(())) => match stream.write_all(&[0]).await {
            Ok(()) => "closed",
            Err(_) => "reset",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Output;
    use crate::hello::Hello;
    use crate::messages::Ended;
    use crate::rules::Reason;

    #[tokio::test]
    async fn each_fault_is_found() {
        let hello = Hello::new("a/1.0.0", b"harbour").unwrap();
        let messages = || {
            let output = Output::new(std::io::sink());
            Messages::new(Keypair::generate_ed25519(), hello.clone(), true, output)
        };
        let (author, reader) = (messages(), messages());
        let address = |of: &Messages| To {
            peer: of.key().public().to_peer_id(),
            protocol: "interop",
        };
        for (fault, expected) in [
            ("none", None),
            ("signature", Some(Reason::Signature)),
            ("unsigned", Some(Reason::Signature)),
            ("bit", Some(Reason::Signature)),
            ("network_id", Some(Reason::NetworkId)),
            ("protocol", Some(Reason::Protocol)),
            ("author", Some(Reason::Author)),
            ("recipient", Some(Reason::Recipient)),
            ("malformed", Some(Reason::Malformed)),
            ("malformed-message", Some(Reason::Malformed)),
            ("oversize", Some(Reason::Oversize)),
        ] {
            let bytes = forged(&author, address(&reader), fault).unwrap();
            let read = reader.receive(&mut &bytes[..], address(&author)).await;
            let reason = match read {
                Ok(_) => None,
                Err(Ended::Rejected(rejection)) => Some(rejection.reason),
                Err(ended) => panic!("{fault}: {ended}"),
            };
            assert_eq!(reason, expected, "{fault}");
        }
        for fault in ["old", "ahead"] {
            // dropped: what comes next is read
            let mut bytes = forged(&author, address(&reader), fault).unwrap();
            bytes.extend(forged(&author, address(&reader), "none").unwrap());
            let read = reader.receive(&mut &bytes[..], address(&author)).await;
            assert_eq!(read.unwrap().payload, b"forged");
        }
        // for a server to find: on its own it is a message like any other
        let bytes = forged(&author, address(&reader), "kind").unwrap();
        let read = reader.receive(&mut &bytes[..], address(&author)).await;
        assert_eq!(read.unwrap().kind, RESPONSE);
        assert!(forged(&author, address(&reader), "nothing").is_err());
    }
}
