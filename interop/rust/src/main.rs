//! The Rust peer of the interop tests: a plain rust-libp2p host, driven through standard input. It knows no admission
//! handshake.
//!
//! It prints one JSON object a line: first {"event":"listening",…}, then one {"reply":COMMAND,"ok":…} for each
//! command, in order, and events (disconnected, perf) as they happen. Errors before that go to standard error. It ends
//! with its input. Muxer, security and TCP are as rust-libp2p sets them up by default, unless --max-streams is given.

mod bytes;
mod commands;
mod control;
mod node;
mod options;
mod pattern;
mod perf;
mod ping;
mod streams;

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
