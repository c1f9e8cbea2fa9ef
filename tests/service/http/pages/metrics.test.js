import assert from "node:assert/strict";
import { test } from "node:test";

import { counters, growth, parse, quantile, sum } from "#pages/metrics.js";

// The example of Prometheus's documentation, "Text format example" of "Exposition formats".
const EXAMPLE = String.raw`# HELP http_requests_total The total number of HTTP requests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{method="post",code="400"}    3 1395066363000

# Escaping in label values:
msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""} 1.458255915e9

# Minimalistic line:
metric_without_timestamp_and_labels 12.47

# A weird metric from before the epoch:
something_weird{problem="division by zero"} +Inf -3982045

# A histogram, which has a pretty complex representation in the text format:
# HELP http_request_duration_seconds A histogram of the request duration.
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{le="0.05"} 24054
http_request_duration_seconds_bucket{le="0.1"} 33444
http_request_duration_seconds_bucket{le="0.2"} 100392
http_request_duration_seconds_bucket{le="0.5"} 129389
http_request_duration_seconds_bucket{le="1"} 133988
http_request_duration_seconds_bucket{le="+Inf"} 144320
http_request_duration_seconds_sum 53423
http_request_duration_seconds_count 144320
`;
const close = (got, wanted) => assert.ok(Math.abs(got - wanted) < 1e-9, `${got}, not ${wanted}`);

test("the example of Prometheus's documentation is read", () => {
  const samples = parse(EXAMPLE);
  assert.equal(samples.length, 13);
  assert.deepEqual(samples.slice(0, 5), [
    { name: "http_requests_total", labels: { method: "post", code: "200" }, value: 1027 },
    { name: "http_requests_total", labels: { method: "post", code: "400" }, value: 3 },
    {
      name: "msdos_file_access_time_seconds",
      labels: { path: "C:\\DIR\\FILE.TXT", error: 'Cannot find file:\n"FILE.TXT"' },
      value: 1458255915,
    },
    { name: "metric_without_timestamp_and_labels", labels: {}, value: 12.47 },
    { name: "something_weird", labels: { problem: "division by zero" }, value: Infinity },
  ]);
  assert.equal(sum(samples, "http_request_duration_seconds_count"), 144320);
});

test("a label may hold what ends labels, and a backslash before an n", () => {
  const [{ labels, value }] = parse(String.raw`a{b="} 1",c="x,y=\"z\"",d="\\n",} 2`);
  assert.deepEqual(labels, { b: "} 1", c: 'x,y="z"', d: "\\n" });
  assert.equal(value, 2);
});

test("numbers are read in all their forms", () => {
  const forms = {
    "+Inf": Infinity,
    "-Inf": -Infinity,
    NaN: NaN,
    "-1.5e-07": -1.5e-7,
    "1E+3": 1000,
  };
  for (const [text, value] of Object.entries(forms)) {
    assert.ok(Object.is(parse(`up ${text}`)[0].value, value), text);
  }
});

test("lines that are no samples are passed over", () => {
  assert.deepEqual(parse("# up 1\n\nup\nup {} up\n1up 1\nup one\nup 1x\n"), []);
});

test("only counters are kept, and one series has one key in any order of labels", () => {
  const text =
    'a_total{x="1",y="2"} 1\na_total{y="2",x="1"} 5\na 2\na_created 3\na_sum_limit{z="_sum"} 1';
  const { time, values } = counters(parse(text), 7);
  assert.equal(time, 7);
  assert.deepEqual(
    [...values.values()].map(({ value }) => value),
    [5],
  );
});

test("what grew is counted from 0 where a counter began again, or is new", () => {
  const grown = growth(
    counters(parse('a_total{v="1"} 5\na_total{v="2"} 9\ngone_total 4'), 0),
    counters(parse('a_total{v="1"} 9\na_total{v="2"} 3\na_total{v="3"} 2'), 1),
  );
  assert.deepEqual(
    grown.map(({ labels, value }) => [labels.v, value]),
    [
      ["1", 4],
      ["2", 3],
      ["3", 2],
    ],
  );
});

test("a sum takes the series that have the labels, with any others", () => {
  const samples = parse('a{m="x",v="1"} 1\na{m="x",v="2"} 2\na{m="y",v="1"} 4\nb{m="x"} 8');
  assert.equal(sum(samples, "a"), 7);
  assert.equal(sum(samples, "a", { m: "x" }), 3);
  assert.equal(sum(samples, "a", { m: "x", v: "2" }), 2);
  assert.equal(sum(samples, "a", { n: "x" }), 0);
});

// As Prometheus's histogram_quantile: linear in a bucket, the first of which begins at 0.
test("a quantile lies within its bucket as it does for Prometheus", () => {
  const samples = parse(EXAMPLE);
  const name = "http_request_duration_seconds";
  close(quantile(samples, name, 0.5), 0.1 + (0.1 * (72160 - 33444)) / (100392 - 33444));
  close(quantile(samples, name, 0.1), (0.05 * 14432) / 24054);
  close(quantile(samples, name, 1 / 6), (0.05 * (144320 / 6)) / 24054);
});

test("a quantile above the last bound is that bound", () => {
  assert.equal(quantile(parse(EXAMPLE), "http_request_duration_seconds", 0.99), 1);
});

test("histograms are added up before their quantile is taken", () => {
  const histogram = (model, counts) =>
    ["0.1", "0.3", "+Inf"]
      .map((bound, i) => `s_bucket{model="${model}",le="${bound}"} ${counts[i]}\n`)
      .join("");
  const samples = parse(histogram("a", [10, 10, 10]) + histogram("b", [0, 10, 10]));
  close(quantile(samples, "s", 0.5, { model: "a" }), 0.05);
  close(quantile(samples, "s", 0.5, { model: "b" }), 0.2);
  close(quantile(samples, "s", 0.25), 0.05);
  close(quantile(samples, "s", 0.75), 0.2);
});

test("there is no quantile of nothing", () => {
  assert.equal(quantile([], "s", 0.5), NaN);
  assert.equal(quantile(parse('s_bucket{le="1"} 0\ns_bucket{le="+Inf"} 0'), "s", 0.5), NaN);
});
