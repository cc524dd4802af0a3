// The table of peers: sortable, a row for each, and what can be done about one. Rows stay the same elements as long as
// their peer is there, so that whoever is on a button of one stays on it.

import { ask } from "./api.js";
import { confirm } from "./dialogs.js";
import { byId, make, milliseconds, plain, say, short, span } from "./dom.js";

const MOST = 300; // rows

/** What a peer's address goes over. */
export function transport(addr) {
  const parts = addr.split("/");
  for (const [name, shown] of [["quic-v1", "QUIC"], ["quic", "QUIC"], ["wss", "WSS"], ["ws", "WS"], ["tcp", "TCP"]]) {
    if (parts.includes(name)) return name === "ws" && parts.includes("tls") ? "WSS" : shown;
  }
  return "other";
}

const state = (peer) => (peer.flaky ? "flaky" : peer.tags.length ? peer.tags.join(", ") : "ok");

const COLUMNS = [
  { id: "peer", title: "Peer", of: (peer) => peer.peer },
  { id: "agent", title: "Agent", of: (peer) => peer.agent || peer.client_version, text: (value) => plain(value || "–", 64) },
  { id: "direction", title: "Direction", of: (peer) => peer.direction },
  { id: "transport", title: "Transport", of: (peer) => transport(peer.addr) },
  { id: "rtt", title: "RTT", of: (peer) => peer.rtt, text: (value) => (value === null ? "–" : milliseconds(value)), num: true },
  { id: "score", title: "Score", of: (peer) => peer.score, text: (value) => value.toFixed(1), num: true, down: true },
  { id: "streams", title: "Streams", of: (peer) => peer.streams, text: String, num: true, down: true },
  { id: "for", title: "For", of: (peer) => peer.connected_for, text: span, num: true, down: true },
  { id: "state", title: "State", of: state, text: (value) => plain(value, 40) },
];

function order(column, down) {
  const { of } = column;
  return (one, other) => {
    const [a, b] = [of(one), of(other)];
    if (a === null || b === null) return (a === null) - (b === null); // what isn't known comes last, either way
    const found = typeof a === "string" ? a.localeCompare(b) : a - b;
    return (down ? -found : found) || one.peer.localeCompare(other.peer);
  };
}

export class Peers {
  constructor(changed) {
    this.changed = changed;
    this.rows = new Map();
    this.list = [];
    this.by = COLUMNS[0];
    this.down = false;
    this.headers = COLUMNS.map((column) => {
      const button = make("button", { type: "button", click: () => this.sort(column) }, column.title);
      return make("th", { scope: "col", role: "columnheader", class: column.num ? "num" : null }, button);
    });
    const actions = make("th", { scope: "col", role: "columnheader" }, make("span", { class: "unseen" }, "Actions"));
    this.body = make("tbody", { role: "rowgroup" });
    // roles are said, for the table is laid out as cards on a phone, which takes them away
    const table = make(
      "table",
      { role: "table", "aria-labelledby": "peers-title" },
      make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...this.headers, actions)),
      this.body,
    );
    this.empty = make("p", { class: "note" }, "Nobody is connected.");
    byId("peers").append(table, this.empty);
    const select = byId("peers-sort");
    select.append(...COLUMNS.map((column) => make("option", { value: column.id }, column.title)));
    select.addEventListener("change", () => {
      const column = COLUMNS.find((one) => one.id === select.value);
      this.by = column;
      this.down = Boolean(column.down);
      this.draw();
    });
    this.draw();
  }

  sort(column) {
    this.down = this.by === column ? !this.down : Boolean(column.down);
    this.by = column;
    byId("peers-sort").value = column.id;
    this.draw();
  }

  show(list) {
    this.list = list;
    this.draw();
  }

  /** Shows where one is, for whoever clicked at it in the graph. */
  point(peer) {
    const row = this.rows.get(peer);
    if (!row) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    row.element.scrollIntoView({ block: "center", behavior: calm ? "auto" : "smooth" });
    row.cut.focus({ preventScroll: true });
  }

  draw() {
    this.headers.forEach((header, index) => {
      const sorted = COLUMNS[index] === this.by ? (this.down ? "descending" : "ascending") : "none";
      header.setAttribute("aria-sort", sorted);
    });
    const sorted = [...this.list].sort(order(this.by, this.down));
    const shown = sorted.slice(0, MOST);
    const wanted = new Set(shown.map((peer) => peer.peer));
    for (const [id, row] of this.rows) {
      if (wanted.has(id)) continue;
      row.element.remove();
      this.rows.delete(id);
    }
    shown.forEach((peer, index) => {
      const row = this.row(peer);
      if (this.body.children[index] !== row.element) this.body.insertBefore(row.element, this.body.children[index] ?? null);
    });
    say(byId("peers-count"), String(this.list.length));
    this.empty.hidden = this.list.length > 0;
    byId("peers-note").hidden = sorted.length <= MOST;
    say(byId("peers-note"), `The first ${MOST} of ${sorted.length}; vouch peers shows all.`);
  }

  row(peer) {
    let row = this.rows.get(peer.peer);
    if (!row) {
      const id = peer.peer;
      const act = (text, what, danger) =>
        make("button", { type: "button", class: danger ? "danger small" : "quiet small", "aria-label": `${text} ${id}`, click: what }, text);
      const cut = act("Disconnect", () => this.disconnect(id), false);
      const ban = act("Ban", () => this.ban(id), true);
      const cells = COLUMNS.map((column, index) =>
        index
          ? make("td", { role: "cell", "data-title": column.title, class: column.num ? `num c-${column.id}` : `c-${column.id}` })
          : make("th", { role: "rowheader", scope: "row", class: "id", title: id }, short(id)),
      );
      const element = make("tr", { role: "row" }, ...cells, make("td", { role: "cell", class: "acts" }, cut, ban));
      element.dataset.peer = id;
      row = { element, cells, cut };
      this.rows.set(id, row);
    }
    COLUMNS.forEach((column, index) => {
      if (!index) return;
      const value = column.of(peer);
      say(row.cells[index], (column.text ?? String)(value));
    });
    row.cells[1].title = plain(peer.agent || peer.client_version, 200);
    row.cells[3].title = plain(peer.addr, 200);
    row.element.classList.toggle("flaky", peer.flaky);
    return row;
  }

  async disconnect(peer) {
    const work = () => ask(`/v1/peers/${encodeURIComponent(peer)}`, { method: "DELETE" });
    const text = `${peer}. It may come back, or the node may connect with it again.`;
    if (await confirm({ title: "Disconnect", text, go: "Disconnect", work })) this.changed();
  }

  async ban(peer) {
    const work = (seconds) =>
      ask("/v1/bans", { method: "POST", body: { target: peer, reason: "by the operator", seconds } });
    const text = `${peer} is disconnected, and refused as long as the ban holds.`;
    if (await confirm({ title: "Ban", text, go: "Ban", time: true, work })) this.changed();
  }
}
