// The request on the page, as a program would make it.

import { base, key } from "./api.js";
import { pretty } from "./json.js";

const KEY_HEADER = '-H "Authorization: Bearer $TORCHLIT_KEY"';
const MOST_OF_ARGUMENT = 100_000; // characters; Linux takes 128 KiB
const JSON_TYPE = "-H 'Content-Type: application/json'";
const NOT_IN_JSON = new Set(["FP16", "BF16"]);

// `request`: {model, version (null: the default), given, isImage, input, inputs}, where `given` has
// the instances as JSON, flat too, `values` of a row with names, and isExact if an image is to be
// sent as it is.
export function curl({ model, version, given, isImage }) {
  const url = `${base}predict/${encodeURIComponent(model)}`;
  if (!isImage) return command(url, [JSON_TYPE, data(body(version, given))]);
  const query = new URLSearchParams(parameters(version, given));
  return command(`${url}${query.size ? `?${query}` : ""}`, [
    "-H 'Content-Type: image/png'",
    "--data-binary @image.png",
  ]);
}

export function python({ model, version, given, isImage }) {
  const imports = [
    ...(key.get() ? ["import os"] : []),
    ...(isImage ? ["from pathlib import Path"] : []),
  ];
  const headers = {};
  if (isImage) headers["Content-Type"] = '"image/png"';
  if (key.get()) headers.Authorization = '"Bearer " + os.environ["TORCHLIT_KEY"]';
  const query = isImage ? Object.entries(parameters(version, given)) : [];
  const dictionary = (entries) =>
    `{${entries.map(([name, value]) => `"${name}": ${value}`).join(", ")}}`;
  return [
    ...imports,
    ...(imports.length ? [""] : []),
    "import httpx",
    "",
    "reply = httpx.post(",
    `    ${JSON.stringify(`${base}predict/${encodeURIComponent(model)}`)},`,
    ...(query.length
      ? [`    params=${dictionary(query.map(([name, value]) => [name, JSON.stringify(value)]))},`]
      : []),
    isImage
      ? '    content=Path("image.png").read_bytes(),'
      : `    json=${literal(body(version, given))},`,
    ...(Object.keys(headers).length ? [`    headers=${dictionary(Object.entries(headers))},`] : []),
    ")",
    "reply.raise_for_status()",
    'print(reply.json()["predictions"][0])',
  ].join("\n");
}

// The Open Inference Protocol, JSON.
export function v2({ model, version, given, input, inputs = [] }) {
  const { name, datatype, shape } = input ?? { name: "input", datatype: "FP32", shape: [-1] };
  const other = [datatype, ...inputs.map((each) => each.datatype)].find((each) =>
    NOT_IN_JSON.has(each),
  );
  if (other) return `# V2 takes ${other} as binary data only: JSON has no form for it.`;
  const path = version
    ? `${encodeURIComponent(model)}/versions/${version}`
    : encodeURIComponent(model);
  const sizes = [1, ...fixed(shape.slice(1), JSON.parse(given.flat).length)];
  const tensors =
    inputs.length > 1 // of a model with an input for each column
      ? inputs.map((each, i) => tensor(each, each.shape.map(Math.abs), `[${given.values[i]}]`))
      : [tensor({ name, datatype }, sizes, given.flat)];
  const sent = data(`{"inputs":[${tensors.join(",")}]}`);
  return command(`${base}v2/models/${path}/infer`, [JSON_TYPE, sent]);
}

function tensor({ name, datatype }, shape, values) {
  const head = `"name":${JSON.stringify(name)},"shape":${JSON.stringify(shape)}`;
  return `{${head},"datatype":"${datatype}","data":${values}}`;
}

// Sizes of which the first that is left open takes what the others leave.
function fixed(sizes, count) {
  let rest = sizes.reduce((left, size) => (size < 0 ? left : left / size), count);
  return sizes.map((size) => {
    if (size >= 0) return size;
    const taken = rest;
    rest = 1;
    return taken;
  });
}

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`; // for a POSIX shell

function command(url, options) {
  return [`curl ${quoted(url)}`, ...(key.get() ? [KEY_HEADER] : []), ...options].join(" \\\n  ");
}

function data(json) {
  const text = pretty(json);
  return text.length > MOST_OF_ARGUMENT ? `-d @- <<'JSON'\n${text}\nJSON` : `-d ${quoted(text)}`;
}

const body = (version, { instances }) =>
  `{${version ? `"version":${version},` : ""}"instances":${instances}}`;

// What the query says of an image.
const parameters = (version, { isExact }) => ({
  ...(version ? { version } : {}),
  ...(isExact ? { prepare: "false" } : {}),
});

const literal = (json) =>
  pretty(json, { words: { true: "True", false: "False", null: "None" } }).replaceAll(
    "\n",
    "\n    ",
  );
