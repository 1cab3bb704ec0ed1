// Elements of the page. Text only ever becomes text nodes: nothing here parses HTML.

export const $ = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

let made = 0;

// A control under a label of its own.
export function labelled(text, control, hint = "") {
  control.id ||= `control-${(made += 1)}`;
  return make("div", { class: "field" }, make("label", { for: control.id }, text), control, hint && make("small", {}, hint));
}

export function say(element, text) {
  element.textContent = text;
  element.hidden = !text;
}

// Let somebody keep a text as a file.
export function keep(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
