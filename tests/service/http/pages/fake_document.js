// As much of a document as the pages' modules need outside a browser; import it before them.

class FakeElement {
  constructor(tag) {
    this.tag = tag;
    this.nodes = []; // elements and texts
    this.parent = null;
    this.attributes = {};
    this.listeners = {};
    this.dataset = {};
    this.style = { setProperty() {} };
    this.className = "";
  }
  setAttribute(name, value) {
    this.attributes[name] = String(value);
  }
  getAttribute(name) {
    return this.attributes[name] ?? null;
  }
  append(...nodes) {
    for (const node of nodes) this.insertBefore(node, null);
  }
  insertBefore(node, next) {
    if (node instanceof FakeElement) {
      node.remove();
      node.parent = this;
    }
    const at = next ? this.nodes.indexOf(next) : this.nodes.length;
    this.nodes.splice(at, 0, node);
  }
  replaceChildren(...nodes) {
    for (const child of this.children) child.parent = null;
    this.nodes = [];
    this.append(...nodes);
  }
  get classList() {
    const names = new Set(this.className.split(" ").filter(Boolean));
    const toggle = (name, isOn) => {
      names[isOn ? "add" : "delete"](name);
      this.className = [...names].join(" ");
    };
    return { toggle };
  }
  remove() {
    this.parent?.nodes.splice(this.parent.nodes.indexOf(this), 1);
    this.parent = null;
  }
  get children() {
    return this.nodes.filter((node) => node instanceof FakeElement);
  }
  get childElementCount() {
    return this.children.length;
  }
  get textContent() {
    return this.nodes.map((node) => node.textContent ?? String(node)).join("");
  }
  set textContent(text) {
    this.nodes = [text];
  }
  addEventListener(name, listener, { once = false } = {}) {
    (this.listeners[name] ??= []).push({ listener, once });
  }
  dispatch(name, event = {}) {
    const called = this.listeners[name] ?? [];
    this.listeners[name] = called.filter(({ once }) => !once);
    for (const { listener } of called) listener(event);
  }
  // Of a canvas: the image that was put there last.
  getContext() {
    return {
      createImageData: (width, height) => ({ data: new Uint8ClampedArray(4 * width * height) }),
      putImageData: (image) => (this.image = image),
    };
  }
}

globalThis.document = {
  baseURI: "http://service:8000/models/docs", // behind a proxy that adds /models
  documentElement: { dataset: { root: "." } },
  createElement: (tag) => new FakeElement(tag),
};

// All elements below one, itself first, that have a class.
export function withClass(element, name) {
  const below = element.children.flatMap((child) => withClass(child, name));
  return element.className.split(" ").includes(name) ? [element, ...below] : below;
}
