// @ts-check
// The API page: /openapi.json as text. Nothing is ever set as HTML.

/** @param {string} tag @param {Record<string, string>} [attrs] @param {(Node|string)[]} [inner] */
function make(tag, attrs = {}, inner = []) {
  const el = document.createElement(tag);
  for (const [k, v] of Object.entries(attrs)) el.setAttribute(k, v);
  el.append(...inner);
  return el;
}

/** @type {any} */
let doc;

/** Follows $ref. @param {any} x @returns {any} */
function at(x) {
  while (x && x.$ref) x = x.$ref.slice(2).split("/").reduce((/** @type {any} */ d, /** @type {string} */ k) => d[k], doc);
  return x ?? {};
}

/** The name behind a $ref, or "". @param {any} x @returns {string} */
function nameOf(x) {
  return x?.$ref?.split("/").pop() ?? "";
}

/** `code`, **strong** and text. @param {string} text */
function inline(text) {
  return text.split(/(`[^`]+`|\*\*[^*]+\*\*)/).filter(Boolean).map((part) => {
    if (part.startsWith("`")) return make("code", {}, [part.slice(1, -1)]);
    if (part.startsWith("**")) return make("strong", {}, [part.slice(2, -2)]);
    return part.replaceAll("\n", " ").replaceAll(/\*(\w+)\*/g, "$1");
  });
}

/** Paragraphs and numbered lists, all the Markdown the document uses.
 * @param {string} text */
function prose(text) {
  const blocks = text.trim().split(/\n\s*\n/).map((block) => {
    if (!/^1\. /.test(block)) return make("p", {}, inline(block));
    return make("ol", {}, block.split(/\n(?=\d+\. )/).map((item) => make("li", {}, inline(item.replace(/^\d+\. /, "")))));
  });
  return make("div", { class: "prose" }, blocks);
}

/** The type of a schema in a few words. @param {any} ref @returns {(Node|string)[]} */
function type(ref) {
  const name = nameOf(ref);
  const s = at(ref);
  if (name && s.properties) return [make("a", { href: "#schema-" + name }, [name])];
  if (s.type === "array") return ["list of ", ...type(s.items)];
  const words = [s.format ?? s.contentEncoding ?? s.type ?? "bytes"];
  if (s.const !== undefined) words.push(JSON.stringify(s.const));
  if (s.enum) words.push("one of " + s.enum.join(", "));
  if (s.minimum !== undefined && s.maximum !== undefined) words.push(s.minimum + " to " + s.maximum);
  else if (s.minimum !== undefined) words.push("at least " + s.minimum);
  if (s.exclusiveMinimum !== undefined) words.push("above " + s.exclusiveMinimum);
  if (s.maxLength !== undefined) words.push("at most " + s.maxLength + " characters");
  if (s.maxItems !== undefined) words.push("at most " + s.maxItems);
  if (s.default !== undefined) words.push("default " + s.default);
  return [words.join(", ")];
}

/** @param {string} caption @param {string[]} heads @param {(Node|string)[][][]} rows */
function table(caption, heads, rows) {
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, [make("table", {}, [
    make("caption", { class: "hidden" }, [caption]),
    make("thead", {}, [make("tr", {}, heads.map((h) => make("th", { scope: "col" }, [h])))]),
    make("tbody", {}, rows.map((cells) => make("tr", {}, cells.map((c, n) => n ? make("td", {}, c) : make("th", { scope: "row" }, c))))),
  ])]);
}

/** @param {any} value */
function sample(value) {
  return make("pre", { tabindex: "0" }, [make("code", {}, [typeof value === "string" ? value : JSON.stringify(value, null, 2)])]);
}

