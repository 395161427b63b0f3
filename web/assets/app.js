// @ts-check
// The dashboard: one event stream in, one page out. Nothing is ever set as HTML.
import { html, render, useEffect, useState } from "./lib/preact-htm.js";
import { age, clock } from "./format.js";
import { connect, dataAge, idPattern, keep, load, oldAfter, onChange, state, turnTo } from "./store.js";
import { Chart } from "./chart.js";
import { JobPage, MyJobs } from "./jobs.js";
import { Decisions, Failures, Fleet, Forecast, Nodes, Tiles, Trouble, Workers } from "./panels.js";
import { Submit } from "./submit.js";

const themes = ["auto", "light", "dark"];

function Theme() {
  const [theme, setTheme] = useState(themes.includes(load("workmanager.theme", "auto")) ? load("workmanager.theme", "auto") : "auto");
  useEffect(() => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    keep("workmanager.theme", theme);
  }, [theme]);
  return html`<button type="button" id="theme" onClick=${() => setTheme(themes[(themes.indexOf(theme) + 1) % themes.length])}>Theme: ${theme}</button>`;
}

/** How old is what stands here? */
function Age() {
  const [, again] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => again((n) => n + 1), 1000);
    return () => clearInterval(timer);
  }, []);
  const old = dataAge(), stale = old > oldAfter;
  useEffect(() => { document.body.toggleAttribute("data-stale", stale); }, [stale]);
  let text = state.tries > 1 ? "no answer from this node, trying again" : "connecting";
  if (state.status) text = stale ? `data ${age(old)} old, reconnecting` : "live " + clock(new Date(state.status.now), true);
  return html`<p class="age" id="age" data-state=${!state.status ? "none" : stale ? "old" : "live"} title=${"Time zone: " + Intl.DateTimeFormat().resolvedOptions().timeZone}>
    <span aria-hidden="true">${!state.status ? "○" : stale ? "▲" : "●"}</span> <span id="age-text">${text}</span></p>`;
}

function Search() {
  const [text, setText] = useState("");
  const [wrong, setWrong] = useState(false);
  const go = (e) => {
    e.preventDefault();
    const id = text.trim().toLowerCase();
    if (!idPattern.test(id)) return setWrong(true);
    setText("");
    location.hash = "#/job/" + id;
  };
  return html`<form class="search" role="search" onSubmit=${go}>
    <input type="search" id="search" aria-label="Find a job by its ID" placeholder="Find a job by its ID" autocomplete="off" spellcheck=${false} value=${text}
      aria-invalid=${wrong} aria-describedby="search-error" onInput=${(e) => { setText(e.target.value); setWrong(false); }} />
    <span class="error" id="search-error" role="alert">${wrong ? "■ This is no job ID." : ""}</span>
  </form>`;
}

function Top() {
  const links = [["#forecast", "Overview"], ["#mine", "My jobs"], ["#fleet", "Fleet"], ["#failures", "Failures"], ["/docs", "API"]];
  return html`<header class="top">
    <h1><a href="#/">workmanager</a></h1>
    <nav aria-label="Pages">${links.map(([to, word]) => html`<a key=${to} href=${to}>${word}</a>`)}</nav>
    <${Search} />
    <${Age} />
    <${Theme} />
    ${state.you.tokens ? html`<form method="post" action="/logout"><button type="submit" id="logout" title=${`${state.you.name}, ${state.you.role}`}>Log out</button></form>` : null}
  </header>`;
}

function Overview({ s }) {
  const fleet = s && s.fleet.kind !== "none";
  return html`<main id="main">
    <${Forecast} s=${s} />
    <${Trouble} s=${s} />
    <${Tiles} s=${s} />
    <div class="grid">
      <${Chart} s=${s} />
      <${Submit} s=${s} />
      <${MyJobs} />
      <${Nodes} s=${s} />
      ${fleet ? html`<${Fleet} key="fleet" s=${s} />${state.you.role === "operator" && html`<${Decisions} key="decisions" s=${s} />`}` : null}
      <${Workers} s=${s} />
      ${fleet ? null : html`<${Fleet} key="fleet" s=${s} />`}
      <${Failures} s=${s} wide=${!fleet} />
    </div>
  </main>`;
}

function Foot({ s }) {
  return html`<footer><p>${s ? html`Node ${s.node}, version ${s.version}` : "–"}</p>
    <p><a href="/docs">API</a> · <a href="/v1/openapi.yaml">OpenAPI</a> · <a href="/v1/status">Status</a> · <a href="/metrics">Metrics</a> · <a href="/assets/lib/LICENSES.txt">Licences</a></p></footer>`;
}

function App() {
  const s = state.status;
  const title = (state.done ? `(${state.done} done) ` : "") + (state.page ? "Job " + state.page.slice(0, 8) + " · " : "") + "workmanager";
  useEffect(() => { document.title = title; }, [title]);
  return html`<${Top} />${state.page ? html`<${JobPage} key=${state.page} id=${state.page} />` : html`<${Overview} s=${s} />`}<${Foot} s=${s} />`;
}

const root = /** @type {HTMLElement} */ (document.getElementById("app"));
root.replaceChildren();
const draw = () => render(html`<${App} />`, root);

/** The page that the address names. Other fragments are places of the overview. */
function route() {
  const job = /^#\/job\/([0-9a-f-]+)$/.exec(location.hash);
  const place = location.hash && !location.hash.startsWith("#/") ? location.hash.slice(1) : "";
  const was = state.page;
  turnTo(job && idPattern.test(job[1]) ? job[1] : "");
  if (place && was) queueMicrotask(() => { draw(); document.getElementById(place)?.scrollIntoView(); });
  else if (was !== state.page) scrollTo(0, 0);
}

// A file that misses its place must not replace the page.
for (const name of ["dragover", "drop"]) addEventListener(name, (e) => e.preventDefault());
addEventListener("hashchange", route);
onChange(draw);
route();
draw();
connect();
