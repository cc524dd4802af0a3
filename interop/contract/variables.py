"""The environment of the transport and perf programs, checked.

unified-testing gives upper-case names and a TEST_KEY that separates tests on one Redis. The older harness of
test-plans, which unified-testing calls legacy, gives lower-case names and none: one Redis for each test, JSON results.

    unified-testing   test-plans             meaning
    IS_DIALER         is_dialer              true or false
    REDIS_ADDR        redis_addr             HOST:PORT, in test-plans redis:6379 unless given
    TEST_KEY                                 first part of the key in Redis; without it the key is listenerAddr
    TRANSPORT         transport              tcp, ws, wss or quic-v1
    SECURE_CHANNEL    security               noise or tls; not looked at where the transport has its own
    MUXER             muxer                  yamux; the same
    LISTENER_IP       ip                     what to listen on, 0.0.0.0 unless given
    TEST_TIMEOUT_SECS test_timeout_seconds   180 unless given
    DEBUG                                    true: everything is logged
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from interop.contract.failing import UnsupportedError

DEFAULT_TIMEOUT = 180.0
# the harnesses write this for what isn't set
NOT_SET = ("", "null")
LISTEN = {
    "tcp": "/{version}/{ip}/tcp/0",
    "ws": "/{version}/{ip}/tcp/0/ws",
    "wss": "/{version}/{ip}/tcp/0/tls/ws",
    "quic-v1": "/{version}/{ip}/udp/0/quic-v1",
}
STANDALONE = ("quic-v1",)
LEGACY_KEY = "listenerAddr"


@dataclass(frozen=True)
class Variables:
    """What one program of transport or perf is told. `security` is "" where the transport brings its own."""

    is_dialer: bool
    redis_host: str
    redis_port: int
    redis_key: str
    transport: str
    security: str
    listen: str
    timeout: float
    debug: bool
    legacy: bool

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Variables:
        """Raises UnsupportedError naming the variable, what was expected and what came."""
        legacy = "TRANSPORT" not in environ and "transport" in environ

        def get(name: str, old: str, default: str = "") -> str:
            value = environ.get(old if legacy else name, "")
            return default if value in NOT_SET else value

        host, port = parse_redis(get("REDIS_ADDR", "redis_addr", "redis:6379" if legacy else ""))
        key = get("TEST_KEY", "test_key")
        if not key and not legacy:
            raise UnsupportedError("TEST_KEY: expected the test's key, got none")
        transport = get("TRANSPORT", "transport")
        if transport not in LISTEN:
            raise UnsupportedError(f"TRANSPORT: expected one of {', '.join(LISTEN)}, got {transport!r}")
        security = ""
        if transport not in STANDALONE:
            security = one_of("SECURE_CHANNEL", get("SECURE_CHANNEL", "security"), "noise", "tls")
            one_of("MUXER", get("MUXER", "muxer"), "yamux")
        ip = get("LISTENER_IP", "ip", "0.0.0.0")
        return cls(
            is_dialer=boolean("IS_DIALER", get("IS_DIALER", "is_dialer")),
            redis_host=host,
            redis_port=port,
            redis_key=LEGACY_KEY if legacy else f"{key}_listener_multiaddr",
            transport=transport,
            security=security,
            listen=LISTEN[transport].format(version=_version(ip), ip=ip),
            timeout=seconds("TEST_TIMEOUT_SECS", get("TEST_TIMEOUT_SECS", "test_timeout_seconds")),
            debug=boolean("DEBUG", get("DEBUG", "debug", "false")),
            legacy=legacy,
        )


def parse_redis(text: str) -> tuple[str, int]:
    """HOST:PORT. Raises UnsupportedError."""
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise UnsupportedError(f"REDIS_ADDR: expected HOST:PORT, got {text!r}")
    return host.strip("[]"), int(port)


def boolean(name: str, text: str) -> bool:
    """true or false. Raises UnsupportedError."""
    return one_of(name, text.lower(), "true", "false") == "true"


def one_of(name: str, text: str, *allowed: str) -> str:
    """`text`, if it is allowed. Raises UnsupportedError."""
    if text not in allowed:
        raise UnsupportedError(f"{name}: expected {' or '.join(allowed)}, got {text!r}")
    return text


def seconds(name: str, text: str) -> float:
    """A time, DEFAULT_TIMEOUT if none is given. Raises UnsupportedError."""
    return count(name, text, int(DEFAULT_TIMEOUT), least=1)


def count(name: str, text: str, default: int, *, least: int = 0) -> int:
    """A decimal number, `default` if none is given. Raises UnsupportedError."""
    if text in NOT_SET:
        return default
    if not text.isdecimal() or int(text) < least:
        raise UnsupportedError(f"{name}: expected a number from {least} on, got {text!r}")
    return int(text)


def _version(ip: str) -> str:
    try:
        return f"ip{ipaddress.ip_address(ip).version}"
    except ValueError:
        raise UnsupportedError(f"LISTENER_IP: expected an IP address, got {ip!r}") from None
