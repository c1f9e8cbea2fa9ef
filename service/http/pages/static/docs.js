// The OpenAPI document as a page: operations, what they take and answer, and a way to send them.

import { locked, request, send } from "./api.js";
import { copyButton, fragment, h, id, speak, tabs } from "./dom.js";
import { bytes, duration } from "./format.js";
import { pretty } from "./json.js";
import { nested, pixels, save, toBlob } from "./pixels.js";
import { inWords, resolved, tree } from "./schema.js";
import { top } from "./top.js";

const DOCUMENT = "schema/openapi.json";
const MOST_SHOWN = 20_000; // characters of a reply
const GROUPS = {
  predict: "Predict",
  prepare: "Predict",
  models: "Models",
  health: "Health and metrics",
  metrics: "Health and metrics",
  v2: "Open Inference Protocol",
};
const ORDER = ["Predict", "Models", "Health and metrics", "Open Inference Protocol"];
const OTHERS = "Cloud platforms and others";

const status = top("/docs", load);
const main = document.getElementById("main");
const contents = document.getElementById("contents");
let api = null;

async function load() {
  try {
    api = (await request(DOCUMENT)).data;
    locked(false);
  } catch (error) {
    status.className = "status bad";
    status.textContent = error.status === 401 ? "locked" : "no answer";
    main.replaceChildren(
      h(
        "article",
        {},
        h("h1", {}, "API"),
        h(
          "p.lead",
          {},
          error.status === 401
            ? "The operations show once a key is given above."
            : "The service does not answer; load the page again.",
        ),
      ),
    );
    contents.replaceChildren();
    return;
  }
  status.textContent = "";
  status.className = "status";
  show();
}

function operations() {
  return Object.entries(api.paths).flatMap(([path, item]) =>
    Object.entries(item)
      .filter(([method]) => /^(get|post|put|patch|delete|head|options)$/.test(method))
      .map(([method, operation]) => ({
        path,
        method,
        operation,
        shared: item.parameters ?? [],
        group: groupOf(path, operation),
      })),
  );
}

function groupOf(path, { tags }) {
  return tags?.[0] ?? GROUPS[path.split("/")[1]] ?? OTHERS;
}

function show() {
  const all = operations();
  const names = [...new Set(all.map(({ group }) => group))];
  const rank = (name) => (name === OTHERS ? 99 : ORDER.includes(name) ? ORDER.indexOf(name) : 50);
  names.sort((a, b) => rank(a) - rank(b));
  const filterId = id("filter");
  const filter = h("input", {
    type: "search",
    id: filterId,
    placeholder: "Filter operations",
    autocomplete: "off",
  });
  const links = h("div.operations");
  const sections = names.map((name) => {
    const these = all.filter(({ group }) => group === name).map(entry);
    links.append(
      h("h2", {}, name),
      h(
        "ul",
        {},
        these.map(({ link }) => link),
      ),
    );
    return {
      these,
      heading: links.lastElementChild.previousElementSibling,
      element: h(
        "section.group",
        { "aria-label": name },
        h("h2", {}, name),
        these.map(({ element }) => element),
      ),
    };
  });
  const nothing = h("p.note", { hidden: true }, "No operation has these words.");
  filter.addEventListener("input", () => {
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const { these, element, heading } of sections) {
      let here = 0;
      for (const { words, element: operation, link } of these) {
        const isShown = wanted.every((word) => words.includes(word));
        operation.hidden = link.hidden = !isShown;
        here += isShown;
      }
      element.hidden = heading.hidden = !here;
      count += here;
    }
    nothing.hidden = count > 0;
    speak(`${count} operations`);
  });
  contents.replaceChildren(
    h("label.unseen", { for: filterId }, "Filter operations"),
    filter,
    links,
  );
  const { title, version, description } = api.info;
  main.replaceChildren(
    h(
      "article",
      {},
      h(
        "div.title",
        {},
        h(
          "div",
          {},
          h("h1", {}, "API"),
          h(
            "p.lead",
            {},
            `${description ?? ""} ${all.length} operations of ${title} ${version}, as this ` +
              "service answers them now: written from its models, every example can be sent.",
          ),
        ),
        h(
          "div.versions",
          {},
          h(
            "a.button",
            { href: DOCUMENT, download: "openapi.json", onclick: download },
            "openapi.json",
          ),
        ),
      ),
      nothing,
      sections.map(({ element }) => element),
    ),
  );
  reveal({ type: "load" });
}

// With the key, which a plain link could not send.
function download(event) {
  event.preventDefault();
  save(new Blob([JSON.stringify(api, null, 1)], { type: "application/json" }), "openapi.json");
}

