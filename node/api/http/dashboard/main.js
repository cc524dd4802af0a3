// The page: it listens to /v1/events, asks for what has changed, and every two seconds for all of it. Ends of both are
// told, and it comes back by itself.
//
//     connecting --answers and events--> live --one of them fails--> lost, asks again after 0.5 to 5 s --> live

import { ApiError, ask, listen, takeToken } from "./api.js";
import { questions, tokens, wantToken } from "./dialogs.js";
import { byId, make, plain, say, span } from "./dom.js";
import { EventList } from "./events.js";
import { Graph } from "./graph.js";
import { showNode, showReady } from "./node.js";
import { Peers } from "./peers.js";
import { EVERY, Plots } from "./plots.js";
import { Topics } from "./topics.js";

const HIDDEN = 10000; // milliseconds between rounds while nobody looks
const SOON = 120; // milliseconds that events wait for others, so that a crowd is one round
const SOON_AGAIN = 500;
const RETRY = [500, 5000];
const MOST_TOPICS = 100; // in the box above the graph

takeToken();
const events = new EventList();
const peers = new Peers(() => soon());
const graph = new Graph((peer) => peers.point(peer));
const plots = new Plots(byId("plots"));
const topics = new Topics(() => soon());
const chosen = byId("mesh-topic");

let node = null; // as /v1/node told last, and when
let live = false;
let lost = 0; // since when, in milliseconds
let asking = null;
let restarted = false; // while it was away
let again = false; // something changed while a round was under way
let last = 0;
let timer;

const now = () => performance.now();
const own = (event, fields = {}) => events.add({ event, time: Date.now() / 1000, fields });

function shown(state, text) {
  byId("link").dataset.state = state;
  say(byId("link"), text);
}

function wentLive() {
  if (live && !restarted) return;
  live = true;
  shown("live", restarted ? "Live again: the node has restarted" : lost ? "Live again" : "Live");
  restarted = false;
  document.body.classList.remove("stale");
  if (lost) own("node_back", { after: span((now() - lost) / 1000) });
  lost = 0;
}

function wentLost(why) {
  if (live || !lost) {
    if (live) own("node_gone", { detail: why });
    lost = now();
  }
  live = false;
  document.body.classList.add("stale");
  shown("lost", node ? `Connection lost: trying again. What is shown is from ${new Date(node.wall).toLocaleTimeString([], { hour12: false })}` : `Trying to connect: ${why}`);
}

/** One round: all that the page shows. */
async function round() {
  const [status, list, gossip, ready, joined] = await Promise.all([
    ask("/v1/node"),
    ask("/v1/peers"),
    ask("/v1/gossip"),
    ask("/ready", { anyway: [503] }),
    ask("/v1/topics"),
  ]);
  const at = now();
  if (node && restartedSince(node, status, at)) {
    own("node_restarted", { peer: status.peer_id === node.status.peer_id ? "" : status.peer_id });
    restarted = true;
  }
  node = { status, at, wall: Date.now() };
  showNode(status);
  showReady(ready);
  peers.show(list.peers);
  topics.show(joined);
  if (at - (plots.before?.at ?? -1) * 1000 >= EVERY * 0.75) plots.add(at / 1000, gossip);
  choices(joined.topics);
  const members = chosen.value ? (await ask(`/v1/topics/${encodeURIComponent(chosen.value)}/mesh`)).peers : [];
  graph.show(status.peer_id, list.peers, members, chosen.value);
}

/** Whether that is another start of the node; one that was long away may by now be up for longer than before. */
function restartedSince(before, status, at) {
  if (status.peer_id !== before.status.peer_id || status.uptime < before.status.uptime) return true;
  return !live && status.uptime - before.status.uptime < (at - before.at) / 1000 - 2;
}

function choices(joined) {
  const names = joined.slice(0, MOST_TOPICS).map((row) => row.topic);
  const there = [...chosen.options].map((option) => option.value);
  if (JSON.stringify(names) === JSON.stringify(there)) return;
  const before = chosen.value;
  chosen.replaceChildren(...names.map((name) => make("option", { value: name }, plain(name, 60))));
  if (names.includes(before)) chosen.value = before;
  chosen.disabled = !names.length;
}

/** Asks now, and again in a while. Only one round at a time. */
function refresh() {
  clearTimeout(timer);
  if (asking) {
    again = true;
    return asking;
  }
  again = false;
  last = now();
  asking = round()
    .then(() => wentLive(), (error) => failed(error))
    .finally(() => {
      asking = null;
      if (again) soon();
      else plan(document.hidden ? HIDDEN : EVERY);
    });
  return asking;
}

function plan(after) {
  clearTimeout(timer);
  timer = setTimeout(refresh, Math.max(0, after - (now() - last)));
}

/** Something has changed. */
function soon() {
  if (asking) {
    again = true;
    return;
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, now() - last > SOON_AGAIN ? SOON : SOON_AGAIN);
}

function failed(error) {
  if (!(error instanceof ApiError)) throw error; // a fault of the page: the console has it
  if (error.status === 401) needToken();
  else if (error.status === 429) shown("lost", "The node answers too many: slower for a while");
  else wentLost(error.message);
}

let needed = false;

async function needToken() {
  shown("lost", "This node tells nothing without its token");
  if (needed) return;
  needed = true;
  await wantToken("This node wants its token for everything.");
  needed = false;
}

/** Listens for ever. */
async function follow() {
  let after = "";
  let wait = RETRY[0];
  for (;;) {
    try {
      await listen("/v1/events", {
        after,
        opened: () => {
          wait = RETRY[0];
          refresh();
        },
        tell: (kind, what, id) => {
          after = id;
          if (kind === "missed") own("missed", { count: what.count });
          else events.add(what);
          soon();
        },
      });
      wentLost("the node ended the connection");
    } catch (error) {
      failed(error);
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    wait = Math.min(wait * 2, RETRY[1]);
  }
}

chosen.addEventListener("change", () => soon());
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
questions();
tokens(() => { topics.about(); soon(); });
refresh();
follow();
