"""WebSocket for the node: `/ip4/…/tcp/PORT/ws`, and over TLS `/tls/ws` or `/wss`, to listen on and to dial.

A port may be shared with TCP (`node.ports`). What is secured by TLS here is the road, not the peer: the peer proves who
it is within, as over TCP.
"""

from __future__ import annotations

from pathlib import Path

import trio
from libp2p.abc import IRawConnection
from libp2p.io.abc import ReadWriteCloser
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from multiaddr import Multiaddr

from node.ports import Kind, Opener, Ports, kind_of
from node.tcp_stream import BufferedTcpStream
from node.transport import Tcp
from node.websocket.contexts import Contexts
from node.websocket.session import Session
from node.websocket.stream import READ, WebSocketStream

SUFFIXES = {Kind.WS: "/ws", Kind.WSS: "/tls/ws"}


class WebSocket(Tcp):
    """Stands on the TCP transport, and on the same ports. The files are PEM: our certificate and its key, for listening
    on `/tls/ws`; whom to trust when dialling one, by default whom the system trusts, or without `check` anybody.
    """

    kinds = (Kind.WS, Kind.WSS)

    def __init__(
        self,
        ports: Ports | None = None,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        roots: Path | None = None,
        check: bool = True,
    ) -> None:
        super().__init__(ports)
        self._contexts = Contexts(certificate, key, roots, check=check)
        self._buffer = memoryview(bytearray(READ))

    def protocols(self) -> list[str]:
        return ["ws", "wss"]

    async def dial(self, maddr: Multiaddr) -> IRawConnection:
        kind = kind_of(maddr)
        assert kind is not None
        parts = str(maddr).split("/")
        host, port = parts[2], int(parts[4])
        sni = parts[7] if parts[5:7] == ["tls", "sni"] else None
        context = self._contexts.client() if kind is Kind.WSS else None
        raw = await super().dial(Multiaddr("/".join(parts[:5])))
        tcp = raw.stream  # type: ignore[attr-defined]
        stream = WebSocketStream(tcp, Session.client(host, port, context, sni, trio.current_time()), [], self._buffer)
        try:
            await stream.open()
        except BaseException:
            with trio.CancelScope(shield=True):
                await tcp.close()
            raise
        return RawConnection(stream, True, addresses=[maddr])

    def opener(self, kind: Kind) -> Opener:
        if kind is Kind.WSS:
            try:
                self._contexts.server()
            except (OSError, ValueError) as error:
                raise OpenConnectionError(f"can't listen on {SUFFIXES[kind]}: {error}") from error

        async def open_it(tcp: BufferedTcpStream) -> ReadWriteCloser:
            context = self._contexts.server() if kind is Kind.WSS else None
            addrs = [_with_suffix(tcp.get_remote_address(), kind)]
            stream = WebSocketStream(tcp, Session.server(context, trio.current_time()), addrs, self._buffer)
            await stream.open()
            return stream

        return open_it


def _with_suffix(remote: tuple[str, int] | None, kind: Kind) -> Multiaddr:
    host, port = remote or ("0.0.0.0", 0)
    host = host.partition("%")[0]
    return Multiaddr(f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}{SUFFIXES[kind]}")