function reveal({ type }) {
  const element = document.getElementById(fragment());
  if (!element?.matches("details.operation")) return;
  element.open = true;
  element.scrollIntoView({ block: "start" });
  if (type === "hashchange") element.firstElementChild.focus({ preventScroll: true });
}

function entry({ path, method, operation, shared }) {
  const anchor = operation.operationId ?? `${method}${path.replaceAll(/\W+/g, "-")}`;
  const about = operation.summary ?? "";
  const body = h("div.operation-body");
  const element = h(
    "details.operation",
    { id: anchor },
    h(
      "summary",
      {},
      h(`span.method.${method}`, {}, method),
      h("code.path", {}, breakable(path)),
      h("span.about", {}, about),
    ),
    body,
  );
  // Most are never opened: what is inside is made when one is.
  element.addEventListener(
    "toggle",
    () => body.childElementCount || body.append(...inside({ path, method, operation, shared })),
  );
  const link = h(
    "li",
    {},
    h(
      "a",
      { href: `#${anchor}` },
      h(`span.method.${method}`, {}, method),
      h("span", {}, breakable(path)),
    ),
  );
  return { element, link, words: `${method} ${path} ${about}`.toLowerCase() };
}

// A path may break after each slash.
const breakable = (path) =>
  path.split(/(?<=\/)/).flatMap((part, i) => (i ? [h("wbr"), part] : [part]));

function inside({ path, method, operation, shared }) {
  const parameters = [...shared, ...(operation.parameters ?? [])].map((each) =>
    resolved(api, each),
  );
  const requestBody = operation.requestBody && resolved(api, operation.requestBody);
  const description = operation.description ? [h("p", {}, operation.description)] : [];
  const parts = [
    ...description,
    parameters.length ? h("div", {}, h("h3", {}, "Parameters"), parameters.map(parameterLine)) : "",
    requestBody
      ? h(
          "div",
          {},
          h("h3", {}, "Body"),
          Object.entries(requestBody.content ?? {}).map(([type, { schema }]) =>
            media(type, schema, true),
          ),
        )
      : "",
    answers(operation.responses),
  ].filter(Boolean);
  return [
    h("div.description", {}, parts),
    tryIt({ path, method, operation, parameters, requestBody }),
  ];
}

// What goes well is shown, what goes wrong is folded.
function answers(responses) {
  const lines = (some) => some.map(([code, each]) => responseLine(code, resolved(api, each)));
  const all = Object.entries(responses).sort(([a], [b]) => a - b);
  const errors = all.filter(([code]) => code >= "400");
  const fold =
    errors.length > 3
      ? h(
          "details.fold",
          {},
          h("summary", {}, h("span.about", {}, `${errors.length} errors`)),
          h("div.below", {}, lines(errors)),
        )
      : lines(errors);
  return h("div", {}, h("h3", {}, "Answers"), lines(all.filter(([code]) => code < "400")), fold);
}

function parameterLine(parameter) {
  return h(
    "div.leaf",
    {},
    h("code", {}, parameter.name),
    h("span.type", {}, `${inWords(api, parameter.schema)}, in the ${parameter.in}`),
    parameter.required ? h("span.required", {}, "required") : "",
    parameter.description ? h("span.about", {}, parameter.description) : "",
  );
}

function media(type, schema, isOpen) {
  const isKnown = schema && Object.keys(schema).length;
  return h(
    "div.media",
    {},
    h("p.type", {}, type),
    isKnown ? tree(api, schema, "", { isOpen }) : "",
  );
}

function responseLine(code, response) {
  const content = Object.entries(response.content ?? {});
  const head = [h(`span.code.c${code[0]}`, {}, code), h("span.about", {}, response.description)];
  if (!content.length) return h("div.leaf", {}, head);
  const inner = h("div.below");
  const fold = h("details.fold", {}, h("summary", {}, head), inner);
  fold.addEventListener(
    "toggle",
    () => inner.append(...content.map(([type, { schema }]) => media(type, schema, true))),
    { once: true },
  );
  return fold;
}

