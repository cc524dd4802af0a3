//! /vouch/echo/1.0.0: frames sent back one by one, until the end.

use futures::io::BufReader;
use futures::{AsyncRead, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;

use crate::frames;

pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/vouch/echo/1.0.0");

const MAX_FRAME: usize = 64 << 10;

/// Sends each frame back, until the end.
pub async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        match frames::read(&mut stream, MAX_FRAME).await {
            Ok(frame) => frames::write(&mut stream, &frame).await?,
            Err(frames::Error::End) => return stream.close().await,
            Err(error) => return Err(std::io::Error::other(String::from(error))),
        }
    }
}

/// Sends one frame, and checks that it comes back.
pub async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    payload: &[u8],
) -> Result<(), String> {
    let sent = frames::write(stream, payload).await;
    sent.map_err(|error| error.to_string())?;
    match frames::read(stream, MAX_FRAME).await? {
        frame if frame == payload => Ok(()),
        frame => Err(format!(
            "expected the {} bytes sent to come back, got {} others",
            payload.len(),
            frame.len()
        )),
    }
}
