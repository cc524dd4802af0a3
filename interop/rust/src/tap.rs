//! Counts gossipsub's RPCs on the wire: the library tells of neither those that it sends nor those that it receives.
//! It sits between the muxer and the library, and reads along what the opener of each stream says.

use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use serde_json::Value;

use crate::rpcs::{Counts, Meter};

/// What came, and what was sent. Clones share it.
#[derive(Clone, Default)]
pub struct Tap {
    received: Arc<Counts>,
    sent: Arc<Counts>,
}

impl Tap {
    /// The counts of received and of sent RPCs.
    pub fn counts(&self) -> (Value, Value) {
        (self.received.json(), self.sent.json())
    }
}

/// A muxer whose streams are tapped.
pub struct Muxer<M> {
    muxer: M,
    tap: Tap,
}

impl<M> Muxer<M> {
    pub fn new(muxer: M, tap: Tap) -> Self {
        Self { muxer, tap }
    }
}

impl<M> StreamMuxer for Muxer<M>
where
    M: StreamMuxer<Substream: Unpin> + Unpin,
{
    type Substream = Tapped<M::Substream>;
    type Error = M::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let meter = Some(Meter::new(self.tap.received.clone()));
        Pin::new(&mut self.muxer)
            .poll_inbound(cx)
            .map_ok(|stream| Tapped {
                stream,
                reads: meter,
                writes: None,
            })
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        let meter = Some(Meter::new(self.tap.sent.clone()));
        Pin::new(&mut self.muxer)
            .poll_outbound(cx)
            .map_ok(|stream| Tapped {
                stream,
                reads: None,
                writes: meter,
            })
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.muxer).poll_close(cx)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        Pin::new(&mut self.muxer).poll(cx)
    }
}

/// A stream that is read along with, in the direction in which it has a meter.
pub struct Tapped<S> {
    stream: S,
    reads: Option<Meter>,
    writes: Option<Meter>,
}

/// Feeds `count` bytes out of some buffers, and takes the meter away when it wants no more.
fn feed<'a>(meter: &mut Option<Meter>, buffers: impl Iterator<Item = &'a [u8]>, mut count: usize) {
    if meter.is_none() {
        return;
    }
    for buffer in buffers {
        let part = &buffer[..count.min(buffer.len())];
        count -= part.len();
        if let Some(on) = meter
            && !on.feed(part)
        {
            *meter = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Poll::Ready(Ok(count)) = polled {
            feed(&mut self.reads, std::iter::once(&*buffer), count);
        }
        polled
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_read_vectored(cx, buffers);
        if let Poll::Ready(Ok(count)) = polled {
            feed(
                &mut self.reads,
                buffers.iter().map(|buffer| &**buffer),
                count,
            );
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buffer);
        if let Poll::Ready(Ok(count)) = polled {
            feed(&mut self.writes, std::iter::once(buffer), count);
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        if let Poll::Ready(Ok(count)) = polled {
            feed(
                &mut self.writes,
                buffers.iter().map(|buffer| &**buffer),
                count,
            );
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
