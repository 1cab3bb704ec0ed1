// The settings of a request: fields that are left alone say nothing, so that the model's own choices hold.

import { labelled, make } from "./dom.js";

const GUIDANCE_LIMIT = 20;
const SEED_LIMIT = 2 ** 32;
const PRESETS = [["fast", "Fast"], ["balanced", "Balanced"], ["best", "Best"]];

const number = (name, least, most, value = "") =>
  make("input", { type: "number", name, min: least, max: most, step: 1, value, inputmode: "numeric", autocomplete: "off" });

export class Settings {
  #controls = {};
  #sliders = make("div", { class: "sliders" });
  #steps = {};

  // `names` are those of the fields that the operation takes; others stand where nothing else is asked.
  constructor(names, { count = 4, strength = 0.5 } = {}) {
    const build = {
      count: () => labelled("Pictures", number("count", 1, 9, count)),
      seed: () => labelled("Seed", number("seed", 0, SEED_LIMIT - 1), "Equal seeds give equal pictures; empty is random."),
      steps: () => labelled("Steps", number("steps", 1, 250)),
      candidates: () => labelled("Candidates", number("candidates", 1, 32), "Draws of the prior; the one nearest to the prompt is painted."),
      preset: () => labelled("Preset", make("select", { name: "preset", onchange: () => this.#showSteps() },
        ...PRESETS.map(([value, text]) => make("option", { value, selected: value === "balanced" }, text)))),
      seamless: () => make("div", { class: "field check" }, make("label", {}, make("input", { type: "checkbox", name: "seamless" }), " Seamless")),
      frames: () => labelled("Frames", number("frames", 2, 32)),
      strength: () => slider("Strength", "strength", 1, 0.01, strength, "How far from the picture; at 0 it is nearly the picture itself."),
      drift: () => slider("Drift", "drift", 1, 0.01, 0, "How far the meaning itself is turned aside."),
      step: () => slider("Step", "step", 1, 0.05, 0.4, "How far the pictures at the edge are from the one in the middle.", 0.05),
    };
    this.names = names;
    this.element = make("fieldset", { class: "settings" }, make("legend", {}, "Settings"),
      ...names.filter((name) => build[name]).map((name) => build[name]()), this.#sliders);
    for (const control of this.element.querySelectorAll("[name]")) this.#controls[control.name] = control;
  }

  // Show what a model can be asked.
  update(model) {
    this.#steps = model?.steps ?? {};
    this.#showSteps();
    const own = this.#controls.seamless;
    if (own) {
      own.closest(".field").hidden = !model?.seamless;
      own.checked &&= Boolean(model?.seamless);
    }
    const shown = JSON.stringify([model?.prior_guidance, model?.guidance]);
    if (this.#sliders.dataset.of === shown) return;
    this.#sliders.dataset.of = shown;
    this.#sliders.replaceChildren();
    if (this.names.includes("prior_guidance") && typeof model?.prior_guidance === "number") {
      this.#sliders.append(slider("Guidance of the prior", "prior_guidance", GUIDANCE_LIMIT, 0.1, model.prior_guidance));
    }
    if (this.names.includes("guidance")) {
      const unets = model?.guidance ?? [];
      this.#sliders.append(...unets.map((usual, place) =>
        slider(unets.length > 1 ? `Guidance of unet ${place + 1}` : "Guidance", `guidance-${place}`, GUIDANCE_LIMIT, 0.1, usual)));
    }
  }

  #showSteps() {
    if (!this.#controls.steps) return;
    const usual = this.#steps[this.#controls.preset?.value ?? "balanced"];
    this.#controls.steps.closest(".field").hidden = usual === 0;
    this.#controls.steps.placeholder = usual ? `${usual}` : "";
  }

  // What was set.
  values() {
    const values = {};
    for (const [name, control] of Object.entries(this.#controls)) {
      if (control.closest(".field").hidden) continue;
      if (control.type === "checkbox") {
        if (control.checked) values[name] = true;
      } else if (control.type === "range") {
        if (control.dataset.set) values[name] = Number(control.value);
      } else if (control.value !== "" || control.validity.badInput) {
        values[name] = control.type === "number" ? checked(control) : control.value;
      }
    }
    const sliders = [...this.#sliders.querySelectorAll("input")];
    const prior = sliders.find((one) => one.name === "prior_guidance");
    if (prior?.dataset.set) values.prior_guidance = Number(prior.value);
    const unets = sliders.filter((one) => one !== prior).map((one) => (one.dataset.set ? Number(one.value) : null));
    while (unets.length && unets.at(-1) === null) unets.pop();
    if (unets.length) values.guidance = unets.length === 1 ? unets[0] : unets;
    return values;
  }
}

function checked(control) {
  const told = control.closest(".field").querySelector("label").textContent;
  if (!control.checkValidity()) throw new Error(`${told} must be a whole number from ${control.min} to ${control.max}.`);
  return Number(control.value);
}

// A slider that stands where the model would choose, until somebody moves it; a button puts it back.
function slider(text, name, most, step, usual, hint = "", least = 0) {
  const told = make("output", {});
  const back = make("button", { type: "button", class: "plain", "aria-label": `${text}: as usual` }, "↺");
  const control = make("input", { type: "range", name, min: least, max: most, step, value: usual });
  const show = () => {
    told.textContent = `${Number(control.value)}${control.dataset.set ? "" : " (usual)"}`;
    back.hidden = !control.dataset.set;
  };
  control.addEventListener("input", () => { control.dataset.set = "true"; show(); });
  back.addEventListener("click", () => {
    delete control.dataset.set;
    control.value = String(usual);
    show();
    control.focus();
  });
  show();
  const field = labelled(text, control, hint);
  field.classList.add("slider");
  control.after(told, back);
  return field;
}
