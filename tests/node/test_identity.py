"""Key files and the identities in them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.errors import UsageError, VouchError
from node.identity import (
    MAX_KEY_FILE,
    Identity,
    key_file_warning,
    load_key,
    load_or_make_key,
    write_key,
)

# RFC 8032, section 7.1, test 1. The peer ID was derived by libp2p.
SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
PEER_ID = "12D3KooWQK1wnefoLrcVHbbnf5tLzbopUd3K3bFAoJpA7YJgL5pV"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_public_key_and_peer_id_follow_from_the_secret():
    identity = Identity.from_secret(SECRET)
    assert identity.public_key == PUBLIC
    assert identity.peer_id == PEER_ID


def test_secret_is_not_in_the_repr():
    text = repr(Identity.from_secret(SECRET))
    assert PEER_ID in text
    assert SECRET.hex() not in text
    assert repr(SECRET) not in text


def test_generated_identities_differ():
    assert Identity.generate() != Identity.generate()


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_secret_of_another_length_is_refused(size):
    with pytest.raises(UsageError, match=f"32 bytes, got {size}"):
        Identity.from_secret(bytes(size))


def test_key_pair_is_the_same_key():
    pair = Identity.from_secret(SECRET).key_pair()
    assert pair.private_key.to_bytes() == SECRET
    assert pair.public_key.to_bytes() == PUBLIC


def test_key_pair_refuses_a_libp2p_that_derives_another_peer_id(monkeypatch):
    from libp2p.peer.id import ID

    monkeypatch.setattr(ID, "from_pubkey", classmethod(lambda cls, key: cls(b"\x00\x01x")))
    with pytest.raises(VouchError, match=f"expected .*{PEER_ID}"):
        Identity.from_secret(SECRET).key_pair()


def test_written_file_is_hex_and_private(tmp_path):
    path = tmp_path / "node.key"
    write_key(path, Identity.from_secret(SECRET))
    assert path.read_bytes() == SECRET.hex().encode()
    assert mode(path) == 0o600
    assert os.listdir(tmp_path) == ["node.key"]
    assert load_key(path) == Identity.from_secret(SECRET)
    assert key_file_warning(path) is None


def test_existing_file_is_not_overwritten(tmp_path):
    path = tmp_path / "node.key"
    path.write_text("precious")
    with pytest.raises(UsageError, match="expected a new file"):
        write_key(path, Identity.generate())
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["node.key"]


def test_dangling_link_is_not_followed(tmp_path):
    path = tmp_path / "node.key"
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="expected a new file"):
        write_key(path, Identity.generate())
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("exists", [False, True])
def test_file_system_without_hard_links(tmp_path, monkeypatch, exists):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "node.key"
    if exists:
        path.write_text("precious")
        with pytest.raises(UsageError, match="expected a new file"):
            write_key(path, Identity.generate())
        assert path.read_text() == "precious"
    else:
        write_key(path, Identity.from_secret(SECRET))
        assert path.read_bytes() == SECRET.hex().encode()
        assert mode(path) == 0o600
    assert os.listdir(tmp_path) == ["node.key"]


def test_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UsageError, match="No space left"):
        write_key(tmp_path / "node.key", Identity.generate())
    assert os.listdir(tmp_path) == []


def test_write_into_a_missing_folder(tmp_path):
    with pytest.raises(UsageError, match=r"expected the folder .*/none to exist"):
        write_key(tmp_path / "none" / "node.key", Identity.generate())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [
        SECRET,
        SECRET.hex().encode(),
        SECRET.hex().upper().encode() + b"\n",
        b" \t" + SECRET.hex().encode() + b"\r\n",
        b"0x" + SECRET.hex().encode(),
    ],
)
def test_accepted_forms(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content)
    assert load_key(path) == Identity.from_secret(SECRET)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        SECRET[:-1],
        SECRET + b"\n",
        SECRET.hex().encode()[:-1],
        SECRET.hex().encode() + b"0",
        SECRET.hex().encode()[:-1] + b"g",
        b"0x0x" + SECRET.hex().encode(),
        SECRET.hex(" ").encode(),
    ],
)
def test_refused_forms(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(
        UsageError, match=f"expected 64 hex digits or 32 raw bytes, got {len(content)} bytes"
    ) as refusal:
        load_key(path)
    assert SECRET.hex()[:16] not in str(refusal.value)


def test_large_file_is_refused_unread(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(SECRET.hex().encode() + b" " * MAX_KEY_FILE)
    with pytest.raises(UsageError, match=f"more than {MAX_KEY_FILE} bytes"):
        load_key(path)
    with pytest.raises(UsageError, match=f"more than {MAX_KEY_FILE} bytes"):
        load_key(Path("/dev/zero"))  # has no end


@given(content=st.one_of(st.binary(max_size=100), st.binary(min_size=32, max_size=32), st.from_regex(rb"[0-9a-f]{64}")))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_is_an_identity_or_a_usage_error(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content)
    try:
        secret = load_key(path).secret
    except UsageError as error:
        refusal = str(error)
        assert len(content) != 32
        assert f"got {len(content)} bytes" in refusal
    else:
        assert content == secret or content.strip().lower().removeprefix(b"0x") == secret.hex().encode()


def test_missing_file_and_folder_in_its_place(tmp_path):
    with pytest.raises(UsageError, match="expected a key file, got none"):
        load_key(tmp_path / "key")
    with pytest.raises(UsageError, match="Is a directory"):
        load_key(tmp_path)
    with pytest.raises(UsageError, match="expected a key file, got none"):
        key_file_warning(tmp_path / "key")


@pytest.mark.parametrize(
    ("bits", "warns"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o620, True)]
)
def test_warning_about_a_file_that_others_can_use(tmp_path, bits, warns):
    path = tmp_path / "key"
    write_key(path, Identity.from_secret(SECRET))
    path.chmod(bits)
    assert load_key(path).peer_id == PEER_ID
    warning = key_file_warning(path)
    assert (warning is not None) == warns
    if warning:
        assert f"{bits:04o}" in warning
        assert str(path) in warning


def test_key_of_a_data_folder_is_made_once(tmp_path):
    path = tmp_path / "data" / "node.key"
    made, new = load_or_make_key(path)
    assert new
    assert mode(path.parent) == 0o700
    assert mode(path) == 0o600
    assert load_or_make_key(path) == (made, False)


def test_key_that_another_process_makes_meanwhile_wins(tmp_path, monkeypatch):
    path = tmp_path / "node.key"
    write_key(path, Identity.from_secret(SECRET))
    monkeypatch.setattr(Path, "exists", lambda self: False)  # as it was when we looked
    assert load_or_make_key(path) == (Identity.from_secret(SECRET), False)


def test_broken_key_is_not_replaced(tmp_path):
    path = tmp_path / "node.key"
    path.write_text("broken")
    with pytest.raises(UsageError, match="expected 64 hex digits"):
        load_or_make_key(path)
    assert path.read_text() == "broken"
