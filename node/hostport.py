"""`HOST:PORT`, where the HTTP API is, and whether that is this machine alone; multiaddrs. Rules without I/O."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

OFF = "off"
MAX_PORT = 65535


@dataclass(frozen=True)
class Address:
    """Where to listen: an IP address, and a port, 0 for a free one."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def everywhere(self) -> bool:
        """Whether it stands for all of the machine's addresses."""
        return ipaddress.ip_address(self.host).is_unspecified

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address | None:
    """What a setting says; None for "off". `localhost` is 127.0.0.1. Raises ValueError."""
    if text == OFF:
        return None
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if host == "localhost":
        host = "127.0.0.1"
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        colon = ""
    if not colon or not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > MAX_PORT:
        raise ValueError(f'expected "off" or HOST:PORT such as 127.0.0.1:4780 or [::1]:4780, got {text!r}')
    return Address(str(ip), int(port))


def as_multiaddr(host: str, port: int = 0, over: str = "udp") -> str:
    """The address of a stranger of whom no more is known, as logs show it; without a port, of its host alone.

    What is no IP address ("unknown") is shown as it is.
    """
    host = host.partition("%")[0]
    try:
        known = f"/ip{ipaddress.ip_address(host).version}/{host}"
    except ValueError:
        return host
    return f"{known}/{over}/{port}" if port else known
