// Requests to the service that this page came from.

const KEY = "torchlit.key";
const LIMIT_MS = 60_000;
export const QUICK_MS = 5000; // for requests that are repeated
// Of /, /docs and /docs/ alike: a page says how to get from it to the root.
export const base = new URL(document.documentElement.dataset.root, document.baseURI).href;

let held = "";
try {
  held = sessionStorage.getItem(KEY) ?? "";
} catch {
  // storage may be refused
}

export const key = {
  get: () => held,
  set(text) {
    held = text;
    try {
      if (text) sessionStorage.setItem(KEY, text);
      else sessionStorage.removeItem(KEY);
    } catch {
      // kept for this page only
    }
  },
};

// Called with true when the service refuses a request without a valid key. The pages call it with
// false: only they know which of their requests need one, as /metrics may be open to all.
export let locked = () => {};
export const whenLocked = (call) => (locked = call);

// The service answered with an error.
export class Refused extends Error {
  constructor({ status, statusText, headers }, text) {
    super(sentence(text) ?? `${status} ${statusText}`);
    this.status = status;
    this.retryAfterS = Number(headers.get("retry-after")) || null;
  }
}

function sentence(text) {
  try {
    return JSON.parse(text).error;
  } catch {
    return undefined;
  }
}

// Nothing came: the service is away, hangs, or the connection broke.
export class NoAnswer extends Error {}

// Returns the Response, whatever its status, and how long it took. Throws NoAnswer if none came,
// and what `signal` says if that was aborted.
export async function send(
  path,
  { method = "GET", headers = {}, body, signal, limitMs = LIMIT_MS } = {},
) {
  const all = new Headers(headers);
  if (key.get() && !all.has("authorization")) all.set("authorization", `Bearer ${key.get()}`);
  const limit = AbortSignal.timeout(limitMs);
  const options = {
    method,
    headers: all,
    body,
    cache: "no-store",
    signal: signal ? AbortSignal.any([signal, limit]) : limit,
  };
  const start = performance.now();
  let response, content;
  try {
    response = await fetch(new URL(path.replace(/^\//, ""), base), options);
    content = await response.arrayBuffer();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new NoAnswer(
      limit.aborted
        ? `The service gave no answer in ${limitMs / 1000} s.`
        : "The service does not answer.",
    );
  }
  if (response.status === 401) locked(true);
  return { response, content, ms: performance.now() - start };
}

// Returns the reply's JSON, or its text, its headers and its time. Throws Refused or NoAnswer.
export async function request(path, options) {
  const { response, content, ms } = await send(path, options);
  const text = new TextDecoder().decode(content);
  if (!response.ok) throw new Refused(response, text);
  return { data: options?.isText ? null : parsed(text), text, headers: response.headers, ms };
}

// A version beyond 2^53, as a Unix time in nanoseconds, stays exact: as text.
const LONG_VERSION = /"((?:default_)?version)":(\d{16,})(?=[,}])/g;
const parsed = (text) => JSON.parse(text.replaceAll(LONG_VERSION, '"$1":"$2"'));

// `instances` is JSON: what was typed is sent as it was typed.
export function predict(model, version, instances, signal) {
  return request(`predict/${encodeURIComponent(model)}`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-request-timing": "true" },
    body: `{"version":${version},"instances":${instances}}`,
    signal,
  });
}

// The output of a model that has `count` numbers for each row of numbers, flat. Over /v2 and in
// binary: a tenth of what /predict would spell out. `inputs` is what /v2 says of the model's
// inputs: one, or one for each column.
export async function infer(model, version, inputs, rows, count) {
  const { response, content } = await send(
    `v2/models/${encodeURIComponent(model)}/versions/${version}/infer`,
    {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        inputs: tensors(inputs, rows),
        parameters: { binary_data_output: true },
      }),
    },
  );
  const length = Number(
    response.headers.get("inference-header-content-length") ?? content.byteLength,
  );
  const head = new TextDecoder().decode(content.slice(0, length));
  if (!response.ok) throw new Refused(response, head);
  let at = length;
  for (const { shape, datatype, parameters } of JSON.parse(head).outputs) {
    const end = at + parameters.binary_data_size;
    const Numbers = { FP32: Float32Array, FP64: Float64Array }[datatype];
    const size = shape.reduce((all, each) => all * each, 1);
    if (Numbers && size === rows.length * count) return new Numbers(content.slice(at, end));
    at = end;
  }
  throw new Error("The answers have a form that this page does not read.");
}

// Of several inputs, each has a column. One of integers takes the nearest.
function tensors(inputs, rows) {
  const [{ name, datatype }, ...others] = inputs;
  if (!others.length)
    return [{ name, datatype, shape: [rows.length, rows[0].length], data: rows.flat() }];
  return inputs.map(({ name, datatype, shape }, i) => ({
    name,
    datatype,
    shape: [rows.length, ...shape.slice(1)],
    data: rows.map((row) => (/INT/.test(datatype) ? Math.round(row[i]) : row[i])),
  }));
}

export function prepare(model, version, image, signal) {
  return request(`prepare/${encodeURIComponent(model)}?version=${version}`, {
    method: "POST",
    headers: { "content-type": image.type },
    body: image,
    signal,
  });
}

// {queue, compute} in milliseconds, as far as Server-Timing says.
export function timing(headers) {
  const times = {};
  for (const each of (headers.get("server-timing") ?? "").split(",")) {
    const found = /^\s*([\w-]+)\s*;.*\bdur=([\d.]+)/.exec(each);
    if (found) times[found[1]] = Number(found[2]);
  }
  return times;
}

// A plot of the training as an object URL: <img> could not send the key.
export async function plot(path) {
  const { response, content } = await send(path);
  if (!response.ok) throw new Refused(response, "");
  return URL.createObjectURL(new Blob([content], { type: response.headers.get("content-type") }));
}
