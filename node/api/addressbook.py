"""What can be asked of a running node's address book: `addressbook`, all of it, and `addressbook_import`.

`Known` is also the form of a line of `vouch addressbook export`, which `read_entries` reads; so this works without a
node, and without libp2p for entries without signed records.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import base58
import msgspec
import trio.to_thread

from node.errors import UsageError
from node.peers.entry import (
    MAX_ADDR,
    MAX_ADDRS,
    MAX_PROTOCOLS,
    MAX_RECORD,
    MAX_TAGS,
    MAX_TEXT,
    Entry,
    KnownAddr,
    plain_addr,
)
from node.peers.record import record_seq
from protocols import ProtocolError

if TYPE_CHECKING:
    from node.node import Node

# bytes of a file to import: the largest entry, for as many peers as are remembered by default, is about as much
MAX_IMPORT = 64 << 20
IMPORT_PREFIX = ".import-"


class KnownAddress(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """An address without /p2p/PEER. Times in seconds since 1970, 0 for never; `failures` in a row."""

    addr: str
    source: str = ""
    last_success: float = 0.0
    last_failure: float = 0.0
    failures: int = 0


class Known(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What is known of a peer. `record`: its signed peer record, in base64 as JSON."""

    peer: str
    addrs: list[KnownAddress | str] = []
    last_seen: float = 0.0
    source: str = ""
    tags: list[str] = []
    agent: str = ""
    protocols: list[str] = []
    record: bytes | None = None


class AddressBookQuery(msgspec.Struct, forbid_unknown_fields=True):
    """No parameters."""


class KnownPeers(msgspec.Struct):
    """The address book, its best peers first."""

    peers: list[Known]


class ImportFile(msgspec.Struct, forbid_unknown_fields=True):
    """`file`: a name in the data directory that begins with IMPORT_PREFIX."""

    file: str


class Imported(msgspec.Struct):
    """How many of the file's entries are in the book now, and how many found no place."""

    imported: int
    left_out: int


async def addressbook(node: Node, _params: AddressBookQuery) -> KnownPeers:
    """All that is known of peers."""
    return KnownPeers(shown(node.addressbook.entries()))


async def addressbook_import(node: Node, params: ImportFile) -> Imported:
    """Joins a file's entries with the book: all that find a place, or none if one of them is wrong."""
    if not params.file.startswith(IMPORT_PREFIX) or "/" in params.file:
        raise UsageError(f"expected a file named {IMPORT_PREFIX}… in the data directory, got {params.file!r}")
    path = node.config.data_dir / params.file
    entries = await trio.to_thread.run_sync(_read_file, path)
    taken = node.addressbook.restore(entries)
    await node.addressbook.flush()
    return Imported(taken, len(entries) - taken)


def shown(entries: Iterable[Entry]) -> list[Known]:
    """Entries as they are exported: those that worked first, then by when they were last seen."""
    ordered = sorted(entries, key=lambda entry: (not entry.worked, -entry.last_seen, entry.peer))
    return [
        Known(
            peer=entry.peer,
            addrs=[KnownAddress(a.addr, a.source, a.last_success, a.last_failure, a.failures) for a in entry.addrs],
            last_seen=entry.last_seen,
            source=entry.source,
            tags=sorted(entry.tags),
            agent=entry.agent,
            protocols=list(entry.protocols),
            record=entry.record,
        )
        for entry in ordered
    ]


def read_entries(data: bytes) -> list[Entry]:
    """The entries of an export: lines of JSON, or one JSON document (a list, or an object with `peers`).

    Raises UsageError naming the line, or the entry of a document, that is wrong.
    """
    if len(data) > MAX_IMPORT:
        raise UsageError(f"expected at most {MAX_IMPORT} bytes of peers, got {len(data)}")
    lines = data.splitlines()
    first = next((line for line in lines if line.strip()), b"")
    if not first:
        return []
    if first.lstrip().startswith(b"[") or not _is_object(first) or b'"peers"' in first[:16]:
        return _document(data)
    entries = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            entries.append(_entry(line, f"line {number}"))
    return entries


