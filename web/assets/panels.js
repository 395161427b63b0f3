// @ts-check
// The panels of the overview that only show.
import { html, useEffect, useState } from "./lib/preact-htm.js";
import { about, age, bytes, clock, count, money, plural, rate, seconds, short } from "./format.js";
import { call, state } from "./store.js";
import { Ask, Card, Scroll } from "./parts.js";

/** Shape and colour of each state of the forecast. */
const looks = {
  idle: ["●", "good"], draining: ["●", "good"], measuring: ["○", "soft"], starting: ["○", "soft"],
  holding: ["▲", "warn"], growing: ["▲", "warn"], stalled: ["■", "bad"], split: ["■", "bad"],
};

/** The node's sentence, with the clock of here. */
export function sentence(f) {
  const at = f.state === "draining" && f.done_at && f.left_seconds >= 60 && f.left_seconds < 20 * 3600 ? ` (${clock(new Date(f.done_at))})` : "";
  return f.text + at + ".";
}

/** Is said aloud only when the state changes, not with every snapshot. */
function Spoken({ f }) {
  const [text, say] = useState("");
  useEffect(() => { if (f) say(sentence(f)); }, [f?.state]);
  return html`<p class="hidden" id="forecast-live" aria-live="polite">${text}</p>`;
}

export function Forecast({ s }) {
  const f = s?.forecast;
  const [mark, level] = looks[f?.state] ?? ["○", "soft"];
  return html`<section class=${"card forecast live " + level} id="forecast" data-state=${f?.state ?? "none"} aria-labelledby="forecast-text">
    <p class="sentence"><span aria-hidden="true">${mark}</span> <strong id="forecast-text">${f ? sentence(f) : "Connecting."}</strong></p>
    <p class="reason" id="forecast-reason">${f?.reason}</p>
    <${Spoken} f=${f} />
  </section>`;
}

/** What needs a person, a line each. */
export function troubles(s) {
  const list = [];
  if (!s.writable) list.push("Submits are refused: " + (s.write_problem || "the store cannot be written") + ". Reads go on.");
  if (s.alarms > 0) list.push(plural(s.alarms, "alarm") + ": different values for one job. See this node's log.");
  for (const q of s.audit.quarantined.slice(0, 3)) list.push("Worker " + q.worker + " is quarantined: " + q.reason + ".");
  if (s.audit.disputed + s.audit.doubted > 0) list.push(plural(s.audit.disputed + s.audit.doubted, "value") + " to be recomputed.");
  if (s.peer.compare.alarms > 0) list.push(plural(s.peer.compare.alarms, "job") + " damaged, or different at the two nodes again after a repair. See this node's log.");
  if (s.peer.refused) list.push((s.peer.node ?? "The peer") + " and this node do not talk: " + s.peer.refused + ".");
  const c = s.certificate;
  if (c && c.days_left < 30) list.push(`The certificate of ${s.node} is good for ${plural(Math.max(c.days_left, 0), "day")} more: workmanager init --renew.`);
  return list;
}

export function Trouble({ s }) {
  const list = s ? troubles(s) : [];
  if (!list.length) return null;
  return html`<section class="card bad" id="trouble" aria-label="Trouble">${list.map((t) => html`<p key=${t}><span aria-hidden="true">■</span> ${t}</p>`)}</section>`;
}

function Tile({ name, value, sub, warn = false, href = "" }) {
  return html`<div><dt>${href ? html`<a href=${href}>${name}</a>` : name}</dt><dd>${value}</dd><dd class=${"sub" + (warn ? " warn" : "")}>${sub}</dd></div>`;
}

