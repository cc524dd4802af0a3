"""The token's file."""

from __future__ import annotations

import pytest

from node.api.http.token import load_or_make_token, read_token, token_path
from node.errors import UsageError


def test_it_is_made_once_and_for_its_owner_alone(tmp_path):
    token, made = load_or_make_token(tmp_path)
    assert made
    assert len(token) == 43
    assert token_path(tmp_path).stat().st_mode & 0o777 == 0o600
    assert load_or_make_token(tmp_path) == (token, False)
    assert read_token(tmp_path) == token


def test_a_file_that_others_can_read(tmp_path):
    load_or_make_token(tmp_path)
    token_path(tmp_path).chmod(0o640)
    with pytest.raises(UsageError, match=r"only its owner can read \(chmod 600\), got mode 0640"):
        load_or_make_token(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"short", b"x" * 5000, b"\xff" * 40, b"two words that are long enough to be one"]
)
def test_a_file_with_something_else(tmp_path, content):
    token_path(tmp_path).touch(0o600)
    token_path(tmp_path).write_bytes(content)
    with pytest.raises(UsageError, match="expected 32 to 1024 visible ASCII characters"):
        load_or_make_token(tmp_path)


def test_none_yet(tmp_path):
    with pytest.raises(UsageError, match="no token"):
        read_token(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(UsageError, match="can't make the API's token"):
        load_or_make_token(tmp_path / "missing")
