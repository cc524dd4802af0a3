"""The HTTP API's app without sockets: every route answers as its document says, and refusals are JSON."""

from __future__ import annotations

import base64
import json
import types
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import jsonschema
import openapi_spec_validator
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from node import Config, Identity
from node.api import functions
from node.api.http.app import Api
from node.api.http.guard import Guard, Rates
from node.api.http.openapi import document
from node.api.http.routes import ROUTES
from node.metrics import Metrics
from tests.nodes import NOWHERE, eventually, running

TOKEN = "t" * 43
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
ROOT = Path(__file__).parents[3]
STRANGER = Identity.generate().peer_id
DOCUMENT = json.loads(json.dumps(document()))
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
CHANGES = sorted(name for name, (_, _, operation) in OPERATIONS.items() if operation["security"] == [{"token": []}])
STREAMED = {route.call for route in ROUTES if route.stream}
KEY = "/pk/" + STRANGER
CID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"


def make(node, **more):
    return Api(node, Guard(TOKEN, port=4780, **more.pop("guard", {})), **more)


@asynccontextmanager
async def client(app, ip="127.0.0.1", **more):
    transport = httpx.ASGITransport(app=app, client=(ip, 123))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:4780", timeout=30, **more) as made:
        yield made


@pytest.fixture
async def node():
    async with running(dht="server", topic={"blocks": ""}, rendezvous_point="memory") as made:
        yield made


@pytest.fixture
async def other():
    async with running(rendezvous_point="memory", perf="on") as made:
        yield made


@pytest.fixture
async def asking(node):
    Metrics(node)
    async with client(make(node)) as made:
        yield made


def test_the_document_is_one():
    openapi_spec_validator.validate(DOCUMENT)
    assert len(OPERATIONS) == sum(map(len, DOCUMENT["paths"].values()))  # no operationId twice


def check_body(response, operation):
    """Whether an answer is as the document says."""
    said = operation["responses"][str(response.status_code)]["content"]
    kind = response.headers["content-type"].partition(";")[0]
    assert kind in said, (response.status_code, response.text)
    if kind == "application/json":
        schema = {**said[kind]["schema"], "components": DOCUMENT["components"]}
        jsonschema.Draft202012Validator(schema).validate(response.json())


def samples(other):
    """For each operation: what goes into the path, the query and the body; or an error that is expected."""
    peer, key = other.peer_id, other.host.get_public_key().serialize()
    return {
        "status": {},
        "peers": {},
        "connect": {"json": {"address": other.addrs[0]}},
        "peer": {"path": {"peer": peer}},
        "ping": {"path": {"target": peer}, "json": {"count": 2}},
        "perf": {"path": {"target": peer}, "json": {"upload": 1000, "download": 1000}},
        "protect_peer": {"path": {"peer": peer, "tag": "mine"}},
        "unprotect_peer": {"path": {"peer": peer, "tag": "mine"}},
        "addressbook": {},
        "add_peer": {"json": {"address": other.addrs[0]}},
        "ban": {"json": {"target": "192.0.2.0/24", "reason": "because", "seconds": 60}},
        "bans": {},
        "unban": {"params": {"target": "192.0.2.0/24"}},
        "gossip": {},
        "topics": {},
        "mesh": {"path": {"topic": "eth%2Fblocks"}},
        "publish": {"json": {"topic": "blocks", "payload": "aGVsbG8=", "type": 3}},
        "verdict": {"path": {"id": "00"}, "json": {"verdict": "accept"}, "status": 404},
        "find_peer": {"json": {"peer": peer}},
        "dht_find_providers": {"json": {"cid": CID, "limit": 3}},
        "dht_provide": {"json": {"cid": CID}},
        "dht_get": {"json": {"key": KEY}, "status": 404},
        "dht_put": {"json": {"key": f"/pk/{peer}", "value": base64.b64encode(key).decode()}},
        "dht_withdraw": {"json": {"key": CID}},
        "registrations": {"params": {"after": "0"}},
        "discover": {"json": {"address": other.addrs[0]}},
        "config": {},
        "loglevel": {},
        "set_loglevel": {"json": {"level": "warning", "part": "api"}},
        "disconnect": {"path": {"peer": peer}},
        "remove_peer": {"path": {"peer": peer}},
        "health": {},
        "ready": {},
        "metrics": {},
        "metrics_snapshot": {},
        "openapi": {},
    }


