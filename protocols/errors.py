"""What can go wrong on a stream, and whose fault it is."""

from __future__ import annotations


class ProtocolError(Exception):
    """The peer broke the protocol's rules. It costs the peer its stream, or its connection where the rules say so."""


class FrameTooLargeError(ProtocolError):
    """The peer announced a frame over the protocol's bound."""


class StreamError(Exception):
    """The stream can't go on. Nobody's fault by itself: networks fail."""


class StreamReset(StreamError):
    """The peer gave the stream up, or the connection under it is gone."""


class StreamTimeout(StreamError):
    """The peer sent or took nothing for the protocol's `timeout`."""


class EndOfStream(StreamError):
    """The peer has sent all it wanted to send, and closed its side properly."""


class NotConnected(StreamError):
    """There is no admitted connection to the peer."""


class NotSupported(StreamError):
    """The peer doesn't answer this protocol."""
