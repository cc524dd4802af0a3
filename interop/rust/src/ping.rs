//! /ipfs/ping/1.0.0 on raw streams: 32 bytes go out, the same 32 come back
//! (https://github.com/libp2p/specs/tree/master/ping). libp2p's own behaviour pings when it wants to, not when asked.

use std::io;
use std::time::Instant;

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::{Stream, StreamProtocol};

pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/ping/1.0.0");

const SIZE: usize = 32;

/// Sends back what comes, until the end.
pub async fn serve(mut stream: Stream) -> io::Result<()> {
    let mut payload = [0; SIZE];
    loop {
        match stream.read_exact(&mut payload).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            read => read?,
        }
        stream.write_all(&payload).await?;
        stream.flush().await?;
    }
    stream.close().await
}

/// The round-trip times of `count` pings on one stream, in microseconds.
pub async fn measure(mut stream: Stream, count: u64) -> Result<Vec<f64>, String> {
    let mut times = Vec::new();
    for number in 0..count {
        let mut payload = [0; SIZE];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        let mut echoed = [0; SIZE];
        let started = Instant::now();
        let round_trip = async {
            stream.write_all(&payload).await?;
            stream.flush().await?;
            stream.read_exact(&mut echoed).await
        };
        round_trip
            .await
            .map_err(|error| format!("ping {number}: {error}"))?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
        if echoed != payload {
            return Err(format!(
                "ping {number}: expected the bytes sent, got others"
            ));
        }
    }
    let _ = stream.close().await; // the times are there, whatever becomes of the stream
    Ok(times)
}