async def test_every_route_answers_as_the_document_says(asking, other):
    asked = samples(other)
    assert set(asked) == set(OPERATIONS) - STREAMED
    for name, sample in asked.items():
        method, path, operation = OPERATIONS[name]
        for key, value in sample.get("path", {}).items():
            path = path.replace("{" + key + "}", value)
        response = await asking.request(
            method, path, headers=AUTHORIZED, json=sample.get("json"), params=sample.get("params")
        )
        assert response.status_code == sample.get("status", 200), (name, response.text)
        check_body(response, operation)
    await asking.put("/v1/loglevel", headers=AUTHORIZED, json={"level": "", "part": "api"})


async def test_what_is_done_is_done(asking, node, other):
    answer = await asking.post("/v1/peers", headers=AUTHORIZED, json={"address": other.addrs[0]})
    assert answer.json()["peer"] == other.peer_id
    assert node.connected_peers() == [other.peer_id]
    assert (await asking.get("/v1/peers")).json()["peers"][0]["peer"] == other.peer_id
    detail = (await asking.get(f"/v1/peers/{other.peer_id}")).json()
    assert detail["connected"]["direction"] == "outbound"
    await asking.delete(f"/v1/peers/{other.peer_id}", headers=AUTHORIZED)
    await eventually(lambda: not node.connected_peers())
    assert (await asking.delete(f"/v1/peers/{STRANGER}", headers=AUTHORIZED)).status_code == 404
    assert (await asking.get(f"/v1/peers/{STRANGER}")).json()["error"]["code"] == "not_found"
    await asking.post("/v1/bans", headers=AUTHORIZED, json={"target": STRANGER})
    assert [row["target"] for row in (await asking.get("/v1/bans")).json()["bans"]] == [STRANGER]


async def ask_raw(app, method, path, headers, receive):
    """A request whose body comes by `receive`."""
    sent = []
    scope = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": path,
        "root_path": "",
        "raw_path": path.encode(),
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 4780),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    head, body = sent[0], b"".join(message.get("body", b"") for message in sent[1:])
    return httpx.Response(head["status"], headers=head["headers"], content=body)


HOST = {"Host": "localhost:4780"}


@pytest.mark.parametrize("name", CHANGES)
async def test_without_the_token_nothing_is_looked_at(name):
    async def receive():
        raise AssertionError("expected nobody to look at the body")

    method, path, operation = OPERATIONS[name]
    app = make(stub())
    headers = HOST | {"Transfer-Encoding": "chunked", "Content-Type": "application/json"}
    response = await ask_raw(app, method, path, headers, receive)
    assert response.status_code == 401
    check_body(response, operation)
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="vouch"'
    assert response.headers["Connection"] == "close"
    assert app.guard.refused == {"no_token": 1}


def test_every_call_has_a_route_and_every_route_a_row_in_the_documentation():
    routed = {route.call for route in ROUTES}
    elsewhere = {
        "ready": "/ready, whose status tells it too",
        "metrics": "/metrics, as text",
        "addressbook_import": "reads a file of the data folder, whose owner has the control socket",
    }
    assert routed == {*functions.CALLS, *functions.STREAMS} - set(elsewhere)
    table = (ROOT / "docs" / "api.md").read_text()
    for path in DOCUMENT["paths"]:
        words = [word for word in path.split("/") if word and not word.startswith("{") and word != "v1"]
        assert all(word in table for word in words), path


def test_what_needs_a_token():
    reads = sorted(set(OPERATIONS) - set(CHANGES))
    assert reads == [
        *("addressbook", "bans", "config", "events", "gossip", "health", "loglevel", "mesh", "metrics"),
        *("metrics_snapshot", "openapi", "peer", "peers", "ready", "registrations", "status", "topics"),
    ]


async def test_beyond_this_machine_all_but_health_needs_it():
    async with client(make(stub(), guard={"always": True})) as asking:
        for method, path, _ in OPERATIONS.values():
            expected = 200 if path == "/health" else 401
            assert (await asking.request(method, path)).status_code == expected, path
        assert (await asking.get("/nothing")).status_code == 401


