// A force layout: links are springs, all nodes keep away from each other, and everything falls towards the middle.
// Pure: no page, no clock. At most MOST nodes; a step is MOST² / 2 pairs, and it cools down by itself.

export const MOST = 200;
const COOLING = 0.97;
const STILL = 0.02;
const SIDE = 52; // room for names
const TOP = 26;

/** Where a newcomer starts: by its name, so that the same peers lie the same way each time. */
function place(id, reach) {
  let hash = 2166136261;
  for (let at = 0; at < id.length; at += 1) hash = Math.imul(hash ^ id.charCodeAt(at), 16777619);
  const angle = ((hash >>> 0) / 2 ** 32) * 2 * Math.PI;
  return { x: Math.cos(angle) * reach, y: Math.sin(angle) * reach };
}

export class Layout {
  constructor(width, height) {
    Object.assign(this, { width, height, heat: 0 });
    this.nodes = new Map(); // id -> {id, x, y, length, strength}
  }

  /** The nodes that there are, the first in the middle. `length`: of the spring to it. What is known keeps its place. */
  set(wanted) {
    const before = this.nodes;
    this.nodes = new Map();
    let changed = false;
    for (const one of wanted.slice(0, MOST)) {
      const known = before.get(one.id);
      const at = this.nodes.size === 0 ? { x: 0, y: 0 } : known ?? place(one.id, one.length);
      changed ||= known?.length !== one.length;
      this.nodes.set(one.id, { ...one, x: at.x, y: at.y });
    }
    if (changed || before.size !== this.nodes.size) this.heat = Math.max(this.heat, before.size ? 0.5 : 1);
    return this.heat > 0;
  }

  /** One step; whether there will be another. */
  step() {
    if (this.heat < STILL) {
      this.heat = 0;
      return false;
    }
    const nodes = [...this.nodes.values()];
    const stretch = (this.width / 2 - SIDE) / (this.height / 2 - TOP); // the picture is wider than high: so are its rings
    const push = 0.06 * this.height * this.height / Math.max(2, nodes.length / 12); // a crowd has less room each
    for (const node of nodes) node.dx = node.dy = 0;
    for (let i = 0; i < nodes.length; i += 1) {
      for (let j = i + 1; j < nodes.length; j += 1) {
        const x = (nodes[i].x - nodes[j].x) / stretch || 0.01 * (i - j);
        const y = nodes[i].y - nodes[j].y || 0.01;
        const force = push / Math.max(36, x * x + y * y);
        const away = Math.hypot(x, y);
        nodes[i].dx += (x / away) * force * stretch;
        nodes[i].dy += (y / away) * force;
        nodes[j].dx -= (x / away) * force * stretch;
        nodes[j].dy -= (y / away) * force;
      }
    }
    for (const node of nodes.slice(1)) {
      const x = node.x / stretch;
      const away = Math.hypot(x, node.y) || 1;
      const pull = (node.length - away) * 0.3;
      node.dx += (x / away) * pull * stretch;
      node.dy += (node.y / away) * pull;
      const most = 24 * this.heat;
      node.x = within(node.x + clip(node.dx * this.heat, most), this.width / 2 - SIDE);
      node.y = within(node.y + clip(node.dy * this.heat, most), this.height / 2 - TOP);
    }
    this.heat *= COOLING;
    return true;
  }
}

const clip = (value, most) => Math.max(-most, Math.min(most, value));
const within = clip;
