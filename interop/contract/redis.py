"""As much of Redis as the suites' coordination takes: one connection, one command at a time (RESP 2).

    async with Redis.connect("127.0.0.1", 6379, within=180) as redis:
        await redis.push("a5b50d5e_listener_multiaddr", "/ip4/…")
        addr = await redis.wait_for("a5b50d5e_listener_multiaddr")

    command   *N CRLF and for each word  $LENGTH CRLF bytes CRLF
    answer    +text  -error  :number  $LENGTH bytes (-1: none)  *N answers (-1: none)

Left to the caller: keys, what is stored under them, and how long to wait in all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from interop.contract.failing import Failure

# the suites start Redis first, but its name may resolve before it listens
RETRY = 0.2
POLL = 0.05
COMMAND_TIMEOUT = 10.0
MAX_ANSWER = 4 << 20

Answer = str | int | list["Answer"] | None


class RedisError(Failure):
    """Redis answered with an error, with something else than expected, or not at all."""


class Redis:
    """A connection. Not for several tasks at once."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    @classmethod
    @asynccontextmanager
    async def connect(cls, host: str, port: int, *, within: float) -> AsyncIterator[Redis]:
        """Connects, trying again for `within` seconds. Raises RedisError."""
        deadline = trio.current_time() + within
        while True:
            try:
                with trio.move_on_at(deadline):
                    stream = await trio.open_tcp_stream(host, port)
                    break
                raise RedisError(f"expected Redis at {host}:{port}, got no answer within {within:g} s")
            except OSError as error:
                if trio.current_time() + RETRY > deadline:
                    raise RedisError(f"expected Redis at {host}:{port}: {error}") from error
                await trio.sleep(RETRY)
        async with stream:
            yield cls(stream)

    @property
    def own_ip(self) -> str:
        """The address by which this machine reaches Redis."""
        return str(self._stream.socket.getsockname()[0])

    async def command(self, *words: str) -> Answer:
        """One command and its answer. Raises RedisError."""
        encoded = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in map(str.encode, words))
        try:
            with trio.fail_after(COMMAND_TIMEOUT):
                await self._stream.send_all(b"*%d\r\n%s" % (len(words), encoded))
                return await self._answer()
        except trio.TooSlowError:
            raise RedisError(f"expected an answer to {words[0]} within {COMMAND_TIMEOUT:g} s, got none") from None
        except (trio.BrokenResourceError, ValueError) as error:
            raise RedisError(f"expected an answer to {words[0]}: {error}") from error

    async def set(self, key: str, value: str) -> None:
        """A plain value, for those who `GET` it."""
        await self.command("SET", key, value)

    async def push(self, key: str, value: str) -> None:
        """A list of one value, for those who `BLPOP` it. What was there before is gone."""
        await self.command("DEL", key)
        await self.command("RPUSH", key, value)

    async def wait_for(self, key: str) -> str:
        """The value, whether it was `SET` or `RPUSH`ed: the suites' programs do either. Waits for ever."""
        take = {"string": "GET", "list": "LPOP"}
        while True:
            # asked for its kind and not just got: `somebody_gets` is about those who only know GET
            kind = await self.kind_of(key)
            value = await self.command(take[kind], key) if kind in take else None
            if isinstance(value, str) and value:
                return value
            await trio.sleep(POLL)

    async def kind_of(self, key: str) -> str:
        """ "string", "list", or "none" for a key that isn't there."""
        return str(await self.command("TYPE", key))

    async def somebody_gets(self, within: int) -> bool:
        """Whether another client's last command was a `GET`, not longer than `within` seconds ago."""
        clients = str(await self.command("CLIENT", "LIST")).splitlines()
        fields = [dict(field.partition("=")[::2] for field in client.split()) for client in clients]
        return any(one.get("cmd") == "get" and int(one.get("idle", within + 1)) <= within for one in fields)

    # answers

    async def _answer(self) -> Answer:
        line = await self._line()
        kind, text = line[:1], line[1:]
        if kind == b"+":
            return text.decode()
        if kind == b"-":
            raise RedisError(f"Redis: {text.decode(errors='replace')}")
        if kind == b":":
            return int(text)
        if kind == b"$":
            length = int(text)
            return None if length < 0 else (await self._take(length + 2))[:-2].decode()
        if kind == b"*":
            return None if int(text) < 0 else [await self._answer() for _ in range(int(text))]
        raise ValueError(f"expected an answer that begins with one of +-:$*, got {line[:64]!r}")

    async def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            await self._more()
        return (await self._take(end + 2))[:-2]

    async def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._more()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _more(self) -> None:
        if len(self._buffer) > MAX_ANSWER:
            raise ValueError(f"more than {MAX_ANSWER} bytes")
        data = await self._stream.receive_some()
        if not data:
            raise ValueError("the connection has ended")
        self._buffer += data
