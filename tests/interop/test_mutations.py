"""A byte of our wire changed is noticed: one change of each layer here (half a minute), all of them by
`python -m interop.matrix --mutate` (half an hour). And none is forgotten.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from interop.ends.mutate import changed
from interop.matrix.mutations import MUTATIONS, UNNOTICED, run_one

ROOT = Path(__file__).parents[2]
PROTOCOL_ID = re.compile(r"/[a-z][a-z0-9./-]*/\d+\.\d+\.\d+")
FIELD = re.compile(r"(?:repeated |optional )?[A-Za-z0-9]+ (\w+) = \d+;")


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


def test_each_field_is_changed_or_excused():
    known = {(mutation.module, mutation.field) for mutation in MUTATIONS if mutation.field} | set(UNNOTICED)
    assert set(fields()) - known == set()


def test_what_is_excused_is_there():
    there = set(fields())
    assert set(UNNOTICED) - there == set()
    assert not {(mutation.module, mutation.field) for mutation in MUTATIONS} & set(UNNOTICED)
    assert all(len(reason) > 10 for reason in UNNOTICED.values())


def test_each_protocol_id_is_changed():
    changed_ids = {match for mutation in MUTATIONS for match in PROTOCOL_ID.findall(mutation.old)}
    for path in [*ROOT.glob("protocols/**/*.py"), *ROOT.glob("node/**/*.py")]:
        for match in re.finditer(r'^[A-Z_0-9]+\b.*"(/[^"{} ]+/\d+\.\d+\.\d+)"', path.read_text(), re.MULTILINE):
            name = match[1]
            assert any(name.endswith(one) for one in changed_ids), f"{path}: {name}"
