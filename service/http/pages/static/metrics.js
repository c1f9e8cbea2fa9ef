// What GET /metrics says (Prometheus text format 0.0.4), and rates and quantiles of it.

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+([-+]?(?:[\d.][\d.eE+-]*|Inf)|NaN)(?:\s|$)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

export function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    if (!line || line.startsWith("#")) continue;
    const found = SAMPLE.exec(line);
    if (!found) continue;
    const labels = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(LABEL)) labels[name] = unescaped(value);
    samples.push({ name: found[1], labels, value: numeric(found[3]) });
  }
  return samples;
}

const unescaped = (text) => text.replace(/\\(.)/g, (_, each) => (each === "n" ? "\n" : each));

function numeric(text) {
  if (text === "+Inf") return Infinity;
  return text === "-Inf" ? -Infinity : Number(text);
}

// Counters by series, as they stand at a time in seconds.
export function counters(samples, time) {
  const values = new Map();
  for (const { name, labels, value } of samples) {
    if (!/(_total|_bucket|_count|_sum)$/.test(name)) continue;
    const of = Object.entries(labels)
      .map(([label, text]) => `${label}=${text}`)
      .sort();
    values.set([name, ...of].join("\n"), { name, labels, value });
  }
  return { time, values };
}

// How much each counter grew. One that is lower than before began again at 0; a new one did too.
export function growth(before, now) {
  const grown = [];
  for (const [series, { name, labels, value }] of now.values) {
    const old = before.values.get(series)?.value ?? 0;
    grown.push({ name, labels, value: value >= old ? value - old : value });
  }
  return grown;
}

export function sum(samples, name, of = {}) {
  const wanted = Object.entries(of);
  let total = 0;
  for (const each of samples) {
    if (each.name === name && wanted.every(([label, text]) => each.labels[label] === text))
      total += each.value;
  }
  return total;
}

// The quantile of a histogram whose series are added up; as Prometheus, linear within a bucket.
// NaN if nothing was observed.
export function quantile(samples, name, share, of = {}) {
  const bounds = new Map();
  const wanted = Object.entries(of);
  for (const { name: each, labels, value } of samples) {
    if (each !== `${name}_bucket` || !wanted.every(([label, text]) => labels[label] === text))
      continue;
    const bound = numeric(labels.le);
    bounds.set(bound, (bounds.get(bound) ?? 0) + value);
  }
  const buckets = [...bounds].sort(([a], [b]) => a - b);
  const all = buckets.at(-1)?.[1] ?? 0;
  if (!(all > 0)) return NaN;
  const rank = share * all;
  let [lower, below] = [0, 0];
  for (const [upper, count] of buckets) {
    if (count >= rank) {
      if (upper === Infinity) return lower;
      return count === below ? upper : lower + ((upper - lower) * (rank - below)) / (count - below);
    }
    [lower, below] = [upper, count];
  }
  return lower;
}
