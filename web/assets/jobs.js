// @ts-check
// Jobs: those of this browser, and the page of one.
import { html, useEffect, useRef, useState } from "./lib/preact-htm.js";
import { about, age, clock, count, plural, seconds, short } from "./format.js";
import { call, ended, forget, state, take } from "./store.js";
import { Ask, Card, Copy, Line, Scroll, State, nodeFlag } from "./parts.js";
import { Verify } from "./check.js";

/** Never 100 % before it is done. */
export function percent(j) {
  if (j.state === "completed") return "100 %";
  return Math.min(99, Math.floor(100 * j.done / j.iterations)) + " %";
}

/** What it is waiting for or how long it has to go, in a few words. */
function left(j, why) {
  if (j.state === "leased") return j.eta ? about(j.eta) + " left" : "just begun";
  if (j.state === "queued") return !why ? "" : why.position === 0 ? "next" : (why.at_least ? "over " : "") + plural(why.position, "job") + " ahead";
  return j.finished_at ? "after " + lasted(seconds(j.finished_at) - seconds(j.created_at)) : "";
}

function lasted(s) {
  return s < 1 ? Math.max(Math.round(s * 1000), 0) + " ms" : age(s);
}

function Bar({ j }) {
  return html`<span class="bar"><progress max="1" value=${j.state === "completed" ? 1 : j.iterations > 0 ? j.done / j.iterations : 0} aria-label=${"Progress of job " + j.id} /> <span class="num">${percent(j)}</span></span>`;
}

/** The question before a cancel. */
function cancelling(j, purge) {
  return {
    title: `${purge ? "Erase" : "Cancel"} job ${j.id}?`,
    text: purge ? "Its value, its checkpoints and the hash of its data are erased on both nodes. There is no way back."
      : `${percent(j)} of ${count(j.iterations)} iterations are done. A worker that computes it stops; there is no way back.`,
    yes: purge ? "Erase it" : "Cancel it",
    run: () => call("DELETE", "/v1/jobs/" + j.id + (purge ? "?purge=true" : "")).then(take),
  };
}

/** Why a job is where it is, asked for again while it is open. */
function useWhy(id, on, j) {
  const [why, setWhy] = useState(null);
  useEffect(() => {
    if (!on) return;
    let gone = false;
    const look = () => { if (!document.hidden) call("GET", `/v1/jobs/${id}/explain`).then((e) => { if (!gone) setWhy(e); }, () => {}); };
    look();
    const timer = j && ended(j) ? 0 : setInterval(look, 3000);
    return () => { gone = true; clearInterval(timer); };
  }, [id, on, j?.state]);
  return why;
}

function Why({ why }) {
  if (!why) return html`<p class="soft">Asking.</p>`;
  return html`<p><strong>${why.text}</strong></p>${why.reasons.map((r) => html`<p key=${r} class="soft">${r}</p>`)}`;
}

function Mine({ id, place, ask }) {
  const j = state.jobs.get(id);
  const [open, setOpen] = useState("");
  const why = useWhy(id, open === "why" || place && j?.state === "queued", j);
  const link = html`<a href=${"#/job/" + id}><code class="id">${id}</code></a>`;
  if (j === null || j === undefined) {
    return html`<li><div class="what">${link}<span class="soft">${j === null ? "○ not known here" : "○ asking"}</span></div>
      <div class="acts">${j === null ? html`<button type="button" class="small" aria-label=${"Forget job " + id} onClick=${() => forget(id)}>Forget</button>` : null}</div></li>`;
  }
  const flip = (what) => setOpen(open === what ? "" : what);
  return html`<li>
    <div class="what">${link}<span class="state"><${State} state=${j.state} /> <span class="soft">${left(j, why)}</span></span></div>
    <div class="how">${j.state === "failed" ? html`<span class="bad clip" title=${j.error}>${j.error}</span>`
      : j.value ? html`<code class="clip" title="The value">${j.value}</code>`
      : j.state === "cancelled" ? html`<span class="soft">withdrawn at ${percent(j)}</span>`
      : html`<${Bar} j=${j} />`}</div>
    <div class="acts">
      ${j.value ? html`<${Copy} text=${j.value} what=${"the value of job " + id} />` : null}
      ${j.value ? html`<button type="button" class="small" aria-expanded=${open === "verify"} aria-label=${"Verify job " + id} onClick=${() => flip("verify")}>Verify</button>` : null}
      <button type="button" class="small" aria-expanded=${open === "why"} aria-label=${"Why is job " + id + " where it is?"} onClick=${() => flip("why")}>Why</button>
      ${ended(j) ? html`<button type="button" class="small" aria-label=${"Forget job " + id} onClick=${() => forget(id)}>Forget</button>`
      : html`<button type="button" class="small" aria-label=${"Cancel job " + id} onClick=${() => ask(cancelling(j, false))}>Cancel</button>`}
    </div>
    ${open ? html`<div class="more">${open === "why" ? html`<${Why} why=${why} />` : html`<${Verify} j=${j} />`}</div>` : null}
  </li>`;
}

