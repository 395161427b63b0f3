// @ts-check
// Small things that every panel uses.
import { html, useEffect, useRef, useState } from "./lib/preact-htm.js";

/** The shape, the word and the colour of each state: never one alone. */
const states = {
  queued: ["○", "soft"], leased: ["▶", "good"], completed: ["●", "good"], failed: ["■", "bad"], cancelled: ["▲", "warn"],
};

/** @param {{state: string, says?: string}} p */
export function State({ state, says }) {
  const [mark, level] = states[state] ?? ["○", "soft"];
  return html`<span class=${level}><span aria-hidden="true">${mark}</span> ${says ?? state}</span>`;
}

/** A section with its heading. */
export function Card({ id, title, wide = false, bad = false, aside = null, children }) {
  return html`<section class=${"card" + (wide ? " wide" : "") + (bad ? " bad" : "")} id=${id} aria-labelledby=${id + "-title"}>
    <div class="head"><h2 id=${id + "-title"}>${title}</h2>${aside}</div>
    ${children}
  </section>`;
}

/** A region that scrolls sideways, or if it is tall down too, reachable by keyboard. */
export function Scroll({ label, tall = false, children }) {
  return html`<div class=${tall ? "scroll tall" : "scroll"} tabindex="0" role="region" aria-label=${label}>${children}</div>`;
}

/** A button that copies. The clipboard exists only over HTTPS and on localhost;
 * elsewhere there is no button and the text can be selected. */
export function Copy({ text, what, label = "Copy" }) {
  const [said, say] = useState("");
  if (!navigator.clipboard) return null;
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied");
    } catch {
      say("Select it");
    }
    setTimeout(() => say(""), 1500);
  };
  return html`<button type="button" class="small" aria-label=${label + " " + what} onClick=${copy}>${said || label}</button>`;
}

/** A line of a shell, with copy. */
export function Line({ text, what }) {
  return html`<div class="row tight"><code class="line" tabindex="0" role="region" aria-label=${what}>${text}</code><${Copy} text=${text} what=${what} /></div>`;
}

/** Asks before harm. The question names the object; the answer that does
 * nothing has the focus. ask is {title, text, yes, run} or null. */
export function Ask({ ask, close }) {
  const dialog = useRef(/** @type {HTMLDialogElement|null} */ (null));
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    if (!ask) return;
    setError("");
    setBusy(false);
    dialog.current?.showModal();
  }, [ask]);
  if (!ask) return null;
  const run = async () => {
    setBusy(true);
    try {
      await ask.run();
      dialog.current?.close();
    } catch (e) {
      setError(e instanceof Error ? e.message : String(e));
      setBusy(false);
    }
  };
  return html`<dialog ref=${dialog} aria-labelledby="ask-title" aria-describedby="ask-text" onClose=${close}>
    <h2 id="ask-title">${ask.title}</h2>
    <p id="ask-text">${ask.text}</p>
    <p class="error" role="alert">${error && "■ " + error}</p>
    <div class="row end">
      <button type="button" autofocus onClick=${() => dialog.current?.close()}>Leave it</button>
      <button type="button" class="danger" disabled=${busy} onClick=${run}>${ask.yes}</button>
    </div>
  </dialog>`;
}

/** Quotes for a POSIX shell. */
export function quote(s) {
  return /^[A-Za-z0-9_.,:=@%+/-]+$/.test(s) ? s : "'" + s.replaceAll("'", "'\\''") + "'";
}

/** Where this node is, as the command line wants it. */
export function nodeFlag() {
  return location.protocol === "http:" && location.host === "127.0.0.1:5000" ? "" : " --node " + location.origin;
}