export function Tiles({ s }) {
  if (!s) return html`<dl class="card tiles" aria-label="Figures">${["Queued", "Running", "Throughput", "Failed", "Cost now"].map((n) => html`<${Tile} key=${n} name=${n} value="–" sub="" />`)}</dl>`;
  const f = s.forecast, fleet = s.fleet;
  const oldest = s.oldest_queued_at ? "oldest " + age(seconds(s.now) - seconds(s.oldest_queued_at)) : "none waits";
  const last = s.failures.groups.map((g) => g.last_at).sort().pop();
  const price = fleet.price_per_hour;
  const cost = fleet.kind === "none" ? html`<${Tile} name="Completed" value=${count(s.completed)} sub=${s.cancelled ? count(s.cancelled) + " cancelled" : "kept " + about(s.retention_seconds)} />`
    : html`<${Tile} name="Cost now" href="#fleet" value=${there(fleet) ? price == null ? "unknown" : perHour(price) : "$0"}
        sub=${fleet.kind === "process" ? "processes of this machine" : `today ${fleet.spent_unknown ? fleet.spent_today ? "over " + money(fleet.spent_today) : "unknown" : money(fleet.spent_today)}, list price`} />`;
  return html`<dl class="card tiles live" aria-label="Figures">
    <${Tile} name="Queued" value=${count(s.queued)} sub=${oldest} />
    <${Tile} name="Running" value=${count(s.leased)} sub=${"on " + plural(s.Workers, "worker")} />
    <${Tile} name="Throughput" value=${rate(f.rate_completed)} sub=${short(f.rate_iterations) + " it/s · " + rate(f.rate_arriving) + " in"} />
    <${Tile} name="Failed" href="#failures" value=${count(s.failed)} sub=${s.failed ? "▲ " + (last ? "last " + clock(new Date(last)) : "") : "none"} warn=${s.failed > 0} />
    ${cost}
  </dl>`;
}

/** How many: all that a client is told. */
const there = (f) => f.instances.length || f.running + f.booting;

// ---- the two nodes ---------------------------------------------------------

/** How this node sees its peer. */
function session(p) {
  if (p.refused) return ["■", "bad", "refused"];
  switch (p.session) {
    case "sync": return ["●", "good", "in sync"];
    case "catchup": return ["▲", "warn", "catching up"];
    case "connected": return ["▲", "warn", "one way only"];
    case "down": return ["■", "bad", p.node ? "does not answer" : "never answered"];
  }
  return ["○", "soft", p.session];
}

/** How the peer sees this node, as far as it can be told from here: by its
 * reading of our rows. */
function seen(p) {
  if (p.session === "down") return ["○", "soft", "not known"];
  if (p.session === "connected") return ["■", "bad", "it does not read our rows"];
  return p.under_replicated > 0 ? ["▲", "warn", "reads, behind"] : ["●", "good", "has all our rows"];
}

function pairNote(s) {
  const p = s.peer, name = p.node ?? "the peer";
  const alone = p.under_replicated > 0 ? "Up to " + plural(p.under_replicated, "job") + " may be on this node's disk only." : "All jobs of this node are on both disks.";
  if (p.refused) return alone;
  if (p.session === "down") return (p.node && p.since ? `${name} does not answer since ${age(seconds(s.now) - seconds(p.since))}. ` : "No peer has ever answered. ") + alone;
  if (p.session === "connected") return `Only one direction between ${name} and this node works. ${alone}`;
  if (p.session === "catchup") return `${name} is catching up. ${alone}`;
  return p.complete ? "An enqueue at either node is answered when it is on both disks." : `The copy of ${name}'s jobs here is not complete: up to ${plural(p.behind, "row")} to go.`;
}