export function MyJobs() {
  const [ask, setAsk] = useState(null);
  let places = 5; // so many are asked for their place in the queue
  const known = state.mine.filter((id) => state.jobs.get(id));
  const open = known.filter((id) => !ended(state.jobs.get(id))).length;
  return html`<${Card} id="mine" title="My jobs" aside=${known.length ? html`<span class="soft">${open ? count(open) + " open of " : ""}${count(known.length)}, newest first</span>` : null}>
    ${state.mine.length ? html`<ul class="jobs live" aria-label="Jobs submitted from this browser, newest first">
      ${state.mine.map((id) => html`<${Mine} key=${id} id=${id} ask=${setAsk} place=${state.jobs.get(id)?.state === "queued" && places-- > 0} />`)}
    </ul>`
    : html`<p class="empty" id="mine-empty">None yet. Submit a file, and its job appears here with its progress. This browser keeps only the ids.</p>`}
    <${Ask} ask=${ask} close=${() => setAsk(null)} />
  <//>`;
}

// ---- the page of one job ---------------------------------------------------

/** Loads a document of the job when it has ended, or asks for it. */
function useDocument(id, what, on) {
  const [doc, setDoc] = useState(null);
  const [error, setError] = useState("");
  useEffect(() => {
    setDoc(null);
    setError("");
    if (!on) return;
    call("GET", `/v1/jobs/${id}/${what}`).then(setDoc, (e) => setError(e.message));
  }, [id, what, on]);
  return [doc, error];
}

function Checkpoints({ j }) {
  const [doc, error] = useDocument(j.id, "checkpoints", !j.purged && j.state + Math.floor(j.done / Math.max(j.iterations / 20, 1)));
  return html`<${Card} id="checkpoints" title="Checkpoints" aside=${doc ? html`<span class="soft">${plural(doc.checkpoints.length, "place")} of the chain</span>` : null}>
    ${error ? html`<p class="error">■ ${error}</p>` : j.purged ? html`<p class="empty">They were erased.</p>`
    : !doc ? html`<p class="empty">Asking.</p>`
    : html`<${Scroll} label="Table of checkpoints" tall><table>
        <caption class="hidden">The values that are kept of the chain</caption>
        <thead><tr><th scope="col" class="num">Iterations</th><th scope="col">Value</th></tr></thead>
        <tbody>${doc.checkpoints.map((c) => html`<tr key=${c.done}><td class="num">${count(c.done)}</td><td><code title=${c.value}>${c.value.slice(0, 32)}…</code> <${Copy} text=${c.value} what=${"the value after " + c.done} /></td></tr>`)}</tbody>
      </table><//>
      <p class="hint">The first is SHA-512 of the data. Submit with <code>--checkpoints N</code> to keep more: each part can then be checked by itself.</p>`}
  <//>`;
}

