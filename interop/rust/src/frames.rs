//! Frames: a varint length, then that many bytes.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::protobuf::{put_varint, varint};

/// Why there is no frame.
#[derive(Debug)]
pub enum Error {
    /// The stream has ended between frames.
    End,
    /// It is longer than allowed.
    TooLong(String),
    /// It has ended within one, or its length isn't one in its shortest form.
    Broken(String),
    Io(io::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::End => f.write_str("the stream has ended"),
            Self::TooLong(text) | Self::Broken(text) => f.write_str(text),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<Error> for String {
    fn from(error: Error) -> Self {
        error.to_string()
    }
}

/// Reads one frame of at most `bound` bytes, and not a byte behind it.
pub async fn read(stream: &mut (impl AsyncRead + Unpin), bound: usize) -> Result<Vec<u8>, Error> {
    let mut prefix = Vec::new();
    let length = loop {
        let mut byte = [0];
        match stream.read(&mut byte).await.map_err(Error::Io)? {
            0 if prefix.is_empty() => return Err(Error::End),
            0 => return Err(Error::Broken("the end within a length".into())),
            _ => prefix.push(byte[0]),
        }
        let last = prefix.len() - 1;
        if prefix[last] & 0x80 == 0 {
            let whole = varint(&prefix).filter(|_| last == 0 || prefix[last] != 0);
            let wrong = || Error::Broken(format!("expected a length, got {prefix:x?}"));
            break whole.ok_or_else(wrong)?.0;
        }
        if last >= 9 {
            return Err(Error::Broken(format!("expected a length, got {prefix:x?}")));
        }
    };
    if length > bound as u64 {
        let text = format!("a frame of {length} bytes, at most {bound} allowed");
        return Err(Error::TooLong(text));
    }
    let mut frame = vec![0; length as usize];
    match stream.read_exact(&mut frame).await {
        Ok(()) => Ok(frame),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::Broken(format!(
            "the end within a frame of {length} bytes"
        ))),
        Err(error) => Err(Error::Io(error)),
    }
}

/// Length and bytes.
pub fn framed(frame: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len() + 4);
    put_varint(&mut bytes, frame.len() as u64);
    bytes.extend_from_slice(frame);
    bytes
}

/// Writes one frame, with its length at once, so that they share a packet.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    stream.write_all(&framed(frame)).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    #[test]
    fn one_frame_and_nothing_behind_it() {
        let mut bytes = &b"\x03abcd"[..];
        assert_eq!(block_on(read(&mut bytes, 3)).unwrap(), b"abc");
        assert_eq!(bytes, b"d");
        assert!(matches!(block_on(read(&mut &b""[..], 3)), Err(Error::End)));
        assert_eq!(framed(&[7; 200])[..3], [0xc8, 1, 7]);
    }

    #[test]
    fn what_is_no_frame() {
        for bytes in [
            &b"\x03ab"[..],
            b"\x03",
            b"\x80",
            b"\x83\x00abc",
            &[0xff; 11],
        ] {
            let read = block_on(read(&mut &*bytes, 3));
            assert!(matches!(read, Err(Error::Broken(_))), "{bytes:x?}");
        }
        let read = block_on(read(&mut &b"\x04abcd"[..], 3));
        assert!(matches!(read, Err(Error::TooLong(_))));
    }
}
