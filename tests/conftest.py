"""What holds for every test."""

from __future__ import annotations

import re

from hypothesis import settings

_PEER_ID = re.compile(r"12D3KooW\w{44}")
_LONG = 150

# how long an example takes on a busy machine says nothing about the rules that it tries
settings.register_profile("vouch", deadline=None)
settings.load_profile("vouch")


def pytest_make_parametrize_id(config, val):
    """A test has the same name in every run, whatever keys there are: bytes and long texts go by their number."""
    if isinstance(val, bytes) and (len(val) > 16 or not val.isascii() or not val.decode("ascii").isprintable()):
        return f"{len(val)} bytes"
    if isinstance(val, str) and len(val) > _LONG:
        return f"{len(val)} characters"
    if isinstance(val, str) and _PEER_ID.search(val):
        return _PEER_ID.sub("PEER", val)
    return None
