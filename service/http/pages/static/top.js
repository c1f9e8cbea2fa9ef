// The header that both pages have: name, links, theme, key.

import { base, key, whenLocked } from "./api.js";
import { h, svg } from "./dom.js";

const THEME = "torchlit.theme";
const THEMES = ["auto", "light", "dark"];

function theme() {
  try {
    const chosen = localStorage.getItem(THEME);
    return THEMES.includes(chosen) ? chosen : "auto";
  } catch {
    return "auto"; // storage may be refused
  }
}

function paint(chosen) {
  document.documentElement.dataset.theme = chosen;
}
paint(theme());

const PATHS = {
  auto: "M12 3a9 9 0 1 0 0 18V3z M12 3a9 9 0 0 1 0 18",
  light:
    "M12 7a5 5 0 1 0 0 10 5 5 0 0 0 0-10z M12 1v2 M12 21v2 M1 12h2 M21 12h2 " +
    "M4.2 4.2l1.4 1.4 M18.4 18.4l1.4 1.4 M4.2 19.8l1.4-1.4 M18.4 5.6l1.4-1.4",
  dark: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
};

function themeButton() {
  const path = svg("path", {});
  const icon = svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, path);
  const button = h("button.icon", { type: "button", onclick: next }, icon);
  show(theme());
  function show(chosen) {
    path.setAttribute("d", PATHS[chosen]);
    icon.setAttribute("class", chosen);
    button.setAttribute("aria-label", `Theme: ${chosen}`);
    button.title = `Theme: ${chosen}`;
  }
  function next() {
    const chosen = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % 3];
    paint(chosen);
    show(chosen);
    try {
      localStorage.setItem(THEME, chosen);
    } catch {
      // kept for this page only
    }
  }
  return button;
}

function flame() {
  return svg(
    "svg",
    { viewBox: "6 3 20 26", "aria-hidden": "true", class: "flame" },
    svg("path", {
      d:
        "M16.4 4.5c.9 4.1-1.2 5.7-3.1 8-1.7 2-3.1 4-3.1 6.9 0 4.3 3 7.6 6.1 7.6s6-3 6-7.1" +
        "c0-2.8-1.3-4.7-2.5-6.4-.3 1.7-.9 2.7-1.9 3.4.6-4.6-.1-9.4-1.5-12.4z",
    }),
  );
}

// `retry` is called when a key was given.
export function top(page, retry) {
  const status = h("span.status", { id: "status" });
  const link = (name, href, is) => h("a", { href, "aria-current": is ? "page" : null }, name);
  const field = h("input", {
    type: "password",
    id: "key",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
  });
  const why = h(
    "p.note",
    { id: "key-why", role: "status" },
    "This service wants an API key. It stays in this tab and is sent to this service only.",
  );
  const form = h(
    "form.key",
    { hidden: true, "aria-describedby": "key-why" },
    h("label", { for: "key" }, "API key"),
    h("div.row", {}, field, h("button.primary", { type: "submit" }, "Use this key")),
    why,
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = field.value.trim();
    field.value = "";
    if (!/^[\x21-\x7e]+$/.test(text)) {
      // Nor can a header have others.
      why.textContent =
        "This is no key: one has letters, digits and signs of ASCII, and no blanks.";
      return;
    }
    key.set(text);
    retry();
  });
  const forget = h("button.quiet", { type: "button", hidden: !key.get() }, "Forget key");
  forget.addEventListener("click", () => {
    key.set("");
    forget.hidden = true;
    retry();
  });
  whenLocked((isLocked) => {
    const isNew = isLocked && form.hidden;
    form.hidden = !isLocked;
    forget.hidden = isLocked || !key.get();
    if (isLocked && key.get()) why.textContent = "The service does not know this key. Try another.";
    if (isNew) field.focus();
  });
  document
    .getElementById("top")
    .append(
      h(
        "div.bar",
        {},
        h("a.brand", { href: base, "aria-label": "torchlit" }, flame(), h("span", {}, "torchlit")),
        h("span.tagline", {}, "Small neural networks over HTTP"),
        status,
        h(
          "div.links",
          {},
          link("Playground", base, page === "/"),
          link("API", `${base}docs`, page === "/docs"),
          forget,
          themeButton(),
        ),
      ),
      form,
    );
  return status;
}
