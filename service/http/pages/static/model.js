// One model: its input, its answer, the request as code, and what its card says.

import { base, infer, NoAnswer, plot, predict, Refused, request, timing } from "./api.js";
import { answerView } from "./answer.js";
import { columns } from "./columns.js";
import { copyButton, h, id, latest, soon, speak, tabs } from "./dom.js";
import { named } from "./field.js";
import { duration, factor, grouped, percent, words } from "./format.js";
import { asJson, image } from "./image.js";
import { nested } from "./pixels.js";
import { raw } from "./raw.js";
import { curl, python, v2 } from "./snippets.js";
import { tabular } from "./tabular.js";

const SOON_MS = 40; // from a change to the request, for changes that come by dozens
const PATIENCE_MS = 2000; // with a call, while a newer one waits
const BUSY_MS = 300; // until an answer that is being replaced shows it
const MOST_OF_CODE = 20_000; // characters that are shown; all of them are copied

// The answer in a corner while its card is out of sight: on phones it lies below the input.
const inSight = (() => {
  const pill = h("p.pill", { "aria-hidden": "true", hidden: true });
  let isSeen = true;
  const observer = new IntersectionObserver((entries) => {
    isSeen = entries.at(-1).isIntersecting;
    pill.hidden = isSeen || !pill.textContent;
  });
  function watch(element) {
    observer.disconnect();
    show("");
    document.body.append(pill);
    if (element) observer.observe(element);
  }
  function show(text) {
    pill.textContent = text;
    pill.hidden = isSeen || !text;
  }
  return { watch, show };
})();

export const watchAnswer = inSight.watch;

