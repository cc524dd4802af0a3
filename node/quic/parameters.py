"""What qh3's core and the peer are told of a connection: limits and transport parameters, in place of qh3's own."""

from __future__ import annotations

from typing import Any

from qh3._hazmat import Buffer, QuicConnectionCore
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.packet import (
    QuicTransportParameters,
    pull_quic_transport_parameters,
    push_quic_transport_parameters,
)
from qh3.quic.tls_bridge import QuicTlsBridge

from node.quic.configurations import MAX_DATAGRAM, Limits

MAX_ACK_DELAY = 0.025
ACK_DELAY_EXPONENT = 3


def core(
    configuration: QuicConfiguration,
    limits: Limits,
    *,
    remote_addr: tuple[Any, ...],
    version: int,
    source: bytes,
    destination: bytes,
    is_proven: bool,
    now: float,
) -> QuicConnectionCore:
    """A new core; `is_proven` says that the peer is where it says."""
    return QuicConnectionCore(
        is_client=configuration.is_client,
        version=version,
        local_addr=("0.0.0.0", 0),
        remote_addr=remote_addr,
        source_cid=source,
        destination_cid=destination,
        peer_address_validated=is_proven,
        active_connection_id_limit=2 if configuration.is_client else 8,
        max_datagram_size=configuration.max_datagram_size,
        probe_datagram_size=True,
        idle_timeout=limits.idle_timeout,
        ack_delay_exponent=ACK_DELAY_EXPONENT,
        max_datagram_frame_size=None,
        peer_max_datagram_frame_size=None,
        connection_receive_window=limits.window,
        connection_send_limit=0,
        stream_receive_window=limits.stream_window,
        stream_send_limit_bidi_local=0,
        stream_send_limit_bidi_remote=0,
        stream_send_limit_uni=0,
        max_stream_reassembly=limits.stream_window,
        local_max_streams_bidi=limits.streams,
        local_max_streams_uni=0,
        peer_max_streams_bidi=0,
        peer_max_streams_uni=0,
        initial_rtt=configuration.initial_rtt,
        max_ack_delay=MAX_ACK_DELAY,
        initial_time=now,
    )


def ours(bridge: QuicTlsBridge, limits: Limits) -> bytes:
    """qh3's transport parameters with our limits, and without what only a browser says."""
    parameters = pull_quic_transport_parameters(Buffer(data=bridge.serialize_transport_parameters()))
    parameters.initial_max_streams_bidi = limits.streams
    parameters.initial_max_streams_uni = 0
    parameters.max_datagram_frame_size = None
    parameters.max_udp_payload_size = None
    parameters.google_connection_options = None
    parameters.initial_rtt = None
    parameters.greased_transport_parameter = None
    buffer = Buffer(capacity=1024)
    push_quic_transport_parameters(buffer, parameters)
    return bytes(buffer.data)


def narrow(core: QuicConnectionCore, theirs: QuicTransportParameters | None) -> None:
    """Has the core send what every path carries from now on: it takes that for the peer's wish."""
    if theirs is None:
        return
    core.apply_peer_transport_parameters(
        theirs.initial_max_data or 0,
        theirs.initial_max_stream_data_bidi_local or 0,
        theirs.initial_max_stream_data_bidi_remote or 0,
        theirs.initial_max_stream_data_uni or 0,
        theirs.initial_max_streams_bidi or 0,
        theirs.initial_max_streams_uni or 0,
        ACK_DELAY_EXPONENT if theirs.ack_delay_exponent is None else theirs.ack_delay_exponent,
        MAX_ACK_DELAY if theirs.max_ack_delay is None else theirs.max_ack_delay / 1000,
        theirs.max_idle_timeout / 1000 if theirs.max_idle_timeout else None,
        None,
        theirs.stateless_reset_token,
        theirs.active_connection_id_limit or 2,
        bool(theirs.disable_active_migration),
        MAX_DATAGRAM,
    )
