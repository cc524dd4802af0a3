//! Tests of two whole peers in one process, over sockets on loopback: every transport and security.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::commands::Commands;
use crate::control::{Message, Output, Reply};
use crate::node;
use crate::options::Options;

const TIMEOUT: Duration = Duration::from_secs(10);

const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const WS: &str = "/ip4/127.0.0.1/tcp/0/ws";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

/// A peer, its commands and what it tells.
struct Peer {
    commands: Commands,
    told: mpsc::UnboundedReceiver<Value>,
    id: String,
    addr: String,
}

/// Each line that is written goes to a channel.
struct Lines(mpsc::UnboundedSender<Value>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(serde_json::from_slice(line)?);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Peer {
    async fn start(args: &[&str]) -> Self {
        let options = Options::parse(args.iter().map(|arg| arg.to_string())).unwrap();
        let (lines, told) = mpsc::unbounded_channel();
        let output = Output::new(Lines(lines));
        let (node, listening) = node::start(&options, &output).await.unwrap();
        Self {
            commands: Commands::new(node, TIMEOUT),
            told,
            id: listening["peer"].as_str().unwrap().into(),
            addr: listening["addrs"][0].as_str().unwrap().into(),
        }
    }

    async fn run(&self, line: &str) -> Reply {
        let words: Vec<_> = line.split(' ').collect();
        self.commands.run(words[0], &words[1..]).await
    }

    async fn call(&self, line: &str) -> Message {
        let reply = self.run(line).await;
        reply.unwrap_or_else(|failure| panic!("{line}: {}", failure.text))
    }

    async fn fails(&self, line: &str) -> String {
        self.run(line).await.unwrap_err().text
    }

    /// The next event of that name; what comes before it is lost.
    async fn event(&mut self, name: &str) -> Value {
        let wanted = async {
            loop {
                let told = self.told.recv().await.unwrap();
                if told["event"] == name {
                    return told;
                }
            }
        };
        let wanted = tokio::time::timeout(TIMEOUT, wanted).await;
        wanted.unwrap_or_else(|_| panic!("expected the event {name}"))
    }

    fn tells_nothing_more(&mut self) {
        assert!(self.told.try_recv().is_err());
    }
}

async fn over(listen: &str, security: &str) {
    let args = ["--listen", listen, "--security", security];
    let (mut one, mut other) = (Peer::start(&args).await, Peer::start(&args).await);
    let connected = one.call(&format!("connect {}", other.addr)).await;
    let (total, admission) = (&connected["total_ms"], &connected["admission_ms"]);
    assert!(total.as_f64() >= admission.as_f64() && admission.as_f64() > Some(0.0));
    assert_eq!(one.event("admitted").await["direction"], "outbound");
    assert_eq!(other.event("admitted").await["peer"], *one.id);

    for (from, to) in [(&one, &other), (&other, &one)] {
        let to = &to.id;
        let said = from.call(&format!("identify {to}")).await;
        assert_eq!(said["agent"], "rust-interop/1.0.0");
        assert_eq!(said["signed_record"], true);
        assert!(
            said["protocols"]
                .as_array()
                .unwrap()
                .contains(&json!("/vouch/handshake/1.0.0"))
        );
        for line in [
            format!("ping {to} 2"),
            format!("echo {to} 300000 3"),
            format!("streams {to} 20 4"),
            format!("requests {to} 50 4"),
            format!("perf {to} 100000 100000 2"),
            format!("reset {to}"),
            format!("was-reset {to}"),
            format!("requests-reversed {to} 20"),
            format!("parts {to} 300 1"),
            format!("parts {to} 2 500000 interop-parts"),
        ] {
            from.call(&line).await;
        }
        let answer = from.call(&format!("request {to} 1 YWhveQ==")).await;
        assert_eq!(
            (&answer["type"], &answer["payload"]),
            (&json!(1), &json!("YWhveQ=="))
        );
        let error = from.fails(&format!("request {to} 3 YWhveQ==")).await;
        assert_eq!(error, "remote: no such thing: ahoy");
    }

    one.call(&format!("send {} 7 YWhveQ==", other.id)).await;
    let message = other.event("message").await;
    assert_eq!(
        (&message["type"], &message["payload"]),
        (&json!(7), &json!("YWhveQ=="))
    );
    one.call("push-identify").await;
    while !other.event("identified").await["protocols"]
        .as_array()
        .unwrap()
        .contains(&json!("/vouch/pushed/1.0.0"))
    {}
    one.call(&format!("disconnect {}", other.id)).await;
    other.event("disconnected").await;
    assert_eq!(other.call("peers").await["peers"], json!([]));
}

#[tokio::test]
async fn tcp_noise() {
    over(TCP, "noise").await;
}

#[tokio::test]
async fn tcp_tls() {
    over(TCP, "tls").await;
}

#[tokio::test]
async fn websocket_noise() {
    over(WS, "noise").await;
}

#[tokio::test]
async fn websocket_tls() {
    over(WS, "tls").await;
}

#[tokio::test]
async fn quic() {
    over(QUIC, "noise").await;
}

#[tokio::test]
async fn one_security_is_offered() {
    let one = Peer::start(&["--security=noise"]).await;
    let other = Peer::start(&["--security=tls"]).await;
    let failure = one
        .run(&format!("connect {}", other.addr))
        .await
        .unwrap_err();
    assert_eq!(failure.fields["stage"], "dial");
}

#[tokio::test]
async fn refused_by_either() {
    for listen in [TCP, WS, QUIC] {
        let mut one = Peer::start(&["--listen", listen, "--client-version=a/1.0.0"]).await;
        let mut stranger = Peer::start(&["--listen", listen, "--network-id=harbour"]).await;
        let mut strict = Peer::start(&["--listen", listen, "--min-version=a=1.0.1"]).await;

        let failure = one.run(&format!("connect {}", stranger.addr)).await;
        assert_eq!(failure.unwrap_err().fields["stage"], "admission");
        // a recipient that refuses says nothing
        let refused = one.event("refused").await;
        assert!(
            refused["reason"]
                .as_str()
                .unwrap()
                .starts_with("connection ended")
                || refused["reason"]
                    .as_str()
                    .unwrap()
                    .starts_with("not a Hello"),
            "{refused}"
        );
        one.event("disconnected").await;
        let refused = stranger.event("refused").await;
        assert_eq!(refused["peer"], *one.id);
        assert!(
            refused["reason"]
                .as_str()
                .unwrap()
                .starts_with("network ID")
        );

        let failure = strict
            .run(&format!("connect {}", one.addr))
            .await
            .unwrap_err();
        assert!(failure.text.starts_with("refused: client version too low"));
        strict.event("refused").await;
        // it admits first: the initiator's verdict comes after its own
        one.event("admitted").await;
        one.event("disconnected").await;
        for peer in [&one, &stranger, &strict] {
            assert_eq!(peer.call("peers").await["peers"], json!([]));
        }
        stranger.event("disconnected").await;
        stranger.tells_nothing_more();
    }
}

#[tokio::test]
async fn who_does_not_know_the_handshake() {
    let (mut one, mut plain) = (
        Peer::start(&[]).await,
        Peer::start(&["--handshake=false"]).await,
    );
    let error = one.fails(&format!("connect {}", plain.addr)).await;
    assert_eq!(error, "refused: expected /vouch/handshake/1.0.0, got na");
    plain.event("disconnected").await;
    plain.call(&format!("connect {}", one.addr)).await;
    // everything that it asks for is held until the deadline
    assert!(plain.run(&format!("ping {}", one.id)).await.is_err());
    one.event("refused").await;
    assert_eq!(
        one.event("refused").await["reason"],
        "not admitted within 5s"
    );
    plain.event("disconnected").await;

    let mut other = Peer::start(&["--handshake=false"]).await;
    plain.call(&format!("connect {}", other.addr)).await;
    let said = plain.call(&format!("identify {}", other.id)).await;
    assert!(
        !said["protocols"]
            .as_array()
            .unwrap()
            .contains(&json!("/vouch/handshake/1.0.0"))
    );
    other.call(&format!("ping {}", plain.id)).await;
    other.event("identified").await;
    other.tells_nothing_more();
}
