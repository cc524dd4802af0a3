"""`vouch addressbook list|export|import`: of the running node, or without one, of the file in the data directory.

`export` writes a line of JSON for each peer (`node.api.addressbook.Known`), with `--json` one document; `import` reads
either. An import that is wrong anywhere changes nothing.
"""

from __future__ import annotations

import argparse
import secrets
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from node.api import addressbook as api
from node.api.client import Client, NoNodeError
from node.cli.parser import settings_from
from node.cli.shown import safe
from node.config import Config
from node.datadir import locked
from node.errors import UsageError, VouchError
from node.peers.book import Book
from node.peers.bookfile import BookFile
from node.peers.entry import Entry

T = TypeVar("T")


def show(args: argparse.Namespace) -> int:
    """Lists the peers that are known."""
    peers = _peers(settings_from(args).config)
    if args.json:
        _print(msgspec.json.encode(api.KnownPeers(peers)))
        return 0
    if not peers:
        print("no peers are known")
    for peer in peers:
        addrs = [a if isinstance(a, str) else a.addr for a in peer.addrs]
        worked = any(not isinstance(a, str) and a.last_success for a in peer.addrs)
        state = "worked" if worked else "seen" if peer.last_seen else "heard"
        seen = time.strftime("%Y-%m-%d %H:%M", time.localtime(peer.last_seen)) if peer.last_seen else "-"
        more = f" and {len(addrs) - 1} more" if len(addrs) > 1 else ""
        print(f"{peer.peer:52}  {state:6}  {seen:16}  {safe(peer.source):9}  {safe((addrs or ['-'])[0])}{more}")
    return 0


def export(args: argparse.Namespace) -> int:
    """Writes the peers that are known, for `import` to read."""
    peers = _peers(settings_from(args).config)
    if args.json:
        _print(msgspec.json.encode(api.KnownPeers(peers)))
    else:
        for peer in peers:
            _print(msgspec.json.encode(peer))
    return 0


def load(args: argparse.Namespace) -> int:
    """Joins exported peers with what is known."""
    config = settings_from(args).config
    data = _read(args.file)
    entries = api.read_entries(data)  # here as well: an error then names the line even where no node runs

    def with_node(client: Client) -> api.Imported:
        with _handed_over(config.data_dir, data) as name:
            return msgspec.convert(client.call("addressbook_import", file=name), api.Imported)

    def without() -> api.Imported:
        with _book(config) as (file, known):
            changed: dict[str, None] = {}
            book = Book(config.max_known_peers, changed=lambda peer: changed.update({peer: None}))
            book.restore(known, time.time())
            changed.clear()
            taken = book.restore(entries, time.time())
            put = [entry for peer in changed if (entry := book.get(peer)) is not None]
            file.write(put, [peer for peer in changed if peer not in book])
        return api.Imported(taken, len(entries) - taken)

    answer = _either(config, with_node, without)
    if args.json:
        _print(msgspec.json.encode(answer))
    else:
        left_out = f"; {answer.left_out} found no place" if answer.left_out else ""
        print(f"imported {answer.imported} {'peer' if answer.imported == 1 else 'peers'}{left_out}")
    return 0


def _peers(config: Config) -> list[api.Known]:
    def with_node(client: Client) -> list[api.Known]:
        return msgspec.convert(client.call("addressbook"), api.KnownPeers).peers

    def without() -> list[api.Known]:
        if not config.addressbook_path.exists():  # nothing is made where somebody only looks
            return []
        with _book(config) as (_, known):
            return api.shown(known)

    return _either(config, with_node, without)


def _either(config: Config, with_node: Callable[[Client], T], without: Callable[[], T]) -> T:
    try:
        client = Client(config.control_socket)
    except NoNodeError:
        return without()
    with client:
        return with_node(client)


@contextmanager
def _book(config: Config) -> Iterator[tuple[BookFile, list[Entry]]]:
    """The file, for us alone. Raises UsageError if a node starts meanwhile, or runs without a control socket."""
    with locked(config.data_dir):
        file = BookFile(config.addressbook_path)
        try:
            for warning in file.warnings:
                print("vouch: warning:", warning, file=sys.stderr)
            yield file, file.entries
        except (OSError, sqlite3.Error) as error:
            raise VouchError(f"address book {file.path}: {error}") from error
        finally:
            file.close()


@contextmanager
def _handed_over(data_dir: Path, data: bytes) -> Iterator[str]:
    """The name of a file in the data directory: a request on the control socket is too short for a whole book."""
    path = data_dir / f"{api.IMPORT_PREFIX}{secrets.token_hex(8)}"
    try:
        path.touch(mode=0o600, exist_ok=False)
        path.write_bytes(data)
        yield path.name
    except OSError as error:
        raise UsageError(f"file {path}: expected to write it, got: {error.strerror}") from error
    finally:
        path.unlink(missing_ok=True)


def _read(name: str) -> bytes:
    try:
        if name == "-":
            return sys.stdin.buffer.read(api.MAX_IMPORT + 1)
        with Path(name).open("rb") as file:
            return file.read(api.MAX_IMPORT + 1)
    except OSError as error:
        raise UsageError(f"file {name}: expected to read it, got: {error.strerror}") from error


def _print(line: bytes) -> None:
    print(line.decode())
