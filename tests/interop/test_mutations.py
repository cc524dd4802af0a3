"""A byte of our wire changed is noticed: one change of each layer here (half a minute), all of them by
`python -m interop.matrix --mutate` (half an hour). And none is forgotten.
"""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from interop.ends.mutate import changed
from interop.matrix.mutations import MUTATIONS, run_one

ROOT = Path(__file__).parents[2]
PROTOCOL_ID = re.compile(r"/[a-z][a-z0-9./-]*/\d+\.\d+\.\d+")
FIELD = re.compile(r"(?:repeated |optional )?[A-Za-z0-9]+ (\w+) = \d+;")

# what looks like wire and isn't: bytes in the source, by module, and why nothing of theirs is changed
NO_WIRE: dict[tuple[str, bytes], str] = {
    ("node.identity", rb"\s*(?:0[xX])?([0-9a-fA-F]{64})\s*"[:24]): "of key files",
    ("node.ports", b"\x16"): "tells what comes from what comes",
    ("node.ports", b"A"): "the same",
    ("node.ports", b"Z"): "the same",
    ("node.quic.datagrams", b"\xfe\x80"): "link-local addresses, for the system",
    ("node.quic.link", b"Idle timeout"): "what the library calls it, compared here alone",
    ("node.quic.native", b"\0"): "fillings, which are counted",
    ("node.quic.packets", b"\0\0\0\0"): "what asks for versions, read only",
    ("node.quic.packets", b"\0"): "of a token, which is ours alone",
    ("node.quic.packets", b"stateless reset "): "of a key, which is ours alone",
    ("node.quic.transport", b"QUIC stateless reset"): "the same",
    ("node.websocket.session", b"HTTP/1.1 400 Bad Request"): "for people whose browser isn't answered",
    ("protocols.gossip.policy", b"\x00\x24"): "read only: whether the key is in the author's ID, or comes beside it",
    ("protocols.kad.cid", b"\x01"): "of a CID that somebody has typed",
    ("protocols.kad.cid", b"-_"): "the same",
    ("protocols.kad.keyspace", b"\x00\x24\x08\x01\x12\x20"): "of keys that nobody has",
    ("protocols.kad.validators", b"/pk/"): "only its length counts",
    ("protocols.mdns.wire", b"\0"): "a text without anything in it",
    ("protocols.mdns.wire", b"\x09_services"): "read only: whether the codec is asked at all",
    ("protocols.rendezvous.rules", b"*"): "of a cookie, which is ours alone",
    ("protocols.rendezvous.rules", b"="): "the same",
    ("protocols.rendezvous.rules", b"\0"): "the same",
    ("protocols.rendezvous.rules", b"vouch rendezvous cookie"): "the same",
}


def some_of_them():
    """Of each layer one, on lines where `test_matrix` runs the same checks unchanged; and one that a test notices."""
    texts = (
        "Noise_XX",
        "libp2p-tls-handshakf:",
        "<BBHLL",
        "/ipfs/ping/1.0.1",
        "libp2p-peer-recore",
        "vouch-message:2:",
    )
    for text in texts:
        yield next(mutation for mutation in MUTATIONS if text in mutation.new)
    for field in ("Hello.network_id", "SignedMessage.signature", "Prune.backoff"):
        yield next(mutation for mutation in MUTATIONS if mutation.field == field)


@pytest.mark.interop
@pytest.mark.parametrize("mutation", [*some_of_them()], ids=lambda mutation: mutation.name)
async def test_a_byte_changed_is_noticed(built, mutation):
    assert (mutation.line.peer, mutation.line.transport) == ("go", "tcp")
    built("go")
    assert (await run_one(mutation, mutation.line, mutation.check)).result == "fail"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_each_changes_what_is_there(mutation):
    module = importlib.import_module(mutation.module)
    source = Path(module.__file__).read_text()
    what = {"field": mutation.field} if mutation.field else {"old": mutation.old, "new": mutation.new}
    text = changed(source, {"module": mutation.module} | what)
    assert text != source
    compile(text, module.__file__, "exec")


def test_their_names_are_different():
    assert len({(mutation.name, mutation.line) for mutation in MUTATIONS}) == len(MUTATIONS)


def fields():
    """Each field of each .proto, as a module and a dotted name."""
    for path in sorted(ROOT.glob("protocols/**/*.proto")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts) + "_pb2"
        holder = ""
        for line in path.read_text().splitlines():
            line = line.strip()
            if match := re.match(r"message (\w+)", line):
                holder = match[1]
            elif match := FIELD.match(line):
                yield module, f"{holder}.{match[1]}"


def test_each_field_is_changed():
    assert set(fields()) - {(mutation.module, mutation.field) for mutation in MUTATIONS} == set()


def test_each_protocol_id_is_changed():
    changed_ids = {match for mutation in MUTATIONS for match in PROTOCOL_ID.findall(mutation.old)}
    for path in [*ROOT.glob("protocols/**/*.py"), *ROOT.glob("node/**/*.py")]:
        for match in re.finditer(r'^[A-Z_0-9]+\b.*"(/[^"{} ]+/\d+\.\d+\.\d+)"', path.read_text(), re.MULTILINE):
            name = match[1]
            assert any(name.endswith(one) for one in changed_ids), f"{path}: {name}"


# rooms of the node that say nothing to peers
ELSEWHERE = {"api", "cli", "metrics"}


def bytes_in_the_source():
    """What is written out as bytes in the source of node and protocols, as (module, value, its text)."""
    for path in [*ROOT.glob("protocols/**/*.py"), *ROOT.glob("node/**/*.py")]:
        if path.name.endswith("_pb2.py") or ELSEWHERE & set(path.relative_to(ROOT).parts):
            continue
        source = path.read_text()
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for found in ast.walk(ast.parse(source)):
            if isinstance(found, ast.Constant) and isinstance(found.value, bytes) and found.value:
                yield module, found.value, ast.get_source_segment(source, found)


def test_all_bytes_of_the_source_are_changed_or_excused():
    olds = {(mutation.module, mutation.old) for mutation in MUTATIONS if mutation.old}
    left = {
        (module, value[:24])
        for module, value, text in bytes_in_the_source()
        if not any(module == where and (text[:-1] in old or old in text) for where, old in olds)
    }
    assert left - set(NO_WIRE) == set()
    assert set(NO_WIRE) - left == set(), "excused, and not there or changed"
