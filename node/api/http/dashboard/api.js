// The node's HTTP API: requests with the token, and server-sent events by fetch, which can carry a header where
// EventSource can't. The token comes behind # or by the form, and stays in this tab's session.

const KEY = "vouch.token";
const TIMEOUT = 8000;
const MOST_FRAME = 8 << 20; // characters of one server-sent event
const SILENT = 40000; // milliseconds without even a ping: the connection is dead

/** An answer that isn't 200. `status` 0: there was none. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { status, code });
  }
}

/** Takes the token out of the address, so that it gets into no history and no bookmark. */
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given === null) return;
  history.replaceState(null, "", location.pathname);
  if (given) setToken(given);
}

export const token = () => sessionStorage.getItem(KEY);

export function setToken(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
}

const authorization = (value = token()) => (value ? { Authorization: `Bearer ${value}` } : {});

async function failure(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch { /* not ours, or cut off */ }
  return new ApiError(response.status, error.code ?? "", error.message ?? `the node answered ${response.status}`);
}

function unanswered(error) {
  return error instanceof ApiError ? error : new ApiError(0, "gone", "the node doesn't answer");
}

/** Asks, and gives what the answer holds. Raises ApiError. `anyway`: statuses whose body is an answer too. */
export async function ask(path, { method = "GET", body, anyway = [] } = {}) {
  const headers = authorization();
  if (body !== undefined) headers["Content-Type"] = "application/json";
  try {
    const signal = AbortSignal.timeout(TIMEOUT);
    const response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) });
    if (!response.ok && !anyway.includes(response.status)) throw await failure(response);
    return await response.json();
  } catch (error) {
    throw unanswered(error);
  }
}

/** Whether that is the token. Asks for the head of something that needs it, which changes nothing. */
export async function fits(value) {
  const signal = AbortSignal.timeout(TIMEOUT);
  try {
    const response = await fetch("/v1/subscribe?topic=token", { method: "HEAD", headers: authorization(value), signal });
    return response.status !== 401;
  } catch (error) {
    throw unanswered(error);
  }
}

/** Listens: `opened()` once, then `tell(kind, value, id)` for each event. Returns at the stream's end; raises ApiError. */
export async function listen(path, { after, signal, opened, tell }) {
  const silent = new AbortController();
  let timer;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silent.abort(), SILENT);
  };
  heard();
  try {
    const headers = { ...authorization(), Accept: "text/event-stream" };
    if (after) headers["Last-Event-ID"] = after;
    const both = AbortSignal.any([silent.signal, ...(signal ? [signal] : [])]);
    const response = await fetch(path, { headers, signal: both, cache: "no-store" });
    if (!response.ok) throw await failure(response);
    opened?.();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      const frames = (text + value).split("\n\n");
      text = frames.pop();
      if (text.length > MOST_FRAME) throw new ApiError(0, "too_large", "an event is larger than this page takes");
      for (const frame of frames) told(frame, tell);
    }
  } catch (error) {
    if (signal?.aborted) return;
    throw unanswered(error);
  } finally {
    clearTimeout(timer);
    silent.abort();
  }
}

function told(frame, tell) {
  const fields = {};
  for (const line of frame.split("\n")) {
    const colon = line.indexOf(": ");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
  }
  if (fields.data !== undefined) tell(fields.event, JSON.parse(fields.data), fields.id);
}

/** UTF-8 in base64, and back: null if it is no text. */
export function encode(text) {
  return btoa(Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join(""));
}

export function decode(base64) {
  const data = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(data);
  } catch {
    return null;
  }
}
