//! The flags: `--name VALUE` or `--name=VALUE`, and those without a value.

use std::collections::HashMap;
use std::time::Duration;

use libp2p::Multiaddr;

use crate::discovery::{self, Role};
use crate::hello::{Hello, Policy, is_name, is_version};
use crate::router::{Mode, Settings};
use crate::transports::Security;

const NAMES: [&str; 17] = [
    "--security",
    "--handshake",
    "--network-id",
    "--client-version",
    "--min-version",
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
/// Those that take no value.
const MDNS: &str = "--mdns";
const UNSIGNED: &str = "--unsigned";

const DEFAULT_NETWORK: &str = "vouch-local";
const DEFAULT_VERSION: &str = "rust-interop/1.0.0";

/// What can be set on this peer.
#[derive(Debug, PartialEq)]
pub struct Options {
    /// `--listen MULTIADDR`, repeatable: TCP, WebSocket or QUIC.
    pub listen: Vec<Multiaddr>,
    /// `--security noise|tls` over TCP and WebSocket.
    pub security: Security,
    /// `--network-id TEXT`, `--client-version NAME/N.N.N`, `--min-version NAME=N.N.N` (repeatable).
    pub policy: Policy,
    /// `--handshake=false`: a plain libp2p host that doesn't know the handshake.
    pub handshake: bool,
    /// `--unsigned`: messages have no signatures, and none are asked for.
    pub unsigned: bool,
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
            security: Security::default(),
            policy: Policy {
                own: Hello::new(DEFAULT_VERSION, DEFAULT_NETWORK.as_bytes()).expect("a Hello"),
                min_versions: HashMap::new(),
            },
            handshake: true,
            unsigned: false,
            agent: DEFAULT_VERSION.into(),
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
        let (mut network, mut version) = (DEFAULT_NETWORK.to_string(), DEFAULT_VERSION.to_string());
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            if arg == MDNS {
                options.discovery.mdns = true;
                continue;
            }
            if arg == UNSIGNED {
                options.unsigned = true;
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
                "--security" => {
                    options.security = match value.as_str() {
                        "noise" => Security::Noise,
                        "tls" => Security::Tls,
                        _ => return Err(wrong("noise or tls")),
                    };
                }
                "--handshake" => {
                    options.handshake = switch(&value, "true", "false").map_err(wrong)?
                }
                "--network-id" => network = value,
                "--client-version" => version = value,
                "--min-version" => {
                    let (name, lowest) = value
                        .split_once('=')
                        .filter(|(name, version)| is_name(name) && is_version(version))
                        .ok_or_else(|| wrong("NAME=N.N.N"))?;
                    let min_versions = &mut options.policy.min_versions;
                    min_versions.insert(name.into(), lowest.into());
                }
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
                    options.gossip.flood_publish = switch(&value, "on", "off").map_err(wrong)?;
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
        options.policy.own = Hello::new(&version, network.as_bytes())?;
        if options.listen.is_empty() {
            options
                .listen
                .push("/ip4/127.0.0.1/tcp/0".parse().expect("a multiaddr"));
        }
        Ok(options)
    }
}

fn switch<'a>(value: &str, on: &'a str, off: &'a str) -> Result<bool, &'a str> {
    match value {
        _ if value == on => Ok(true),
        _ if value == off => Ok(false),
        _ => Err(if on == "on" {
            "on or off"
        } else {
            "true or false"
        }),
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
    fn who_is_admitted() {
        let plain = parse(&["--handshake=false"]).unwrap();
        assert!(!plain.handshake && !plain.unsigned);
        let options = parse(&[
            "--network-id=harbour",
            "--client-version",
            "a/1.2.3",
            "--min-version=vouch=0.1.10",
            "--security=tls",
            "--unsigned",
        ])
        .unwrap();
        assert_eq!(
            options.policy.own,
            Hello::new("a/1.2.3", b"harbour").unwrap()
        );
        assert_eq!(options.policy.min_versions["vouch"], "0.1.10");
        assert_eq!(options.security, Security::Tls);
        assert!(options.handshake && options.unsigned);
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
            &["--handshake=no"],
            &["--security=plaintext"],
            &["--network-id="],
            &["--client-version=a"],
            &["--min-version=a=1"],
            &["--min-version=1.0.0"],
            &["--rendezvous=both"],
            &["--rendezvous-min-ttl=-1"],
        ] {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }
}
