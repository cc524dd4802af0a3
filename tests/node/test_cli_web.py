"""`vouch token` and `vouch open`."""

from __future__ import annotations

import json

import pytest
import trio

from node.api import control
from node.api.http.token import load_or_make_token
from node.cli import main
from tests.apiserver import node_at, serving


def test_the_token_of_a_node_that_has_run(tmp_path, capsys):
    token, _ = load_or_make_token(tmp_path)
    assert main(["token", "--data-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{token}\n"
    assert main(["token", "--json", "--data-dir", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out) == {"token": token, "file": str(tmp_path / "api.token")}


def test_no_token_yet(tmp_path, capsys):
    assert main(["token", "--data-dir", str(tmp_path)]) == 2
    assert "no token" in capsys.readouterr().err


@pytest.fixture
async def node(tmp_path):
    async with node_at(tmp_path) as made, trio.open_nursery() as nursery:
        await nursery.start(control.serve, made)
        yield made
        nursery.cancel_scope.cancel()


async def test_the_dashboards_url(node, tmp_path, capsys):
    async with serving(node) as server:
        assert await trio.to_thread.run_sync(main, ["open", "--data-dir", str(tmp_path)]) == 0
        token, _ = load_or_make_token(tmp_path)
        assert capsys.readouterr().out == f"{server.url}#token={token}\n"


async def test_a_browsers_arguments_tell_no_token(node, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    monkeypatch.chdir(tmp_path.parent)
    async with serving(node) as server:
        assert await trio.to_thread.run_sync(main, ["open", "--browser", "--data-dir", tmp_path.name]) == 0
    token, _ = load_or_make_token(tmp_path)
    page = tmp_path / "dashboard.html"
    assert opened == [page.as_uri()]
    assert f"{server.url}#token={token}" in page.read_text()
    assert page.stat().st_mode & 0o777 == 0o600


async def test_a_page_that_cannot_be_written(node, tmp_path, capsys):
    (tmp_path / "dashboard.html").mkdir()
    async with serving(node):
        assert await trio.to_thread.run_sync(main, ["open", "--browser", "--data-dir", str(tmp_path)]) == 1
    assert "dashboard.html: Is a directory" in capsys.readouterr().err


async def test_a_node_without_the_api(node, tmp_path, capsys):
    assert await trio.to_thread.run_sync(main, ["open", "--data-dir", str(tmp_path)]) == 1
    assert "the running node has no HTTP API" in capsys.readouterr().err
