"""How the dashboard looks and can be used: on a phone, by keyboard, in the dark, without motion; and its bounds.

The pictures in tests/.artifacts/dashboard/ are what a person looks at.
"""

from __future__ import annotations

import json

import pytest
import trio

from tests.apiserver import node_at, serving
from tests.dashboard.test_dashboard import ROWS, TOPIC, crowd, opened, with_token

PHONE = {"width": 360, "height": 740}

# the contrast of each text with what it stands on, by the rules of WCAG 2; what is below is told
CONTRAST = """(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const under = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = rgb(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  let looked = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest('script, svg title')) continue;
    const style = getComputedStyle(element);
    const colour = element.closest('svg') ? style.fill : style.color;
    const [one, other] = [light(rgb(colour)), light(under(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    looked += 1;
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${walker.currentNode.data.trim()}`);
  }
  return { looked, poor };
})()"""

FOCUS = """(() => {
  const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
  const seen = s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2 || e.classList.contains('skip');
  return {
    what: e.id || e.getAttribute('aria-label') || e.textContent.trim(),
    body: e === document.body, seen, inside: r.width > 0 && r.bottom > 0 && r.top < innerHeight,
  };
})()"""


@pytest.fixture
async def node(tmp_path):
    # beats for their round trips; nobody is lost to a browser that takes all of the machine for some seconds
    async with node_at(tmp_path, heartbeat="on", heartbeat_interval=10.0, client_version="vouch/0.1.0") as found:
        yield found


@pytest.fixture
async def full(node, browser):
    """A page with messages, events, and six peers that stayed of seven."""
    async with (
        serving(node) as server,
        crowd(node, 7) as peers,
        opened(browser, server, with_token(node)) as page,
    ):
        await page.run(f"document.querySelector('#publish-topic').value = {json.dumps(TOPIC)}")
        await page.click("#listen")
        await page.until(f"{ROWS} === 7")
        await page.until("document.querySelectorAll('#graph .dot.k-mesh').length > 3")
        for number in range(8):
            await peers[number % 7].gossip.publish(TOPIC, f"block {1000 + number}".encode())
            await trio.sleep(0.3)
        await page.until("document.querySelectorAll('#messages li').length === 8")
        await peers[6].disconnect(node.peer_id)
        await page.until(f"{ROWS} === 6")
        yield page
        await page.click("#listen")