/** @param {string} method @param {string} path @param {any} op @param {any[]} shared */
function route(method, path, op, shared) {
  const title = method.toUpperCase() + " " + path;
  const parts = [
    make("h2", { id: op.operationId }, [make("span", { class: "method" }, [method.toUpperCase()]), make("code", {}, [path])]),
    make("div", { class: "prose" }, [make("p", {}, [make("strong", {}, [op.summary])]), ...(op.description ? [prose(op.description)] : [])]),
  ];
  const params = [...shared, ...(op.parameters ?? [])].map(at);
  if (params.length > 0) {
    parts.push(make("h3", {}, ["Parameters"]), table("Parameters of " + title, ["Name", "In", "Type", "Meaning"], params.map((p) => [
      [make("code", {}, [p.name]), p.required ? " (required)" : ""], [p.in], type(p.schema), inline(p.description ?? ""),
    ])));
  }
  if (op.requestBody) {
    parts.push(make("h3", {}, ["Body"]));
    if (op.requestBody.description) parts.push(prose(op.requestBody.description));
    parts.push(table("Body of " + title, ["Media type", "Content"], Object.entries(op.requestBody.content).map(([mt, c]) => [
      [make("code", {}, [mt])], at(c.schema).properties && !nameOf(c.schema) ? ["form with the field data"] : type(c.schema),
    ])));
    for (const [mt, c] of Object.entries(op.requestBody.content)) {
      if (c.example !== undefined && mt.includes("json")) parts.push(sample(mt.includes("ndjson") ? JSON.stringify(c.example) : c.example));
    }
  }
  parts.push(make("h3", {}, ["Answers"]), table("Answers of " + title, ["Status", "Meaning", "Content", "Headers"], Object.entries(op.responses).map(([status, ref]) => {
    const r = at(ref);
    const content = Object.entries(r.content ?? {}).flatMap(([mt, c], n) => [n ? ", " : "", make("code", {}, [mt]), c.schema && at(c.schema).type !== "string" ? " " : "", ...(c.schema && at(c.schema).type !== "string" ? type(c.schema) : [])]);
    const headers = Object.keys(r.headers ?? {}).flatMap((h, n) => [n ? ", " : "", make("code", {}, [h])]);
    return [[status], inline(r.description), content, headers];
  })));
  for (const [status, ref] of Object.entries(op.responses)) {
    for (const [mt, c] of Object.entries(at(ref).content ?? {})) {
      if (status < "300" && c.example !== undefined) parts.push(sample(mt.includes("ndjson") ? JSON.stringify(c.example) : c.example));
    }
  }
  return make("section", { class: "card", "aria-labelledby": op.operationId }, parts);
}

/** @param {string} name @param {any} s */
function schema(name, s) {
  return make("section", { class: "card", "aria-labelledby": "schema-" + name }, [
    make("h2", { id: "schema-" + name }, [name]),
    ...(s.description ? [prose(s.description)] : []),
    table("Fields of " + name, ["Field", "Type", "Meaning"], Object.entries(s.properties).map(([field, ref]) => [
      [make("code", {}, [field]), s.required?.includes(field) ? "" : " (optional)"], type(ref), inline(at(ref).description ?? ""),
    ])),
  ]);
}

/** @param {string} title @param {[string, string][]} links */
function contents(title, links) {
  return [make("h2", {}, [title]), make("ul", {}, links.map(([text, id]) => make("li", {}, [make("a", { href: "#" + id }, [text])])))];
}

async function show() {
  const answer = await fetch("/openapi.json");
  if (!answer.ok) throw new Error(`the node answered ${answer.status}`);
  doc = await answer.json();
  const main = /** @type {HTMLElement} */ (document.getElementById("routes"));
  const nav = /** @type {HTMLElement} */ (document.getElementById("contents"));
  main.replaceChildren(make("section", { class: "card", "aria-label": "About" }, [make("h2", {}, ["The API in short"]), prose(doc.info.description)]));
  for (const tag of doc.tags) {
    /** @type {[string, string][]} */
    const links = [];
    for (const [path, item] of Object.entries(doc.paths)) {
      for (const method of ["get", "put", "post", "delete"]) {
        const op = item[method];
        if (!op?.tags.includes(tag.name)) continue;
        links.push([method.toUpperCase() + " " + path, op.operationId]);
        main.append(route(method, path, op, item.parameters ?? []));
      }
    }
    nav.append(...contents(tag.name, links));
  }
  /** @type {[string, string][]} */
  const links = [];
  for (const [name, s] of Object.entries(doc.components.schemas)) {
    if (!s.properties) continue;
    links.push([name, "schema-" + name]);
    main.append(schema(name, s));
  }
  nav.append(...contents("objects", links));
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

show().catch((err) => {
  const wait = document.getElementById("wait");
  if (wait) wait.textContent = `The document did not load: ${err.message}.`;
});
