// Topics, a box to publish, and the messages of one topic as they come.

import { ask, decode, encode, listen, token } from "./api.js";
import { withToken } from "./dialogs.js";
import { announce, byId, bytes, clock, make, plain, say, short } from "./dom.js";

const KEPT = 100; // messages
const ROWS = 100; // topics

export class Topics {
  constructor(changed) {
    this.changed = changed;
    this.rows = new Map();
    this.body = make("tbody");
    const heads = ["Topic", "Mesh", "Subscribers", "Decided by", "Listeners"];
    const head = make("tr", {}, ...heads.map((text, index) => make("th", { scope: "col", class: [1, 2, 4].includes(index) ? "num" : null }, text)));
    this.table = make("table", { "aria-labelledby": "topics-title" }, make("thead", {}, head), this.body);
    this.empty = make("p", { class: "note" }, "No topic is joined. Listen to one to join it.");
    byId("topics").append(this.table, this.empty);
    this.listening = null;
    byId("publish").addEventListener("submit", (event) => {
      event.preventDefault();
      this.publish();
    });
    byId("listen").addEventListener("click", () => this.toggle());
    this.about();
  }

  show({ topics, pending }) {
    const wanted = new Set(topics.map((row) => row.topic));
    for (const [topic, row] of this.rows) {
      if (wanted.has(topic)) continue;
      row.element.remove();
      this.rows.delete(topic);
    }
    for (const one of topics.slice(0, ROWS)) {
      let row = this.rows.get(one.topic);
      if (!row) {
        const cells = [0, 1, 2, 3, 4].map((index) => make(index ? "td" : "th", { scope: index ? null : "row", class: [1, 2, 4].includes(index) ? "num" : null }));
        const name = make("button", { type: "button", class: "name", click: () => { byId("publish-topic").value = one.topic; byId("publish-text").focus(); } });
        say(name, plain(one.topic, 80));
        cells[0].append(name);
        row = { element: make("tr", {}, ...cells), cells };
        this.rows.set(one.topic, row);
        this.body.append(row.element);
      }
      [null, one.mesh, one.subscribers, one.decided_by || "nobody", one.listeners].forEach((value, index) => {
        if (index) say(row.cells[index], String(value));
      });
    }
    this.table.hidden = !topics.length;
    this.empty.hidden = topics.length > 0;
    if (!byId("publish-topic").value && topics.length && document.activeElement !== byId("publish-topic")) byId("publish-topic").value = topics[0].topic;
    say(byId("topics-pending"), pending ? `${pending} await a verdict` : "");
  }

  async publish() {
    const topic = byId("publish-topic").value;
    const text = byId("publish-text").value;
    try {
      const body = { topic, payload: encode(text) };
      const sent = await withToken(() => ask("/v1/publish", { method: "POST", body }));
      if (sent === null) return;
      const to = sent.peers.length === 1 ? "one peer" : `${sent.peers.length} peers`;
      say(byId("publish-result"), `Published ${sent.message_id.slice(-8)} to ${to}; ${sent.subscribers} of ${sent.connected} connected subscribe.`);
      byId("publish-text").value = "";
      this.changed();
    } catch (error) {
      say(byId("publish-result"), error.message);
    }
  }

  async toggle() {
    if (this.listening) {
      this.stop();
      return;
    }
    const topic = byId("publish-topic").value;
    if (!topic) {
      byId("publish-topic").focus();
      return;
    }
    const ended = new AbortController();
    this.listening = { topic, ended };
    this.about();
    await this.follow(topic, ended);
  }

  stop() {
    this.listening?.ended.abort();
    this.listening = null;
    this.about();
    this.changed();
  }

  /** Listens until it is stopped; comes back when the node does. */
  async follow(topic, ended) {
    for (let wait = 1000; !ended.signal.aborted; wait = Math.min(wait * 2, 8000)) {
      const opened = () => {
        wait = 1000;
        this.about("listening");
        this.changed();
      };
      const tell = (kind, message) => this.told(kind, message);
      try {
        const work = () => listen(`/v1/subscribe?topic=${encodeURIComponent(topic)}`, { signal: ended.signal, opened, tell }).then(() => true);
        if ((await withToken(work)) === null) break;
      } catch (error) {
        if (error.status && error.status !== 429) {
          say(byId("publish-result"), error.message);
          break;
        }
      }
      if (ended.signal.aborted) return;
      this.about("waiting for the node");
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
    if (!ended.signal.aborted) this.stop();
  }

  told(kind, message) {
    const list = byId("messages");
    if (kind === "missed") list.prepend(make("li", { "data-tone": "bad" }, `${message.count} messages were left out here`));
    if (kind !== "message") return;
    const text = decode(message.payload);
    const shown = text === null ? `${bytes(message.size)} that are no text` : plain(text, 500);
    list.prepend(
      make("li", {}, make("time", {}, clock(Date.now() / 1000)), make("b", { title: plain(message.author) }, short(plain(message.author, 80))), make("q", {}, shown)),
    );
    while (list.children.length > KEPT) list.lastChild.remove();
  }

  about(how = "joining") {
    const topic = this.listening?.topic;
    say(byId("listen"), topic ? "Stop" : "Listen");
    say(byId("messages-about"), topic ? `${how === "listening" ? "of" : `${how}:`} ${plain(topic, 60)}` : token() ? "Listen to a topic to see its messages." : "Listening needs the token.");
    if (topic && how === "listening") announce(`Listening to ${plain(topic, 60)}`);
  }
}
