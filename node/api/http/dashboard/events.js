// What happens in the node, newest first: the last KEPT events, of which the page shows SHOWN that fit the filter.

import { byId, clock, make, plain, say, short } from "./dom.js";

const KEPT = 500;
const SHOWN = 200;
const PEER = /^(12D3KooW|Qm|16Uiu2)\w+$/;
const TONES = {
  bad: ["refused", "banned", "peer_lost", "misbehaved", "message_rejected", "gossip_rejected", "pool_low", "missed"],
  good: ["admitted", "peer_steady", "unbanned", "node_back"],
  wary: ["peer_flaky", "disconnected", "node_gone", "node_restarted"],
};

const tone = (kind) => Object.keys(TONES).find((one) => TONES[one].includes(kind)) ?? "plain";

function value(one) {
  if (one === null) return "none";
  if (Array.isArray(one)) return `${one.length}`;
  if (typeof one === "number") return Number.isInteger(one) ? String(one) : one.toFixed(2);
  return plain(typeof one === "object" ? JSON.stringify(one) : one);
}

export class EventList {
  constructor() {
    this.kept = [];
    this.counted = 0;
    this.kinds = new Set();
    this.kind = byId("events-kind");
    this.text = byId("events-text");
    this.list = byId("events");
    this.kind.addEventListener("change", () => this.redraw());
    this.text.addEventListener("input", () => this.redraw());
    this.note();
  }

  /** An event as /v1/events tells it. What the page itself notices comes the same way. */
  add({ event, time, fields }) {
    const words = Object.entries(fields).filter(([, one]) => one !== "");
    const shown = words.map(([name, one]) => [name, name === "peer" || PEER.test(one) ? short(String(one)) : value(one)]);
    const item = { event, time, shown, all: `${event} ${words.map(([name, one]) => `${name}=${value(one)}`).join(" ")}`.toLowerCase() };
    this.counted += 1;
    this.kept.unshift(item);
    if (this.kept.length > KEPT) this.kept.length = KEPT;
    if (!this.kinds.has(event) && this.kinds.size < 64) {
      this.kinds.add(event);
      const option = make("option", { value: event }, event);
      const after = [...this.kind.options].slice(1).find((one) => one.value > event);
      this.kind.insertBefore(option, after ?? null);
    }
    if (this.fits(item)) {
      this.list.prepend(this.row(item));
      while (this.list.children.length > SHOWN) this.list.lastChild.remove();
    }
    this.note();
  }

  fits(item) {
    const text = this.text.value.trim().toLowerCase();
    return (!this.kind.value || item.event === this.kind.value) && (!text || item.all.includes(text));
  }

  row({ event, time, shown }) {
    const fields = shown.map(([name, one]) => make("span", {}, make("i", {}, `${name} `), one));
    return make("li", { "data-tone": tone(event) }, make("time", {}, clock(time)), make("b", {}, event), ...fields);
  }

  redraw() {
    this.list.replaceChildren(...this.kept.filter((item) => this.fits(item)).slice(0, SHOWN).map((item) => this.row(item)));
    this.note();
  }

  note() {
    const shown = this.list.children.length;
    const text = this.counted ? `${shown} shown, ${this.kept.length} kept of ${this.counted}` : "Nothing has happened since this page was opened.";
    say(byId("events-note"), text);
  }
}
