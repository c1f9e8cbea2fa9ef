// Elements, without a framework.

const SVG = "http://www.w3.org/2000/svg";

// h("p.note", {id: "x", onclick: f}, "text", element, [more]) makes an element.
export function h(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  return filled(element, attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((each) => each !== null && each !== undefined));
  return element;
}

let spoken = 0;

// Announce a text to screen readers, once nothing new has come for a moment.
export function speak(text) {
  clearTimeout(spoken);
  spoken = setTimeout(() => {
    document.getElementById("spoken").textContent = text;
  }, 700);
}

// Only the newest call counts: while one runs, at most one more waits, and after `patienceMs` it
// ends the one that runs. `run` is given an AbortSignal.
export function latest(run, patienceMs) {
  let running = null;
  let waiting = 0; // the timer of the one that waits
  return async function start() {
    if (running) {
      const { since, controller } = running;
      waiting ||= setTimeout(() => controller.abort(), patienceMs - (performance.now() - since));
      return;
    }
    running = { since: performance.now(), controller: new AbortController() };
    try {
      await run(running.controller.signal);
    } finally {
      running = null;
      if (waiting) {
        clearTimeout(waiting);
        waiting = 0;
        start();
      }
    }
  };
}

// One call for all that come within some milliseconds; also while they never cease.
export function soon(run, ms) {
  let isComing = false;
  return () => {
    if (isComing) return;
    isComing = true;
    setTimeout(() => {
      isComing = false;
      run();
    }, ms);
  };
}

// The children of an element, each made once and shown anew: what has the focus keeps it.
// `make()` gives {element, show(item)}; the function that is returned takes [[key, item], ...].
export function keyed(parent, make) {
  const made = new Map();
  return (items) => {
    const wanted = items.map(([name, item]) => {
      if (!made.has(name)) made.set(name, make());
      const { element, show } = made.get(name);
      show(item);
      return element;
    });
    for (const child of [...parent.children]) if (!wanted.includes(child)) child.remove();
    wanted.forEach((element, i) => {
      if (parent.children[i] !== element) parent.insertBefore(element, parent.children[i] ?? null);
    });
  };
}

// What follows the # of the address.
export function fragment() {
  const text = location.hash.slice(1);
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a % that escapes nothing
  }
}

let made = 0;
export const id = (name) => `${name}-${(made += 1)}`;

// Tabs as the ARIA Authoring Practices have them. Each: {name, show: () => element}.
export function tabs(label, each, chosen = 0, onChange = () => {}) {
  const panelId = id("panel");
  const panel = h("div.tabpanel", { role: "tabpanel", id: panelId, tabindex: "0" });
  const buttons = each.map(({ name }, i) =>
    h(
      "button",
      {
        type: "button",
        role: "tab",
        id: id("tab"),
        "aria-controls": panelId,
        onclick: () => choose(i),
      },
      name,
    ),
  );
  const list = h("div.tabs", { role: "tablist", "aria-label": label }, buttons);
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    choose((chosen + step + each.length) % each.length);
    buttons[chosen].focus();
  });
  function choose(i) {
    chosen = i;
    buttons.forEach((button, j) => {
      button.setAttribute("aria-selected", i === j);
      button.tabIndex = i === j ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", buttons[i].id);
    panel.replaceChildren(each[i].show());
    onChange(i);
  }
  choose(chosen);
  return h("div", {}, list, panel);
}

// A button that copies what `text()` gives, also where the clipboard is refused.
export function copyButton(text, what = "the request") {
  const label = h("span", {}, "Copy");
  const button = h("button.copy", { type: "button", "aria-label": `Copy ${what}` }, label);
  button.addEventListener("click", async () => {
    const isCopied = (await toClipboard(text())) || bySelection(text());
    label.textContent = isCopied ? "Copied" : "Press Ctrl+C";
    button.dataset.copied = isCopied;
    speak(isCopied ? "Copied" : "The browser does not let the page copy");
    setTimeout(() => (label.textContent = "Copy"), 1600);
  });
  return button;
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text); // only on https and localhost
    return true;
  } catch {
    return false;
  }
}

function bySelection(text) {
  const field = h("textarea.unseen", { value: text, "aria-hidden": "true" });
  const before = document.activeElement;
  document.body.append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  before?.focus();
  return isCopied;
}
