//! A connection before it is admitted: the streams that the peer opens are met (the multistream header is answered, the
//! protocol that they name is read) and held, but for those of the handshake. None is opened for whoever owns it.
//!
//! ```text
//! the peer's stream ── met: header answered, protocol read ─┬─ handshake ─> poll_handshake
//!                                                           └─ any other ─> held ── admitted ─> the owner
//! ```
//!
//! When it is admitted it becomes the connection's muxer, and its owner is told all that was read from the held
//! streams as if nobody had. What a peer sends on them beyond that is bounded by the muxer's windows only.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox};

use crate::frames;
use crate::hello;

/// How many streams are held; the next is reset.
pub const MAX_HELD: usize = 16;

/// A line of multistream, with its end.
const MAX_LINE: usize = 1024;

const HEADER: &[u8] = b"/multistream/1.0.0\n";

/// The connection, its handshake's streams apart.
pub struct Held {
    muxer: StreamMuxerBox,
    meeting: FuturesUnordered<BoxFuture<'static, io::Result<Substream>>>,
    held: VecDeque<Substream>,
}

impl Held {
    pub fn new(muxer: StreamMuxerBox) -> Self {
        Self {
            muxer,
            meeting: FuturesUnordered::new(),
            held: VecDeque::new(),
        }
    }

    /// The next handshake stream that the peer has opened, which waits for its protocol to be echoed.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Substream>> {
        while self.muxer_mut().poll(cx)?.is_ready() {}
        while let Poll::Ready(stream) = self.muxer_mut().poll_inbound(cx)? {
            // one above the bound may be the handshake's
            if self.meeting.len() + self.held.len() <= MAX_HELD {
                self.meeting.push(meet(stream).boxed());
            }
        }
        while let Poll::Ready(Some(met)) = self.meeting.poll_next_unpin(cx) {
            match met {
                Ok(stream) if stream.named == hello::PROTOCOL.as_ref() => {
                    return Poll::Ready(Ok(stream));
                }
                Ok(stream) if self.held.len() < MAX_HELD => self.held.push_back(stream),
                Ok(_) | Err(_) => {} // dropped, and reset by that
            }
        }
        Poll::Pending
    }

    /// A stream of ours.
    pub fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<SubstreamBox>> {
        self.muxer_mut().poll_outbound(cx)
    }

    /// Resets all that is held, and closes the connection.
    pub async fn close(mut self) -> io::Result<()> {
        self.meeting.clear();
        self.held.clear();
        futures::future::poll_fn(|cx| self.muxer_mut().poll_close(cx)).await
    }

    fn muxer_mut(&mut self) -> Pin<&mut StreamMuxerBox> {
        Pin::new(&mut self.muxer)
    }
}

/// As it is once it has been admitted.
impl StreamMuxer for Held {
    type Substream = Substream;
    type Error = io::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        if let Some(stream) = self.held.pop_front() {
            return Poll::Ready(Ok(stream));
        }
        while let Poll::Ready(Some(met)) = self.meeting.poll_next_unpin(cx) {
            if let Ok(stream) = met {
                return Poll::Ready(Ok(stream));
            }
        }
        self.muxer_mut().poll_inbound(cx).map_ok(Substream::new)
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Substream>> {
        self.muxer_mut().poll_outbound(cx).map_ok(Substream::new)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.muxer_mut().poll_close(cx)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        self.muxer_mut().poll(cx)
    }
}

/// Answers the header, and reads the protocol that the stream is to speak.
async fn meet(mut stream: SubstreamBox) -> io::Result<Substream> {
    let header = line(&mut stream).await?;
    if header != HEADER {
        return Err(io::Error::other(format!("a header {header:?}")));
    }
    stream.write_all(&frames::framed(HEADER)).await?;
    stream.flush().await?;
    let named = line(&mut stream).await?;
    let mut unread = frames::framed(HEADER);
    unread.extend(frames::framed(&named));
    Ok(Substream {
        stream,
        named: String::from_utf8_lossy(named.trim_ascii_end()).into_owned(),
        unread,
        written: frames::framed(HEADER).len(),
    })
}

async fn line(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let read = frames::read(stream, MAX_LINE).await;
    read.map_err(|error| io::Error::other(String::from(error)))
}

/// Agrees with the peer to speak a protocol on a stream of ours.
pub async fn select(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    protocol: &str,
) -> io::Result<()> {
    let wanted = format!("{protocol}\n").into_bytes();
    let said = [frames::framed(HEADER), frames::framed(&wanted)].concat();
    stream.write_all(&said).await?;
    stream.flush().await?;
    for expected in [HEADER, &wanted] {
        let answer = line(stream).await?;
        if answer != expected {
            let shown = |line: &[u8]| line.trim_ascii_end().escape_ascii().to_string();
            return Err(io::Error::other(format!(
                "expected {}, got {}",
                shown(expected),
                shown(&answer)
            )));
        }
    }
    Ok(())
}

/// A stream from which something may have been read, and to which the header may have been written, already: what was
/// read is told again, and the header, when it is written, isn't sent twice.
pub struct Substream {
    stream: SubstreamBox,
    named: String,
    unread: Vec<u8>,
    written: usize,
}

impl Substream {
    fn new(stream: SubstreamBox) -> Self {
        Self {
            stream,
            named: String::new(),
            unread: Vec::new(),
            written: 0,
        }
    }

    /// Echoes the protocol that the peer has named: the stream then speaks it.
    pub async fn accept(mut self) -> io::Result<SubstreamBox> {
        let line = format!("{}\n", self.named);
        frames::write(&mut self.stream, line.as_bytes()).await?;
        Ok(self.stream)
    }
}

