"""Content identifiers, as far as Kademlia needs them: what is provided goes by the multihash in its CID.

    CIDv0   Qm…                       the multihash itself, in base58
    CIDv1   multibase of  1, codec, multihash        b… base32, z… base58, f… base16, u… and m… base64

Source: github.com/multiformats/cid, multihash and multibase.
"""

from __future__ import annotations

import base64

import base58

from protocols.errors import ProtocolError
from protocols.framing import VarintDecoder

# go-libp2p-kad-dht takes no longer key of a provider
MAX_KEY = 80
EXPECTED = "expected a CID such as bafkrei… or Qm…"


def multihash_of(cid: str) -> bytes:
    """The multihash in a CID's text. Raises ValueError."""
    try:
        data = _bytes_of(cid)
    except ValueError as error:
        raise ValueError(f"{EXPECTED}, got {cid!r}: {error}") from None
    key = provider_key(data)
    if key is data and not _is_multihash(data):
        raise ValueError(f"{EXPECTED}, got {cid!r}")
    return key


def provider_key(data: bytes) -> bytes:
    """What goes on the wire for a key or a CID in bytes: of a CIDv1 its multihash, else the bytes as they are.

    Raises ValueError for none, or too many.
    """
    if data[:1] == b"\x01":
        _, rest = _uvarint(data[1:])
        if rest is not None and _is_multihash(rest):
            data = rest
    if not 0 < len(data) <= MAX_KEY:
        raise ValueError(f"expected a key of 1 to {MAX_KEY} bytes, got {len(data)}")
    return data


def _bytes_of(cid: str) -> bytes:
    if not cid.isascii() or len(cid) > 4 * MAX_KEY:
        raise ValueError("it has other characters, or too many")
    if cid.startswith("Qm"):
        return base58.b58decode(cid)
    base, text = cid[:1], cid[1:]
    match base:
        case "b":
            return base64.b32decode(text.upper() + "=" * (-len(text) % 8))
        case "z":
            return base58.b58decode(text)
        case "f":
            return bytes.fromhex(text)
        case "u" | "m":
            return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_" if base == "u" else None)
    raise ValueError("its base is unknown")


def _is_multihash(data: bytes) -> bool:
    code, rest = _uvarint(data)
    if code is None or rest is None:
        return False
    length, digest = _uvarint(rest)
    return length is not None and digest is not None and len(digest) == length and length > 0


def _uvarint(data: bytes) -> tuple[int | None, bytes | None]:
    decoder = VarintDecoder()
    try:
        for index, byte in enumerate(data):
            value = decoder.feed(byte)
            if value is not None:
                return value, data[index + 1 :]
    except ProtocolError:
        pass
    return None, None
