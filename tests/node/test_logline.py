"""Lines of the log: bounded, escaped, without secrets, whatever their values are."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.logline import HIDDEN, MAX_LINE, MAX_VALUE, as_json, as_text, clean, is_secret

HEAD = {"timestamp": "2026-01-01T00:00:00.000000Z", "level": "info", "logger": "vouch.node"}
FORGED = "x\n2026-01-01T00:00:00.000000Z [info     ] admitted [vouch.node] peer=12D3KooWmallory"

texts = st.text() | st.text(alphabet="\n\r\t\x1b\x00\x85\u2028\u202e\"'\\= ax\ud800") | st.just(FORGED)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(texts, inner), max_leaves=20
)
fields = st.dictionaries(
    st.sampled_from(["peer", "addr", "detail", "error", "addrs", "exception"]) | texts, values
).map(lambda made: {name: value for name, value in made.items() if not name.startswith("_") and name not in HEAD})


@given(fields, texts)
def test_whatever_is_logged_is_one_bounded_line_of_json(made, event):
    line = as_json(clean({**HEAD, "event": event, **made}))
    assert len(line) <= MAX_LINE
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["level"] == "info"


@given(fields, texts)
def test_whatever_is_logged_is_one_line_of_text_but_for_a_traceback(made, event):
    line = as_text(clean({**HEAD, "event": event, **made}))
    assert len(line) <= MAX_LINE
    first, *rest = line.split("\n")
    assert bool(rest) == ("exception" in made)
    for row in (first, *rest):
        assert row.isprintable()
    assert all(row.startswith("    ") for row in rest)


@pytest.mark.parametrize("size", [10, MAX_VALUE, MAX_VALUE + 1, 10**6])
@pytest.mark.parametrize("char", ["a", "\x00", "\U0010ffff", "\ud800", "\n"])
def test_a_flood_of_anything_is_cut(char, size):
    made = {f"field_{number}": char * size for number in range(40)} | {"exception": char * size}
    for render in as_json, as_text:
        assert len(render(clean({**HEAD, "event": char * size, **made}))) <= MAX_LINE


def test_a_cut_says_how_much_is_missing():
    assert clean({"event": "e", "detail": "a" * 2000})["detail"] == "a" * MAX_VALUE + "… (976 more)"
    assert clean({"event": "e", "addrs": list(range(40))})["addrs"][-1] == "… 8 more"


def test_text_keeps_its_fields_apart():
    line = as_text(
        clean({**HEAD, "event": "odd", "detail": 'x peer=mallory "', "error": FORGED, "name": "plain", "n": 3})
    )
    assert line == (
        "2026-01-01T00:00:00.000000Z [info     ] odd [vouch.node] "
        r'detail="x peer=mallory \"" '
        r'error="x\n2026-01-01T00:00:00.000000Z [info     ] admitted [vouch.node] peer=12D3KooWmallory" name=plain n=3'
    )


@given(st.dictionaries(st.sampled_from(["detail", "error", "name"]), texts, min_size=1))
def test_text_can_be_read_back(made):
    line = as_text(clean({**HEAD, "event": "odd", **made}))
    found = re.findall(r' ([a-z]+)=("(?:[^"\\]|\\.)*"|[^\s"\'=]*)', line.partition("[vouch.node]")[2])
    assert [name for name, _ in found] == list(made)


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "api_token",
        "api_key",
        "private_key",
        "key",
        "password",
        "Authorization",
        "accessToken",
        "client_secret",
    ],
)
def test_what_a_name_says_is_secret_is_hidden(name):
    assert is_secret(name)
    for value in ("hunter2", b"hunter2", ["hunter2"], {"a": "hunter2"}):
        for wrapped in ({name: value}, {"detail": {name: value}}, {"detail": [(name, value)]}):
            line = as_text(clean({**HEAD, "event": "e", **wrapped}))
            assert "hunter2" not in line
            assert HIDDEN in line


@pytest.mark.parametrize("name", ["peer", "public_key", "file", "monkey", "detail", "tokenize"])
def test_other_names_are_not(name):
    assert not is_secret(name)


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer hunter2",
        "GET /#token=hunter2 failed",
        "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----",
    ],
)
def test_secrets_that_texts_show_by_their_form_are_hidden(text):
    for name in "event", "detail", "exception":
        assert "hunter2" not in as_json(clean({**HEAD, "event": "e", name: text}))


def test_bytes_are_shown_by_their_number():
    assert clean({"event": "e", "detail": b"\x01\x02"})["detail"] == "(2 bytes)"


def test_a_value_that_cannot_be_shown_harms_no_line():
    class Broken:
        def __str__(self):
            raise RuntimeError

    assert "Broken" in clean({"event": "e", "detail": Broken()})["detail"]