// {element, update(described), again()}: `described` is the model's part of GET /models; again()
// repeats the requests that got no answer.
export function modelView(name) {
  const memory = {}; // what was typed and drawn, whatever is built anew around it
  let chosen = null; // a version, where the user chose one
  let latestDescribed = null;
  let built = "";
  let panel = null;
  let again = () => {};
  let tab = 0;
  const title = h("h1", {}, words(name));
  const about = h("p.lead");
  const versions = h("div.versions");
  const body = h("div.panels");
  const element = h("article", {}, h("div.title", {}, h("div", {}, title, about), versions), body);

  function update(described) {
    latestDescribed = described;
    if (panel?.isHeld?.()) return; // a stroke is being drawn: what is under it stays
    const isThere = described.versions.some(({ version }) => version === chosen);
    if (!isThere) chosen = null;
    const version = chosen ?? described.default_version;
    const shown =
      described.versions.find((each) => each.version === version) ?? described.versions.at(-1);
    // With weights another version may answer who names none.
    const isDefault = shown?.version === described.default_version && !described.split;
    showVersions(described, shown);
    const state = JSON.stringify([shown, isDefault]);
    if (state === built) return;
    built = state;
    again = () => {};
    about.textContent =
      shown?.card?.description ?? (shown?.reason ? "" : "A model without a card.");
    build(shown, isDefault, state);
  }

  function showVersions(described, shown) {
    const all = described.versions;
    const state = JSON.stringify([
      all.map(({ version, state }) => [version, state]),
      shown?.version,
      described.default_version,
      described.split,
    ]);
    if (versions.dataset.state === state) return;
    versions.dataset.state = state;
    if (all.length < 2) {
      versions.replaceChildren(
        h("span.tag", {}, shown?.version ? `version ${shown.version}` : "no version"),
      );
      return;
    }
    const selectId = id("version");
    const option = ({ version, state }) => {
      const what =
        version === described.default_version
          ? ", the default"
          : state === "ready"
            ? ""
            : `, ${state}`;
      const weight = described.split ? `, weight ${described.split[version] ?? 0}` : "";
      return h("option", { value: version }, `${version}${what}${weight}`);
    };
    const select = h("select", { id: selectId }, all.map(option));
    select.value = shown.version;
    select.addEventListener("change", () => {
      chosen = all.find(({ version }) => String(version) === select.value).version;
      update(described);
    });
    versions.replaceChildren(h("label", { for: selectId }, "Version"), select);
  }

  async function build(shown, isDefault, state) {
    if (shown?.state !== "ready") {
      const reason = shown?.reason ?? "No version of this model was found.";
      body.replaceChildren(
        h("section.card.failed", {}, h("h2", {}, "Not ready"), h("p", {}, reason)),
      );
      return;
    }
    const { version, card } = shown;
    if (shown.why_no_rows) {
      const why = sentence(shown.why_no_rows);
      body.replaceChildren(
        h(
          "section.card",
          {},
          h("h2", {}, "Call it over /v2"),
          h("p", {}, why),
          h(
            "p.note",
            {},
            `POST /v2/models/${name}/infer takes what this page cannot: see the `,
            h("a", { href: `${base}docs` }, "API"),
            ".",
          ),
        ),
        ...(card ? [aboutCard(shown)] : []),
      );
      return;
    }
    let input = null; // what /v2 says of it, once requested
    let inputs = []; // and of all of them
    let pending = null;
    function describedInput() {
      pending ??= request(`v2/models/${encodeURIComponent(name)}/versions/${version}`).then(
        ({ data }) => {
          inputs = data.inputs;
          return (input = inputs[0]);
        },
      );
      pending.catch(() => (pending = null)); // to be requested again
      return pending;
    }
    if (!card) {
      try {
        await describedInput();
      } catch (error) {
        if (built !== state) return;
        body.replaceChildren(h("p.error", {}, error.message));
        again = () => build(shown, isDefault, state);
        return;
      }
      if (built !== state) return; // another version was chosen meanwhile
    }

    const answer = answerView(shown);
    const times = h("p.times");
    answer.element.append(times);
    let given = card ? firstExample(card) : { instances: "[]", flat: "[]" };
    let isLost = false;
    let mayRetry = true;
    async function classify(rows) {
      await describedInput();
      return infer(name, version, inputs, rows, card.labels.length);
    }
    const run = latest(async (signal) => {
      const busy = setTimeout(() => answer.element.setAttribute("aria-busy", "true"), BUSY_MS);
      isLost = false;
      try {
        const now = await panel.instances(signal);
        panel.sent?.(now);
        if (now.why) {
          answer.clear(now.why);
          times.replaceChildren();
          return announce("");
        }
        given = now;
        const { data, text, headers, ms } = await predict(name, version, given.instances, signal);
        const inWords = answer.show(data.predictions[0], text);
        announce(card || shown.classifier ? inWords : "", `Answer: ${inWords}`);
        showTimes(times, ms, timing(headers), given.prepareMs);
        mayRetry = true;
      } catch (error) {
        if (!signal.aborted) fail(error); // else a newer one waits
      } finally {
        clearTimeout(busy);
        answer.element.removeAttribute("aria-busy");
        code.refresh();
      }
    }, PATIENCE_MS);

    // Only of the model that is shown.
    function announce(inShort, spoken = inShort) {
      if (!answer.element.isConnected) return;
      inSight.show(inShort.split(", between")[0]);
      if (spoken) speak(spoken);
    }
    function fail(error) {
      const isOurs = !(error instanceof NoAnswer || error instanceof Refused);
      answer.fail(isOurs ? `This page failed: ${error.message}` : error.message);
      times.replaceChildren();
      announce("", error.message);
      isLost = error instanceof NoAnswer;
      if (error.retryAfterS && mayRetry) {
        mayRetry = false;
        setTimeout(run, 1000 * error.retryAfterS);
      }
      if (isOurs) throw error;
    }
    const changed = soon(() => {
      mayRetry = true;
      run();
    }, SOON_MS);

    const released = () => update(latestDescribed);
    const of = {
      card,
      listed: shown.columns,
      memory,
      model: name,
      version,
      input,
      changed,
      released,
      classify,
    };
    const ofCard = card?.image ? image : tabular;
    const isOfColumns = inputs.length > 1;
    panel = (card ? ofCard : isOfColumns ? columns : raw)(of);
    const current = () => ({
      model: name,
      version: isDefault ? null : version,
      given,
      isImage: Boolean(card?.image),
      input,
      inputs,
    });
    const code = codeCard(current, tab, (chosenTab) => (tab = chosenTab));
    const kind = panel.beside
      ? "with-plane"
      : card?.image
        ? "with-image"
        : card?.features.length > 5
          ? "with-many"
          : "with-few";
    // A plane takes the place of the answer on the right.
    const [left, right] = panel.beside
      ? [[panel.element, answer.element], panel.beside]
      : [panel.element, answer.element];
    body.replaceChildren(
      h(`div.try.${kind}`, {}, h("div.left", {}, left), h("div.side", {}, right)),
      code.element,
      ...(card ? [aboutCard(shown)] : []),
    );
    if (element.isConnected) inSight.watch(answer.element);
    again = () => {
      if (isLost) run();
      panel.again?.();
      if (!input) describedInput().then(code.refresh, () => {}); // again() is called again
    };
    run();
    again();
  }

  return { element, update, again: () => again() };
}

function firstExample({ image: described, features, examples: [example] }) {
  if (!example) return { instances: "[]", flat: "[]" };
  return described
    ? asJson([nested(example.input, described)])
    : named(
        features.map((feature) => feature.name),
        example.input.map((value) => JSON.stringify(value)),
      );
}

// How long the last call took in the browser, and how long of that the service waited and computed.
function showTimes(into, ms, { queue, compute }, prepareMs) {
  const part = (what, value) => h("span", {}, h("b", {}, duration(value)), ` ${what}`);
  const parts = [part("in all", ms + (prepareMs ?? 0))];
  if (queue !== undefined) parts.push(part("in the queue", queue));
  if (compute !== undefined) parts.push(part("computing", compute));
  if (prepareMs !== undefined) parts.push(part("to prepare the image", prepareMs));
  into.replaceChildren(...parts);
}