export function Nodes({ s }) {
  const p = s?.peer;
  if (!s) return html`<${Card} id="nodes" title="Nodes"><p class="empty">Waiting for the first snapshot.</p><//>`;
  const paired = p.session !== "none";
  const here = s.Workers - p.workers;
  const mark = ([m, level, word]) => html`<span class=${level}><span aria-hidden="true">${m}</span> ${word}</span>`;
  const heard = p.heard_at ? seconds(s.now) - seconds(p.heard_at) : 0;
  const skew = Math.abs(p.clock_skew_seconds);
  const lag = p.lag_seconds >= 20 ? "over 20 s" : p.lag_seconds > 0 ? about(p.lag_seconds) + " old" : "";
  const rows = [
    ["Sees the other", html`${mark(session(p))}<span class="soft">${p.session === "down" || !p.heard_at ? "" : heard < 2 ? ", just now" : `, ${age(heard)} ago`}</span>`, mark(seen(p))],
    ["Not at the other", plural(p.under_replicated, "row") + (lag && ", " + lag), plural(p.behind, "row")],
    ["Queued, running", `${count(s.queued - p.waiting)}, ${count(s.leased - p.leased)}`, `${count(p.waiting)}, ${count(p.leased)}`],
    ["Workers", count(here), p.heard ? count(p.workers) : "not known"],
    ["Clock", "–", p.session === "down" ? "–" : skew < 0.05 ? "in step" : (skew < 10 ? skew.toFixed(1) + " s" : about(skew)) + (p.clock_skew_seconds > 0 ? " ahead" : " behind")],
  ];
  const other = p.node && p.api ? html`<a href=${location.protocol + "//" + p.api + "/"}>${p.node}</a>` : p.node ?? "peer";
  return html`<${Card} id="nodes" title="Nodes">
    ${paired ? html`<${Scroll} label="Table of nodes">
      <table class="live wrap matrix" id="nodes-table">
        <caption class="hidden">The two nodes, each with its view of the other</caption>
        <thead><tr><td></td><th scope="col">${s.node} <span class="soft">(this node)</span></th><th scope="col">${other}</th></tr></thead>
        <tbody>${rows.map(([name, a, b]) => html`<tr key=${name}><th scope="row">${name}</th><td>${a}</td><td>${b}</td></tr>`)}</tbody>
      </table>
    <//>
    <p class="hint" id="nodes-note">${pairNote(s)}</p>`
    : html`<p class="live"><strong>${s.node}</strong> runs alone: jobs are on its disk only.</p>
      <p class="empty">Start a second node with <code>--join</code> and this one's gossip address, and each job is kept on both disks.</p>`}
    <p class="hint live">${s.node}: store ${bytes(s.store_bytes + s.wal_bytes)}${s.disk_free_bytes > 0 ? `, ${bytes(s.disk_free_bytes)} free` : ""}, up ${age(seconds(s.now) - seconds(s.started_at))}${s.certificate ? `, certificate good for ${plural(s.certificate.days_left, "day")}` : ""}.</p>
  <//>`;
}

// ---- workers, fleet, decisions, failures -------------------------------------

export function Workers({ s }) {
  const list = s?.workers_list ?? [], here = s ? s.Workers - s.peer.workers : 0;
  return html`<${Card} id="workers" title="Workers of this node">
    ${list.length ? html`<${Scroll} label="Table of workers">
      <table class="live">
        <caption class="hidden">Live workers with the jobs they have and their rate</caption>
        <thead><tr><th scope="col">Worker</th><th scope="col" class="num">Cores</th><th scope="col" class="num">Jobs held</th><th scope="col" class="num">Iterations/s</th><th scope="col" class="num">Last seen</th></tr></thead>
        <tbody>${list.slice(0, 50).map((w) => {
          const quiet = seconds(s.now) - seconds(w.seen_at);
          return html`<tr key=${w.name + "/" + w.instance}><th scope="row"><code>${w.name}</code>${w.kernel ? html` <span class="soft">${w.kernel}</span>` : ""}</th>
            <td class="num">${count(w.cores)}</td><td class="num">${count(w.leases)}</td><td class="num">${w.leases > 0 && w.rate > 0 ? short(w.rate) : "–"}</td>
            <td class="num">${quiet < 2 ? "just now" : age(quiet) + " ago"}</td></tr>`;
        })}</tbody>
      </table>
    <//>${list.length > 50 ? html`<p class="hint">Showing 50 of ${count(list.length)}.</p>` : null}`
    : here ? html`<p class="live">${plural(here, "worker")} connected here.</p>`
    : html`<p class="empty">No worker is connected here. ${s && s.fleet.kind !== "none" ? "They come with the work." : html`Start one on any machine: <code>workmanager worker --node ${location.origin}</code>`}</p>`}
  <//>`;
}

const phases = {
  working: ["●", "good"], idle: ["●", "soft"], pending: ["○", "soft"], booting: ["○", "warn"], silent: ["■", "bad"], draining: ["▲", "warn"], ending: ["▲", "soft"], stopped: ["■", "soft"],
};