async def test_pictures_widths_and_contrast(full, pictures):
    looks = {"light": {}, "dark": {"dark": True}, "tablet": {"width": 800, "height": 1000}}
    looks |= {"phone-light": PHONE, "phone-dark": PHONE | {"dark": True}}
    for name, look in looks.items():
        await full.look(**look)
        await trio.sleep(0.4)
        await full.screenshot(pictures / f"{name}.png")
        wide, window = await full.run("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= window, f"{name}: expected nothing beyond {window} pixels, got {wide}"
        found = await full.run(CONTRAST)
        assert found["looked"] > 80
        assert found["poor"] == [], name
    cut = await full.run(
        "[...document.querySelectorAll('.card *')].filter((e) => e.checkVisibility() && !e.closest('.unseen')"
        " && e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('svg, .log'))"
        ".map((e) => e.outerHTML.slice(0, 80))"
    )
    assert cut == []


async def test_a_dialog_is_a_picture_too(full, pictures):
    await full.click("#peers .acts .danger")
    await full.screenshot(pictures / "dialog.png", whole=False)
    assert (await full.run(CONTRAST))["poor"] == []
    await full.key("Escape")
    await full.until("!document.querySelector('dialog[open]')")


async def test_everything_can_be_reached_by_keyboard_and_is_seen_there(full, pictures):
    # from the page's beginning, wherever the last click was
    await full.run("document.body.tabIndex = -1, document.body.focus(), document.body.removeAttribute('tabindex')")
    stops = []
    for _ in range(80):
        await full.key("Tab")
        stop = await full.run(FOCUS)
        if stop["body"]:
            break
        assert stop["seen"], stop
        assert stop["inside"], stop
        stops.append(stop["what"])
        if len(stops) == 9:
            await full.screenshot(pictures / "focus.png", whole=False)
    assert stops[0] == "Skip to content"
    for what in ("token-button", "Copy the peer ID", "mesh-topic", "publish-topic", "listen", "messages", "events"):
        assert what in stops
    assert sum(stop.startswith("Disconnect ") for stop in stops) == 6
    assert sum(stop.startswith("Ban ") for stop in stops) == 6


async def test_the_skip_link_skips(full):
    await full.run("document.querySelector('.skip').focus()")
    await full.key("Enter")
    await full.until("document.activeElement.id === 'content'")
    await full.key("Tab")
    assert (await full.run(FOCUS))["what"] == "Copy the peer ID"


async def test_the_table_is_sorted_by_keyboard_and_says_so(full):
    header = "document.querySelector('#peers thead th:nth-child({}) button')"
    agents = "[...document.querySelectorAll('#peers td.c-agent')].map((e) => e.textContent)"
    await full.run(header.format(2) + ".focus()")
    await full.key("Enter")
    up = await full.run(agents)
    assert up == sorted(up)
    assert await full.run("document.querySelector('#peers thead th:nth-child(2)').ariaSort") == "ascending"
    await full.key(" ")
    assert await full.run(agents) == up[::-1]
    assert await full.run("document.querySelectorAll('#peers thead [aria-sort=none]').length") == 8
    # whoever is on a button of a row stays there while the table is drawn anew
    await full.run("document.querySelector('#peers .acts button').focus()")
    before = (await full.run(FOCUS))["what"]
    await trio.sleep(2.5)
    assert (await full.run(FOCUS))["what"] == before


async def test_every_control_has_a_name_and_the_table_its_roles_on_a_phone(full):
    for look in ({}, PHONE):
        await full.look(**look)
        nodes = (await full.send("Accessibility.getFullAXTree"))["nodes"]
        shown = [one for one in nodes if not one["ignored"]]
        roles = [one["role"]["value"] for one in shown]
        for one in shown:
            if one["role"]["value"] in (
                "button",
                "textbox",
                "searchbox",
                "combobox",
                "image",
                "table",
                "log",
                "region",
            ):
                assert one["name"]["value"].strip(), one
        assert {"banner", "main", "region", "log", "status", "table", "rowheader", "cell"} <= set(roles)
        assert roles.count("rowheader") >= 6


async def test_without_motion_the_mesh_stands_at_once(full):
    await full.look(calm=True)
    moved = await full.run("""(async () => {
      const { Graph } = await import('./graph.js');
      document.querySelector('#graph').replaceChildren();
      const graph = new Graph(() => {});
      await new Promise((resolve) => setTimeout(resolve, 200)); // it knows its size
      const peer = (n) => ({ peer: 'p' + n, agent: '', flaky: false });
      graph.show('me', [1, 2, 3, 4, 5].map(peer), [], '');
      const places = () => [...document.querySelectorAll('.dot')].map((e) => e.getAttribute('transform')).join();
      const first = places();
      await new Promise((resolve) => setTimeout(resolve, 300));
      return [first !== '', first === places(), graph.frame];
    })()""")
    assert moved == [True, True, 0]


async def test_what_is_kept_is_bounded(full, pictures):
    found = await full.run("""(async () => {
      const [{ Graph }, { EventList }, { Plots }, { Peers }] = await Promise.all(
        ['graph', 'events', 'plots', 'peers'].map((name) => import(`./${name}.js`)));
      document.querySelector('#graph').replaceChildren();
      const graph = new Graph(() => {});
      const peer = (n) => ({
        peer: `12D3KooW${'x'.repeat(36)}${String(n).padStart(8, '0')}`, agent: `a/${n}`, flaky: n % 9 === 0,
        direction: 'inbound', addr: '/ip4/192.0.2.1/udp/1/quic-v1', rtt: n / 1e4, score: n, streams: 1,
        connected_for: n, tags: [],
      });
      const list = Array.from({ length: 450 }, (_, n) => peer(n));
      const started = performance.now();
      graph.show('me', list, list.slice(0, 60).map((one, n) => ({ peer: one.peer, in_mesh: n < 12 })), 'blocks');
      const shown = performance.now() - started;
      const steps = performance.now();
      for (let n = 0; n < 20; n += 1) graph.layout.step();
      const step = (performance.now() - steps) / 20;
      document.querySelector('#peers').replaceChildren();
      const peers = new Peers(() => {});
      peers.show(list);
      const events = new EventList();
      for (let n = 0; n < 2000; n += 1) events.add({ event: 'admitted', time: n, fields: { peer: 'p' + n } });
      const plots = new Plots(document.createElement('div'));
      for (let n = 0; n < 1000; n += 1) {
        plots.add(n * 2, {
          cpu_ns: n, bytes_received: n * 9, bytes_sent: n, delivered: n, duplicates: 0, delays: [0.1],
        });
      }
      await new Promise((resolve) => setTimeout(resolve, 1500));
      return {
        dots: document.querySelectorAll('#graph .dot').length, more: document.querySelector('#graph .more').textContent,
        rows: document.querySelectorAll('#peers tbody tr').length, kept: events.kept.length,
        listed: document.querySelectorAll('#events li').length,
        samples: plots.plots.map((plot) => plot.samples.length), shown, step, still: graph.layout.heat,
      };
    })()""")
    print(f"200 nodes: shown in {found['shown']:.1f} ms, {found['step']:.2f} ms a step")
    await full.run("document.querySelector('#graph').scrollIntoView({block: 'center'})")
    await full.screenshot(pictures / "crowd.png", whole=False)
    assert found["dots"] == 200
    assert found["more"] == "and 251 more"
    assert found["rows"] == 300
    assert found["kept"] == 500
    assert found["listed"] <= 200
    assert found["samples"] == [150] * 3


async def test_the_rules_of_plots_and_texts(full):
    found = await full.run("""(async () => {
      const [{ ceiling }, { plain, bytes, span, milliseconds }, { transport }, { Layout }] = await Promise.all(
        ['plots', 'dom', 'peers', 'layout'].map((name) => import(`./${name}.js`)));
      const layout = new Layout(600, 400);
      layout.set([{ id: 'me', length: 0 }, ...Array.from({ length: 40 }, (_, n) => ({ id: 'p' + n, length: 100 }))]);
      let steps = 0;
      while (layout.step()) steps += 1;
      const nodes = [...layout.nodes.values()];
      return {
        ceilings: [ceiling(0, 2), ceiling(3, 2), ceiling(70, 2), ceiling(3000, 512), ceiling(0.013, 0.01)],
        texts: [plain('a\\u0000b\\u202ec'), plain('x'.repeat(300)).length, bytes(0), bytes(1536), span(59),
          span(3700), milliseconds(0.0123)],
        ways: ['/ip4/1.2.3.4/tcp/1', '/ip4/1.2.3.4/udp/1/quic-v1', '/ip4/1.2.3.4/tcp/1/tls/ws', '/x'].map(transport),
        steps, inside: nodes.every((n) => Math.abs(n.x) <= 300 && Math.abs(n.y) <= 200),
        apart: Math.min(...nodes.flatMap((a, i) => nodes.slice(i + 1).map((b) => Math.hypot(a.x - b.x, a.y - b.y)))),
        middle: [layout.nodes.get('me').x, layout.nodes.get('me').y],
      };
    })()""")
    assert found["ceilings"] == [2, 5, 100, 5120, 0.02]
    assert found["texts"] == ["a\ufffdb\ufffdc", 201, "0 B", "1.5 KiB", "59 s", "1 h 1 min", "12.3 ms"]
    assert found["ways"] == ["TCP", "QUIC", "WSS", "other"]
    assert found["steps"] < 200
    assert found["inside"]
    assert found["apart"] > 8
    assert found["middle"] == [0, 0]
