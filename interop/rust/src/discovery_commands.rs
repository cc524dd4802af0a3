//! The commands of Kademlia and of rendezvous.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use libp2p::kad::{
    self, GetClosestPeersError, GetProvidersOk, GetRecordOk, PutRecordError, QueryResult, Quorum,
    Record, RecordKey,
};
use libp2p::rendezvous::{Cookie, Namespace};
use libp2p::{PeerId, rendezvous};
use serde_json::json;

use crate::commands::{done, parse, parse_peer};
use crate::control::{Reply, fields};
use crate::discovery::{Kad, Outcome};
use crate::node::Node;

const NAMES: [&str; 11] = [
    "put",
    "get",
    "provide",
    "find-providers",
    "find-peer",
    "closest",
    "table",
    "bootstrap",
    "register",
    "unregister",
    "discover",
];
const NO_DHT: &str = "no DHT: it needs --kad";
const NO_RENDEZVOUS: &str = "no rendezvous: it needs --rendezvous";
const MAX_PROVIDERS: u64 = 10_000;

/// Whether it is a command of these.
pub fn knows(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Runs one command with its arguments.
pub async fn run(node: &Node, name: &str, args: &[&str]) -> Reply {
    match (name, args) {
        ("put", [key, value]) => {
            let value = STANDARD.decode(value).map_err(|error| error.to_string())?;
            put(node, parse_key(key)?, value).await
        }
        ("get", [key]) => get(node, parse_key(key)?).await,
        ("provide", [key]) => provide(node, parse_hex(key)?.into()).await,
        ("find-providers", [key]) => find_providers(node, parse_hex(key)?.into(), 20).await,
        ("find-providers", [key, limit]) => {
            let limit = parse(limit, 1, MAX_PROVIDERS)? as usize;
            find_providers(node, parse_hex(key)?.into(), limit).await
        }
        ("find-peer", [peer]) => find_peer(node, parse_peer(peer)?).await,
        ("closest", [key]) => {
            let (peers, requests) = closest(node, parse_hex(key)?).await?;
            let peers: Vec<_> = peers.iter().map(|peer| peer.peer_id.to_string()).collect();
            Ok(fields(json!({"peers": peers, "requests": requests})))
        }
        ("table", []) => table(node).await,
        ("bootstrap", []) => {
            query(node, |kad| {
                kad.bootstrap().map_err(|error| error.to_string())
            })
            .await?;
            table(node).await
        }
        ("register", [point, namespace]) => register(node, point, namespace, None).await,
        ("register", [point, namespace, ttl]) => {
            let ttl = parse(ttl, 0, u64::MAX)?;
            register(node, point, namespace, Some(ttl)).await
        }
        ("unregister", [point, namespace]) => {
            let (point, namespace) = (parse_peer(point)?, parse_namespace(namespace)?);
            node.need_connected(point).await?;
            node.discovery(move |_, behaviour, answer| {
                let _ = answer.send(match behaviour.client.as_mut() {
                    Some(client) => {
                        client.unregister(namespace, point);
                        Ok(())
                    }
                    None => Err(NO_RENDEZVOUS.into()),
                });
            })
            .await?;
            done()
        }
        ("discover", [point, namespace]) => discover(node, point, namespace, None, None).await,
        ("discover", [point, namespace, limit]) => {
            let limit = parse(limit, 0, u64::MAX)?;
            discover(node, point, namespace, Some(limit), None).await
        }
        ("discover", [point, namespace, limit, cookie]) => {
            let limit = parse(limit, 0, u64::MAX)?;
            let cookie = Cookie::from_wire_encoding(parse_hex(cookie)?)
                .map_err(|error| error.to_string())?;
            discover(node, point, namespace, Some(limit), Some(cookie)).await
        }
        _ => Err(format!("{name}: wrong number of arguments, {}", args.len()).into()),
    }
}

// Kademlia

/// Runs a query to its end.
async fn query(
    node: &Node,
    start: impl FnOnce(&mut Kad) -> Result<kad::QueryId, String> + Send + 'static,
) -> Result<Outcome, String> {
    node.discovery(move |discovery, behaviour, answer| {
        let started = match behaviour.kad.as_mut() {
            Some(kad) => start(kad),
            None => Err(NO_DHT.into()),
        };
        match started {
            Ok(id) => discovery.await_query(id, answer),
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
    })
    .await
}

/// A quorum of all is met by twenty; with fewer in the network, those who took it count.
async fn put(node: &Node, key: RecordKey, value: Vec<u8>) -> Reply {
    let record = Record::new(key, value);
    let outcome = query(node, move |kad| {
        kad.put_record(record, Quorum::All)
            .map_err(|error| error.to_string())
    })
    .await?;
    let stored = match outcome.results.into_iter().next_back() {
        Some(QueryResult::PutRecord(Ok(_))) => kad::K_VALUE.get(),
        Some(QueryResult::PutRecord(Err(
            PutRecordError::QuorumFailed { success, .. } | PutRecordError::Timeout { success, .. },
        ))) => success.len(),
        other => return Err(format!("expected the result of a put, got {other:?}").into()),
    };
    Ok(fields(
        json!({"stored": stored, "requests": outcome.requests}),
    ))
}

async fn get(node: &Node, key: RecordKey) -> Reply {
    let outcome = query(node, move |kad| Ok(kad.get_record(key))).await?;
    let mut value = None;
    let mut from = Vec::new();
    for result in outcome.results {
        match result {
            QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) => {
                from.extend(found.peer.map(|peer| peer.to_string()));
                value.get_or_insert(found.record.value);
            }
            QueryResult::GetRecord(Err(error)) if value.is_none() => {
                return Err(error.to_string().into());
            }
            _ => {}
        }
    }
    let value = value.ok_or("the record was not found")?;
    Ok(fields(
        json!({"value": STANDARD.encode(value), "from": from, "requests": outcome.requests}),
    ))
}

async fn provide(node: &Node, key: RecordKey) -> Reply {
    let outcome = query(node, move |kad| {
        kad.start_providing(key).map_err(|error| error.to_string())
    })
    .await?;
    match outcome.results.into_iter().next_back() {
        Some(QueryResult::StartProviding(Ok(_))) => done(),
        Some(QueryResult::StartProviding(Err(error))) => Err(error.to_string().into()),
        other => Err(format!("expected the result of providing, got {other:?}").into()),
    }
}

/// Their addresses aren't told: the library keeps them to itself.
async fn find_providers(node: &Node, key: RecordKey, limit: usize) -> Reply {
    let outcome = query(node, move |kad| Ok(kad.get_providers(key))).await?;
    let mut peers = Vec::new();
    for result in outcome.results {
        match result {
            QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => {
                peers.extend(providers.iter().map(|peer| peer.to_string()));
            }
            QueryResult::GetProviders(Err(error)) => return Err(error.to_string().into()),
            _ => {}
        }
    }
    peers.sort();
    peers.dedup();
    peers.truncate(limit);
    let providers: Vec<_> = peers
        .into_iter()
        .map(|peer| json!({"peer": peer, "addrs": []}))
        .collect();
    Ok(fields(
        json!({"providers": providers, "requests": outcome.requests}),
    ))
}

async fn find_peer(node: &Node, peer: PeerId) -> Reply {
    let (peers, requests) = closest(node, peer.to_bytes()).await?;
    let found = peers.iter().find(|found| found.peer_id == peer);
    let addrs: Vec<_> = found.map_or(Vec::new(), |found| {
        found.addrs.iter().map(|addr| addr.to_string()).collect()
    });
    Ok(fields(json!({
        "peer": peer.to_string(), "found": found.is_some(), "addrs": addrs, "requests": requests,
    })))
}

async fn closest(node: &Node, key: Vec<u8>) -> Result<(Vec<kad::PeerInfo>, u32), String> {
    let outcome = query(node, move |kad| Ok(kad.get_closest_peers(key))).await?;
    match outcome.results.into_iter().next_back() {
        Some(QueryResult::GetClosestPeers(
            Ok(kad::GetClosestPeersOk { peers, .. })
            | Err(GetClosestPeersError::Timeout { peers, .. }),
        )) => Ok((peers, outcome.requests)),
        other => Err(format!("expected the closest peers, got {other:?}").into()),
    }
}

async fn table(node: &Node) -> Reply {
    let mut peers = node
        .discovery(|_, behaviour, answer| {
            let _ = answer.send(match behaviour.kad.as_mut() {
                Some(kad) => Ok(peers_of(kad)),
                None => Err(NO_DHT.into()),
            });
        })
        .await?;
    peers.sort();
    Ok(fields(json!({"peers": peers})))
}

fn peers_of(kad: &mut Kad) -> Vec<String> {
    let buckets = kad.kbuckets();
    buckets
        .flat_map(|bucket| {
            let peers = bucket
                .iter()
                .map(|entry| entry.node.key.preimage().to_string());
            peers.collect::<Vec<_>>()
        })
        .collect()
}

// rendezvous

async fn register(node: &Node, point: &str, namespace: &str, ttl: Option<u64>) -> Reply {
    let (point, namespace) = (parse_peer(point)?, parse_namespace(namespace)?);
    node.need_connected(point).await?;
    let ttl = node
        .discovery(move |discovery, behaviour, answer| {
            let started = match behaviour.client.as_mut() {
                Some(client) => client
                    .register(namespace, point, ttl)
                    .map_err(|error| error.to_string()),
                None => Err(NO_RENDEZVOUS.into()),
            };
            match started {
                Ok(()) => discovery.await_registration(point, answer),
                Err(error) => {
                    let _ = answer.send(Err(error));
                }
            }
        })
        .await?;
    Ok(fields(json!({"ttl": ttl})))
}

async fn discover(
    node: &Node,
    point: &str,
    namespace: &str,
    limit: Option<u64>,
    cookie: Option<Cookie>,
) -> Reply {
    let point = parse_peer(point)?;
    let namespace = match namespace {
        "-" => None,
        name => Some(parse_namespace(name)?),
    };
    node.need_connected(point).await?;
    let answered = node
        .discovery(
            move |discovery, behaviour, answer| match behaviour.client.as_mut() {
                Some(client) => {
                    client.discover(namespace, cookie, limit.filter(|limit| *limit > 0), point);
                    discovery.await_registrations(point, answer);
                }
                None => {
                    let _ = answer.send(Err(NO_RENDEZVOUS.into()));
                }
            },
        )
        .await?;
    let peers: Vec<_> = answered.found.iter().map(shown).collect();
    let cookie = hex(&answered.cookie.into_wire_encoding());
    Ok(fields(json!({"peers": peers, "cookie": cookie})))
}

fn shown(registration: &rendezvous::Registration) -> serde_json::Value {
    let addrs = registration.record.addresses().iter();
    json!({
        "peer": registration.record.peer_id().to_string(),
        "addrs": addrs.map(|addr| addr.to_string()).collect::<Vec<_>>(),
        "namespace": registration.namespace.to_string(),
        "ttl": registration.ttl,
        "seq": registration.record.seq(),
    })
}

// arguments

/// `/pk/PEER` is the key of that peer's public key, which has the peer ID's bytes; all else is taken as it is.
fn parse_key(text: &str) -> Result<RecordKey, String> {
    let bytes = match text.strip_prefix("/pk/") {
        Some(peer) => [b"/pk/", &parse_peer(peer)?.to_bytes()[..]].concat(),
        None => text.as_bytes().to_vec(),
    };
    Ok(bytes.into())
}

fn parse_namespace(text: &str) -> Result<Namespace, String> {
    Namespace::new(text.to_string()).map_err(|error| error.to_string())
}

fn parse_hex(text: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("expected bytes in hex, got {text:?}");
    if text.is_empty() || text.len() % 2 > 0 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).map_err(|_| wrong()))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let peer = PeerId::random();
        let key = parse_key(&format!("/pk/{peer}")).unwrap().to_vec();
        assert_eq!(key, [b"/pk/", &peer.to_bytes()[..]].concat());
        assert_eq!(parse_key("/v/harbour").unwrap().to_vec(), b"/v/harbour");
        assert!(parse_key("/pk/harbour").is_err());
    }

    #[test]
    fn bytes_in_hex() {
        assert_eq!(parse_hex("00fF").unwrap(), [0, 255]);
        assert_eq!(hex(&[0, 255]), "00ff");
        for text in ["", "0", "0g", "+1", "00é"] {
            assert!(parse_hex(text).is_err(), "{text:?}");
        }
    }
}
