// @ts-check
// The dashboard: one event stream in, text out. Nothing is ever set as HTML.
import { about, age, bytes, clock, count, plural, short } from "./format.js";
import { forecast, iterationsRate, rate, seconds } from "./forecast.js";

const oldAfter = 5; // seconds after which figures are dimmed
const maxMine = 30; // jobs of this browser that are kept and watched
const marks = { idle: "●", good: "●", warn: "▲", bad: "■", wait: "○" };
const states = {
  queued: ["○", "soft"], leased: ["▶", "good"], completed: ["●", "good"], failed: ["■", "bad"], cancelled: ["▲", "warn"],
};

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

/** @type {any} */
let status = null; // the newest Status
let seenAt = 0; // when it came, milliseconds of performance.now
/** @type {Map<string, any>} */
const jobs = new Map(); // the newest Job of each id of mine
let last = ""; // the id submitted last, since the page was opened

// ---- small things -------------------------------------------------------

/** Sets text only when it changed, so that selections survive.
 * @param {Element|null} el @param {string} text */
function say(el, text) {
  if (el && el.textContent !== text) el.textContent = text;
}

/** @param {string} tag @param {Record<string, string>} [attrs] @param {(Node|string)[]} [inner] */
function make(tag, attrs = {}, inner = []) {
  const el = document.createElement(tag);
  for (const [k, v] of Object.entries(attrs)) el.setAttribute(k, v);
  el.append(...inner);
  return el;
}

/** Reads JSON from localStorage, which may be off, full or tampered with.
 * @param {string} key @param {any} otherwise */
function load(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "null") ?? otherwise;
  } catch {
    return otherwise;
  }
}

/** @param {string} key @param {any} value */
function keep(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Private mode: the page works, it only forgets.
  }
}

/** Makes a button copy text. The clipboard exists only over HTTPS and on
 * localhost; elsewhere the button goes and the text can be selected.
 * @param {HTMLButtonElement} button @param {() => string} text */
