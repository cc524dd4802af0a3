// Who the node is, how it is, and whether it is ready.

import { byId, copier, make, plain, say, span } from "./dom.js";

const MOST = 24; // addresses

/** Keyed children of a list: those that are new get made, those that went are removed. */
function keep(list, keys, build) {
  const there = new Map([...list.children].map((child) => [child.dataset.key, child]));
  for (const [key, child] of there) if (!keys.includes(key)) child.remove();
  for (const key of keys) {
    if (there.has(key)) continue;
    const child = build(key);
    child.dataset.key = key;
    list.append(child);
  }
}

function copied(text, what) {
  const code = make("code", {}, text);
  return [code, copier(text, what, code)];
}

const figure = (name, value) => ({ name, value });

export function showNode(status) {
  say(byId("network"), status.network_id ? plain(status.network_id, 64) : "open network");
  document.title = `${status.peers} peers · ${plain(status.network_id, 40) || "vouch"}`;
  const peer = byId("peer-id");
  if (peer.dataset.peer !== status.peer_id) {
    peer.dataset.peer = status.peer_id;
    peer.replaceChildren(...copied(status.peer_id, "the peer ID"));
  }
  keep(byId("addrs"), status.addrs.slice(0, MOST), (addr) => make("li", {}, ...copied(addr, "this address")));
  const limit = status.limits.max_connections;
  const figures = [
    figure("Peers", String(status.peers)),
    figure("In / out", `${status.inbound} / ${status.outbound}`),
    figure("Connections", limit ? `${limit.used} / ${limit.limit}` : "–"),
    figure("Routing table", String(status.routing_table.length)),
    figure("Protocols", String(status.protocols.length)),
    figure("Up for", span(status.uptime)),
    figure("Version", plain(status.client_version, 40)),
  ];
  const list = byId("figures");
  keep(list, figures.map((one) => one.name), (name) => make("div", {}, make("dt", {}, name), make("dd")));
  figures.forEach(({ value }, index) => say(list.children[index].lastChild, value));
}

export function showReady({ ready, checks }) {
  const warned = checks.some((check) => check.state === "warn");
  byId("ready").dataset.state = ready ? (warned ? "warn" : "ok") : "fail";
  say(byId("ready"), ready ? "ready" : "not ready");
  const list = byId("checks");
  keep(list, checks.map((check) => check.name), () => make("li", {}, make("b"), make("span", { class: "chip" }), make("span", { class: "detail" })));
  for (const check of checks) {
    const row = [...list.children].find((one) => one.dataset.key === check.name);
    row.children[1].dataset.state = check.state;
    [check.name.replaceAll("_", " "), check.state, plain(check.detail)].forEach((text, index) => say(row.children[index], text));
  }
}
