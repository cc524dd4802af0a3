//! Finds gossipsub's RPCs in what the opener of a stream says, and counts what is in them.
//!
//! ```text
//! /multistream/1.0.0 ── a protocol ──┬─ meshsub or floodsub ── RPCs: each is counted
//!                                    └─ any other ── not looked at any further
//! ```
//!
//! All are frames with a varint length. A line of multistream starts with a slash, which no RPC does: it would be a
//! field of a type that there isn't.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use crate::protobuf::{Fields, Value, varint};

/// What is longer than this is refused by the library too.
const MAX_FRAME: u64 = 2 << 20;

/// Entries of RPCs: an IHAVE of a topic is one, whatever the number of its IDs.
#[derive(Default)]
pub struct Counts {
    graft: AtomicU64,
    prune: AtomicU64,
    ihave: AtomicU64,
    iwant: AtomicU64,
    idontwant: AtomicU64,
    messages: AtomicU64,
}

impl Counts {
    /// Counts an RPC; what isn't one is counted as far as it can be read.
    fn add(&self, rpc: &[u8]) {
        for (number, value) in Fields(rpc).map_while(Result::ok) {
            match (number, value) {
                (2, _) => bump(&self.messages),
                (3, Value::Bytes(control)) => {
                    for (number, _) in Fields(control).map_while(Result::ok) {
                        match number {
                            1 => bump(&self.ihave),
                            2 => bump(&self.iwant),
                            3 => bump(&self.graft),
                            4 => bump(&self.prune),
                            5 => bump(&self.idontwant),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// As a reply tells them.
    pub fn json(&self) -> serde_json::Value {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        json!({
            "graft": of(&self.graft),
            "prune": of(&self.prune),
            "ihave": of(&self.ihave),
            "iwant": of(&self.iwant),
            "idontwant": of(&self.idontwant),
            "messages": of(&self.messages),
        })
    }
}

fn bump(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// What a stream's opener says, frame by frame.
pub struct Meter {
    counts: Arc<Counts>,
    gossip: bool,
    partial: Vec<u8>,
}

impl Meter {
    pub fn new(counts: Arc<Counts>) -> Self {
        Self {
            counts,
            gossip: false,
            partial: Vec::new(),
        }
    }

    /// Takes the next bytes; whether it wants more.
    pub fn feed(&mut self, bytes: &[u8]) -> bool {
        let mut said = std::mem::take(&mut self.partial);
        said.extend_from_slice(bytes);
        let mut done = 0;
        while let Some((length, size)) = varint(&said[done..]) {
            if length > MAX_FRAME {
                return false;
            }
            let start = done + size;
            let Some(frame) = said.get(start..start + length as usize) else {
                break;
            };
            if !self.frame(frame) {
                return false;
            }
            done = start + frame.len();
        }
        said.drain(..done);
        self.partial = said;
        true
    }

    fn frame(&mut self, frame: &[u8]) -> bool {
        if frame.starts_with(b"/multistream/") {
            return true;
        }
        if frame.starts_with(b"/") {
            self.gossip = frame.starts_with(b"/meshsub/") || frame.starts_with(b"/floodsub/");
        } else if self.gossip {
            self.counts.add(frame);
        }
        self.gossip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> Vec<u8> {
        [&[bytes.len() as u8], bytes].concat()
    }

    /// An RPC with a subscription, two messages, an IHAVE, two GRAFTs and an IDONTWANT.
    const RPC: &[u8] = &[
        0x0a, 2, 8, 1, 0x12, 1, 0, 0x12, 0, 0x1a, 9, 0x0a, 1, 0, 0x1a, 0, 0x1a, 0, 0x2a, 0,
    ];

    #[test]
    fn counts_rpcs_however_they_are_cut() {
        let mut said = frame(b"/multistream/1.0.0\n");
        said.extend(frame(b"/meshsub/1.3.0\n"));
        said.extend(frame(b"/meshsub/1.2.0\n"));
        said.extend([frame(RPC), frame(b""), frame(RPC)].concat());
        for size in 1..said.len() {
            let counts = Arc::new(Counts::default());
            let mut meter = Meter::new(counts.clone());
            assert!(said.chunks(size).all(|part| meter.feed(part)));
            assert_eq!(
                counts.json(),
                json!({"graft": 4, "prune": 0, "ihave": 2, "iwant": 0, "idontwant": 2, "messages": 4})
            );
        }
    }

    #[test]
    fn leaves_other_streams_alone() {
        for line in [&b"/ipfs/ping/1.0.0\n"[..], b"na\n", RPC] {
            let mut meter = Meter::new(Arc::default());
            assert!(meter.feed(&frame(b"/multistream/1.0.0\n")));
            assert!(!meter.feed(&frame(line)));
        }
    }

    #[test]
    fn takes_any_bytes() {
        for end in 0..RPC.len() {
            Counts::default().add(&RPC[..end]);
        }
        Counts::default().add(&[0xff; 40]);
        assert!(!Meter::new(Arc::default()).feed(&[0xff, 0xff, 0xff, 0xff, 1]));
    }
}
