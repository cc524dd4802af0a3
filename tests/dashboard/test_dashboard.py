"""The dashboard in a real browser: what a user sees, by mouse, by keyboard and on a phone."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import pytest
import trio

from node import Config, Identity, Node
from node.api.http.app import DASHBOARD, Api
from node.api.http.serve import Server
from node.api.http.token import read_token
from node.events import Disconnected, Identified, PeerLost
from tests.apiserver import NETWORK, node_at, serving
from tests.nodes import DEFAULTS, Recorder, eventually, running

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\u202egnol"
TOPIC = "blocks"
INTERVAL = 0.5
LIVE = "document.querySelector('#link').dataset.state === 'live'"
ROWS = "document.querySelectorAll('#peers tbody tr').length"
DOTS = "document.querySelectorAll('#graph .dot').length"


def row(peer: str) -> str:
    return f"document.querySelector('#peers tr[data-peer=\"{peer}\"]')"


def holds(selector: str, text: str) -> str:
    return f"document.querySelector({json.dumps(selector)}).textContent.includes({json.dumps(text)})"


@asynccontextmanager
async def crowd(node, count):
    """Peers of the node, in a topic."""
    async with AsyncExitStack() as stack:
        peers = []
        for number in range(count):
            peer = await stack.enter_async_context(running(network_id=NETWORK, client_version=f"crowd/1.0.{number}"))
            await stack.enter_async_context(peer.gossip.subscribe(TOPIC))
            await peer.connect(node.addrs[0])
            peers.append(peer)
        yield peers


@asynccontextmanager
async def cuttable(node) -> AsyncIterator[tuple[str, trio.Event]]:
    """Another way to the node, and what cuts it: then nothing passes, and nobody is told."""
    port, cut = int(node.addrs[0].split("/")[4]), trio.Event()

    async def carry(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        async for data in source:
            if cut.is_set():
                await trio.sleep_forever()
            await sink.send_all(data)

    async def serve(client: trio.SocketStream) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as server, trio.open_nursery() as both:
            both.start_soon(carry, client, server)
            both.start_soon(carry, server, client)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}/p2p/{node.peer_id}", cut
        nursery.cancel_scope.cancel()


@pytest.fixture
async def node(tmp_path):
    async with node_at(tmp_path, heartbeat="on", heartbeat_interval=INTERVAL, client_version="vouch/0.1.0") as found:
        yield found


@asynccontextmanager
async def opened(browser, server, fragment=""):
    """The page of a node, live. What its console holds in the end is no error, and it has asked nobody else."""
    async with browser.page() as page:
        await page.open(server.url + fragment)
        await page.until(LIVE)
        yield page
        assert page.errors == []
        places = {urlsplit(url)[:2] for url in page.requests if not url.startswith("data:")}
        assert places == {urlsplit(server.url)[:2]}


def with_token(node) -> str:
    """What `vouch open` puts behind the address."""
    return f"#token={read_token(node.config.data_dir)}"


@pytest.fixture
async def page(node, browser):
    async with serving(node) as server, opened(browser, server) as found:
        yield found


@pytest.fixture
async def page_with_token(node, browser):
    async with serving(node) as server, opened(browser, server, with_token(node)) as found:
        yield found


# peers come and go


async def come_and_go(page, node) -> tuple[float, float]:
    """A guest comes and goes; the seconds until the page shows it, each time."""
    assert await page.text("#peer-id code") == node.peer_id
    assert await page.run(ROWS) == 0
    async with running(network_id=NETWORK, client_version="guest/1.0.0") as guest:
        started = trio.current_time()
        await guest.connect(node.addrs[0])
        await page.until(f"{ROWS} === 1 && {DOTS} === 2")
        joined = trio.current_time() - started
        await page.until(f"{row(guest.peer_id)}?.innerText.includes('guest/1.0.0')")
        await page.until(holds("#events", "admitted"))
        started = trio.current_time()
    await page.until(f"{ROWS} === 0 && {DOTS} === 1")
    left = trio.current_time() - started
    print(f"shown after {joined:.2f} s, gone after {left:.2f} s")
    return joined, left


async def test_a_peer_is_shown_within_two_seconds_and_so_is_its_leaving(page, node):
    joined, left = await come_and_go(page, node)
    assert joined < 2
    assert left < 2
    await page.until(holds("#events", "disconnected"))


# that the two tests above can fail


@asynccontextmanager
async def spoiled(node, folder, file, before, after):
    """The API with a dashboard in which a text of one file is another."""
    shutil.copytree(DASHBOARD, folder)
    text = (folder / file).read_text()
    assert before in text
    (folder / file).write_text(text.replace(before, after))
    server = Server(node)
    server.api = Api(node, server.api.guard, dashboard=folder)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        yield server
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("console.error('something is wrong');", "something is wrong"),
        ("nothing.at.all;", "nothing is not defined"),
        ("fetch('http://127.0.0.1:9/elsewhere').catch(() => {});", "127.0.0.1:9"),
    ],
    ids=["an error in the console", "an exception", "a request to somebody else"],
)
async def test_a_page_that_does_wrong_is_found(node, browser, tmp_path, code, said):
    before = "takeToken();\n"
    after = f"{before}setTimeout(() => {{ {code} }});\n"
    async with spoiled(node, tmp_path / "dashboard", "main.js", before, after) as server:
        with pytest.raises(AssertionError):
            async with opened(browser, server) as page:
                await eventually(lambda: said in " ".join([*page.errors, *page.requests]))
        assert said in " ".join([*page.errors, *page.requests])


async def test_a_page_that_is_late_is_found(node, browser, tmp_path):
    """One that looks every seven seconds and listens to no events."""
    before = "      tell: (kind, what, id) => {\n"
    folder = tmp_path / "dashboard"
    async with spoiled(node, folder, "main.js", before, f"{before}        return;\n") as server:
        plots = (folder / "plots.js").read_text()
        (folder / "plots.js").write_text(plots.replace("EVERY = 2000", "EVERY = 7000"))
        async with browser.page() as page:
            await page.open(server.url)
            await page.until(LIVE)
            await trio.sleep(1)  # the round that the opened stream asks for is over
            async with running(network_id=NETWORK) as guest:
                started = trio.current_time()
                await guest.connect(node.addrs[0])
                await page.until(f"{ROWS} === 1")
                assert trio.current_time() - started > 2


async def test_a_peer_that_falls_silent_is_gone_within_the_heartbeats_limit(page, node):
    heard = Recorder(node)
    async with cuttable(node) as (address, cut), running(network_id=NETWORK, heartbeat="on") as guest:
        await guest.connect(address)
        await page.until(f"{ROWS} === 1")
        cut.set()
        started = trio.current_time()
        await page.until(f"{ROWS} === 0")
        gone = trio.current_time() - started
        await page.until(holds("#events", "peer_lost"))
    print(f"gone after {gone:.2f} s; the heartbeat's limit is {3 * INTERVAL:g} s")
    assert gone < 3 * INTERVAL + 2
    assert heard.of(PeerLost)


# strangers


async def test_what_strangers_say_is_text(page_with_token, node):
    page = page_with_token
    heard = Recorder(node)
    async with running(network_id=NETWORK) as guest:
        guest.identify._agent = HOSTILE
        await guest.connect(node.addrs[0])
        await heard.next(Identified)
        await page.until(f"{row(guest.peer_id)}?.innerText.includes('<img src=x')")
        await page.run(f"document.querySelector('#publish-topic').value = {json.dumps(TOPIC)}")
        await page.click("#listen")
        await page.until("document.querySelector('#listen').textContent === 'Stop'")
        async with guest.gossip.subscribe(TOPIC):
            await page.until("document.querySelectorAll('#topics tbody tr').length === 1")
            with trio.fail_after(15):
                while not (await guest.gossip.publish(TOPIC, HOSTILE.encode())).peers:  # noqa: ASYNC110
                    await trio.sleep(0.1)
            await page.until("document.querySelectorAll('#messages li').length > 0")
        assert await page.run("document.querySelector('#messages').innerText.includes('<script>alert(2)')")
        assert await page.run("document.querySelectorAll('main script, main img, main iframe').length") == 0
        assert "\u202e" not in await page.run("document.body.textContent")  # it would turn what follows around
        await page.click("#listen")


# the token


async def test_the_token_leaves_the_address_and_stays_in_the_tab(page_with_token, node):
    page, token = page_with_token, read_token(node.config.data_dir)
    assert token not in await page.run("location.href + JSON.stringify(history.state)")
    assert await page.run("sessionStorage.getItem('vouch.token')") == token
    assert await page.run("localStorage.length + document.cookie.length") == 0
    assert await page.text("#token-button") == "Token set"
    assert not [url for url in page.requests if token in url.partition("#")[0]]


async def test_disconnect_asks_for_the_token_and_then_does_it(page, node):
    heard = Recorder(node)
    async with running(network_id=NETWORK) as guest:
        await guest.connect(node.addrs[0])
        await page.until(f"{ROWS} === 1")
        await page.click("#peers .acts button")
        await page.until("document.querySelector('#ask-dialog').open")
        assert guest.peer_id in await page.text("#ask-text")
        await page.key("Enter")  # the first button that has the focus is Cancel
        await page.until("!document.querySelector('#ask-dialog').open")
        assert heard.of(Disconnected) == []
        await page.click("#peers .acts button")
        await page.click("#ask-go")
        await page.until("document.querySelector('#token-dialog').open")
        await page.type(read_token(node.config.data_dir))
        await page.key("Enter")
        await page.until(f"{ROWS} === 0")
    assert len(heard.of(Disconnected)) == 1
    await page.until("!document.querySelector('dialog[open]')")


async def test_a_ban_holds(page_with_token, node):
    page = page_with_token
    async with running(network_id=NETWORK) as guest:
        await guest.connect(node.addrs[0])
        await page.until(f"{ROWS} === 1")
        await page.click("#peers .acts .danger")
        await page.click("#ask-go")
        await page.until(f"{ROWS} === 0")
        assert [ban.target for ban in node.addressbook.bans()] == [guest.peer_id]
    await page.until(holds("#events", "banned"))


async def test_another_token_is_said_to_be_wrong(page):
    await page.click("#token-button")
    await page.type("x" * 43)
    await page.key("Enter")
    await page.until(holds("#token-error", "isn't this node's token"))
    await page.key("Escape")
    await page.until("!document.querySelector('dialog[open]')")
    assert await page.run("sessionStorage.length") == 0
    # the browser itself notes an answer that isn't 200
    assert [one for one in page.errors if "401" not in one] == []
    page.errors.clear()


async def test_a_node_that_tells_nothing_without_its_token_is_opened_by_it(tmp_path, browser):
    async with node_at(tmp_path, api_token="always") as node, serving(node) as server, browser.page() as page:
        await page.open(server.url)
        await page.until("document.querySelector('#token-dialog').open")
        await page.type(read_token(tmp_path))
        await page.key("Enter")
        await page.until(LIVE)
        assert await page.text("#peer-id code") == node.peer_id


# gossip


async def test_a_message_is_published_and_others_are_seen(page_with_token, node):
    page = page_with_token
    async with running(network_id=NETWORK) as guest, guest.gossip.subscribe(TOPIC) as heard:
        await guest.connect(node.addrs[0])
        await page.run(f"document.querySelector('#publish-topic').value = {json.dumps(TOPIC)}")
        await page.click("#listen")
        await page.until("document.querySelectorAll('#graph .dot.k-mesh').length === 1")
        await page.click("#publish-text")
        await page.type("ahoi, Häfen ⚓")
        await page.key("Enter")
        with trio.fail_after(15):
            message = await anext(aiter(heard))
        assert message.payload.decode() == "ahoi, Häfen ⚓"
        await page.until(holds("#publish-result", "to one peer"))
        await guest.gossip.publish(TOPIC, b"and back")
        await page.until(holds("#messages", "and back"))
        await page.until(holds("#plots", "ms"))  # its delay
        await page.click("#listen")
        await page.until(holds("#listen", "Listen"))


# the node restarts


@pytest.mark.parametrize("away", [0.0, 6.0], ids=["at once", "up for longer than before"])
async def test_it_comes_back_with_the_node_and_says_so(tmp_path, browser, away):
    identity, settings = Identity.generate(), DEFAULTS | {"network_id": NETWORK, "data_dir": tmp_path}
    async with browser.page() as page:
        async with Node(Config(api="127.0.0.1:0", **settings), identity=identity) as node, serving(node) as server:
            await page.open(server.url)
            await page.until(LIVE)
            port = server.address.port
            await trio.sleep(2.2)
        await page.until("document.querySelector('#link').dataset.state === 'lost'")
        assert "trying again" in await page.text("#link")
        async with Node(Config(api=f"127.0.0.1:{port}", **settings), identity=identity) as node:
            await trio.sleep(away)
            async with serving(node):
                took = await page.until(LIVE)
                await page.until(holds("#events", "node_restarted"))
                assert "restarted" in await page.text("#link")
        print(f"back after {took:.2f} s")
