//! The Rust peer of the interop tests: a plain rust-libp2p host, driven through standard input. It knows no admission
//! handshake.
//!
//! It prints one JSON object a line: first {"event":"listening",…}, then one {"reply":COMMAND,"ok":…} for each
//! command, in order, and events (disconnected, perf) as they happen. Errors before that go to standard error. It ends
//! with its input. Muxer, security and TCP are as rust-libp2p sets them up by default, unless --max-streams is given.
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

mod bytes;
mod commands;
mod control;
mod gossip;
mod gossip_commands;
mod node;
mod options;
mod pattern;
mod perf;
mod ping;
mod random;
mod router;
mod rpcs;
mod streams;
mod tap;
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
    let node = node::start(&options, &output).await?;
    let commands = Commands::new(node, options.timeout);
    control::run(&commands, &output).await;
    Ok(())
}
