//! /vouch/bytes/1.0.0, raw bytes sent back as they come, and /vouch/reset/1.0.0, which takes a byte and resets.
//!
//! A stream that is dropped before it is closed is reset, over Yamux; over QUIC rust-libp2p can only end it. What it reads
//! from a stream of Yamux that the other side has reset is an end like any other; only a write tells the two apart.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{Stream, StreamProtocol};

use crate::pattern::{BLOCK, Pattern};

pub const BYTES: StreamProtocol = StreamProtocol::new("/vouch/bytes/1.0.0");
pub const RESET: StreamProtocol = StreamProtocol::new("/vouch/reset/1.0.0");

/// Sends back what comes; reads no more while its writes wait. Ends its side after the peer's end.
pub async fn serve_bytes(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        match stream.read(&mut block).await? {
            0 => return stream.close().await,
            count => stream.write_all(&block[..count]).await?,
        }
        stream.flush().await?;
    }
}

/// Reads one byte, then resets.
pub async fn serve_reset(mut stream: Stream) -> io::Result<()> {
    stream.read_exact(&mut [0]).await
}

/// Sends `length` bytes of stream `k`'s pattern while it reads what comes back, and compares.
pub async fn echo(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    k: usize,
    length: u64,
) -> Result<(), String> {
    let pattern = Pattern::new(k, length);
    let (mut reader, mut writer) = stream.split();
    let send = async {
        let mut sent = 0;
        loop {
            let block = pattern.at(sent, BLOCK);
            if block.is_empty() {
                break;
            }
            writer.write_all(block).await?;
            sent += block.len() as u64;
        }
        writer.close().await
    };
    let receive = async {
        let mut received = 0;
        let mut block = vec![0; BLOCK];
        loop {
            match reader
                .read(&mut block)
                .await
                .map_err(|error| error.to_string())?
            {
                0 => break,
                count => {
                    pattern.check(received, &block[..count])?;
                    received += count as u64;
                }
            }
        }
        if received != length {
            return Err(format!(
                "expected {length} bytes, got {received} and the end"
            ));
        }
        Ok(())
    };
    let send = async { send.await.map_err(|error| error.to_string()) };
    futures::try_join!(send, receive)
        .map(|_| ())
        .map_err(|error| format!("stream {k}: {error}"))
}

/// Exchanges 1000 bytes on a stream and then resets it.
pub async fn reset_mine(mut stream: Stream) -> Result<(), String> {
    let pattern = Pattern::new(0, 1000);
    let sent = pattern.at(0, 1000);
    let mut echoed = vec![0; sent.len()];
    let exchange = async {
        stream.write_all(sent).await?;
        stream.flush().await?;
        stream.read_exact(&mut echoed).await
    };
    exchange.await.map_err(|error| error.to_string())?;
    pattern.check(0, &echoed)
}

/// Sends one byte, and expects to be reset for it.
pub async fn was_reset(mut stream: Stream) -> Result<(), String> {
    let ask = async {
        stream.write_all(&[1]).await?;
        stream.flush().await
    };
    ask.await.map_err(|error| error.to_string())?;
    match stream.read(&mut [0; 1]).await {
        Err(_) => Ok(()),
        Ok(1..) => Err("expected a reset, got a byte".into()),
        Ok(0) => match stream.write_all(&[2]).await {
            Err(_) => Ok(()),
            Ok(()) => Err("expected a reset, got the end".into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::io::Cursor;

    /// A stream that gives back what it was made of, and takes anything.
    struct Canned(Cursor<Vec<u8>>);

    impl AsyncRead for Canned {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
            buf: &mut [u8],
        ) -> std::task::Poll<io::Result<usize>> {
            std::pin::Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Canned {
        fn poll_write(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buf: &[u8],
        ) -> std::task::Poll<io::Result<usize>> {
            std::task::Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn poll_close(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn echo_takes_the_pattern_and_nothing_else() {
        let right = Pattern::new(7, 5000).at(0, 5000).to_vec();
        let answer = |bytes: Vec<u8>| block_on(echo(Canned(Cursor::new(bytes)), 7, 5000));
        assert_eq!(answer(right.clone()), Ok(()));
        let error = answer(right[..4999].to_vec()).unwrap_err();
        assert!(error.contains("got 4999 and the end"), "{error}");
        let error = answer([&right[..], &[0]].concat()).unwrap_err();
        assert!(error.contains("got more"), "{error}");
        let error = answer(vec![0; 5000]).unwrap_err();
        assert!(error.contains("offset 0"), "{error}");
    }
}