/** Gives an order to the scheduler. */
const order = (what, id) => call("POST", "/v1/fleet?do=" + what + (id ? "&instance=" + encodeURIComponent(id) : ""));

/** The questions before an order. */
function orders(f) {
  const has = (i) => `the ${plural(i.leases, "job")} it has`;
  return {
    pause: () => ({ title: "Pause launches?", text: "Nothing is launched until launches are resumed, also after a restart. What runs goes on, and ends when it has no work.", yes: "Pause launches", run: () => order("pause") }),
    resume: () => ({ title: "Resume launches?", text: `Up to ${plural(f.max, "worker")} are launched as the work needs them.`, yes: "Resume launches", run: () => order("resume") }),
    stop: () => ({ title: `Stop all ${count(f.instances.length)}?`, text: "They hand back their jobs with the progress, and end. Nothing is launched until launches are resumed: the jobs wait.", yes: "Stop all",
      run: () => order("pause").then(() => Promise.all(f.instances.map((i) => order("drain", i.id)))) }),
    drain: (i) => ({ title: `Drain ${i.id}?`, text: `It gets no more jobs, hands back ${has(i)} with their progress, and ends.`, yes: "Drain", run: () => order("drain", i.id) }),
    end: (i) => ({ title: `Terminate ${i.id}?`, text: `It is ended at once: ${has(i)} go on elsewhere from their last checkpoint.`, yes: "Terminate", run: () => order("terminate", i.id) }),
  };
}

export function Fleet({ s }) {
  const [ask, setAsk] = useState(null);
  if (!s || s.fleet.kind === "none") {
    return html`<${Card} id="fleet" title="Fleet">
      <p class="empty">This node starts no machines: workers are what people connect. With <code>--fleet ec2</code> instances come with the backlog and go with it; <code>--fleet process</code> tries that here.</p>
    <//>`;
  }
  const f = s.fleet, n = there(f), operator = state.you.role === "operator", pays = f.kind === "ec2", asks = orders(f);
  const button = (word, question, of = "") => html`<button type="button" class="small" aria-label=${word + (of && " " + of)} onClick=${() => setAsk(question())}>${word}</button>`;
  const head = html`<span class="group"><span class="soft">${f.booting ? count(f.booting) + " booting, " : ""}${count(f.running)} running, of at most ${count(f.max)}${pays && n ? `, ${perHour(f.price_per_hour)}` : ""}</span>
    ${operator ? [f.pause_asked ? button("Resume launches", asks.resume) : button("Pause launches", asks.pause), n ? button("Stop all", asks.stop) : null] : null}</span>`;
  return html`<${Card} id="fleet" title="Fleet" aside=${head}>
    ${f.paused || f.held ? html`<p class="warn">▲ ${f.paused ? "Nothing is launched: " + f.paused : "Held by " + f.held}.</p>` : null}
    ${n && !operator ? html`<p class="empty">Operators see which they are, and why so many.</p>`
    : n ? html`<${Scroll} label="Table of instances" tall>
      <table class="live">
        <caption class="hidden">Instances with their state, rate and price</caption>
        <thead><tr><th scope="col">Instance</th><th scope="col">State</th><th scope="col" class="num">Jobs</th><th scope="col" class="num">Iterations/s</th><th scope="col" class="num">Age</th><th scope="col" class="num">$/h</th>${operator ? html`<th scope="col">Orders</th>` : null}</tr></thead>
        <tbody>${f.instances.slice(0, 100).map((i) => {
          const [m, level] = phases[i.state] ?? ["○", "soft"];
          return html`<tr key=${i.id}><th scope="row"><code>${i.id}</code><br /><span class="soft">${i.type}${i.spot ? " Spot" : ""} ${i.zone} ${i.address}</span></th>
            <td><span class=${level}><span aria-hidden="true">${m}</span> ${i.state}</span></td>
            <td class="num">${count(i.leases)}</td><td class="num">${i.rate > 0 ? short(i.rate) : "–"}</td>
            <td class="num">${i.launched_at ? age(seconds(s.now) - seconds(i.launched_at)) : "–"}</td>
            <td class="num">${i.price_per_hour == null ? "n/a" : money(i.price_per_hour)}</td>
            ${operator ? html`<td class="acts">${button("Drain", () => asks.drain(i), i.id)} ${button("Terminate", () => asks.end(i), i.id)}</td>` : null}</tr>`;
        })}</tbody>
      </table>
    <//>${n > 100 ? html`<p class="hint">Showing 100 of ${count(n)}.</p>` : null}`
    : html`<p class="empty">No instance runs${pays ? ", so no worker is paid for" : ""}.${f.paused ? "" : ` The first is launched when jobs wait, ready in about ${about(f.boot_seconds)}.`}</p>`}
    <p class="hint" id="stop-paying">${pays ? html`List prices, EC2 only, volumes not counted. <strong>To stop paying:</strong> ` : ""}${n && operator ? html`<em>Stop all</em> ends the workers; without work they end by themselves. ` : ""}${pays ? html`<code>scripts/teardown.sh</code> ends the nodes too.` : ""}</p>
    <${Ask} ask=${ask} close=${() => setAsk(null)} />
  <//>`;
}

