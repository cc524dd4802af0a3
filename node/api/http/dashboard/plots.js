// Lines over the last five minutes, on canvas. A plot keeps KEPT samples, and no more.

import { bytes, make, milliseconds, say } from "./dom.js";

export const EVERY = 2000; // milliseconds between samples
export const KEPT = 150; // five minutes of them
const LEFT = 62;
const BELOW = 18;

const count = (value) => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(0) : value.toFixed(1));

export const KINDS = [
  { id: "traffic", title: "Traffic", lines: ["received", "sent"], unit: (value) => `${bytes(value)}/s`, least: 512 },
  { id: "messages", title: "Messages", lines: ["delivered", "duplicates"], unit: (value) => `${count(value)}/s`, least: 2 },
  { id: "delay", title: "Propagation delay", lines: ["p50", "p95"], unit: milliseconds, least: 0.01, gaps: true },
];

/** A round value above: 1, 2 or 5 times a power of ten; of bytes, of 1024. */
export function ceiling(value, least) {
  const wanted = Math.max(value, least);
  const base = least === 512 ? 1024 ** Math.floor(Math.log(wanted) / Math.log(1024)) : 1;
  const scaled = wanted / base;
  const ten = 10 ** Math.floor(Math.log10(scaled));
  return [1, 2, 5, 10].find((step) => step * ten >= scaled) * ten * base;
}

export class Plot {
  constructor(kind, where) {
    this.kind = kind;
    this.samples = []; // {at, values}: at in seconds; a value is null where there was nothing to measure
    this.now = kind.lines.map((line, index) => {
      const value = make("b", {}, "–");
      where.now.append(make("li", { class: `line-${index}` }, `${line} `, value));
      return value;
    });
    this.canvas = where.canvas;
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  add(at, values) {
    this.samples.push({ at, values });
    if (this.samples.length > KEPT) this.samples.splice(0, this.samples.length - KEPT);
    const shown = values.map((value) => (value === null ? "–" : this.kind.unit(value)));
    shown.forEach((text, index) => say(this.now[index], text));
    const words = this.kind.lines.map((line, index) => `${line} ${shown[index]}`).join(", ");
    this.canvas.setAttribute("aria-label", `${this.kind.title} over the last five minutes; now ${words}`);
    this.draw();
  }

  draw() {
    const { canvas, kind, samples } = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width || !height) return;
    const ratio = Math.min(3, devicePixelRatio || 1);
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(name).trim();
    const values = samples.flatMap((sample) => sample.values).filter((value) => value !== null);
    const top = ceiling(Math.max(0, ...values), kind.least);
    const [right, bottom] = [width - 6, height - BELOW];
    const over = (EVERY * KEPT) / 1000;
    const last = samples.at(-1)?.at ?? 0;
    const x = (at) => right - ((last - at) / over) * (right - LEFT);
    const y = (value) => bottom - (Math.max(0, value) / top) * (bottom - 8);

    pen.font = `11px ${style.fontFamily}`;
    pen.lineWidth = 1;
    for (const part of [0, 0.5, 1]) {
      const at = Math.round(y(part * top)) + 0.5;
      pen.strokeStyle = colour("--line");
      pen.beginPath();
      pen.moveTo(LEFT, at);
      pen.lineTo(right, at);
      pen.stroke();
      pen.fillStyle = colour("--muted");
      pen.textAlign = "right";
      pen.fillText(part ? kind.unit(part * top) : "0", LEFT - 6, at + 3.5);
    }
    for (const minutes of [4, 2, 0]) {
      pen.textAlign = minutes ? "center" : "right";
      pen.fillText(minutes ? `−${minutes} min` : "now", x(last - minutes * 60), height - 4);
    }
    kind.lines.forEach((_, index) => {
      pen.strokeStyle = colour(`--line-${index}`);
      pen.fillStyle = colour(`--line-${index}`);
      pen.lineWidth = 1.6;
      pen.lineJoin = "round";
      let from = null;
      pen.beginPath();
      for (const { at, values: row } of samples) {
        const value = row[index];
        if (value === null) { // a quiet while has no delay: the line ends, and begins anew
          from = null;
          continue;
        }
        if (from === null) {
          pen.moveTo(x(at), y(value));
          pen.lineTo(x(at) + 0.01, y(value));
        } else pen.lineTo(x(at), y(value));
        from = at;
      }
      pen.lineCap = "round";
      pen.stroke();
    });
  }
}

/** All of them, fed with the gossip's counters. */
export class Plots {
  constructor(where) {
    this.plots = KINDS.map((kind) => {
      const canvas = make("canvas", { role: "img", "aria-label": kind.title });
      const now = make("ul", { class: "plain now" });
      where.append(make("figure", {}, make("figcaption", {}, make("h3", {}, kind.title), now), canvas));
      return new Plot(kind, { canvas, now });
    });
    this.before = null;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.plots.forEach((plot) => plot.draw()));
  }

  /** A state of /v1/gossip, at a time in seconds. */
  add(at, state) {
    const { before } = this;
    this.before = { at, state };
    // nothing to compare with, the node restarted, or this page slept
    if (!before || state.cpu_ns < before.state.cpu_ns || at - before.at > (EVERY / 1000) * 15) return;
    const seconds = Math.max(0.1, at - before.at);
    const rate = (name) => Math.max(0, state[name] - before.state[name]) / seconds;
    const fresh = Math.min(state.delays.length, Math.max(0, state.delivered - before.state.delivered));
    const delays = state.delays.slice(state.delays.length - fresh).sort((one, other) => one - other);
    const quantile = (part) => (fresh ? delays[Math.min(fresh - 1, Math.floor(part * fresh))] : null);
    this.plots[0].add(at, [rate("bytes_received"), rate("bytes_sent")]);
    this.plots[1].add(at, [rate("delivered"), rate("duplicates")]);
    this.plots[2].add(at, [quantile(0.5), quantile(0.95)]);
  }
}
