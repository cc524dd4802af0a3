"""What all QUIC connections of a node share: who it is, and what a peer may do."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass

from qh3.quic.configuration import QuicConfiguration
from qh3.quic.packet import QuicProtocolVersion

from node.quic.mutual import SIGNATURES
from node.quic.packets import CID_LENGTH
from node.upgrade.certificate import Credentials

ALPN = "libp2p"
MAX_DATAGRAM = 1200  # what every path carries, and what is sent at first; paths that carry more are found out
INITIAL_RTT = 0.1


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a peer may do; `stream_window` and `window` are bytes that it may send ahead."""

    streams: int = 512
    stream_window: int = 4 << 20
    window: int = 8 << 20
    idle_timeout: float = 30.0


class Configurations:
    """The two configurations of a node, made once. With `reset_key` a client is told of a restart."""

    def __init__(self, credentials: Credentials, limits: Limits, reset_key: bytes | None = None) -> None:
        self.limits = limits
        self.reset_key = reset_key or os.urandom(32)
        self.client, self.server = (self._make(credentials, is_client=is_client) for is_client in (True, False))

    def _make(self, credentials: Credentials, *, is_client: bool) -> QuicConfiguration:
        limits = self.limits
        configuration = QuicConfiguration(
            alpn_protocols=[ALPN],
            connection_id_length=CID_LENGTH,
            idle_timeout=limits.idle_timeout,
            is_client=is_client,
            max_data=limits.window,
            max_stream_data=limits.stream_window,
            max_datagram_size=MAX_DATAGRAM,
            verify_mode=ssl.CERT_NONE,  # no authority signs them: `verify` looks
            signature_algorithms=[int(algorithm) for algorithm in SIGNATURES],
            initial_rtt=INITIAL_RTT,
            supported_versions=[QuicProtocolVersion.VERSION_1],
        )
        configuration.load_cert_chain(credentials.certificate, credentials.key)
        return configuration