def stub(**more):
    """What the app needs of a node before it asks it anything."""
    config = Config(data_dir=NOWHERE)
    return types.SimpleNamespace(config=config, uptime=1.0, metrics=None, **more)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("GET", "/v1/node", {"Host": "evil.example"}, 403, "wrong_host"),
        ("GET", "/v1/node", {"Origin": "http://evil.example"}, 403, "wrong_origin"),
        ("GET", "/v1/events", {"Origin": "http://evil.example"}, 403, "wrong_origin"),
        ("GET", "/v1/events", {"Sec-Fetch-Site": "cross-site"}, 403, "wrong_origin"),
        ("GET", "/v1/subscribe?topic=x", {}, 401, "no_token"),
        ("GET", "/nothing", {}, 404, "no_route"),
        ("GET", "/v1/", {}, 404, "no_route"),
        ("GET", "/..%2f..%2fetc/passwd", {}, 404, "no_route"),
        ("POST", "/nothing", {}, 401, "no_token"),
        ("POST", "/nothing", AUTHORIZED, 404, "no_route"),
        ("DELETE", "/v1/node", AUTHORIZED, 405, "wrong_method"),
        ("OPTIONS", "/v1/node", AUTHORIZED, 405, "wrong_method"),
        ("BREW", "/v1/node", AUTHORIZED, 405, "wrong_method"),
        ("GET", "/v1/publish", {}, 405, "wrong_method"),
        ("GET", "/v1/node?x=1", {}, 400, "usage"),
        ("GET", "/v1/registrations?after=x", {}, 400, "usage"),
        ("GET", "/v1/registrations?after=1&after=2", {}, 400, "usage"),
        ("GET", "/v1/events?kinds=nothing", {}, 400, "usage"),
        ("GET", "/v1/peers/x", {}, 400, "usage"),
        ("GET", "/metrics", {}, 404, "not_found"),
    ],
)
async def test_what_is_refused(method, path, headers, status, code):
    async with client(make(stub())) as asking:
        response = await asking.request(method, path, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.json()["error"]["message"]
    for name in ("content-security-policy", "x-content-type-options", "x-frame-options", "referrer-policy"):
        assert name in response.headers
    assert response.headers["cache-control"] == "no-store"
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "bad_json"),
        (b"[]", "application/json", 400, "bad_json"),
        (b"null", "application/json", 400, "bad_json"),
        (b"[" * 100_000, "application/json", 400, "bad_json"),
        (b'{"topic": "\xff"}', "application/json", 400, "bad_json"),
        (b"{}", "application/json; charset=utf-8", 400, "usage"),
        (b"", "application/json", 400, "usage"),
        (b'{"topic": 1, "payload": ""}', "application/json", 400, "usage"),
        (b'{"topic": "x", "payload": "not base64!"}', "application/json", 400, "usage"),
        (b'{"topic": "x", "payload": "", "more": 1}', "application/json", 400, "usage"),
        (b"topic=x&payload=", "application/x-www-form-urlencoded", 415, "not_json"),
        (b"{}", "text/plain", 415, "not_json"),
        (b"x" * (2 << 20) + b"x", "application/json", 413, "too_large"),
    ],
)
async def test_bodies_that_are_refused(content, kind, status, code):
    async with client(make(stub()), headers={**AUTHORIZED, "Content-Type": kind}) as asking:
        response = await asking.post("/v1/publish", content=content)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    # without a length, in parts
    parts = [content[at : at + 65536] for at in range(0, len(content), 65536)]

    async def receive():
        part = parts.pop(0) if parts else b""
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    response = await ask_raw(make(stub()), "POST", "/v1/publish", HOST | AUTHORIZED | {"Content-Type": kind}, receive)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


async def test_a_name_in_path_and_body():
    async with client(make(stub()), headers=AUTHORIZED) as asking:
        response = await asking.post("/v1/verdicts/1", json={"id": "2", "verdict": "accept"})
    assert response.status_code == 400
    assert "in the path alone" in response.json()["error"]["message"]


async def test_a_body_that_never_ends(autojump_clock):
    headers = HOST | AUTHORIZED | {"Content-Type": "application/json"}
    response = await ask_raw(make(stub()), "POST", "/v1/publish", headers, trio.sleep_forever)
    assert (response.status_code, response.json()["error"]["code"]) == (408, "too_slow")


async def test_a_fault_of_ours_is_in_the_log_alone(monkeypatch, caplog):
    async def fails(_node, _name, _params):
        raise ZeroDivisionError("the secret of the node")

    monkeypatch.setattr(functions, "invoke", fails)
    async with client(make(stub())) as asking:
        response = await asking.get("/v1/node")
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert "the secret of the node" in caplog.text


