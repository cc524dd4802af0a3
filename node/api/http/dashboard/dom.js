// Elements and texts. Whatever strangers say (agents, topics, payloads) gets onto the page as text alone: there is no
// innerHTML here, nor anywhere else in the dashboard.

export const byId = (id) => document.getElementById(id);

/** An element: `make("td", {class: "num"}, "text", child)`. Functions are listeners; false, null: left out. */
export function make(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same in SVG. */
export function draw(name, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets a text where it is another: an unchanged page isn't laid out anew, nor read aloud again. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Tells those who don't see it. */
export const announce = (text) => say(byId("said"), text);

/** Strangers' text as it may be shown: bounded, and without characters that turn or hide what stands around them. */
export function plain(text, most = 200) {
  const clean = String(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "�");
  return clean.length > most ? `${clean.slice(0, most)}…` : clean;
}

/** A peer ID, short: its end is what differs. */
export const short = (peer) => (peer.length > 16 ? `${peer.slice(0, 4)}…${peer.slice(-8)}` : peer);

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toPrecision(2)} ${units[unit]}`;
}

/** Seconds as a round trip: 0.0123 is "12.3 ms". */
export function milliseconds(seconds) {
  const ms = seconds * 1000;
  if (ms >= 10000) return `${(ms / 1000).toFixed(0)} s`;
  return `${ms >= 100 ? ms.toFixed(0) : ms >= 1 ? ms.toFixed(1) : ms.toFixed(2)} ms`;
}

/** Seconds as a while: "3 d 4 h". */
export function span(seconds) {
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = parts.findIndex(([, size]) => seconds >= size);
  if (first < 0) return "0 s";
  const [unit, size] = parts[first];
  const whole = `${Math.floor(seconds / size)} ${unit}`;
  if (first >= 2) return whole;
  const [below, small] = parts[first + 1];
  return `${whole} ${Math.floor((seconds % size) / small)} ${below}`;
}

/** Unix seconds as the time of day here. */
export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
}

/** A button that copies a text. Without a secure context there is no clipboard: then the text gets selected. */
export function copier(text, what, beside) {
  const button = make("button", { type: "button", class: "quiet copy", "aria-label": `Copy ${what}` }, "copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
      announce(`Copied ${what}`);
    } catch {
      getSelection().selectAllChildren(beside);
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
  return button;
}