function tryIt({ path, method, operation, parameters, requestBody }) {
  const fields = parameters.map((parameter) => ({ parameter, ...parameterField(parameter, path) }));
  const inPath = Object.fromEntries(
    fields
      .filter(({ parameter }) => parameter.in === "path")
      .map(({ parameter, field }) => [parameter.name, field]),
  );
  const modelNow = () =>
    inPath.model?.value ?? /^\/(?:predict|prepare)\/([^/]+)$/.exec(path)?.[1] ?? "";
  const body = requestBody
    ? bodyField(() => withExamples(requestBody, path, method, modelNow()), modelNow)
    : null;
  inPath.model?.addEventListener("change", () => {
    body?.show();
    if (inPath.version) fit(inPath);
  });
  const head = h("p.reply-head", { "aria-live": "polite" });
  const rest = h("div.reply");
  const button = h("button.primary", { type: "submit" }, "Send");
  const form = h(
    "form.try-form",
    { "aria-label": `Try ${method} ${path}` },
    h("h3", {}, "Try it"),
    fields.length
      ? h(
          "div.params",
          {},
          fields.map(({ element }) => element),
        )
      : "",
    body?.element ?? "",
    h("div.row", {}, button, h("span.note", {}, `${method.toUpperCase()} ${path}`)),
    head,
    rest,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const { url, ...options } = await filled(path, method, fields, body);
      showReply(head, rest, await send(url, options));
    } catch (error) {
      head.replaceChildren(h("span.error", {}, `Not sent, or no answer: ${error.message}`));
      rest.replaceChildren();
    } finally {
      button.disabled = false;
    }
  });
  return form;
}

// A version and a plot that the model has.
async function fit({ model, version, picture: plot }) {
  const { data } = await request("models").catch(() => ({ data: { models: [] } }));
  const described = data.models.find((each) => each.model === model.value);
  const shown = described?.versions.find((each) => each.version === described.default_version);
  if (!shown) return;
  version.value = shown.version;
  if (plot) plot.value = shown.pictures?.[0]?.url.split("/").at(-1) ?? "";
}

// An operation for any model has the examples of the model that is chosen.
function withExamples(requestBody, path, method, model) {
  const like = path.replace("/versions/{version}", "").replace("{model}", model);
  const theirs = api.paths[like]?.[method]?.requestBody?.content ?? {};
  const content = Object.entries(requestBody.content).map(([type, each]) => [
    type,
    each.examples ? each : { ...each, examples: theirs[type]?.examples },
  ]);
  return { ...requestBody, content: Object.fromEntries(content) };
}