async def test_a_call_that_takes_too_long(monkeypatch, autojump_clock):
    async def hangs(_node, _params):
        await trio.sleep_forever()

    monkeypatch.setitem(functions.CALLS, "status", functions.Call(hangs, functions.Nothing))
    async with client(make(stub())) as asking:
        response = await asking.get("/v1/node")
    assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "evil.example"}, "wrong_host"),
        ({"Origin": "http://evil.example"}, "wrong_origin"),
        ({}, "no_token"),
        (AUTHORIZED | {"Content-Length": "9" * 9}, "too_large"),
    ],
)
async def test_what_the_rules_refuse_is_counted_once(headers, code):
    app = make(stub())
    response = await ask_raw(app, "POST", "/v1/publish", HOST | headers, trio.sleep_forever)
    assert response.json()["error"]["code"] == code
    assert app.guard.refused == {code: 1}


async def test_rates(autojump_clock):
    app = make(stub(), rates=Rates(5.0))
    async with client(app) as asking:
        answers = [await asking.get("/health") for _ in range(12)]
        assert [one.status_code for one in answers].count(200) == 10
        assert answers[-1].json()["error"]["code"] == "too_many_requests"
        assert int(answers[-1].headers["retry-after"]) >= 1
        await trio.sleep(1)
        assert (await asking.get("/health")).status_code == 200
    assert app.guard.refused["too_many_requests"] == 2


async def test_a_network_of_ipv6_has_one_rate():
    app, statuses = make(stub(), rates=Rates(5.0)), []
    for number in range(12):
        async with client(app, f"2001:db8::{number:x}") as asking:
            statuses.append((await asking.get("/health")).status_code)
    assert statuses == [200] * 10 + [429] * 2


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
async def test_a_foreign_page_takes_nothing_of_this_machines_rate(headers):
    app = make(stub(), rates=Rates(5))
    async with client(app) as asking:
        statuses = [(await asking.get("/health", headers=headers)).status_code for _ in range(30)]
        assert statuses[0] == 403
        assert statuses[-1] == 429  # it has a rate of its own
        assert (await asking.get("/health")).status_code == 200


async def test_health_and_head():
    node = stub()
    async with client(make(node)) as asking:
        response = await asking.head("/health")
        assert (response.status_code, response.content) == (200, b"")
        node.uptime = None
        response = await asking.get("/health")
        assert (response.status_code, response.json()) == (503, {"status": "starting"})


async def test_a_node_that_is_not_ready(node):
    node.addressbook.path, node.addressbook.error = NOWHERE, "disk full"
    try:
        async with client(make(node)) as asking:
            response = await asking.get("/ready")
    finally:
        node.addressbook.path, node.addressbook.error = None, ""
    assert response.status_code == 503
    check_body(response, OPERATIONS["ready"][2])


async def test_the_dashboard_is_open_and_nothing_beside_it(tmp_path):
    page = tmp_path / "dashboard"
    page.mkdir()
    (page / "index.html").write_text("<!doctype html><title>vouch</title>")
    (page / "app.js").write_text("export {}")
    (tmp_path / "secret").write_text("secret")
    async with client(make(stub(), guard={"always": True}, dashboard=page)) as asking:
        assert (await asking.get("/")).text.startswith("<!doctype html>")
        response = await asking.get("/app.js")
        assert response.headers["content-type"].startswith("text/javascript")
        assert response.headers["cache-control"] == "no-cache"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        for path in ("/../secret", "/%2e%2e/secret", "/..%2fsecret", "/missing.js", "/%00"):
            response = await asking.get(path)  # what is no file of the page isn't told from what is of the node
            assert (response.status_code, response.json()["error"]["code"]) == (401, "no_token"), path
            response = await asking.get(path, headers=AUTHORIZED)
            assert (response.status_code, response.json()["error"]["code"]) == (404, "no_route"), path
        assert (await asking.post("/", headers=AUTHORIZED)).status_code == 405
        assert (await asking.get("/v1/node")).status_code == 401


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "x", "topic", "accept", "aGk="]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["topic", "id", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=50)
@given(
    name=st.sampled_from(CHANGES), content=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode())
)
def test_any_body_is_answered(name, content):
    method, path, operation = OPERATIONS[name]
    if method == "GET":
        return

    async def ask():
        async with client(make(stub()), headers={**AUTHORIZED, "Content-Type": "application/json"}) as asking:
            return await asking.request(method, path, content=content)

    response = trio.run(ask)
    assert "Traceback" not in response.text
    if response.status_code != 500:  # a stub has nothing behind it: what is well-formed fails there
        assert 400 <= response.status_code < 500
        check_body(response, operation)
