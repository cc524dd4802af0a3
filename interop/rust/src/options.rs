//! The flags: `--name VALUE` or `--name=VALUE`, and `--mdns`.

use std::time::Duration;

use libp2p::Multiaddr;

use crate::discovery::{self, Role};
use crate::router::{Mode, Settings};

const NAMES: [&str; 12] = [
    "--listen",
    "--agent",
    "--seed",
    "--control",
    "--timeout",
    "--max-streams",
    "--pubsub",
    "--gossip-param",
    "--flood-publish",
    "--kad",
    "--rendezvous",
    "--rendezvous-min-ttl",
];
/// The one that takes no value.
const MDNS: &str = "--mdns";

/// What can be set on this peer.
#[derive(Debug, PartialEq)]
pub struct Options {
    /// `--listen MULTIADDR`, repeatable.
    pub listen: Vec<Multiaddr>,
    /// `--agent TEXT`, sent in identify.
    pub agent: String,
    /// `--seed TEXT`: derive the identity from this instead of a random one.
    pub seed: Option<String>,
    /// `--control HOST:PORT`: take commands from who connects there, not from standard input.
    pub control: Option<String>,
    /// `--timeout SECONDS`: the bound of each command; `10` and `10s` are the same.
    pub timeout: Duration,
    /// `--max-streams N` on one connection. There is no way to set it and keep rust-libp2p's default muxer: with it,
    /// libp2p-yamux takes yamux 0.12, without it yamux 0.13 and its 512.
    pub max_streams: Option<usize>,
    /// `--pubsub signed|unsigned`, `--gossip-param NAME=VALUE` (repeatable), `--flood-publish on|off`: see main.rs.
    pub gossip: Settings,
    /// `--kad PREFIX`, `--rendezvous client|server`, `--rendezvous-min-ttl SECONDS`, `--mdns`: see main.rs.
    pub discovery: discovery::Settings,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            agent: "rust-interop/1.0.0".into(),
            seed: None,
            control: None,
            timeout: Duration::from_secs(10),
            max_streams: None,
            gossip: Settings::default(),
            discovery: discovery::Settings::default(),
        }
    }
}

impl Options {
    /// The options of a command line without its first word; the error says what was expected.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            if arg == MDNS {
                options.discovery.mdns = true;
                continue;
            }
            let (name, value) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (arg.as_str(), None),
            };
            if !NAMES.contains(&name) {
                return Err(format!("unexpected argument {arg:?}"));
            }
            let value = value
                .or_else(|| args.next())
                .ok_or_else(|| format!("{name}: expected a value"))?;
            let wrong = |expected: &str| format!("{name}: expected {expected}, got {value:?}");
            match name {
                "--listen" => options
                    .listen
                    .push(value.parse().map_err(|_| wrong("a multiaddr"))?),
                "--agent" => options.agent = value,
                "--seed" => options.seed = Some(value),
                "--control" => options.control = Some(value),
                "--pubsub" => {
                    options.gossip.mode = Some(match value.as_str() {
                        "signed" => Mode::Signed,
                        "unsigned" => Mode::Unsigned,
                        _ => return Err(wrong("signed or unsigned")),
                    });
                }
                "--gossip-param" => options.gossip.set(&value)?,
                "--flood-publish" => {
                    options.gossip.flood_publish = match value.as_str() {
                        "on" => true,
                        "off" => false,
                        _ => return Err(wrong("on or off")),
                    };
                }
                "--kad" => options.discovery.kad = Some(value),
                "--rendezvous" => {
                    options.discovery.rendezvous = Some(match value.as_str() {
                        "client" => Role::Client,
                        "server" => Role::Server,
                        _ => return Err(wrong("client or server")),
                    });
                }
                "--rendezvous-min-ttl" => {
                    let seconds = value.parse().map_err(|_| wrong("seconds"))?;
                    options.discovery.min_ttl = Some(seconds);
                }
                "--timeout" => {
                    let seconds = value.strip_suffix('s').unwrap_or(&value).parse();
                    options.timeout = seconds
                        .ok()
                        .filter(|seconds| *seconds > 0.0)
                        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                        .ok_or_else(|| wrong("seconds above 0"))?;
                }
                _ => {
                    let count = value.parse().ok().filter(|count| *count > 0);
                    options.max_streams = Some(count.ok_or_else(|| wrong("a number from 1"))?);
                }
            }
        }
        if options.listen.is_empty() {
            options
                .listen
                .push("/ip4/127.0.0.1/tcp/0".parse().expect("a multiaddr"));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, String> {
        Options::parse(args.iter().map(|arg| arg.to_string()))
    }

    #[test]
    fn takes_both_forms() {
        let options = parse(&[
            "--timeout=2.5s",
            "--max-streams",
            "1100",
            "--listen",
            "/ip4/127.0.0.2/tcp/0",
        ])
        .unwrap();
        assert_eq!(options.timeout, Duration::from_millis(2500));
        assert_eq!(options.max_streams, Some(1100));
        assert_eq!(options.listen, ["/ip4/127.0.0.2/tcp/0".parse().unwrap()]);
        assert_eq!(parse(&[]).unwrap().listen.len(), 1);
        let options = parse(&["--seed=a", "--control", "127.0.0.1:0"]).unwrap();
        assert_eq!(options.seed.as_deref(), Some("a"));
        assert_eq!(options.control.as_deref(), Some("127.0.0.1:0"));
        let gossip = parse(&[
            "--pubsub=signed",
            "--gossip-param=D=3",
            "--flood-publish",
            "on",
        ])
        .unwrap()
        .gossip;
        assert_eq!(
            (gossip.mode, gossip.flood_publish),
            (Some(Mode::Signed), true)
        );
    }

    #[test]
    fn discovery_is_asked_for() {
        assert!(!parse(&[]).unwrap().discovery.announces());
        let args = [
            "--mdns",
            "--kad=/vouch/a",
            "--rendezvous",
            "server",
            "--rendezvous-min-ttl=5",
        ];
        let discovery = parse(&args).unwrap().discovery;
        assert!(discovery.mdns && discovery.announces());
        assert_eq!(discovery.kad.as_deref(), Some("/vouch/a"));
        assert_eq!(
            (discovery.rendezvous, discovery.min_ttl),
            (Some(Role::Server), Some(5))
        );
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for args in [
            &["--frob=1"][..],
            &["listen"],
            &["--agent"],
            &["--timeout", "0"],
            &["--timeout", "-1"],
            &["--timeout", "inf"],
            &["--max-streams=0"],
            &["--listen", "localhost"],
            &["--pubsub", "on"],
            &["--flood-publish=yes"],
            &["--gossip-param", "frob=1"],
            &["--mdns=on"],
            &["--rendezvous=both"],
            &["--rendezvous-min-ttl=-1"],
        ] {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }
}
