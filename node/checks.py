"""What single settings must be, beyond their types: addresses. Each raises SettingError naming the setting."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from node.hostport import parse_address
from node.setting import SettingError


def check_multiaddr(name: str, address: str, *, with_peer: bool = False) -> None:
    from multiaddr import Multiaddr  # with what it imports for the first address, 80 ms
    from multiaddr.exceptions import Error

    expected = "a multiaddr that ends in /p2p/PEERID" if with_peer else "a multiaddr like /ip4/0.0.0.0/tcp/4001"
    try:
        # The library takes "", "/" and surrounding white space for addresses.
        protocols = list(Multiaddr(address).protocols()) if re.fullmatch(r"/\S+", address) else []
    except (Error, ValueError, LookupError) as error:
        raise SettingError(f"expected {expected}, got {address!r}", name) from error
    if not protocols or (with_peer and protocols[-1].name != "p2p"):
        raise SettingError(f"expected {expected}, got {address!r}", name)


def check_ip(name: str, text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise SettingError(f"expected an IP address, got {text!r}", name) from None


def check_api(text: str, cert: Path | None, key: Path | None) -> None:
    """Where the HTTP API listens: beyond this machine only with TLS."""
    try:
        address = parse_address(text)
    except ValueError as error:
        raise SettingError(str(error), "api") from None
    if address is not None and not address.loopback and cert is None:
        expected = "an address of this machine alone such as 127.0.0.1:4780, or api_cert for TLS"
        raise SettingError(f"expected {expected}, got {text!r} without", "api", "api_cert")
    if key is not None and cert is None:
        raise SettingError("expected api_cert with it, got none", "api_key", "api_cert")