function Receipt({ j }) {
  const [doc, error] = useDocument(j.id, "receipt", j.state === "completed" && !j.purged);
  const text = doc ? JSON.stringify(doc, null, 2) : "";
  return html`<${Card} id="receipt" title="Receipt" aside=${doc ? html`<${Copy} text=${text} what="the receipt" label="Copy JSON" />` : null}>
    ${error ? html`<p class="error">■ ${error}</p>`
    : j.state !== "completed" || j.purged ? html`<p class="empty">There is one when the job is completed: a statement of its value that this node signs.</p>`
    : !doc ? html`<p class="empty">Asking.</p>`
    : html`<dl class="facts"><dt>Signed by</dt><dd>node ${doc.node}</dd><dt>Key</dt><dd><code>${doc.public_key}</code></dd><dt>Signature</dt><dd><code>${doc.signature}</code></dd></dl>
      <p class="hint">Save it and check it anywhere, without a node:</p><${Line} text="workmanager verify --receipt receipt.json" what="how to check the receipt" />`}
  <//>`;
}

export function JobPage({ id }) {
  const [ask, setAsk] = useState(null);
  const title = useRef(/** @type {HTMLElement|null} */ (null));
  const j = state.jobs.get(id);
  const why = useWhy(id, Boolean(j), j);
  useEffect(() => { title.current?.focus(); }, [id]);
  const head = html`<p><a href="#/">← Overview</a></p>`;
  if (!j) {
    return html`<main id="main">${head}<section class="card" aria-labelledby="job-title"><h2 id="job-title" tabindex="-1" ref=${title}>Job <code class="id">${id}</code></h2>
      <p class="empty">${j === null ? "Not known here: it never was, or retention has dropped it. Look at the ID once more." : "Asking the node."}</p></section></main>`;
  }
  const at = (t) => html`<time datetime=${t} title=${t}>${new Date(t).toLocaleDateString("en-CA")} ${clock(new Date(t), true)}</time>`;
  const facts = [
    ["State", html`<${State} state=${j.state} /> <span class="soft">${left(j, why)}</span>`],
    ["Progress", html`<${Bar} j=${j} /> <span class="soft">${count(j.done)} of ${count(j.iterations)} iterations${j.rate && j.state === "leased" ? `, ${short(j.rate)}/s` : ""}</span>`],
    j.value && ["Value", html`<code class="whole" id="job-value">${j.value}</code> <${Copy} text=${j.value} what="the value" />`],
    j.error && ["Error", html`<span class="bad">■ ${j.error}</span>`],
    ["On disk at", j.replicated ? "both nodes" : html`this node only${j.durability_reason ? html`<span class="soft">: ${j.durability_reason}</span>` : ""}`],
    ["Node", html`${j.node}${j.worker ? html`, worker <code>${j.worker}</code>` : ""}`],
    ["Attempts", count(j.attempts)],
    j.priority > 0 && ["Priority", j.priority],
    j.resumed_from && ["Began at", count(j.resumed_from) + " iterations, reached before by another job over the same data"],
    ["Came in", at(j.created_at)],
    j.finished_at && ["Ended", html`${at(j.finished_at)} <span class="soft">after ${lasted(seconds(j.finished_at) - seconds(j.created_at))}</span>`],
  ].filter(Boolean);
  return html`<main id="main">${head}
    <section class="card live" id="job" aria-labelledby="job-title">
      <div class="head"><h2 id="job-title" tabindex="-1" ref=${title}>Job <code class="id">${id}</code></h2>
        <span class="row"><${Copy} text=${id} what="the ID" label="Copy ID" />
        ${ended(j) ? j.purged ? null : html`<button type="button" class="small" onClick=${() => setAsk(cancelling(j, true))}>Erase</button>`
        : html`<button type="button" class="small" onClick=${() => setAsk(cancelling(j, false))}>Cancel</button>`}</span></div>
      <dl class="facts">${facts.map((f) => html`<dt key=${f[0]}>${f[0]}</dt><dd key=${f[0] + "-is"}>${f[1]}</dd>`)}</dl>
    </section>
    <div class="grid">
      <${Card} id="why" title="Why"><div id="why-text"><${Why} why=${why} /></div>
        <${Line} text=${`workmanager job explain ${id}${nodeFlag()}`} what="how to ask from a shell" /><//>
      <${Card} id="verify" title="Verify"><${Verify} j=${j} file /><//>
      <${Checkpoints} j=${j} />
      <${Receipt} j=${j} />
    </div>
    <${Ask} ask=${ask} close=${() => setAsk(null)} />
  </main>`;
}
