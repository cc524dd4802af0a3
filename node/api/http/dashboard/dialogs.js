// The two questions that the page asks: for the token, and whether to do what can't be undone.

import { ApiError, fits, setToken, token } from "./api.js";
import { announce, byId, say } from "./dom.js";

let waiting = null; // who waits for the token

/** The token, asked for if there is none; null if the asker went on without it. */
export function wantToken(problem = "") {
  if (token() && !problem) return Promise.resolve(token());
  waiting?.(null);
  say(byId("token-error"), problem);
  byId("token-input").value = "";
  byId("token-forget").hidden = !token();
  if (!byId("token-dialog").open) byId("token-dialog").showModal();
  byId("token-input").focus();
  return new Promise((resolve) => { waiting = resolve; });
}

/** Does something that needs the token, and asks again where it was another. Null if nobody gave one. */
export async function withToken(work) {
  let given = await wantToken();
  while (given) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) throw error;
      setToken(null);
      given = await wantToken("That token isn't this node's: it may have been made anew.");
    }
  }
  return null;
}

export function tokens(changed) {
  const dialog = byId("token-dialog");
  const end = (value) => {
    if (dialog.open) dialog.close();
    const resolve = waiting;
    waiting = null;
    resolve?.(value);
    shown();
    changed();
  };
  const shown = () => say(byId("token-button"), token() ? "Token set" : "Set token");
  byId("token-button").addEventListener("click", () => wantToken(" ").then(() => {}));
  byId("token-cancel").addEventListener("click", () => end(null));
  dialog.addEventListener("cancel", () => setTimeout(() => end(null)));
  byId("token-forget").addEventListener("click", () => {
    setToken(null);
    end(null);
  });
  byId("token-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const value = byId("token-input").value.trim();
    try {
      if (!(await fits(value))) {
        say(byId("token-error"), "That isn't this node's token.");
        return;
      }
    } catch (error) {
      say(byId("token-error"), error.message);
      return;
    }
    setToken(value);
    announce("Token set");
    end(value);
  });
  shown();
}

let asked = null;

/** Asks before something is done; `work(seconds)` does it. True once it is done. `time`: whether to ask for how long. */
export async function confirm({ title, text, go, time = false, work }) {
  const dialog = byId("ask-dialog");
  say(byId("ask-title"), title);
  say(byId("ask-text"), text);
  say(byId("ask-go"), go);
  say(byId("ask-error"), "");
  byId("ask-time-label").hidden = !time;
  asked?.(false);
  if (!dialog.open) dialog.showModal();
  for (;;) {
    const yes = await new Promise((resolve) => { asked = resolve; });
    if (!yes) break;
    const chosen = byId("ask-time").value;
    try {
      if ((await withToken(() => work(chosen ? Number(chosen) : null))) === null) continue;
      dialog.close();
      announce(`${title}: done`);
      return true;
    } catch (error) {
      say(byId("ask-error"), error.message);
    }
  }
  if (dialog.open) dialog.close();
  return false;
}

export function questions() {
  byId("ask-cancel").addEventListener("click", () => asked?.(false));
  byId("ask-dialog").addEventListener("cancel", () => asked?.(false));
  byId("ask-form").addEventListener("submit", (event) => {
    event.preventDefault();
    asked?.(true);
  });
}
