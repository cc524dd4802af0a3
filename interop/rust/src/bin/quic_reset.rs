//! rust-libp2p can't reset a stream of QUIC: a stream that is dropped without having been closed is ended, where over
//! Yamux it is reset. The other side takes what was broken off for whole.
//!
//! Two transports in one process: one opens a stream and sends a byte, the other reads it and drops the stream. Exit
//! status 0: the first reads the end, which is the defect; 1: it is told of the reset; 2: something else went wrong.

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::core::muxing::StreamMuxerExt;
use libp2p::core::transport::{DialOpts, ListenerId, PortUse, TransportEvent};
use libp2p::core::{Endpoint, Transport};
use libp2p::{Multiaddr, identity::Keypair, quic};

const TIMEOUT: Duration = Duration::from_secs(30);

fn transport() -> quic::tokio::Transport {
    quic::tokio::Transport::new(quic::Config::new(&Keypair::generate_ed25519()))
}

/// What the opener of the stream reads: how many bytes, or that it was reset.
async fn show() -> Result<std::io::Result<usize>, Box<dyn Error + Send + Sync>> {
    let mut listening = transport();
    listening.listen_on(ListenerId::next(), "/ip4/127.0.0.1/udp/0/quic-v1".parse()?)?;
    let addr: Multiaddr = loop {
        let event = poll_fn(|cx| Pin::new(&mut listening).poll(cx)).await;
        if let TransportEvent::NewAddress { listen_addr, .. } = event {
            break listen_addr;
        }
    };
    tokio::spawn(async move {
        let mut listening = listening.boxed();
        while let Some(event) = listening.next().await {
            let TransportEvent::Incoming { upgrade, .. } = event else {
                continue;
            };
            if let Ok((_, mut muxer)) = upgrade.await
                && let Ok(mut stream) = poll_fn(|cx| muxer.poll_inbound_unpin(cx)).await
            {
                let _ = stream.read_exact(&mut [0]).await;
                drop(stream);
                // the connection stays
                tokio::time::sleep(TIMEOUT).await;
            }
        }
    });

    let mut dialling = transport();
    let opts = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    let (_, mut muxer) = dialling.dial(addr, opts)?.await?;
    let mut stream = poll_fn(|cx| muxer.poll_outbound_unpin(cx)).await?;
    stream.write_all(&[1]).await?;
    stream.flush().await?;
    Ok(stream.read(&mut [0]).await)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match tokio::time::timeout(TIMEOUT, show()).await {
        Ok(Ok(Ok(0))) => {
            println!("expected a reset, got the end");
            ExitCode::SUCCESS
        }
        Ok(Ok(read)) => {
            println!("not shown: {read:?}");
            ExitCode::FAILURE
        }
        failed => {
            eprintln!("not run: {failed:?}");
            ExitCode::from(2)
        }
    }
}
