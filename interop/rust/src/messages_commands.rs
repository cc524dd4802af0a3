//! The commands of signed messages, all of the sub-protocol "interop".

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use libp2p::PeerId;
use serde_json::json;

use crate::commands::{at_once, done, parse, parse_peer};
use crate::control::{Reply, fields};
use crate::conversation::request_parts;
use crate::forge;
use crate::messages::{INTEROP, INTEROP_PARTS, MAX_MESSAGE, SUB_PROTOCOLS, To, sub_protocol};
use crate::node::Node;
use crate::serving::{MAX_REVERSED, PARTS, REVERSED, pair};

const NAMES: [&str; 5] = ["send", "request", "requests-reversed", "parts", "forge"];

/// Stands for no bytes where a command takes a payload.
const NO_PAYLOAD: &str = "-";

/// Whether it is a command of signed messages.
pub fn knows(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Runs one command with its arguments.
pub async fn run(node: &Node, name: &str, args: &[&str]) -> Reply {
    let Some((peer, args)) = args.split_first() else {
        return Err(format!("{name}: expected a peer").into());
    };
    let peer = parse_peer(peer)?;
    match (name, args) {
        ("send", [of_type, payload]) => {
            let conversation = node.conversation(peer).await?;
            conversation
                .send(parse_type(of_type)?, parse_payload(payload)?)
                .await?;
            done()
        }
        ("request", [of_type, payload]) => request(node, peer, of_type, payload).await,
        ("request", [of_type, payload, timeout]) => {
            let timeout = Duration::from_millis(parse(timeout, 1, u32::MAX.into())?);
            let asked = request(node, peer, of_type, payload);
            match tokio::time::timeout(timeout, asked).await {
                Ok(reply) => reply,
                Err(_) => Err(format!("no answer: the deadline, {timeout:?}, has passed").into()),
            }
        }
        ("requests-reversed", [count]) => reversed(node, peer, count).await,
        ("parts", [count, size]) => parts(node, peer, count, size, SUB_PROTOCOLS[0]).await,
        ("parts", [count, size, protocol]) => parts(node, peer, count, size, protocol).await,
        ("forge", [fault]) => {
            let to = To {
                peer,
                protocol: SUB_PROTOCOLS[0],
            };
            let bytes = forge::forged(node.messages(), to, fault)?;
            let mut streams = node.open(peer, INTEROP, 1).await?;
            let stream = streams.pop().ok_or("no stream")?;
            let mut outcome = forge::outcome(stream, &bytes).await?;
            if node.need_connected(peer).await.is_err() {
                outcome = "disconnected";
            }
            Ok(fields(
                json!({"peer": peer.to_string(), "outcome": outcome}),
            ))
        }
        _ => Err(format!("{name}: wrong number of arguments").into()),
    }
}

/// A timeout ends only this request.
async fn request(node: &Node, peer: PeerId, of_type: &str, payload: &str) -> Reply {
    let (of_type, payload) = (parse_type(of_type)?, parse_payload(payload)?);
    let conversation = node.conversation(peer).await?;
    let answer = conversation.request(of_type, payload).await?;
    Ok(fields(json!({
        "peer": peer.to_string(),
        "type": answer.of_type,
        "payload": STANDARD.encode(&answer.payload),
    })))
}

/// Many at once over one stream; the peer holds them all and answers the last first. Each must get its own answer.
async fn reversed(node: &Node, peer: PeerId, count: &str) -> Reply {
    let count = parse(count, 1, MAX_REVERSED as u64)?;
    let conversation = node.conversation(peer).await?;
    let started = Instant::now();
    at_once((0..count).map(|index| {
        let conversation = conversation.clone();
        async move {
            let payload = format!("{count} {index}").into_bytes();
            let answer = conversation.request(REVERSED, payload).await?;
            if answer.payload == index.to_string().as_bytes() {
                return Ok(());
            }
            let got = answer.payload.escape_ascii().to_string();
            Err(format!(
                "request {index}: expected its own number, got {got:?}"
            ))
        }
    }))
    .await?;
    Ok(fields(json!({"seconds": started.elapsed().as_secs_f64()})))
}

/// An answer in parts, each of which is checked.
async fn parts(node: &Node, peer: PeerId, count: &str, size: &str, name: &str) -> Reply {
    let payload = format!("{count} {size}").into_bytes();
    let (count, size) = pair(&payload, MAX_MESSAGE / 2)?;
    let protocol = [INTEROP, INTEROP_PARTS]
        .into_iter()
        .find(|protocol| sub_protocol(protocol) == Some(name))
        .ok_or_else(|| format!("expected one of {SUB_PROTOCOLS:?}, got {name:?}"))?;
    let mut streams = node.open(peer, protocol, 1).await?;
    let stream = streams.pop().ok_or("no stream")?;
    let started = Instant::now();
    let mut got = 0;
    let to = To {
        peer,
        protocol: name,
    };
    request_parts(node.messages(), stream, to, PARTS, payload, |part| {
        if got == count && !part.more && part.payload.is_empty() {
            return Ok(()); // only says that the part before was the last
        }
        if part.payload.len() != size || part.payload.iter().any(|byte| *byte != got as u8) {
            let came = part.payload.len();
            return Err(format!(
                "part {got}: expected {size} times byte {}, got {came} bytes",
                got as u8
            ));
        }
        got += 1;
        Ok(())
    })
    .await?;
    if got != count {
        return Err(format!("expected {count} parts, got {got}").into());
    }
    Ok(fields(json!({"seconds": started.elapsed().as_secs_f64()})))
}

fn parse_type(text: &str) -> Result<u32, String> {
    Ok(parse(text, 0, u32::MAX.into())? as u32)
}

fn parse_payload(text: &str) -> Result<Vec<u8>, String> {
    if text == NO_PAYLOAD {
        return Ok(Vec::new());
    }
    let payload = STANDARD.decode(text);
    payload.map_err(|error| format!("expected a payload as base64: {error}"))
}