function codeCard(current, tab, onTab) {
  let refresh = () => {};
  const show = (write, language) => () => {
    const code = h("code");
    refresh = () => {
      const text = write(current());
      const rest = text.length - MOST_OF_CODE;
      const more = `… and ${grouped(rest)} more characters, which Copy includes`;
      code.textContent = rest > 0 ? `${text.slice(0, MOST_OF_CODE)}\n${more}` : text;
    };
    refresh();
    return h(
      "div.snippet",
      {},
      copyButton(() => write(current()), `the request as ${language}`),
      h("pre.code", { tabindex: "0", role: "region", "aria-label": language }, code),
    );
  };
  const each = [
    { name: "curl", show: show(curl, "curl") },
    { name: "Python", show: show(python, "Python") },
    { name: "V2", show: show(v2, "V2") },
  ];
  const element = h(
    "section.card.call",
    { "aria-label": "Call it" },
    h("h2", {}, "Call it"),
    current().isImage
      ? h("p.note", {}, "“Save image” above writes image.png; V2 takes the pixels themselves.")
      : "",
    tabs("Ways to call", each, tab, onTab),
  );
  return { element, refresh: () => refresh() };
}

// What common metrics mean; others are shown by their name.
const METRICS = {
  accuracy: "of all answers are right",
  rmse: "root mean square error",
  mae: "mean absolute error",
  r2: "of the variance is explained (1 is all)",
  interval_coverage: "of the true values lie in the interval",
  interval_width: "from its lower to its upper end, in the mean",
};
const IN_UNITS = new Set(["rmse", "mae", "interval_width"]); // of the target

function fact(card, name, value) {
  const [target, ...others] = card.targets ?? [];
  const unit =
    IN_UNITS.has(name) && target && !others.length
      ? h("span.unit", {}, ` ${factor(target.unit)}`)
      : "";
  const isShare = /accuracy|coverage/.test(name) && value <= 1;
  return h(
    "div.fact",
    {},
    h("dt", {}, words(name)),
    h(
      "dd",
      {},
      isShare ? percent(value) : grouped(value),
      unit,
      METRICS[name] ? h("span.note", {}, METRICS[name]) : "",
    ),
  );
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

// What a card says of its data; one that was written from rows knows no licence.
function origin({ name, source, licence }) {
  const isKnown = licence && licence !== "not said";
  return [`Data: ${name}.`, source && `${source}.`, isKnown && `Licence: ${licence}.`]
    .filter(Boolean)
    .join(" ");
}

function aboutCard({ card, provider, device, pictures = [] }) {
  const plots = h("div.plots");
  const { caveats = [] } = card.dataset;
  const isOfFile = (caveat) => caveat.includes("SHA-256"); // for who makes the data again
  const listed = (some) =>
    h(
      "ul.caveats",
      {},
      some.map((each) => h("li", {}, each)),
    );
  const caution = caveats.filter((each) => !isOfFile(each));
  const ofFile = caveats.filter(isOfFile);
  const metrics = Object.entries(card.metrics);
  const isTold = pictures.length + ofFile.length + Object.keys(card.training).length > 0;
  const details = h(
    "details",
    {},
    h("summary", {}, isTold ? "How it was trained" : "Versions"),
    pictures.length ? plots : null,
    table(card),
    ofFile.length ? listed(ofFile) : null,
  );
  details.addEventListener("toggle", () => loadPlots(plots, pictures), { once: true });
  return h(
    "section.card.about",
    { "aria-label": "About the model" },
    h("h2", {}, metrics.length ? "How good it is" : "About the model"),
    metrics.length
      ? h(
          "dl.facts",
          {},
          metrics.map(([metric, value]) => fact(card, metric, value)),
        )
      : null,
    h(
      "div.provenance",
      {},
      caution.length ? h("div", {}, h("h3", {}, "Before you use it"), listed(caution)) : "",
      h(
        "div",
        {},
        h("h3", {}, "Where it comes from"),
        h("p.note", {}, origin(card.dataset)),
        card.image ? h("p.note", {}, `How images are prepared: ${card.image.preparation}`) : "",
        h("p.note", {}, `Runs on ${device} (${provider}).`),
      ),
    ),
    isTold || Object.keys(card.versions).length ? details : null,
  );
}

function table({ training, versions }) {
  const rows = Object.entries({ ...training, ...versions }).map(([name, value]) =>
    h(
      "div",
      {},
      h("dt", {}, words(name)),
      h("dd", {}, Array.isArray(value) ? value.join(" – ") : String(value)),
    ),
  );
  return h("dl.table", {}, rows);
}

function loadPlots(into, pictures) {
  for (const { title, url } of pictures) {
    const img = h("img", { alt: title, onload: () => URL.revokeObjectURL(img.src) });
    into.append(h("figure", {}, img, h("figcaption", {}, title)));
    plot(url).then(
      (source) => (img.src = source),
      () => (img.alt = `${title}: could not be loaded`),
    );
  }
}