/** @param {number|null} dollars an hour */
function perHour(dollars) {
  return dollars == null ? "price unknown" : money(dollars) + "/h";
}

/** What was decided, why, and what came of it. */
function decided(d) {
  const [, did = "nothing", why = d.why] = /^((?:hold|launch|drain|terminate) [^:]*): (.*)$/s.exec(d.why) ?? [];
  return [did, why, [...d.actions.filter((a) => a.do !== "launch").map((a) => `${a.do} ${a.instance}: ${a.why}`), ...d.outcome]];
}

export function Decisions({ s }) {
  const list = state.decisions.length ? state.decisions : s.fleet.decisions ?? [];
  return html`<${Card} id="decisions" title="What the scheduler did, and why">
    ${list.length ? html`<${Scroll} label="Table of decisions" tall><table class="wrap">
        <caption class="hidden">Decisions, the newest first</caption>
        <thead><tr><th scope="col">Time</th><th scope="col">Did, and why</th></tr></thead>
        <tbody>${list.slice(0, 20).map((d) => {
          const [did, why, came] = decided(d);
          return html`<tr key=${d.at}>
          <td class="nowrap">${clock(new Date(d.last_at), true)}${d.times > 1 ? html`<br /><span class="soft">${count(d.times)} times</span>` : null}</td>
          <td><strong>${did}</strong>${d.held ? html` <span class="warn">▲ held</span>` : ""}<br />${why}${came.map((o) => html`<br /><span class="soft">${o}</span>`)}</td></tr>`;
        })}</tbody>
      </table><//>`
    : html`<p class="empty">No decision yet. The first comes within ten seconds of the start.</p>`}
  <//>`;
}

export function Failures({ s, wide }) {
  const f = s?.failures;
  return html`<${Card} id="failures" title="Failures" wide=${wide}>
    ${f?.groups.length ? html`<${Scroll} label="Table of failures">
      <table class="live wrap">
        <caption class="hidden">Failed jobs by error</caption>
        <thead><tr><th scope="col">Error</th><th scope="col" class="num">Jobs</th><th scope="col">Last</th><th scope="col">Newest</th></tr></thead>
        <tbody>${f.groups.map((g) => html`<tr key=${g.error}><th scope="row"><span class="bad" aria-hidden="true">■</span> ${g.error}</th><td class="num">${count(g.jobs)}</td>
          <td class="nowrap">${clock(new Date(g.last_at))}</td><td><a href=${"#/job/" + g.example} aria-label=${"Newest job with this error: " + g.example}>open</a></td></tr>`)}</tbody>
      </table>
    <//>${f.looked < s.failed ? html`<p class="hint">The newest ${count(f.looked)} of ${count(s.failed)} failed jobs.</p>` : null}`
    : html`<p class="empty">No job has failed. One fails when 5 workers were lost at it, or several could not compute it, and its error is shown here.</p>`}
  <//>`;
}
