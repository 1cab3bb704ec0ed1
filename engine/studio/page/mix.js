// The tab that mixes pictures and prompts: blend, morph, edit, explore; each only where the studio can.

import { labelled, make } from "./dom.js";
import { Settings } from "./settings.js";
import { Source } from "./source.js";

const PAINT = ["seed", "preset", "steps", "guidance"];
const MOST_INGREDIENTS = 5;

// A picture, or a prompt in its place.
class Ingredient {
  #source;
  #prompt = make("input", { type: "text", maxlength: 1000, autocomplete: "off" });

  constructor(name, ...more) {
    this.#source = new Source(`${name}: a picture.`);
    this.element = make("fieldset", { class: "ingredient" }, make("legend", {}, name), this.#source.element, labelled("Or a prompt", this.#prompt), ...more);
  }

  get isEmpty() { return this.#source.isEmpty && !this.#prompt.value.trim(); }
  take(what) { return this.#source.take(what); }

  async value() {
    if (this.isEmpty) throw new Error("Choose a picture or write a prompt for each part.");
    return this.#source.isEmpty ? { prompt: this.#prompt.value } : { image: await this.#source.value() };
  }
}

function blend(Panel, into) {
  const list = make("div", { class: "ingredients" });
  const parts = [];
  const more = make("button", { type: "button", onclick: () => add() }, "Add another");
  function add() {
    const weight = make("input", { type: "number", min: 0.1, max: 100, step: 0.1, value: 1 });
    const part = new Ingredient(`Part ${parts.length + 1}`, labelled("Weight", weight));
    parts.push({ part, weight });
    list.append(part.element);
    more.hidden = parts.length === MOST_INGREDIENTS;
    return part;
  }
  add();
  add();
  return new Panel("blend", {
    into,
    parts: [list, more],
    settings: new Settings(["count", ...PAINT]),
    text: "Blend",
    // What is sent here goes where there is nothing yet.
    source: { take: (what) => (parts.find(({ part }) => part.isEmpty)?.part ?? (parts.length < MOST_INGREDIENTS ? add() : parts.at(-1).part)).take(what) },
    inputs: async () => {
      const given = parts.filter(({ part }, place) => place < 2 || !part.isEmpty);
      return [{ ingredients: await Promise.all(given.map(async ({ part, weight }) => ({ ...await part.value(), weight: Number(weight.value) || 1 }))) }];
    },
  });
}

function morph(Panel, into) {
  const [start, end] = [new Ingredient("From"), new Ingredient("To")];
  return new Panel("morph", {
    into,
    parts: [start.element, end.element],
    settings: new Settings(["frames", ...PAINT]),
    text: "Morph",
    source: { take: (what) => (start.isEmpty ? start : end).take(what) },
    inputs: async () => [{ start: await start.value(), end: await end.value() }],
  });
}

function edit(Panel, into) {
  const source = new Source("The picture to change.");
  const [before, after] = ["before", "after"].map((name) => make("input", { type: "text", name, maxlength: 1000, autocomplete: "off" }));
  return new Panel("edit", {
    into,
    parts: [source.element, labelled("What it shows", before, "As in: a cat."), labelled("What it is to show", after, "As in: a fox.")],
    settings: new Settings(["strength", ...PAINT]),
    text: "Edit",
    source,
    inputs: async () => {
      const image = await source.value();
      if (!before.value.trim() || !after.value.trim()) throw new Error("Write what the picture shows, and what it is to show.");
      return [{ image, before: before.value, after: after.value }];
    },
  });
}

function explore(Panel, into) {
  const source = new Source("The picture to begin with.");
  return new Panel("explore", {
    into,
    parts: [source.element, make("p", {}, "It comes to nine pictures: the one in the middle is yours. Choose one at the edge to go on from there.")],
    settings: new Settings(["step", ...PAINT]),
    text: "Explore",
    source,
    inputs: async () => [{ image: await source.value() }],
  });
}

const BUILD = { blend: [blend, "Blend"], morph: [morph, "Morph"], edit: [edit, "Edit"], explore: [explore, "Explore"] };

// Build the tab into an element for the operations that are there; return its panels, and what shows one of them.
export function mix(Panel, element, operations) {
  const kinds = Object.keys(BUILD).filter((kind) => operations.has(kind));
  const places = new Map(kinds.map((kind) => [kind, make("div", { id: `panel-${kind}`, hidden: true })]));
  const buttons = kinds.map((kind) => make("button", { type: "button", dataset: { mix: kind }, onclick: () => choose(kind) }, BUILD[kind][1]));
  function choose(kind) {
    for (const [name, place] of places) place.hidden = name !== kind;
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.mix === kind));
  }
  element.append(make("div", { class: "tools", role: "group", "aria-label": "How to mix" }, ...buttons), ...places.values());
  const panels = kinds.map((kind) => BUILD[kind][0](Panel, places.get(kind)));
  if (kinds.length) choose(kinds[0]);
  return { panels, choose };
}