impl AsyncRead for Substream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = buffer.len().min(self.unread.len());
        buffer[..count].copy_from_slice(&self.unread[..count]);
        self.unread.drain(..count);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Substream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.written == 0 {
            return Pin::new(&mut self.stream).poll_write(cx, buffer);
        }
        let count = buffer.len().min(self.written);
        self.written -= count;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// Keeps a stream that has been closed here until its peer has ended it too, or for long enough: dropped before, it
/// would be reset, and what was sent on it last might be lost.
pub fn linger(mut stream: SubstreamBox, time: std::time::Duration) {
    tokio::spawn(async move {
        let ended = async { while stream.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {} };
        let _ = tokio::time::timeout(time, ended).await;
    });
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
    use libp2p::yamux;

    use super::*;
    use crate::pipe::pipe;

    /// A connection that is held, and the other side of it.
    async fn pair() -> (Held, StreamMuxerBox) {
        let (one, other) = pipe();
        let muxer = yamux::Config::default;
        let (one, other) = futures::join!(
            muxer().upgrade_inbound(one, "/yamux/1.0.0"),
            muxer().upgrade_outbound(other, "/yamux/1.0.0")
        );
        let held = Held::new(StreamMuxerBox::new(one.unwrap()));
        (held, StreamMuxerBox::new(other.unwrap()))
    }

    /// Drives the other side for good.
    fn drive(mut muxer: StreamMuxerBox) {
        tokio::spawn(poll_fn(move |cx| {
            while Pin::new(&mut muxer).poll(cx)?.is_ready() {}
            while Pin::new(&mut muxer).poll_inbound(cx)?.is_ready() {}
            Poll::<io::Result<()>>::Pending
        }));
    }

    /// Opens a stream and names a protocol.
    async fn speak(muxer: &mut StreamMuxerBox, protocol: &str) -> SubstreamBox {
        let mut stream = poll_fn(|cx| Pin::new(&mut *muxer).poll_outbound(cx))
            .await
            .unwrap();
        let line = format!("{protocol}\n").into_bytes();
        let said = [frames::framed(HEADER), frames::framed(&line)].concat();
        stream.write_all(&said).await.unwrap();
        stream
    }

    /// The held side goes on for a while; the handshake stream that came, if one did.
    async fn wait(held: &mut Held) -> Option<Substream> {
        let came = poll_fn(|cx| held.poll_handshake(cx));
        let came = tokio::time::timeout(Duration::from_millis(100), came).await;
        came.ok().map(Result::unwrap)
    }

    #[tokio::test]
    async fn only_the_handshake_gets_through() {
        let (mut held, mut muxer) = pair().await;
        let mut echo = speak(&mut muxer, "/vouch/echo/1.0.0").await;
        let mut shaking = speak(&mut muxer, hello::PROTOCOL.as_ref()).await;
        drive(muxer);
        let came = wait(&mut held).await.expect("the handshake's stream");
        assert!(wait(&mut held).await.is_none());
        assert_eq!(line(&mut shaking).await.unwrap(), HEADER);
        let mut accepted = came.accept().await.unwrap();
        assert!(wait(&mut held).await.is_none());
        assert_eq!(
            line(&mut shaking).await.unwrap(),
            b"/vouch/handshake/1.0.0\n"
        );
        accepted.write_all(b"x").await.unwrap();

        // of the other it has answered the header, and no more
        assert_eq!(line(&mut echo).await.unwrap(), HEADER);
        let silent = tokio::time::timeout(Duration::from_millis(100), line(&mut echo));
        futures::future::select(Box::pin(wait(&mut held)), Box::pin(silent)).await;

        // admitted: the owner negotiates as if nothing had been said
        echo.write_all(b"more").await.unwrap();
        let mut theirs = poll_fn(|cx| Pin::new(&mut held).poll_inbound(cx))
            .await
            .unwrap();
        tokio::spawn(poll_fn(move |cx| {
            Pin::new(&mut held).poll(cx).map(|_| ()) // it goes on
        }));
        let mut said = vec![0; 20 + 19 + 4];
        theirs.read_exact(&mut said).await.unwrap();
        assert_eq!(said, b"\x13/multistream/1.0.0\n\x12/vouch/echo/1.0.0\nmore");
        theirs.write_all(&frames::framed(HEADER)).await.unwrap();
        theirs.write_all(b"\x03na\n").await.unwrap();
        theirs.flush().await.unwrap();
        assert_eq!(line(&mut echo).await.unwrap(), b"na\n");
    }

    #[tokio::test]
    async fn so_many_are_held() {
        let (mut held, mut muxer) = pair().await;
        let mut streams = Vec::new();
        for _ in 0..MAX_HELD + 3 {
            streams.push(speak(&mut muxer, "/vouch/echo/1.0.0").await);
        }
        drive(muxer);
        assert!(wait(&mut held).await.is_none());
        assert_eq!(held.held.len(), MAX_HELD);
        assert!(held.meeting.is_empty());
        let closing = tokio::spawn(held.close());
        for stream in &mut streams {
            // those that were held have their header's answer to be read
            while stream.read(&mut [0; 64]).await.is_ok_and(|count| count > 0) {}
        }
        let _ = closing.await;
    }

    #[tokio::test]
    async fn what_is_no_multistream_is_reset() {
        let (mut held, mut muxer) = pair().await;
        let mut stream = poll_fn(|cx| Pin::new(&mut muxer).poll_outbound(cx))
            .await
            .unwrap();
        stream.write_all(b"\x05hello").await.unwrap();
        drive(muxer);
        assert!(wait(&mut held).await.is_none());
        assert!(held.held.is_empty() && held.meeting.is_empty());
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }
}