def _document(data: bytes) -> list[Entry]:
    try:
        document = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"line 1: expected an object of a peer on each line, or one JSON document, got: {error}"
        ) from None
    peers = document.get("peers") if isinstance(document, dict) else document
    if not isinstance(peers, list):
        raise UsageError('expected a list of peers, or an object with "peers", got another JSON document')
    return [_entry(msgspec.json.encode(peer), f"peers[{number}]") for number, peer in enumerate(peers)]


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(line), dict)
    except (msgspec.DecodeError, RecursionError):
        return line.lstrip().startswith(b"{") and line.rstrip().endswith(b"}")


def _entry(data: bytes, where: str) -> Entry:
    try:
        known = msgspec.json.decode(data, type=Known)
        return _checked(known)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ProtocolError, UsageError) as error:
        raise UsageError(f"{where}: {error}") from None


def _checked(known: Known) -> Entry:
    """Raises UsageError, ProtocolError."""
    _check_peer_id(known.peer)
    for what, texts, most in (("tags", known.tags, MAX_TAGS), ("protocols", known.protocols, MAX_PROTOCOLS)):
        if len(texts) > most or any(len(text) > MAX_TEXT for text in texts):
            raise UsageError(f"expected at most {most} {what} of {MAX_TEXT} characters, got more")
    if len(known.addrs) > MAX_ADDRS:
        raise UsageError(f"expected at most {MAX_ADDRS} addresses, got {len(known.addrs)}")
    addrs: list[KnownAddr] = []
    for given in known.addrs:
        a = KnownAddress(given, "import") if isinstance(given, str) else given
        _check_times(a.last_success, a.last_failure)
        if not 0 <= a.failures < 1 << 31:
            raise UsageError(f"expected a number of failures, got {a.failures}")
        addrs.append(KnownAddr(_address(a.addr, known.peer), a.source, a.last_success, a.last_failure, a.failures))
    _check_times(known.last_seen)
    if known.record is not None:
        _check_record(known.record, known.peer)
    return Entry(
        peer=known.peer,
        addrs=tuple(addrs),
        last_seen=known.last_seen,
        record=known.record,
        protocols=tuple(known.protocols),
        agent=known.agent,
        tags=frozenset(known.tags),
        source=known.source or "import",
    )


def _check_peer_id(peer: str) -> None:
    try:
        data = base58.b58decode(peer)
    except ValueError:
        data = b""
    # the two hashes that peer IDs are made with: the key itself, and SHA-256 of it
    if not (data[:1] == b"\0" and 2 < len(data) == data[1] + 2 <= 44) and not (
        data[:2] == b"\x12\x20" and len(data) == 34
    ):
        raise UsageError(f"expected a peer ID such as 12D3KooW…, got {peer!r}")


def _address(text: str, peer: str) -> str:
    from multiaddr import Multiaddr  # 80 ms, which an import without addresses needn't spend

    addr = plain_addr(text, peer)
    try:
        if addr and list(Multiaddr(addr).protocols()):
            return addr
    except Exception as error:  # each of its codecs raises errors of its own
        raise UsageError(f"expected a multiaddr of {peer}, got {text[:MAX_ADDR]!r}: {error}") from None
    raise UsageError(f"expected a multiaddr of {peer}, got {text[:MAX_ADDR]!r}")


def _check_times(*times: float) -> None:
    for time in times:
        if not 0 <= time < math.inf:
            raise UsageError(f"expected seconds since 1970, got {time}")


def _check_record(record: bytes, peer: str) -> None:
    """Raises UsageError, ProtocolError unless it is the peer's own signed record."""
    from libp2p.peer.envelope import consume_envelope  # a second, which most imports needn't spend

    if len(record) > MAX_RECORD:
        raise UsageError(f"expected a signed peer record of at most {MAX_RECORD} bytes, got {len(record)}")
    record_seq(record, peer)
    try:
        envelope, _ = consume_envelope(record, "libp2p-peer-record")
        signer = str(_peer_of(envelope.public_key))
    except Exception as error:  # the library's errors for other people's bytes are of many kinds
        raise UsageError(f"expected a signed peer record, got one that doesn't hold: {error}") from None
    if signer != peer:
        raise UsageError(f"expected a record signed by {peer}, got one by {signer}")


def _peer_of(key: object) -> object:
    from libp2p.peer.id import ID

    return ID.from_pubkey(key)  # type: ignore[arg-type]


def _read_file(path: Path) -> list[Entry]:
    try:
        with path.open("rb") as file:
            return read_entries(file.read(MAX_IMPORT + 1))
    except OSError as error:
        raise UsageError(f"file {path}: expected to read it, got: {error.strerror}") from error
