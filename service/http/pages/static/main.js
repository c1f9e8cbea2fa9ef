// The playground: what runs here, from GET /models, and one view at a time.

import { locked, NoAnswer, QUICK_MS, request } from "./api.js";
import { fragment, h, keyed } from "./dom.js";
import { words } from "./format.js";
import { modelView, watchAnswer } from "./model.js";
import { stateView } from "./state.js";
import { top } from "./top.js";

const MODELS_MS = 3000;
const METRICS_MS = 2000;
const SERVICE = "service/"; // no model has a slash in its name

const status = top("/", refresh);
const main = document.getElementById("main");
const nav = document.getElementById("models");
const list = h("ul.models");
const service = stateView();
const serviceLink = h(
  "a.service",
  { href: `#${SERVICE}` },
  h("span.name", {}, "Service"),
  h("span.what", {}, "state, requests, latency"),
  service.strip,
);
nav.append(h("h2", {}, "Models"), list, serviceLink);
const showList = keyed(list, listEntry);
const views = new Map();
let models = [];
let listed = "";
let view = null; // that is shown
let isLocked = false;

const KINDS = { classification: "classifier", regression: "regression" };
function kind({ versions, default_version: usual }) {
  const shown = versions.find(({ version }) => version === usual);
  if (!shown) return "not ready";
  const { card } = shown;
  if (!card) return shown.why_no_rows ? "/v2 only" : "no card";
  if (card.image) return `${KINDS[card.task]} of ${card.image.width} × ${card.image.height} images`;
  const count = card.features.length;
  const isOfNumbers = card.features.every(({ type = "number" }) => type === "number");
  const what = isOfNumbers ? "number" : "column";
  return `${KINDS[card.task]} of ${count} ${what}${count === 1 ? "" : "s"}`;
}

function chosen() {
  const images = models.filter(({ versions }) => versions.some(({ card }) => card?.image));
  return fragment() || ((images[0] ?? models[0])?.model ?? SERVICE);
}

function show(isNavigation = false) {
  const name = chosen();
  const described = models.find(({ model }) => model === name);
  for (const link of nav.querySelectorAll("a")) {
    const isCurrent = link === serviceLink ? name === SERVICE : link.dataset.model === name;
    if (isCurrent) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    if (isCurrent) for (const box of [list, nav]) bringIntoView(box, link);
  }
  document.title = name === SERVICE ? "Service · torchlit" : `${words(name)} · torchlit`;
  view = name === SERVICE ? service : described ? viewOf(name) : unknown(name);
  if (main.firstElementChild !== view.element) {
    main.replaceChildren(view.element);
    watchAnswer(view.element.querySelector(".answer"));
  }
  view.update(described);
  view.again();
  if (isNavigation) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
}

// Scrolls the list, and not the page as scrollIntoView would.
function bringIntoView(box, link) {
  const [outer, inner] = [box.getBoundingClientRect(), link.getBoundingClientRect()];
  if (inner.left < outer.left || inner.right > outer.right)
    box.scrollLeft += (inner.left + inner.right - outer.left - outer.right) / 2;
  if (inner.top < outer.top || inner.bottom > outer.bottom)
    box.scrollTop += (inner.top + inner.bottom - outer.top - outer.bottom) / 2;
}

function viewOf(name) {
  if (!views.has(name)) views.set(name, modelView(name));
  return views.get(name);
}

function unknown(name) {
  const element = h(
    "article",
    {},
    h("h1", {}, `No model ${name} here`),
    h(
      "p.lead",
      {},
      models.length
        ? "The list has those that this service runs."
        : "This service runs no models yet. One that is put into its folder shows here.",
    ),
  );
  return { element, update() {}, again() {} };
}

function listEntry() {
  const name = h("span.name");
  const what = h("span.what");
  const link = h("a", {}, name, what);
  function show(each) {
    link.href = `#${encodeURIComponent(each.model)}`;
    link.dataset.model = each.model;
    name.textContent = words(each.model);
    what.textContent = kind(each);
  }
  return { element: h("li", {}, link), show };
}

// Phones leave out the roomy() parts.
function showStatus(state, ...parts) {
  status.className = `status ${state}`;
  status.replaceChildren(...parts);
}
const roomy = (text) => h("span.roomy", {}, text);

async function poll() {
  try {
    const { data, text } = await request("models", { limitMs: QUICK_MS });
    locked((isLocked = false));
    if (text !== listed) {
      listed = text;
      models = data.models;
      service.list(models);
      showList(models.map((each) => [each.model, each]));
      show();
    } else {
      view.again();
    }
    const { isReady, state } = await service.ready();
    const devices = [
      ...new Set(
        models.flatMap(({ versions }) => versions.map(({ device }) => device).filter(Boolean)),
      ),
    ];
    const on = devices.length ? ` on ${devices.join(" and ")}` : "";
    showStatus(
      isReady ? "good" : isReady === false ? "bad" : "",
      `${models.length} `,
      roomy(models.length === 1 ? "model " : "models "),
      state,
      roomy(on),
    );
  } catch (error) {
    if (error.status === 401) lock();
    else if (error.status) showStatus("bad", error.message);
    else if (error instanceof NoAnswer) showStatus("bad", "no answer", roomy("; trying again"));
    else throw error;
    if (!view && error.status !== 401) {
      main.replaceChildren(
        h(
          "article",
          {},
          h("h1", {}, "No answer"),
          h(
            "p.lead",
            {},
            "The service does not answer yet. This page tries again every few seconds.",
          ),
        ),
      );
    }
  }
}

function lock() {
  showStatus("bad", "locked");
  isLocked = true;
  listed = "";
  models = [];
  view = null;
  views.clear();
  list.replaceChildren();
  main.replaceChildren(
    h(
      "article",
      {},
      h("h1", {}, "Locked"),
      h("p.lead", {}, "The models show once a key is given above."),
    ),
  );
}

async function measure() {
  try {
    if (!isLocked) await service.scrape();
  } catch {
    // the next one may succeed; `poll` shows what is wrong
  }
}

// Each waits for its answer before it counts down again, and pauses while the page is hidden.
function every(ms, run) {
  let timer = 0;
  async function turn() {
    clearTimeout(timer);
    try {
      if (!document.hidden) await run();
    } finally {
      clearTimeout(timer);
      timer = setTimeout(turn, ms);
    }
  }
  document.addEventListener("visibilitychange", () => document.hidden || turn());
  turn();
}

function refresh() {
  views.clear();
  listed = "";
  poll();
  measure();
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // what follows # names the model
  main.focus();
});
// A file that is dropped beside a panel would take the place of the page.
for (const name of ["dragover", "drop"])
  addEventListener(
    name,
    (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault(),
  );
addEventListener("hashchange", () => view && show(true));
every(MODELS_MS, poll);
every(METRICS_MS, measure);
