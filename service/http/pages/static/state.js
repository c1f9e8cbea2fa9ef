// The state of the service, from GET /metrics and GET /health/ready.

import { NoAnswer, QUICK_MS, request, send } from "./api.js";
import { h, keyed, svg } from "./dom.js";
import { duration, grouped, number, words } from "./format.js";
import { counters, growth, parse, quantile, sum } from "./metrics.js";
import { shadowsView } from "./shadows.js";

const POINTS = 60;
const FEWEST = 8; // that the width stands for
const WINDOW = 5; // scrapes that a rate and a quantile look back
const WIDTH = 240;
const HEIGHT = 36;
const SECONDS = "torchlit_request_seconds";

// {strip, element, scrape(), ready(), list(models), update(), again()}
export function stateView() {
  const scrapes = []; // of the counters
  const plots = {
    rate: plot("Requests per s", 1, (value) => number(Number(value.toPrecision(3)))),
    p50: plot("Latency, p50", 0.001, (value) => duration(1000 * value)),
    p99: plot("Latency, p99", 0.001, (value) => duration(1000 * value)),
    queue: plot("Rows waiting", 1, (value) => grouped(value)),
  };
  const small = {
    rate: plot("requests/s", 1, plots.rate.text),
    p99: plot("p99", 0.001, plots.p99.text),
  };
  const strip = h("div.strip", {}, small.rate.element, small.p99.element);
  const readiness = h("p.lead");
  const why = h("ul.caveats");
  const rows = h("tbody");
  const heads = ["Model", "State", "Runs on", "Requests", "Rows", "p50", "p99"];
  const counts = h("p.note");
  const shadows = shadowsView();
  const element = h(
    "article",
    {},
    h("div.title", {}, h("div", {}, h("h1", {}, "Service"), readiness)),
    h(
      "div.panels",
      {},
      h(
        "section.tiles",
        { "aria-label": "Now" },
        Object.values(plots).map((each) => each.element),
      ),
      h(
        "section.card",
        { "aria-label": "Models and versions" },
        h("h2", {}, "Models and versions"),
        why,
        h(
          "div.scroll",
          { tabindex: "0", role: "group", "aria-label": "Table of models" },
          h(
            "table",
            {},
            h(
              "thead",
              {},
              h(
                "tr",
                {},
                heads.map((each, i) => h(i > 2 ? "th.n" : "th", { scope: "col" }, each)),
              ),
            ),
            rows,
          ),
        ),
        counts,
      ),
      shadows.element,
    ),
  );
  const showWhy = keyed(why, () => {
    const element = h("li");
    return { element, show: (text) => (element.textContent = text) };
  });
  const showRows = keyed(rows, tableRow);
  let models = [];
  let samples = [];

  async function scrape() {
    const { text } = await request("metrics", { isText: true, limitMs: QUICK_MS });
    samples = parse(text);
    scrapes.push(counters(samples, performance.now() / 1000));
    if (scrapes.length > WINDOW + 1) scrapes.shift();
    const before = scrapes[0];
    const now = scrapes.at(-1);
    const seconds = now.time - before.time;
    plots.queue.push(sum(samples, "torchlit_queue_rows"));
    if (seconds > 0) {
      const grown = growth(before, now);
      const rate = sum(grown, `${SECONDS}_count`) / seconds;
      for (const each of [plots.rate, small.rate]) each.push(rate);
      plots.p50.push(quantile(grown, SECONDS, 0.5));
      for (const each of [plots.p99, small.p99]) each.push(quantile(grown, SECONDS, 0.99));
    }
    if (element.isConnected) table();
  }

  // Proxies may keep /health to themselves: then isReady is undefined.
  async function ready() {
    let reply;
    try {
      const { response, content } = await send("health/ready", { limitMs: QUICK_MS });
      reply = { isReady: response.ok, ...JSON.parse(new TextDecoder().decode(content)) };
    } catch (error) {
      if (!(error instanceof NoAnswer || error instanceof SyntaxError)) throw error;
      reply = {};
    }
    const { isReady, status: state = "", models: states = {} } = reply;
    const reasons = Object.entries(states).flatMap(([name, { reason, failed = [] }]) => [
      ...(reason ? [`${name}: ${reason}`] : []),
      ...failed,
    ]);
    why.hidden = !reasons.length;
    showWhy(reasons.map((each) => [each, each]));
    readiness.textContent =
      isReady === undefined
        ? "GET /health/ready is not answered here."
        : !isReady
          ? `${state[0]?.toUpperCase() ?? "Not ready"}${state.slice(1)}.`
          : reasons.length
            ? "Ready; some versions could not be opened."
            : "Ready: every model answers.";
    return { isReady, state };
  }

  function table() {
    showRows(
      models.flatMap(({ model, versions, default_version: usual }) =>
        versions.map((each) => {
          const of = { model, version: String(each.version) };
          const q = (share) => duration(1000 * quantile(samples, SECONDS, share, of));
          const which =
            versions.length > 1
              ? `${each.version}${each.version === usual ? " (default)" : ""}`
              : "";
          const numbers = [
            grouped(sum(samples, "torchlit_requests_total", of)),
            grouped(sum(samples, "torchlit_rows_total", of)),
            q(0.5),
            q(0.99),
          ];
          return [JSON.stringify(of), { model, which, numbers, ...each }];
        }),
      ),
    );
    shadows.update(samples);
    const workers = sum(samples, "torchlit_workers");
    const connections = sum(samples, "torchlit_connections");
    counts.textContent =
      `${workers} ${workers === 1 ? "worker" : "workers"}, ${connections} open connections; ` +
      "requests and latencies since the start.";
  }

  function list(listed) {
    models = listed;
  }

  return { element, strip, scrape, ready, list, update: table, again() {} };
}