function copies(button, text) {
  if (!navigator.clipboard) {
    button.hidden = true;
    return;
  }
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

/** Shows a state as shape and word.
 * @param {Element} el @param {string} state */
function showState(el, state) {
  const [mark, level] = states[/** @type {keyof typeof states} */ (state)] ?? ["○", "soft"];
  el.className = level;
  say(el, mark + " " + state);
}

// ---- my jobs: ids only, in this browser ---------------------------------

const idPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** @type {string[]} */
let mine = load("workmanager.jobs", []);
mine = Array.isArray(mine) ? mine.filter((id) => typeof id === "string" && idPattern.test(id)).slice(0, maxMine) : [];

/** @param {string} id */
function remember(id) {
  mine = [id, ...mine.filter((other) => other !== id)].slice(0, maxMine);
  keep("workmanager.jobs", mine);
}

/** One row of my jobs, made once and then only updated: focus stays.
 * @param {string} id */
function mineRow(id) {
  const copy = /** @type {HTMLButtonElement} */ (make("button", { type: "button", class: "small", "aria-label": "Copy the value of job " + id }, ["Copy"]));
  copies(copy, () => jobs.get(id)?.value ?? "");
  const row = make("tr", { "data-id": id }, [
    make("th", { scope: "row" }, [make("code", {}, [id])]),
    make("td", {}, ["○ asking"]),
    make("td", { class: "num" }, ["–"]),
    make("td", {}, [make("progress", { max: "1", value: "0", "aria-label": "Progress of job " + id }), make("span", {}, ["–"])]),
    make("td", { class: "num" }, ["–"]),
    make("td", {}, [make("code", {}, ["–"]), " ", copy]),
  ]);
  return row;
}

function showMine() {
  const body = $("mine").tBodies[0];
  for (const row of [...body.rows]) if (!mine.includes(row.dataset.id)) row.remove();
  mine.forEach((id, n) => {
    let row = body.querySelector(`[data-id="${id}"]`);
    if (!row) row = mineRow(id);
    if (body.rows[n] !== row) body.insertBefore(row, body.rows[n] ?? null);
    showJob(row, jobs.get(id));
  });
  $("mine").hidden = mine.length === 0;
  $("mine-empty").hidden = mine.length > 0;
}

/** @param {HTMLTableRowElement} row @param {any} j */
function showJob(row, j) {
  const [, state, iterations, progress, left, value] = row.cells;
  const copy = /** @type {HTMLElement} */ (value.querySelector("button"));
  copy.hidden = !j?.value || !navigator.clipboard;
  if (!j) return;
  showState(state, j.state);
  say(iterations, count(j.iterations));
  const part = j.iterations > 0 ? j.done / j.iterations : 0;
  /** @type {HTMLProgressElement} */ (progress.firstElementChild).value = part;
  say(progress.lastElementChild, percent(j));
  say(left, j.state === "leased" && j.eta ? about(j.eta) : "–");
  const code = value.firstElementChild;
  if (j.state === "failed") {
    code?.setAttribute("class", "why");
    code?.setAttribute("title", j.error ?? "");
    say(code, j.error ?? "no reason given");
  } else {
    say(code, j.value ? j.value.slice(0, 16) + "…" : j.purged ? "purged" : "–");
  }
}

/** Never 100 % before it is done. @param {any} j */
function percent(j) {
  if (j.state === "completed") return "100 %";
  return Math.min(99, Math.floor(100 * j.done / j.iterations)) + " %";
}

function showLast() {
  const j = jobs.get(last);
  $("last").hidden = !last;
  if (!last) return;
  say($("last-id"), last);
  if (!j) return;
  const ended = !["queued", "leased"].includes(j.state);
  showState($("last-state"), j.state);
  if (j.state === "leased") say($("last-state"), `▶ leased, ${percent(j)}` + (j.eta ? `, ${about(j.eta)} left` : ""));
  say($("last-value"), j.value ?? j.error ?? "–");
  $("last-copy").hidden = !j.value || !navigator.clipboard;
  document.title = (ended ? "(done) " : "") + "workmanager";
}

// ---- the snapshot -------------------------------------------------------

let said = ""; // the kind of forecast that was read out

/** @param {any} s */
function showStatus(s) {
  const f = forecast(s);
  $("forecast").dataset.state = f.level;
  say($("forecast-mark"), marks[f.level]);
  say($("forecast-text"), f.text);
  say($("forecast-reason"), f.reason);
  if (f.kind !== said) { // read out only a change of state
    said = f.kind;
    say($("forecast-live"), f.text);
  }

  const trouble = [];
  if (!s.writable) trouble.push("■ Submits are refused: " + (s.write_problem || "the store cannot be written") + ". Reads go on.");
  if (s.alarms > 0) trouble.push("■ " + plural(s.alarms, "alarm") + ": different values for one job. See this node's log.");
  for (const q of s.audit.quarantined.slice(0, 3)) trouble.push("■ Worker " + q.worker + " is quarantined: " + q.reason);
  if (s.audit.disputed + s.audit.doubted > 0) trouble.push("■ " + plural(s.audit.disputed + s.audit.doubted, "value") + " to be recomputed.");
  if (s.peer.compare.alarms > 0) trouble.push("■ " + plural(s.peer.compare.alarms, "job") + " damaged, or different at the two nodes again after a repair. See this node's log.");
  $("trouble").hidden = trouble.length === 0;
  say($("trouble"), trouble.join("\n"));

  say($("t-queued"), count(s.queued));
  say($("t-queued-sub"), s.oldest_queued_at ? "oldest " + age(seconds(s.now) - seconds(s.oldest_queued_at)) : "none waits");
  say($("t-running"), count(s.leased));
  say($("t-running-sub"), (s.leased > 0 ? short(iterationsRate(s)) : "0") + " iterations/s");
  say($("t-rate"), rate(s.rate_completed));
  say($("t-rate-sub"), rate(s.rate_enqueued) + " arriving");
  say($("t-completed"), count(s.completed));
  say($("t-completed-sub"), (s.failed > 0 ? "■ " : "") + count(s.failed) + " failed" + (s.cancelled > 0 ? ", " + count(s.cancelled) + " cancelled" : ""));
  $("t-completed-sub").classList.toggle("warn", s.failed > 0);
  say($("t-workers"), count(s.Workers));
  say($("t-workers-sub"), s.fleet.kind === "none" ? "no fleet" : plural(s.fleet.instances.length, "instance"));

  showNodes(s);
  showWorkers(s);
  const room = s.disk_free_bytes > 0 ? `, ${bytes(s.disk_free_bytes)} free` : "";
  say($("node"), `Node ${s.node}, version ${s.version}, up ${age(seconds(s.now) - seconds(s.started_at))}. Store ${bytes(s.store_bytes + s.wal_bytes)}${room}. Jobs are kept ${about(s.retention_seconds)} after their end.`);
}

const sessions = {
  none: ["○", "soft", "no peer"], down: ["■", "bad", "down"], connected: ["▲", "warn", "one way"], catchup: ["▲", "warn", "catching up"], sync: ["●", "good", "in sync"],
};

/** This node, and its peer as seen from here.
 * @param {any} s */
function showNodes(s) {
  const p = s.peer;
  const [mark, level, word] = sessions[/** @type {keyof typeof sessions} */ (p.session)] ?? ["○", "soft", p.session];
  const paired = p.session !== "none";
  const here = s.workers_list.reduce((/** @type {number} */ sum, /** @type {any} */ w) => sum + w.cores, 0);
  const rows = [[s.node, "● this node", "good", s.queued - p.waiting, s.leased - p.leased, here, paired ? count(p.under_replicated) : "–", "–"]];
  if (paired) {
    const skew = Math.abs(p.clock_skew_seconds);
    rows.push([p.node ?? "not known yet", mark + " " + (p.refused ? "refused" : word), p.refused ? "bad" : level, p.waiting, p.leased, p.workers, count(p.behind),
      p.session === "down" ? "–" : skew < 0.01 ? "in step" : short(Math.round(skew * 100) / 100) + " s " + (p.clock_skew_seconds > 0 ? "ahead" : "behind")]);
  }
  const body = $("nodes").tBodies[0];
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach(([name, session, look, queued, running, workers, uncopied, clock], n) => {
    let row = body.rows[n];
    if (!row) {
      row = make("tr", {}, [make("th", { scope: "row" }, [make("code")]), make("td"), ...Array.from({ length: 4 }, () => make("td", { class: "num" })), make("td")]);
      body.append(row);
    }
    say(row.cells[0].firstElementChild, name);
    row.cells[1].className = look;
    say(row.cells[1], session);
    say(row.cells[2], count(queued));
    say(row.cells[3], count(running));
    say(row.cells[4], count(workers));
    say(row.cells[5], uncopied);
    say(row.cells[6], clock);
  });
  say($("nodes-note"), pairNote(s));
}

/** What the session means, in a sentence.
 * @param {any} s */
function pairNote(s) {
  const p = s.peer;
  const name = p.node ?? "the peer";
  const alone = p.under_replicated > 0 ? "Up to " + plural(p.under_replicated, "job") + " may be on this node's disk only." : "All jobs of this node are on both disks.";
  if (p.session === "none") return "This node runs alone: jobs are on its disk only. Start another with --join to have a pair.";
  if (p.refused) return `${name} and this node do not talk: ${p.refused}. ${alone}`;
  if (p.session === "down") return (p.node && p.since ? `${name} does not answer since ${age(seconds(s.now) - seconds(p.since))}. ` : "No peer has ever answered. ") + alone;
  if (p.session === "connected") return `Only one direction between ${name} and this node works. ${alone}`;
  if (p.session === "catchup") return `${name} is catching up. ${alone}`;
  return p.complete ? "An enqueue at either node is answered when it is on both disks, or after 300 ms with the reason why not." : `The copy of ${name}'s jobs on this node is not complete: up to ${plural(p.behind, "row")} to go.`;
}

/** @param {any} s */
function showWorkers(s) {
  const body = $("workers").tBodies[0];
  const key = (/** @type {any} */ w) => w.name + (w.instance ? "/" + w.instance : "");
  const names = s.workers_list.map(key);
  for (const row of [...body.rows]) if (!names.includes(row.dataset.name)) row.remove();
  s.workers_list.forEach((/** @type {any} */ w, /** @type {number} */ n) => {
    let row = [...body.rows].find((r) => r.dataset.name === key(w));
    if (!row) {
      row = make("tr", { "data-name": key(w) }, [make("th", { scope: "row" }, [make("code", {}, [key(w)])]), ...Array.from({ length: 4 }, () => make("td", { class: "num" }))]);
    }
    if (body.rows[n] !== row) body.insertBefore(row, body.rows[n] ?? null);
    say(row.cells[1], count(w.cores));
    say(row.cells[2], count(w.leases));
    say(row.cells[3], w.leases > 0 ? short(w.rate) : "–");
    const seen = seconds(s.now) - seconds(w.seen_at);
    say(row.cells[4], seen < 1 ? "just now" : age(seen) + " ago");
  });
  $("workers").hidden = names.length === 0;
  $("workers-empty").hidden = names.length > 0;
}

/** Once a second: how old is what stands here? */
function showAge() {
  const el = $("age");
  const old = status ? (performance.now() - seenAt) / 1000 : Infinity;
  const stale = old > oldAfter;
  document.body.toggleAttribute("data-stale", stale);
  if (!status) {
    say($("age-text"), streamTries > 1 ? "no answer from this node, trying again" : "connecting");
  } else {
    el.dataset.state = stale ? "old" : "live";
    say(el.firstElementChild, stale ? "▲" : "●");
    say($("age-text"), stale ? `data ${age(old)} old, reconnecting` : "live " + clock(new Date(status.now), true));
    el.title = "Time zone: " + Intl.DateTimeFormat().resolvedOptions().timeZone;
  }
}

// ---- the stream: one a tab ----------------------------------------------

/** @type {EventSource|null} */
let stream = null;
let streamTries = 0;
/** @type {number|undefined} */
let retry;
/** @type {number|undefined} */
let hide;

function connect() {
  clearTimeout(retry);
  stream?.close();
  streamTries++;
  const query = mine.map((id) => "job=" + id).join("&");
  const es = new EventSource("/v1/events" + (query && "?" + query));
  stream = es;
  es.addEventListener("status", (e) => {
    status = JSON.parse(e.data);
    seenAt = performance.now();
    streamTries = 0;
    showStatus(status);
    showAge();
  });
  es.addEventListener("job", (e) => {
    const j = JSON.parse(e.data);
    if (!mine.includes(j.id)) return;
    jobs.set(j.id, j);
    showMine();
    if (j.id === last) showLast();
  });
  es.addEventListener("gone", (e) => { // retention dropped it, or this node never knew it
    const { id } = JSON.parse(e.data);
    jobs.delete(id);
    const row = $("mine").tBodies[0].querySelector(`[data-id="${id}"]`);
    say(row?.cells[1] ?? null, "○ not known here");
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
  if (document.hidden) hide = setTimeout(disconnect, 60_000);
  else if (!stream) connect();
});

// ---- submit -------------------------------------------------------------

/** Quotes for a POSIX shell. @param {string} s */
function quote(s) {
  return "'" + s.replaceAll("'", "'\\''") + "'";
}

function curlLine() {
  const name = $("file").files[0]?.name ?? "FILE";
  const n = $("iterations").value.trim() || "1000000";
  const token = location.protocol === "https:" ? '--cacert "$WORKMANAGER_CA" -H "Authorization: Bearer $WORKMANAGER_TOKEN" ' : "";
  return `curl ${token}-T ${quote(name)} ${quote(`${location.origin}/enqueue?iterations=${encodeURIComponent(n)}`)}`;
}

function showCurl() {
  say($("curl"), curlLine());
}

/** A name for this submit, so that a repeat cannot make a second job. */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

/** @param {string} text */
function refuse(text) {
  say($("submit-error"), text && "■ " + text);
}

/** @param {SubmitEvent} e */
function submit(e) {
  e.preventDefault();
  refuse("");
  const file = $("file").files[0];
  const form = new FormData();
  form.append("data", file);
  const req = new XMLHttpRequest(); // fetch tells nothing of an upload's progress
  req.open("PUT", "/enqueue?iterations=" + encodeURIComponent($("iterations").value.trim()));
  req.setRequestHeader("Idempotency-Key", newKey());
  const bar = $("upload");
  req.upload.addEventListener("progress", (p) => {
    bar.hidden = file.size < 1 << 20;
    bar.value = p.lengthComputable ? p.loaded / p.total : 0;
  });
  req.addEventListener("loadend", () => {
    bar.hidden = true;
    $("enqueue").disabled = false;
    let answer = null;
    try {
      answer = JSON.parse(req.responseText);
    } catch {
      // Said below.
    }
    if (req.status !== 200 || !answer) {
      refuse(answer?.detail ?? (req.status ? `The node answered ${req.status} ${req.statusText}.` : "The node did not answer."));
      return;
    }
    last = answer["Work ID"];
    remember(last);
    say($("last-state"), "○ accepted");
    say($("last-value"), "–");
    $("last-copy").hidden = true;
    showLast();
    showMine();
    connect();
  });
  $("enqueue").disabled = true;
  req.send(form);
}

// ---- theme and start ----------------------------------------------------

const themes = ["auto", "light", "dark"];
let theme = themes.includes(load("workmanager.theme", "auto")) ? load("workmanager.theme", "auto") : "auto";

function showTheme() {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  say($("theme"), "Theme: " + theme);
}

$("theme").addEventListener("click", () => {
  theme = themes[(themes.indexOf(theme) + 1) % themes.length];
  keep("workmanager.theme", theme);
  showTheme();
});
$("submit").addEventListener("submit", submit);
$("file").addEventListener("change", showCurl);
$("iterations").addEventListener("input", showCurl);
copies($("curl-copy"), curlLine);
copies($("last-copy"), () => jobs.get(last)?.value ?? "");

$("logout").hidden = location.protocol !== "https:";
showTheme();
showCurl();
showMine();
$("workers").hidden = true;
setInterval(showAge, 1000);
connect();
