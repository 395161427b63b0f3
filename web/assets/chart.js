// @ts-check
// Queue depth and workers over time, from the rings that the node keeps.
import uPlot from "./lib/uplot.js";
import { html, useEffect, useRef, useState } from "./lib/preact-htm.js";
import { clock, count, short } from "./format.js";
import { call, state } from "./store.js";
import { Card } from "./parts.js";

const spans = [["1h", "1 h"], ["24h", "24 h"]];

const colour = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** The place where var() is resolved: canvas knows no light-dark(). */
function paint(name) {
  const probe = document.getElementById("paint-" + name);
  return () => (probe ? getComputedStyle(probe).color : colour("--" + name)());
}

/** @param {number} width @param {number} height @param {(u: any) => void} point */
function options(width, height, point) {
  const grid = { stroke: paint("line"), width: 1 };
  const axis = { stroke: paint("soft"), grid, ticks: { show: false }, font: "12px system-ui, sans-serif", gap: 6 };
  return {
    width, height, legend: { show: false }, padding: [12, 0, 0, 0],
    cursor: { y: false, points: { size: 7 }, drag: { x: false, y: false } },
    scales: { x: { time: true }, y: { range: (_, __, max) => [0, Math.max(max * 1.1, 4)] },
      w: { range: (_, __, max) => [0, Math.max(Math.ceil(max * 1.25), 2)] } },
    axes: [
      { ...axis, size: 30, space: 80, values: (_, at, __, ___, step) => at.map((t) => clock(new Date(t * 1000), step < 60)) },
      { ...axis, size: 62, values: (_, v) => v.map((n) => (Number.isInteger(n) ? short(n) : "")) },
      { ...axis, scale: "w", side: 1, size: 40, grid: { show: false }, values: (_, v) => v.map((n) => (Number.isInteger(n) ? count(n) : "")) },
    ],
    series: [
      {},
      { label: "queued", stroke: paint("link"), fill: paint("area"), width: 2, points: { show: false } },
      { label: "workers", scale: "w", stroke: paint("steps"), width: 2, points: { show: false }, paths: uPlot.paths.stepped?.({ align: 1 }) },
    ],
    hooks: { setCursor: [point] },
  };
}

function columns(h) {
  return [h.at, h.queued.map((n, i) => n + h.leased[i]), h.workers];
}

/** Adds the newest snapshot where its point is due. A point a step, and no more
 * than the node keeps. */
function extend(data, step, s) {
  const at = Math.floor(Date.parse(s.now) / 1000 / step) * step;
  if (data[0].length && at <= data[0][data[0].length - 1]) return false;
  for (const [i, v] of [at, s.queued + s.leased, s.Workers].entries()) {
    data[i].push(v);
    if (data[i].length > 3600 * 24 / 60) data[i].shift();
  }
  return true;
}

/** What the chart shows, for those who do not see it. */
function summary(data) {
  const [at, open, workers] = data;
  if (at.length < 2) return "";
  const last = open.length - 1, top = Math.max(...open);
  const trend = open[last] > open[0] ? "rising" : open[last] < open[0] ? "falling" : "level";
  return `Open jobs from ${clock(new Date(at[0] * 1000))} to ${clock(new Date(at[last] * 1000))}: ${trend} from ${count(open[0])} to ${count(open[last])}, at most ${count(top)}. Workers now ${count(workers[last])}.`;
}

export function Chart({ s }) {
  const [span, setSpan] = useState("1h");
  const [points, setPoints] = useState(0);
  const [error, setError] = useState("");
  const [at, setAt] = useState(null);
  const box = useRef(/** @type {HTMLDivElement|null} */ (null));
  const own = useRef(/** @type {any} */ ({ plot: null, data: [[], [], []], step: 5 }));

  useEffect(() => { // the history of the span, once
    let gone = false;
    call("GET", "/v1/history?span=" + span).then((h) => {
      if (gone) return;
      own.current.data = columns(h);
      own.current.step = h.step_seconds;
      if (state.status) extend(own.current.data, h.step_seconds, state.status);
      setError("");
      setPoints(own.current.data[0].length);
      own.current.plot?.setData(own.current.data);
    }, (e) => setError(e.message));
    return () => { gone = true; };
  }, [span]);

  useEffect(() => { // the live end
    if (!s || !own.current.data[0].length || !extend(own.current.data, own.current.step, s)) return;
    setPoints(own.current.data[0].length);
    own.current.plot?.setData(own.current.data);
  }, [s]);

  const shown = points >= 2;
  useEffect(() => { // the plot lives as long as its box
    const el = box.current;
    if (!shown || !el) return;
    const plot = new uPlot(options(Math.max(el.clientWidth, 200), 232, (u) => {
      const i = u.cursor.idx;
      setAt(i == null ? null : [u.data[0][i], u.data[1][i], u.data[2][i]]);
    }), own.current.data, el);
    own.current.plot = plot;
    const size = new ResizeObserver(() => plot.setSize({ width: Math.max(el.clientWidth, 200), height: 232 }));
    size.observe(el);
    const redraw = () => plot.redraw(false, true);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", redraw);
    const theme = new MutationObserver(redraw);
    theme.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    return () => {
      size.disconnect();
      theme.disconnect();
      dark.removeEventListener("change", redraw);
      plot.destroy();
      own.current.plot = null;
    };
  }, [shown]);

  const buttons = html`<div class="group" role="group" aria-label="Time shown">
    ${spans.map(([id, word]) => html`<button type="button" key=${id} class="small" aria-pressed=${span === id} onClick=${() => setSpan(id)}>${word}</button>`)}
  </div>`;
  const now = s && !at ? [null, s.queued + s.leased, s.Workers] : at;
  return html`<${Card} id="chart" title="Queue depth and workers" aside=${buttons}>
    <span id="paint-link" class="paint"></span><span id="paint-area" class="paint"></span><span id="paint-steps" class="paint"></span>
    <span id="paint-soft" class="paint"></span><span id="paint-line" class="paint"></span>
    ${shown
      ? html`<div class="plot" ref=${box} role="img" aria-label=${summary(own.current.data)}></div>`
      : html`<p class="empty plot-empty">${error ? "■ " + error : "The chart begins when this node has run for ten seconds."}</p>`}
    <p class="legend" aria-hidden="true">
      <span>${now?.[0] ? clock(new Date(now[0] * 1000), true) : "now"}</span>
      <span><i class="key area"></i>open jobs ${now ? count(now[1]) : "–"}</span>
      <span><i class="key steps"></i>workers ${now ? count(now[2]) : "–"}</span>
    </p>
  <//>`;
}
