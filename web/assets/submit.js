// @ts-check
// Submit: by drop, by paste, by the file chooser; what it takes before, and the
// same for a shell.
import { html, useEffect, useRef, useState } from "./lib/preact-htm.js";
import { about, bytes, money, plural } from "./format.js";
import { remember } from "./store.js";
import { Card, Line, nodeFlag, quote } from "./parts.js";

/** A whole number as the API takes it, NaN if it is none. */
export function iterations(text) {
  const plain = text.trim().replaceAll(/[_, ]/g, "");
  const n = /^\d+$/.test(plain) ? Number(plain) : NaN;
  return n >= 1 && n <= 2 ** 53 ? n : NaN;
}

/** What so many iterations take, in words. */
export function estimate(s, n) {
  if (!s || !(n >= 1)) return "How many times SHA-512 is applied, 1 to 2^53.";
  if (n === 1) return "Done at once: the node hashes the data as it comes in.";
  const f = s.fleet, speed = s.lane_rate;
  if (!speed && !s.Workers) return f.kind === "none" || f.paused ? "No worker is connected: the job would wait." : `No worker runs: one is launched for it, ready in about ${about(f.boot_seconds)}.`;
  const words = [];
  words.push(speed ? sentence(about(n / speed) + " of computing: one chain, one lane") : "Time not known: no worker has computed yet.");
  if (s.queued > 0 && s.forecast.left_seconds) words.push(`${plural(s.queued, "job")} queued before it, clear in ${roughly(s.forecast.left_seconds)}.`);
  if (f.kind === "ec2") {
    words.push(f.price_per_iteration ? `Cost ${money(n * f.price_per_iteration)} at list prices.` : "Cost unknown: no price is known yet.");
  } else {
    words.push("No cost: no instance of EC2.");
  }
  return words.join(" ");
}

function roughly(s) {
  return (s < 1 ? "" : "about ") + about(s);
}

/** @param {string} words that may begin with "under" */
function sentence(words) {
  return (words.startsWith("under") ? "U" + words.slice(1) : "About " + words) + ".";
}

/** A name for this submit, so that a repeat cannot make a second job. */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

/** Sends the file and tells of its progress; fetch tells nothing of that.
 * @param {File} file @param {(part: number) => void} progress @returns {Promise<string>} the job's ID */
function send(file, n, progress) {
  return new Promise((done, failed) => {
    const form = new FormData();
    form.append("data", file);
    const req = new XMLHttpRequest();
    req.open("PUT", "/enqueue?iterations=" + n);
    req.setRequestHeader("Idempotency-Key", newKey());
    req.upload.addEventListener("progress", (p) => progress(p.lengthComputable ? p.loaded / p.total : 0));
    req.addEventListener("loadend", () => {
      let answer = null;
      try {
        answer = JSON.parse(req.responseText);
      } catch {
        // Said below.
      }
      if (req.status === 200 && answer) done(answer["Work ID"]);
      else failed(new Error(answer?.detail ?? (req.status ? `The node answered ${req.status} ${req.statusText}.` : "The node did not answer.")));
    });
    req.send(form);
  });
}

/** The same request for a shell. */
function shell(how, name, n) {
  const file = quote(name || "FILE"), count = String(n >= 1 ? n : 1000000);
  if (how === "curl") {
    const token = location.protocol === "https:" ? '--cacert "$WORKMANAGER_CA" -H "Authorization: Bearer $WORKMANAGER_TOKEN" ' : "";
    return `curl ${token}-T ${file} '${location.origin}/enqueue?iterations=${count}'`;
  }
  return `workmanager enqueue ${file} -n ${count} --wait${nodeFlag()}`;
}

export function Submit({ s }) {
  const [file, setFile] = useState(null);
  const [text, setText] = useState("1000000");
  const [over, setOver] = useState(false);
  const [error, setError] = useState("");
  const [sent, setSent] = useState("");
  const [part, setPart] = useState(-1);
  const [how, setHow] = useState("cli");
  const input = useRef(/** @type {HTMLInputElement|null} */ (null));
  const n = iterations(text);

  const choose = (f) => {
    setOver(false);
    if (!f) return;
    setFile(f);
    setError("");
    setSent("");
  };
  useEffect(() => { // what is pasted anywhere but into a field
    const paste = (e) => {
      if (e.target instanceof Element && e.target.closest("input, textarea, dialog")) return;
      const data = e.clipboardData;
      if (!data) return;
      const words = data.getData("text/plain");
      const f = data.files[0] ?? (words ? new File([words], "pasted.txt", { type: "text/plain" }) : null);
      if (!f) return;
      e.preventDefault();
      choose(f);
    };
    document.addEventListener("paste", paste);
    return () => document.removeEventListener("paste", paste);
  }, []);

  const submit = async (e) => {
    e.preventDefault();
    if (!file) return setError("Choose a file first: drop it, paste it, or use the button.");
    if (!(n >= 1)) return setError(`${JSON.stringify(text)} is no whole number from 1 to 9007199254740992 (2^53).`);
    setError("");
    setSent("");
    setPart(0);
    try {
      const id = await send(file, n, setPart);
      setSent(id);
      remember(id);
    } catch (err) {
      setError(err instanceof Error ? err.message : String(err));
    }
    setPart(-1);
  };
  const drag = (e) => {
    e.preventDefault();
    setOver(true);
  };
  const drop = (e) => {
    e.preventDefault();
    choose(e.dataTransfer?.files[0]);
  };
  return html`<${Card} id="submit" title="Submit a job">
    <form onSubmit=${submit} novalidate>
      <div class=${"drop" + (over ? " over" : "")} id="drop" onDragEnter=${drag} onDragOver=${drag} onDragLeave=${() => setOver(false)} onDrop=${drop}>
        <input type="file" id="file" class="hidden" ref=${input} aria-describedby="file-hint" onChange=${(e) => choose(e.target.files[0])} />
        <label for="file" class="button">Choose a file</label>
        <span id="file-name">${file ? html`<strong>${file.name}</strong>, ${bytes(file.size)}` : "or drop one here, or paste text"}</span>
      </div>
      <p class="hint" id="file-hint">Any bytes. They are hashed as they arrive and never stored.</p>
      <div class="field">
        <label for="iterations">Iterations</label>
        <div class="row">
          <input type="text" id="iterations" inputmode="numeric" autocomplete="off" value=${text} aria-describedby="estimate" onInput=${(e) => setText(e.target.value)} />
          <button type="submit" class="primary" id="enqueue" disabled=${part >= 0}>Enqueue</button>
        </div>
        <p class="hint" id="estimate">${estimate(s, n)}</p>
      </div>
      ${part >= 0 && file && file.size > 1 << 20 ? html`<progress max="1" value=${part} aria-label="Upload" />` : null}
      <p class="error" id="submit-error" role="alert">${error && "■ " + error}</p>
      <p class="good" id="submit-sent" role="status">${sent && html`● Accepted: <a href=${"#/job/" + sent}><code>${sent}</code></a>`}</p>
    </form>
    <div class="same">
      <div class="group" role="group" aria-label="The same from a shell">
        <button type="button" class="small" aria-pressed=${how === "cli"} onClick=${() => setHow("cli")}>Command line</button>
        <button type="button" class="small" aria-pressed=${how === "curl"} onClick=${() => setHow("curl")}>curl</button>
      </div>
      <${Line} text=${shell(how, file?.name ?? "", n)} what="the same from a shell" />
    </div>
  <//>`;
}
