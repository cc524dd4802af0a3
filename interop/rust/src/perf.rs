//! /perf/1.0.0: how fast bytes go each way (https://github.com/libp2p/specs/blob/master/perf/perf.md).

use std::io;
use std::time::{Duration, Instant};

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{Stream, StreamProtocol};

pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/perf/1.0.0");

/// The most that is moved each way on one stream.
pub const MAX_BYTES: u64 = 16 << 30;

const BLOCK: usize = 64 << 10;

/// Takes an upload to its end, then sends as much as was asked for; how much that was, each way.
pub async fn serve(mut stream: Stream) -> io::Result<(u64, u64)> {
    let mut asked = [0; 8];
    stream.read_exact(&mut asked).await?;
    let asked = u64::from_be_bytes(asked);
    if asked > MAX_BYTES {
        return Err(io::Error::other("asked for more than is allowed"));
    }
    let received = discard(&mut stream, MAX_BYTES).await?;
    fill(&mut stream, asked).await?;
    stream.close().await?;
    Ok((received, asked))
}

/// How long each part took. The upload lasts until the first byte, or the end, of what comes back.
pub struct Times {
    pub upload: Duration,
    pub download: Duration,
}

/// Uploads and then downloads on one stream that is open.
pub async fn measure(stream: &mut Stream, up: u64, down: u64) -> io::Result<Times> {
    let started = Instant::now();
    stream.write_all(&down.to_be_bytes()).await?;
    fill(stream, up).await?;
    stream.close().await?;
    let mut block = vec![0; BLOCK];
    let first = stream.read(&mut block).await? as u64;
    let turned = Instant::now();
    let received = match first {
        0 => 0,
        _ => first + discard(stream, down.saturating_sub(first)).await?,
    };
    let ended = Instant::now();
    if received != down {
        let text = format!("expected the {down} bytes asked for, got {received} and the end");
        return Err(io::Error::other(text));
    }
    Ok(Times {
        upload: turned - started,
        download: ended - turned,
    })
}

/// Reads to the end and counts; fails soon after the bound.
async fn discard(stream: &mut (impl AsyncRead + Unpin), bound: u64) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut received = 0;
    loop {
        match stream.read(&mut block).await? {
            0 => return Ok(received),
            count => received += count as u64,
        }
        if received > bound {
            let text = format!("expected at most {bound} bytes, got more");
            return Err(io::Error::other(text));
        }
    }
}

/// Writes `count` zeros.
async fn fill(stream: &mut (impl AsyncWrite + Unpin), count: u64) -> io::Result<()> {
    let block = vec![0; BLOCK];
    let mut left = count;
    while left > 0 {
        let size = left.min(BLOCK as u64);
        stream.write_all(&block[..size as usize]).await?;
        left -= size;
    }
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use futures::io::Cursor;

    #[test]
    fn fills_and_counts() {
        let mut written = Cursor::new(Vec::new());
        block_on(fill(&mut written, 3 * BLOCK as u64 + 5)).unwrap();
        assert_eq!(written.get_ref().len(), 3 * BLOCK + 5);
        written.set_position(0);
        assert_eq!(
            block_on(discard(&mut written, MAX_BYTES)).unwrap(),
            3 * BLOCK as u64 + 5
        );
        written.set_position(0);
        assert!(block_on(discard(&mut written, BLOCK as u64)).is_err());
    }
}
