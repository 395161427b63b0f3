// usage: npm ci && npm run build      makes ../assets/lib anew, the same bytes each time
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const out = new URL("../assets/lib/", import.meta.url).pathname;
const own = JSON.parse(readFileSync(new URL("package.json", import.meta.url), "utf8")).devDependencies;

const bundles = {
  "preact-htm.js": `
    import { h } from "preact";
    import htm from "htm";
    export { h, render, Fragment, Component, createRef } from "preact";
    export { useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback, useReducer } from "preact/hooks";
    export const html = htm.bind(h);`,
  "uplot.js": `export { default } from "uplot";`,
};
const options = {
  bundle: true, minify: true, format: "esm", target: "es2022", charset: "utf8", legalComments: "none", write: false, logLevel: "warning",
};
const files = {};
for (const [name, contents] of Object.entries(bundles)) {
  const r = await build({ ...options, stdin: { contents, resolveDir: new URL(".", import.meta.url).pathname } });
  files[name] = r.outputFiles[0].text;
}
const css = await build({ ...options, entryPoints: ["node_modules/uplot/dist/uPlot.min.css"], outfile: "uplot.css" });
files["uplot.css"] = css.outputFiles[0].text;

const licences = ["preact", "htm", "uplot"].map((name) => {
  const text = readFileSync(new URL(`node_modules/${name}/LICENSE`, import.meta.url), "utf8").trim();
  return `${name} ${own[name]}\n\n${text}\n`;
});
files["LICENSES.txt"] = licences.join("\n" + "-".repeat(72) + "\n\n");

let sums = "";
for (const name of Object.keys(files).sort()) {
  writeFileSync(out + name, files[name]);
  sums += createHash("sha256").update(files[name]).digest("hex") + "  " + name + "\n";
}
writeFileSync(out + "SHA256SUMS", sums);
