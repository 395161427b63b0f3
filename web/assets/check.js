// @ts-check
// Verify: the value is computed again, in this browser where that is a matter
// of seconds, else by the command line.
import { html, useEffect, useRef, useState } from "./lib/preact-htm.js";
import { about, count } from "./format.js";
import { call } from "./store.js";
import { Line, nodeFlag } from "./parts.js";

const most = 2_000_000; // iterations that are computed here

/** The one policy of the page: no string but this becomes a script's address. */
const policy = /** @type {any} */ (window).trustedTypes?.createPolicy("workmanager", {
  createScriptURL: (url) => {
    if (url !== "/assets/verify.js") throw new TypeError("no such script");
    return url;
  },
});

/** @param {Uint8Array} b */
const hex = (b) => Array.from(b, (x) => x.toString(16).padStart(2, "0")).join("");
const unhex = (s) => Uint8Array.from(s.match(/../g) ?? [], (x) => parseInt(x, 16));

export function Verify({ j, file = false }) {
  const [part, setPart] = useState(-1);
  const [verdict, setVerdict] = useState(null);
  const worker = useRef(/** @type {Worker|null} */ (null));
  const chosen = useRef(/** @type {HTMLInputElement|null} */ (null));
  useEffect(() => () => worker.current?.terminate(), []);
  const line = html`<${Line} text=${`workmanager verify ${j.id} FILE${nodeFlag()}`} what="how to verify from a shell" />`;
  if (j.state !== "completed" || !j.value) return html`<p class="empty">A value can be checked when the job is completed${j.purged ? ", and this one was erased" : ""}.</p>`;
  if (j.iterations > most || !crypto.subtle) {
    return html`<p>${crypto.subtle ? `${count(j.iterations)} iterations are many for a browser; the command line checks them with all cores, and needs the data:`
      : "A browser computes hashes over HTTPS and on localhost only. From a shell, with the data:"}</p>${line}`;
  }
  const run = async () => {
    setVerdict(null);
    setPart(0);
    const started = performance.now();
    try {
      const first = (await call("GET", `/v1/jobs/${j.id}/checkpoints`)).checkpoints[0];
      const data = chosen.current?.files?.[0];
      if (data) {
        const v1 = hex(new Uint8Array(await crypto.subtle.digest("SHA-512", await data.arrayBuffer())));
        if (v1 !== first.value) {
          setPart(-1);
          return setVerdict({ ok: false, text: `${data.name} is not the data of this job: its SHA-512 is another.` });
        }
      }
      const w = new Worker(policy ? policy.createScriptURL("/assets/verify.js") : "/assets/verify.js");
      worker.current = w;
      w.onmessage = (e) => {
        if (e.data.error) setVerdict({ ok: false, text: "It could not be computed: " + e.data.error });
        else if (!e.data.value) return setPart(e.data.done / j.iterations);
        else {
          const ok = hex(e.data.value) === j.value;
          const took = about((performance.now() - started) / 1000);
          setVerdict({ ok, text: ok ? `Right: ${count(j.iterations)} iterations from ${data ? data.name : "SHA-512 of the data"}, computed here in ${took}.`
            : "WRONG: this browser computes another value. Keep this page and tell the operator." });
        }
        setPart(-1);
        w.terminate();
      };
      w.onerror = () => {
        setVerdict({ ok: false, text: "The script that computes did not start." });
        setPart(-1);
      };
      w.postMessage({ start: unhex(first.value), steps: j.iterations - first.done });
    } catch (e) {
      setPart(-1);
      setVerdict({ ok: false, text: e instanceof Error ? e.message : String(e) });
    }
  };
  return html`<p>This browser computes the ${count(j.iterations)} iterations again and compares.</p>
    ${file ? html`<p class="field"><label for="verify-file">The data, to check that too</label><input type="file" id="verify-file" ref=${chosen} /></p>` : null}
    <div class="row"><button type="button" class="primary" disabled=${part >= 0} onClick=${run} aria-label=${"Verify here the value of job " + j.id}>Verify here</button>
      ${part >= 0 ? html`<progress max="1" value=${part} aria-label="Verifying" />` : null}</div>
    <p class=${"verdict " + (verdict ? verdict.ok ? "good" : "bad" : "")} role="status">${verdict && (verdict.ok ? "● " : "■ ") + verdict.text}</p>
    ${file ? html`<p class="hint">Or from a shell:</p>${line}` : null}`;
}