const firstModel = () =>
  decodeURIComponent(
    Object.keys(api.paths)
      .map((each) => /^\/predict\/([^/{]+)$/.exec(each)?.[1])
      .find(Boolean) ?? "",
  );

async function filled(path, method, fields, body) {
  let url = path;
  const headers = {};
  const query = new URLSearchParams();
  for (const { parameter, value } of fields) {
    const text = value();
    if (parameter.in === "path") url = url.replace(`{${parameter.name}}`, encodeURIComponent(text));
    else if (text === "") continue;
    else if (parameter.in === "query") query.set(parameter.name, text);
    else if (parameter.in === "header") headers[parameter.name.toLowerCase()] = text;
  }
  if (query.size) url += `?${query}`;
  let content = await body?.value();
  if (body && body.type() !== "multipart/form-data") headers["content-type"] = body.type();
  const packing = headers["content-encoding"];
  if (content !== undefined && (packing === "gzip" || packing === "deflate")) {
    content = await new Response(
      new Blob([content]).stream().pipeThrough(new CompressionStream(packing)),
    ).arrayBuffer();
  }
  return { url, method: method.toUpperCase(), headers, body: content };
}

function parameterField({ name, schema, required, in: where }, path) {
  const is = resolved(api, schema);
  const fieldId = id("parameter");
  // What a browser does not let a page choose.
  const isForbidden =
    where === "header" && /^(accept-encoding|content-length|host|connection)$/i.test(name);
  let field = null;
  if (is.enum) {
    field = h(
      "select",
      { id: fieldId },
      required ? "" : h("option", { value: "" }, "–"),
      is.enum.map((each) => h("option", { value: each }, String(each))),
    );
  } else {
    field = h("input", {
      id: fieldId,
      value: String(known(name, is, path) ?? ""),
      required: required === true,
      inputmode: is.type === "integer" ? "numeric" : null,
      autocomplete: "off",
      spellcheck: "false",
      placeholder: required ? "" : "unset",
    });
  }
  if (isForbidden) field.disabled = true;
  const element = h(
    "div.param",
    {},
    h("label", { for: fieldId }, name),
    field,
    isForbidden ? h("span.note", {}, "set by the browser") : "",
  );
  return { element, field, value: () => (isForbidden ? "" : field.value) };
}

// A value that works for a parameter in a path: its example, or the first model's.
function known(name, is, path) {
  const given = is.example ?? is.examples?.[0] ?? is.default;
  if (given !== undefined && !/encoding/i.test(name)) return given;
  if (!path.includes(`{${name}}`)) return undefined;
  return { model: firstModel(), version: 1 }[name];
}

const isText = (type) => /json|text|csv|xml|ndjson/.test(type);

// `described()` is the body as the document has it, with the examples of the model that is chosen,
// `model()`.
function bodyField(described, model) {
  const { content } = described();
  const types = Object.keys(content);
  const holder = h("div");
  let now = null;
  function choose(type) {
    const { content: current, required } = described();
    now = isText(type)
      ? textField(current[type], required)
      : fileField(type, isImage(type) ? drawnExample(model()) : null);
    now.type = type;
    return now.element;
  }
  function show() {
    const chosen = Math.max(0, types.indexOf(now?.type));
    holder.replaceChildren(
      types.length === 1
        ? choose(types[0])
        : tabs(
            "Media type of the body",
            types.map((type) => ({ name: type, show: () => choose(type) })),
            chosen,
          ),
    );
  }
  show();
  return { element: holder, show, type: () => now.type, value: () => now.value() };
}

function examplesOf({ examples, example }) {
  if (examples)
    return Object.entries(examples).map(([name, each]) => [name, resolved(api, each).value]);
  return example === undefined ? [] : [["example", example]];
}

function textField(described, required) {
  const given = examplesOf(described);
  const fieldId = id("body");
  const field = h("textarea", { id: fieldId, spellcheck: "false" });
  const fill = (text) => {
    field.value = text;
    field.rows = Math.min(20, Math.max(4, text.split("\n").length));
  };
  const write = (value) =>
    typeof value === "string" ? value : pretty(JSON.stringify(value), { width: 60 });
  fill(
    given.length
      ? write(given[0][1])
      : required && resolved(api, described.schema).type === "object"
        ? "{}"
        : "",
  );
  const choices = given.map(([name, value]) =>
    h("button.chip", { type: "button", onclick: () => fill(write(value)) }, name),
  );
  const element = h(
    "div.body",
    {},
    h("label", { for: fieldId }, "Body"),
    given.length > 1 ? h("div.chips", { role: "group", "aria-label": "Examples" }, choices) : "",
    field,
  );
  return { element, value: () => (field.value === "" ? undefined : field.value) };
}

// A file; without one, the example that comes with a model of images is sent.
function fileField(type, drawing) {
  const fieldId = id("body");
  const isForm = type === "multipart/form-data";
  const field = h("input", { type: "file", id: fieldId, multiple: isForm });
  const note = h("p.note.row");
  drawing?.then(
    ({ name, canvas }) => note.append(canvas, `Without a file, the example “${name}” is sent.`),
    () => (drawing = null),
  );
  async function value() {
    const files = [...field.files];
    if (!files.length && drawing)
      files.push(await toBlob((await drawing).canvas, isForm ? "image/png" : type));
    if (!isForm) return files[0];
    const data = new FormData();
    for (const each of files) data.append("file", each);
    return data;
  }
  return {
    element: h(
      "div.body",
      {},
      h("label", { for: fieldId }, isForm ? "Files" : `File (${type})`),
      field,
      note,
    ),
    value,
  };
}

const isImage = (type) => /^(image\/|multipart\/)/.test(type);

async function drawnExample(model) {
  const { data } = await request(`models/${encodeURIComponent(model)}`);
  const { card } = data.versions.find(({ version }) => version === data.default_version);
  const [{ name, input }] = card.examples;
  return { name, canvas: pixels(nested(input, card.image)) };
}

function showReply(head, rest, { response, content, ms }) {
  const type = response.headers.get("content-type") ?? "";
  const headers = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  head.replaceChildren(
    h(`span.code.c${String(response.status)[0]}`, {}, String(response.status)),
    ` ${response.statusText} `,
    h("span.note", {}, `${duration(ms)}, ${bytes(content.byteLength)}`),
  );
  const parts = [];
  if (type.startsWith("image/")) {
    const img = h("img", {
      src: URL.createObjectURL(new Blob([content], { type })),
      alt: "The image in the reply",
      onload: () => URL.revokeObjectURL(img.src),
    });
    parts.push(img);
  } else if (content.byteLength) {
    const text = isText(type)
      ? new TextDecoder().decode(content)
      : `${bytes(content.byteLength)} of ${type || "an unknown type"}`;
    const shown =
      /json/.test(type) && !/lines|ndjson/.test(type) ? pretty(text, { width: 80 }) : text;
    parts.push(
      h(
        "div.snippet",
        {},
        copyButton(() => shown, "the reply"),
        h(
          "pre.code",
          { tabindex: "0", role: "region", "aria-label": "Body of the reply" },
          shown.length > MOST_SHOWN
            ? `${shown.slice(0, MOST_SHOWN)}\n… ${bytes(shown.length - MOST_SHOWN)} more`
            : shown,
        ),
      ),
    );
  }
  parts.push(
    h(
      "details.fold",
      {},
      h("summary", {}, "Headers"),
      h(
        "pre.code",
        { tabindex: "0", role: "region", "aria-label": "Headers of the reply" },
        headers,
      ),
    ),
  );
  rest.replaceChildren(...parts);
}

addEventListener("hashchange", reveal);
load();
