//! The Rust peer of the interop tests: a rust-libp2p host that speaks the vouch handshake and is driven through
//! standard input.
//!
//! It prints one JSON object a line: first {"event":"listening",…}, then one {"reply":COMMAND,"ok":…} for each
//! command, in order, and events (admitted, refused, disconnected, identified, perf, message, rejected) as they happen.
//! Errors before that go to standard error. It ends with its input. With --control HOST:PORT the same goes over TCP,
//! with one client after the other.
//!
//! It listens on and dials TCP, WebSocket (/tcp/PORT/ws) and QUIC, as addresses say; of TLS over TCP and WebSocket
//! instead of Noise options.rs tells, as of all flags. Over TCP it is put together as rust-libp2p does by default, unless
//! --max-streams is given. With --handshake=false it is a plain host; what it falls short of with it is in admission.rs.
//!
//! The commands are those of the Go peer (interop/go/main.go), but for compose. push-identify serves
//! one more protocol, which the library tells all peers that have asked before; who is told, then or when it asked, prints
//! {"event":"identified","peer","agent","protocols"}.
//!
//! With --pubsub signed or unsigned it speaks gossipsub and takes the commands of the Go peer's pubsub, which
//! interop/go/main.go lists: subscribe, validate, publish, publish-bytes, flood, received, mesh, score, rpcs. So does
//! --gossip-param with the same names; all else is as in libp2p-gossipsub by default, but for the score (router.rs),
//! the first heartbeat after 100 ms, and no flood publishing unless --flood-publish is on. What differs from Go:
//!
//! - publish and flood fail while no peer is known to be subscribed, and publish with the same bytes twice, unsigned;
//! - a delayed verdict that comes after HistoryLength heartbeats is lost, and the message with it;
//! - rpcs counts what is on the wire, both ways; dropped counts also what waited in a peer's queue for too long, and
//!   is told with the next heartbeat.
//!
//! With --kad PREFIX it is a DHT server on PREFIX/kad/1.0.0 and takes the Go peer's commands of Kademlia: put, get,
//! provide, find-providers, find-peer, closest, table, bootstrap. What differs from Go:
//!
//! - nothing is validated: any key and value is taken, a later value replaces one before it;
//! - put tells "stored", the peers that took it (20 stands for 20 or more); get tells "from", the peers that had it;
//! - find-providers tells no addresses; find-peer tells "requests" instead of who was asked, as do the others.
//!
//! With --rendezvous client or server it speaks rendezvous, with a server that tells "registered", "not-registered",
//! "unregistered" and "expired" ("peer", "namespace") as events. --rendezvous-min-ttl SECONDS lets registrations be
//! shorter than two hours. Commands, for a PEER that is connected and serves:
//!
//!     register PEER NAMESPACE [TTL]       {"ttl"}, seconds
//!     unregister PEER NAMESPACE           {}: nobody answers
//!     discover PEER NAMESPACE|- [LIMIT [COOKIE]]  {"peers":[{"peer","addrs","namespace","ttl","seq"}],"cookie"};
//!                                         - is all namespaces, a LIMIT of 0 none, COOKIE the one of an earlier reply
//!
//! With --mdns it finds peers as service _p2p._udp.local on all interfaces but loopback, connects to them, and tells
//! {"event":"mdns","peer","addrs","connected","error"} once it is known whether that worked. go-libp2p doesn't
//! find it by itself: it overlooks answers without A or AAAA, which rust-libp2p doesn't send.

mod admission;
mod bytes;
mod commands;
mod control;
mod conversation;
mod discovery;
mod discovery_commands;
mod echo;
mod envelope;
mod forge;
mod frames;
mod gossip;
mod gossip_commands;
mod held;
mod hello;
mod host;
mod messages;
mod messages_commands;
mod node;
mod options;
#[cfg(test)]
mod pairs;
mod pattern;
mod perf;
mod ping;
#[cfg(test)]
mod pipe;
mod protobuf;
mod random;
mod router;
mod rpcs;
mod rules;
mod serving;
mod streams;
mod tap;
mod transports;
mod version;

use std::error::Error;

use crate::commands::Commands;
use crate::control::Output;
use crate::options::Options;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(2);
        }
    };
    let output = Output::default();
    let (node, listening) = node::start(&options, &output).await?;
    let commands = Commands::new(node, options.timeout);
    match &options.control {
        Some(addr) => control::serve(addr, &listening, &commands, &output).await?,
        None => control::run(&commands, &output).await,
    }
    Ok(())
}