function tableRow() {
  const link = h("a");
  const [which, state, device, provider] = [
    h("span.which"),
    h("span"),
    h("span"),
    h("span.provider"),
  ];
  const cells = Array.from({ length: 4 }, () => h("td.n"));
  const element = h(
    "tr",
    {},
    h("th", { scope: "row" }, link, " ", which),
    h("td", {}, state),
    h("td", {}, device, " ", provider),
    cells,
  );
  function show(each) {
    link.href = `#${encodeURIComponent(each.model)}`;
    link.textContent = words(each.model);
    which.textContent = each.which;
    state.className = `state ${each.state}`;
    state.textContent = each.state;
    device.textContent = each.device ?? "–";
    provider.textContent = each.provider ?? "";
    each.numbers.forEach((text, i) => (cells[i].textContent = text));
  }
  return { element, show };
}

// A line of the last values, with the newest in words. NaN leaves a gap. `least`: what the height
// stands for at least, so that a trifle is no mountain.
function plot(title, least, text) {
  const values = [];
  const ground = svg("path", { class: "ground", d: `M0 ${HEIGHT - 0.5}H${WIDTH}` });
  const line = svg("path", { class: "line" });
  const area = svg("path", { class: "area" });
  const value = h("b");
  const span = h("span.span");
  const chart = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    ground,
    area,
    line,
  );
  const element = h("div.plot", {}, h("p", {}, h("span", {}, title), value), chart, span);
  function push(newest) {
    values.push(newest);
    if (values.length > POINTS) values.shift();
    const isKnown = Number.isFinite(newest);
    value.textContent = isKnown ? text(newest) : "no requests";
    value.classList.toggle("none", !isKnown);
    const steps = Math.max(values.length, FEWEST) - 1;
    span.textContent = `last ${steps < 58 ? `${2 * steps} s` : "2 min"}`;
    const most = Math.max(...values.filter(Number.isFinite), least);
    const at = (each, i) =>
      [
        WIDTH * (1 - (values.length - 1 - i) / steps),
        HEIGHT - 3 - (each / most) * (HEIGHT - 8),
      ].map((part) => part.toFixed(1));
    const runs = [];
    values.forEach((each, i) => {
      if (!Number.isFinite(each)) return;
      if (!Number.isFinite(values[i - 1])) runs.push([]);
      runs.at(-1).push(at(each, i));
    });
    const path = (points) => {
      const drawn = points.length === 1 ? [points[0], points[0]] : points; // a dot
      return `M${drawn.map((point) => point.join(" ")).join("L")}`;
    };
    line.setAttribute("d", runs.map(path).join(""));
    area.setAttribute(
      "d",
      runs
        .map((points) => `${path(points)}L${points.at(-1)[0]} ${HEIGHT}L${points[0][0]} ${HEIGHT}Z`)
        .join(""),
    );
  }
  return { element, push, text };
}
