// The mesh of a topic as this node sees it: itself in the middle, the peers of its mesh near, those who only subscribe
// further out, and whoever is just connected at the rim. The table of peers says the same in words.

import { byId, draw, plain, say, short } from "./dom.js";
import { Layout, MOST } from "./layout.js";

const LENGTH = { mesh: 0.52, topic: 0.76, peer: 0.96 }; // of what there is between the middle and the rim
const RIM = 34;
const LABELS = 24; // with more peers names only get in each other's way

export class Graph {
  constructor(choose) {
    this.svg = byId("graph");
    this.layout = new Layout(640, 400);
    this.links = draw("g", { class: "links" });
    this.dots = draw("g", { class: "dots" });
    this.more = draw("text", { class: "more", x: 10, y: 18 });
    this.svg.append(this.links, this.dots, this.more);
    this.shown = new Map();
    this.choose = choose;
    this.frame = 0;
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    this.nodes = [];
    new ResizeObserver(() => this.resize()).observe(this.svg);
  }

  resize() {
    const [width, height] = [this.svg.clientWidth, this.svg.clientHeight];
    if (!width || !height || (width === this.layout.width && height === this.layout.height)) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    Object.assign(this.layout, { width, height });
    this.arrange();
  }

  arrange() {
    const reach = this.layout.height / 2 - RIM;
    const wanted = this.nodes.map((node) => ({ id: node.id, length: reach * (LENGTH[node.kind] ?? 0) }));
    if (this.layout.set(wanted)) this.move();
    else this.place();
  }

  /** `peers` as /v1/peers tells them; `members`: of the chosen topic, as /v1/topics/…/mesh does. */
  show(own, peers, members, topic) {
    const inside = new Map(members.map((one) => [one.peer, one.in_mesh ? "mesh" : "topic"]));
    const rank = { mesh: 0, topic: 1, peer: 2 };
    const rows = peers.map((peer) => ({ id: peer.peer, kind: inside.get(peer.peer) ?? "peer", peer }));
    rows.sort((one, other) => rank[one.kind] - rank[other.kind]);
    const left = Math.max(0, rows.length - (MOST - 1));
    const nodes = [{ id: own, kind: "own" }, ...rows.slice(0, MOST - 1)];
    say(this.more, left ? `and ${left} more` : "");
    const wanted = new Set(nodes.map((node) => node.id));
    for (const [id, parts] of this.shown) {
      if (wanted.has(id)) continue;
      parts.line?.remove();
      parts.dot.remove();
      this.shown.delete(id);
    }
    for (const node of nodes) this.put(node, nodes.length);
    this.dots.append(this.shown.get(own).dot); // above all others
    const count = (kind) => rows.filter((row) => row.kind === kind).length;
    const of = topic ? `, topic ${plain(topic, 60)}: ${count("mesh")} in the mesh, ${count("topic")} more subscribe` : "";
    this.svg.setAttribute("aria-label", `This node and ${peers.length} connected peers${of}`);
    this.nodes = nodes;
    this.arrange();
  }

  put(node, count) {
    let parts = this.shown.get(node.id);
    if (!parts) {
      const title = draw("title");
      const label = draw("text", { y: 28, "text-anchor": "middle" });
      const dot = draw("g", {}, title, draw("circle", { r: node.kind === "own" ? 13 : 7 }), label);
      const line = node.kind === "own" ? null : draw("line");
      if (line) {
        this.links.append(line);
        dot.addEventListener("click", () => this.choose(node.id));
      }
      this.dots.append(dot);
      parts = { dot, line, title, label };
      this.shown.set(node.id, parts);
    }
    const flaky = node.peer?.flaky ? " flaky" : "";
    parts.dot.setAttribute("class", `dot k-${node.kind}${flaky}`);
    parts.line?.setAttribute("class", `k-${node.kind}`);
    const name = node.kind === "own" ? "this node" : node.id.slice(-6);
    say(parts.label, node.kind === "own" || count <= LABELS ? name : "");
    say(parts.title, node.kind === "own" ? `this node, ${node.id}` : `${short(node.id)} ${plain(node.peer.agent, 60)}`);
  }

  move() {
    if (this.calm.matches) {
      while (this.layout.step());
      this.place();
    } else if (!this.frame) {
      const tick = () => {
        const more = this.layout.step();
        this.place();
        this.frame = more ? requestAnimationFrame(tick) : 0;
      };
      this.frame = requestAnimationFrame(tick);
    }
  }

  place() {
    for (const [id, { x, y }] of this.layout.nodes) {
      const parts = this.shown.get(id);
      const [midX, midY] = [this.layout.width / 2, this.layout.height / 2];
      const [atX, atY] = [(midX + x).toFixed(1), (midY + y).toFixed(1)];
      parts.dot.setAttribute("transform", `translate(${atX} ${atY})`);
      if (!parts.line) continue;
      const away = Math.hypot(x, y) || 1; // the name stands behind its dot, away from the line
      const side = x / away;
      const anchor = side > 0.4 ? "start" : side < -0.4 ? "end" : "middle";
      const label = { x: (side * 13).toFixed(1), y: ((y / away) * 15 + 3.5).toFixed(1), "text-anchor": anchor };
      for (const [name, value] of Object.entries(label)) parts.label.setAttribute(name, value);
      const ends = { x1: midX, y1: midY, x2: atX, y2: atY };
      for (const [name, value] of Object.entries(ends)) parts.line.setAttribute(name, value);
    }
  }
}
