// @ts-check
// What the page knows, and the one event stream that tells it. Nothing here
// touches the page: whoever draws it subscribes.

export const maxMine = 30; // jobs of this browser that are kept and watched
export const oldAfter = 5; // seconds after which figures are dimmed
export const idPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Reads JSON from localStorage, which may be off, full or tampered with. */
export function load(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "null") ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function keep(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Private mode: the page works, it only forgets.
  }
}

const kept = load("workmanager.jobs", []);

export const state = {
  /** @type {any} */ status: null, // the newest Status
  seenAt: 0, // when it came, milliseconds of performance.now
  /** @type {any} */ you: { role: "client", tokens: false },
  /** @type {Map<string, any>} */ jobs: new Map(), // the newest Job of each id that is watched; null: not known here
  /** @type {string[]} */ mine: Array.isArray(kept) ? kept.filter((id) => typeof id === "string" && idPattern.test(id)).slice(0, maxMine) : [],
  page: "", // the id of the job that is shown, "" for the overview
  tries: 0, // of connecting, since the last success
  /** @type {any[]} */ decisions: [], // of the scheduler, the newest first, as operators are told them
  done: 0, // jobs of mine that ended while nobody looked
};

/** @type {Set<() => void>} */
const watchers = new Set();
let asked = false;

/** @param {() => void} f */
export function onChange(f) {
  watchers.add(f);
}

/** Tells whoever draws, once a frame. */
export function changed() {
  if (asked) return;
  asked = true;
  queueMicrotask(() => {
    asked = false;
    for (const f of watchers) f();
  });
}

// ---- my jobs: ids only, in this browser ---------------------------------

export function remember(id) {
  state.mine = [id, ...state.mine.filter((other) => other !== id)].slice(0, maxMine);
  keep("workmanager.jobs", state.mine);
  connect();
  changed();
}

export function forget(id) {
  state.mine = state.mine.filter((other) => other !== id);
  keep("workmanager.jobs", state.mine);
  changed();
}

/** Shows a job, or the overview for "". */
export function turnTo(id) {
  state.page = id;
  if (id && !state.mine.includes(id)) {
    state.jobs.delete(id);
    connect();
  }
  changed();
}

export function ended(j) {
  return !["queued", "leased"].includes(j.state);
}

export function take(j) {
  const before = state.jobs.get(j.id);
  state.jobs.set(j.id, j);
  if (before && !ended(before) && ended(j) && state.mine.includes(j.id) && document.hidden) state.done++;
  changed();
}

// ---- the stream: one a tab ----------------------------------------------

/** @type {EventSource|null} */
let stream = null;
let watched = "";
/** @type {number|undefined} */
let retry;
/** @type {number|undefined} */
let hide;

export function connect() {
  const ids = state.page && !state.mine.includes(state.page) ? [state.page, ...state.mine] : state.mine;
  const query = ids.map((id) => "job=" + id).join("&");
  if (stream && stream.readyState !== EventSource.CLOSED && query === watched) return;
  clearTimeout(retry);
  stream?.close();
  state.tries++;
  watched = query;
  const es = new EventSource("/v1/events" + (query && "?" + query));
  stream = es;
  es.addEventListener("you", (e) => {
    state.you = JSON.parse(e.data);
    changed();
  });
  es.addEventListener("status", (e) => {
    state.status = JSON.parse(e.data);
    state.seenAt = performance.now();
    state.tries = 0;
    changed();
  });
  es.addEventListener("decision", (e) => {
    const d = JSON.parse(e.data);
    state.decisions = [d, ...state.decisions.filter((x) => x.at !== d.at)].slice(0, 50);
    changed();
  });
  es.addEventListener("job", (e) => take(JSON.parse(e.data)));
  es.addEventListener("gone", (e) => { // retention dropped it, or this node never knew it
    state.jobs.set(JSON.parse(e.data).id, null);
    changed();
  });
  es.addEventListener("error", () => {
    // A broken connection is opened again by the browser, a refused one is not.
    if (es.readyState !== EventSource.CLOSED || es !== stream) return;
    retry = setTimeout(connect, 3000);
    fetch("/v1/status").then((r) => { if (r.status === 401) location.assign("/login"); }, () => {});
  });
}

function disconnect() {
  clearTimeout(retry);
  stream?.close();
  stream = null;
}

// A tab that nobody looks at gives its connection back after a minute.
document.addEventListener("visibilitychange", () => {
  clearTimeout(hide);
  if (document.hidden) {
    hide = setTimeout(disconnect, 60_000);
    return;
  }
  state.done = 0;
  if (!stream) connect();
  changed();
});

// ---- calls --------------------------------------------------------------

/** Calls the API and returns its JSON; an error is in the node's own words.
 * @param {string} method @param {string} path */
export async function call(method, path) {
  let r;
  try {
    r = await fetch(path, { method });
  } catch {
    throw new Error("The node did not answer.");
  }
  const answer = await r.json().catch(() => null);
  if (r.ok) return answer;
  if (r.status === 401) location.assign("/login");
  throw new Error(answer?.detail ?? `The node answered ${r.status}.`);
}

/** How old the figures are, in seconds. */
export function dataAge() {
  return state.status ? (performance.now() - state.seenAt) / 1000 : Infinity;
}
