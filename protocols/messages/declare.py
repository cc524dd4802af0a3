"""`SubProtocol`: what the author of a sub-protocol declares, its bounds and its handlers.

    sync = SubProtocol("sync", max_payload=64 * 1024)

    @sync.on_request(type=GET)                    # answers with bytes, or a Reply
    async def get(request: Message) -> bytes: ...

    @sync.on_parts(type=LIST)                     # an answer in parts: an async generator
    async def entries(request: Message) -> AsyncIterator[bytes]: ...

    @sync.on_message                              # one way, whatever its type
    async def note(message: Message) -> None: ...

One-way messages of a peer are handled one at a time, in the order in which they were sent; requests side by side. A
declaration holds no state of a node, so many nodes of one process may share it.
"""

from __future__ import annotations

import typing
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from protocols.messages.wire import MAX_FRAME, MAX_OVERHEAD, Message, check_name
from protocols.rate import TokenBucket

MAX_PAYLOAD = MAX_FRAME - MAX_OVERHEAD


class Reply(typing.NamedTuple):
    """An answer with a type of its own."""

    payload: bytes
    type: int = 0


OnMessage = Callable[[Message], Awaitable[None]]
OnRequest = Callable[[Message], Awaitable[bytes | Reply]]
OnParts = Callable[[Message], AsyncIterator[bytes]]
H = typing.TypeVar("H", bound=Callable[..., typing.Any])


@dataclass(eq=False, kw_only=True)
class SubProtocol:
    """One sub-protocol and its bounds, which hold for each peer.

    name: 1 to 64 of a-z, 0-9, ".", "_", "-"; it runs on /vouch/msg/NAME/1.0.0.
    max_payload: bytes of the largest payload, either way; at most 2 MiB less 4 KiB for the rest of the message.
    timeout: seconds that a request waits for its answer unless its caller says otherwise; of an answer in parts, for
        each part.
    answer_timeout: seconds that a handler may take, of an answer in parts for each part; after them its request is
        answered with an error.
    stall_timeout: seconds that a peer may take nothing of what it is sent before its stream is reset.
    requests_in_flight: requests that one peer may have us work on at once, and we it. Ours wait their turn, its
        surplus isn't read; past `patience` it is refused.
    bytes_in_flight: bytes of the messages of one peer that are worked on or wait, beyond the first.
    parts_at_once: answers in parts that one peer may be sent at once.
    rate, burst: messages a second that are taken from one peer, and how many may come at once (by default a second's).
        The surplus isn't read. None is no limit.
    patience: seconds that a message may be kept waiting before it is refused: a request with an error, a one-way
        message is dropped and counted.
    """

    name: str = field(kw_only=False)
    max_payload: int = 1 << 20
    timeout: float = 10.0
    answer_timeout: float = 60.0
    stall_timeout: float = 30.0
    requests_in_flight: int = 64
    bytes_in_flight: int = 8 << 20
    parts_at_once: int = 8
    rate: float | None = 1000.0
    burst: float | None = None
    patience: float = 5.0
    messages: dict[int | None, OnMessage] = field(default_factory=dict, init=False, repr=False)
    requests: dict[int | None, OnRequest] = field(default_factory=dict, init=False, repr=False)
    parts: dict[int | None, OnParts] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is None and name in ("rate", "burst"):
                continue
            if value is None or value <= 0:
                raise ValueError(f"{self.name}: {name}: expected a number above 0, got {value}")
        if self.max_payload > MAX_PAYLOAD:
            raise ValueError(f"{self.name}: max_payload: expected at most {MAX_PAYLOAD}, got {self.max_payload}")
        if self.burst is not None and self.burst < 1:
            raise ValueError(f"{self.name}: burst: expected at least 1, or nothing would ever pass, got {self.burst}")

    @property
    def id(self) -> str:
        """The stream protocol that it runs on."""
        return f"/vouch/msg/{self.name}/1.0.0"

    @property
    def max_frame(self) -> int:
        """Bytes of the largest frame."""
        return self.max_payload + MAX_OVERHEAD

    @property
    def handled(self) -> bool:
        """Whether anything is: a sub-protocol without handlers is only for asking."""
        return bool(self.messages or self.requests or self.parts)

    def bucket(self, now: float) -> TokenBucket | None:
        """A new token bucket for one peer, if there is a limit."""
        if self.rate is None:
            return None
        return TokenBucket(self.rate, self.burst if self.burst is not None else max(1.0, self.rate), now)

    @typing.overload
    def on_message(self, handler: OnMessage, /, *, type: int | None = None) -> OnMessage: ...
    @typing.overload
    def on_message(self, /, *, type: int | None = None) -> Callable[[OnMessage], OnMessage]: ...
    def on_message(self, handler: OnMessage | None = None, /, *, type: int | None = None) -> typing.Any:
        """Names the function for one-way messages: of that type, or of all that have no other. Use as a decorator."""
        return self._register(self.messages, "on_message", handler, type)

    @typing.overload
    def on_request(self, handler: OnRequest, /, *, type: int | None = None) -> OnRequest: ...
    @typing.overload
    def on_request(self, /, *, type: int | None = None) -> Callable[[OnRequest], OnRequest]: ...
    def on_request(self, handler: OnRequest | None = None, /, *, type: int | None = None) -> typing.Any:
        """Names the function that answers requests, of that type or of all that have no other. What it raises is the
        answer: `RemoteError` at the caller, with the exception's text. Raise AnswerError where that is no fault.
        """
        return self._register(self.requests, "on_request", handler, type)

    @typing.overload
    def on_parts(self, handler: OnParts, /, *, type: int | None = None) -> OnParts: ...
    @typing.overload
    def on_parts(self, /, *, type: int | None = None) -> Callable[[OnParts], OnParts]: ...
    def on_parts(self, handler: OnParts | None = None, /, *, type: int | None = None) -> typing.Any:
        """Names the async generator that answers requests in parts. Parts without a byte aren't sent."""
        return self._register(self.parts, "on_parts", handler, type)

    def _register(self, table: dict[int | None, H], name: str, handler: H | None, type: int | None) -> typing.Any:
        def register(handler: H) -> H:
            others: list[typing.Any] = [self.parts, self.requests] if table is not self.messages else [self.messages]
            if any(type in other for other in others):
                what = "all types" if type is None else f"type {type}"
                raise ValueError(f"{self.name}: {name}: {what} has a handler already")
            table[type] = handler
            return handler

        return register if handler is None else register(handler)

    def __repr__(self) -> str:
        return f"SubProtocol({self.name!r})"


_POSITIVE = (
    "max_payload",
    "timeout",
    "answer_timeout",
    "stall_timeout",
    "requests_in_flight",
    "bytes_in_flight",
    "parts_at_once",
    "rate",
    "burst",
    "patience",
)
