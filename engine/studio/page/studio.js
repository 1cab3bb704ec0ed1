// The studio in the browser: a client of the same HTTP interface as every other program. No framework, no build.
//
// For browser tests these hold still:
//   [role=tab][data-tab=NAME]   a tab: dream, variation, inpaint, upscale, mix, gallery   #panel-NAME   what it shows
//   [data-mix=NAME]             in the tab mix: blend, morph, edit, explore, each with a #panel-NAME of its own
//   #panel-NAME textarea[name=prompt], [name=…]   its fields; .send sends; .problem what was wrong with it; .source a picture is handed in there
//   #panel-inpaint .stage       the picture under the brush; [data-do=NAME] its buttons; .share says how much is under the veil
//   #feed .card[data-id][data-status]   a request: .cancel, progress, .preview, .problem, .picture[data-position]
//   #viewer                     one picture, large: [data-send=NAME], #viewer-png, #viewer-settings, #post-channel, #post-send, #post-told
//   body[data-ready]            "true" once models and the first requests have come; #model the choice of a model; #more older requests

import { ask } from "./api.js";
import { Brush } from "./brush.js";
import { $, labelled, make, say } from "./dom.js";
import { Feed } from "./feed.js";
import { mix } from "./mix.js";
import { Settings } from "./settings.js";
import { Source, pictureIn } from "./source.js";
import { Viewer } from "./viewer.js";

const LOOK_EVERY_MS = 3000;
const MIDDLE = 4;
const PRIOR = ["candidates", "prior_guidance"];
const PAINT = ["count", "seed", "preset", "steps", "guidance"];

const state = { models: [], panels: {}, tab: "dream", more: [], chooseMix: null };
const chosen = () => state.models.find((model) => model.model === $("model").value) ?? state.models[0];

// A tab with a form: what it asks for, as inputs of one request each.
class Panel {
  #problem = make("p", { class: "problem", role: "alert", hidden: true });
  #send = make("button", { type: "submit", class: "send primary" });

  constructor(kind, { parts, settings, text, inputs, source = null, into = $(`panel-${kind}`) }) {
    Object.assign(this, { kind, settings, source, inputs });
    this.#send.textContent = text;
    this.form = make("form", { novalidate: true, "aria-label": text }, ...parts, this.#send, this.#problem, settings.element);
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.send();
    });
    into.append(this.form);
  }

  // Send what was asked; what is not taken in stays to be asked again.
  async send() {
    if (this.#send.disabled) return;
    this.#send.disabled = true;
    say(this.#problem, "");
    let left = [];
    try {
      const model = chosen()?.model;
      left = await this.inputs();
      while (left.length) {
        feed.add(await ask("POST", `/${this.kind}`, { input: { ...left[0], ...this.settings.values(), ...(model ? { model } : {}) } }));
        left = left.slice(1);
      }
    } catch (error) {
      this.refused?.(left);
      say(this.#problem, error.message);
    }
    this.#send.disabled = false;
  }

  update(model) {
    this.settings.update(model);
    const cannot = model?.kinds && !model.kinds.includes(this.kind);
    this.#send.hidden = Boolean(cannot);
    if (cannot) say(this.#problem, `${model.name} cannot do this; choose another model.`);
    else if (this.#problem.textContent.endsWith("choose another model.")) say(this.#problem, "");
  }
}

const area = (rows) => make("textarea", { name: "prompt", rows, maxlength: 1000, autocomplete: "off" });

function dream() {
  const prompts = make("textarea", { name: "prompt", rows: 4, autocomplete: "off" });
  const panel = new Panel("dream", {
    parts: [labelled("Prompts", prompts, "One on each line; each is a request of its own.")],
    settings: new Settings(["count", "seed", "preset", "steps", "candidates", "seamless", ...PRIOR.slice(1), "guidance"]),
    text: "Dream",
    inputs: () => {
      const lines = prompts.value.split("\n").map((line) => line.trim()).filter(Boolean);
      if (!lines.length) throw new Error("Write what is to be painted.");
      return lines.map((prompt) => ({ prompt }));
    },
  });
  // What was taken in need not be asked again.
  panel.refused = (left) => { if (left.length) prompts.value = left.map((input) => input.prompt).join("\n"); };
  return panel;
}

function variation() {
  const source = new Source("The picture to vary.");
  const prompt = area(1);
  return new Panel("variation", {
    parts: [source.element, labelled("Prompt", prompt, "Only for models that read words beside the picture.")],
    settings: new Settings([...PAINT, ...state.more], { strength: 1 }),
    text: "Vary",
    source,
    inputs: async () => [{ image: await source.value(), ...(prompt.value.trim() ? { prompt: prompt.value } : {}) }],
  });
}

function inpaint() {
  const brush = new Brush();
  const source = new Source("The picture to repaint a part of.", (image) => (image ? brush.show(image) : brush.hide()));
  const prompt = area(2);
  return new Panel("inpaint", {
    parts: [source.element, brush.element, labelled("Prompt", prompt, "What the whole picture shows afterwards.")],
    settings: new Settings([...PAINT, ...PRIOR]),
    text: "Repaint",
    source,
    inputs: async () => {
      const image = await source.value();
      if (brush.isEmpty) throw new Error("Paint over what is to be repainted first.");
      if (brush.isFull) throw new Error("Leave something of the picture; to paint all of it anew, dream.");
      if (!prompt.value.trim()) throw new Error("Write what the whole picture shows afterwards.");
      return [{ image, mask: brush.mask(), prompt: prompt.value }];
    },
  });
}

function upscale() {
  const source = new Source("The picture to enlarge.");
  const prompt = area(1);
  return new Panel("upscale", {
    parts: [source.element, labelled("Prompt", prompt, "Only for models that read words beside the picture.")],
    settings: new Settings(["count", "seed", "preset"], { count: 1 }),
    text: "Enlarge",
    source,
    inputs: async () => [{ image: await source.value(), ...(prompt.value.trim() ? { prompt: prompt.value } : {}) }],
  });
}

// Tabs.

const tabs = () => [...document.querySelectorAll("[role=tab]:not([hidden])")];

function show(name, focus = false) {
  state.tab = name;
  document.body.dataset.shown = name;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const isShown = tab.dataset.tab === name;
    tab.setAttribute("aria-selected", String(isShown));
    tab.tabIndex = isShown ? 0 : -1;
    if (isShown && focus) tab.focus();
    $(`panel-${tab.dataset.tab}`).hidden = !isShown;
  }
  history.replaceState(null, "", `#${name}`);
}

function sendTo(kind, what) {
  const panel = state.panels[kind];
  if (!panel?.source) return;
  if ($("panel-mix").contains(panel.form)) {
    show("mix");
    state.chooseMix(kind);
  } else show(kind);
  panel.source.take(what);
  panel.form.scrollIntoView({ block: "start" });
}

// Where a picture goes that comes to the page itself: to the tab that is open, or else it is varied.
function take(transfer) {
  const picture = pictureIn(transfer);
  if (picture) sendTo(state.panels[state.tab]?.source ? state.tab : "variation", picture);
  return Boolean(picture);
}

for (const tab of document.querySelectorAll("[role=tab]")) tab.addEventListener("click", () => show(tab.dataset.tab));
$("tabs").addEventListener("keydown", (event) => {
  const all = tabs();
  const place = all.findIndex((tab) => tab.dataset.tab === state.tab);
  const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: all.length - 1 }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  show(all[(next + all.length) % all.length].dataset.tab, true);
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  take(event.dataTransfer);
});
document.addEventListener("paste", (event) => {
  if (take(event.clipboardData)) event.preventDefault();
});

// Models.

function showModels() {
  const before = $("model").value;
  $("model").replaceChildren(...state.models.map((model) =>
    make("option", { value: model.model }, `${model.name || "The usual model"}${model.is_loaded ? "" : " (not loaded yet)"}`)));
  if (state.models.some((model) => model.model === before)) $("model").value = before;
  $("model-choice").hidden = state.models.length < 2;
  showModel();
}

function showModel() {
  const model = chosen();
  for (const panel of Object.values(state.panels)) panel.update(model);
  const words = model?.words ?? [];
  $("words").hidden = !words.length;
  $("words-list").textContent = words.join(", ");
  const kinds = new Set(state.models.flatMap((one) => one.kinds ?? Object.keys(state.panels)));
  viewer.offer(new Set(Object.keys(state.panels).filter((kind) => kinds.has(kind))));
}

// What a model that is being loaded can do is known only afterwards.
async function lookAtModels() {
  try {
    const { models } = await ask("GET", "/models");
    if (JSON.stringify(models) !== JSON.stringify(state.models)) {
      state.models = models;
      showModels();
    }
    say($("problem"), "");
  } catch (error) {
    say($("problem"), error.message);
  }
  if (!chosen()?.is_loaded) setTimeout(lookAtModels, LOOK_EVERY_MS);
}

// What the studio can do is in its own description: the operations, and the fields of a variation.
async function lookAtOperations() {
  try {
    const { paths } = await ask("GET", "/openapi.json");
    const asked = paths["/variation"].post.requestBody.content["application/json"].schema.properties.input.properties;
    return { operations: new Set(Object.keys(paths).map((path) => path.slice(1))), fields: new Set(Object.keys(asked)) };
  } catch (error) {
    say($("problem"), error.message);
    return { operations: new Set(), fields: new Set() };
  }
}

async function lookAtChannels() {
  try {
    viewer.channels((await ask("GET", "/channels")).channels);
  } catch {
    // Nothing is offered, then; everything else works without.
  }
}

const viewer = new Viewer(sendTo);
const feed = new Feed({ list: $("feed"), more: $("more"), empty: $("empty"), problem: $("feed-problem") },
  { open: (prediction, position) => {
    // The middle of a wheel is the picture that it began with; at the edge it goes on.
    if (prediction.kind !== "explore" || position === MIDDLE) viewer.open(prediction, position);
    else goOn(prediction, position);
  } });

async function goOn(prediction, position) {
  try {
    const { image, ...settings } = prediction.input;
    feed.add(await ask("POST", "/explore", { input: { ...settings, image: prediction.output.pictures[position].url } }));
  } catch (error) {
    say($("feed-problem"), error.message);
  }
}

async function open() {
  const { operations, fields } = await lookAtOperations();
  state.more = ["strength", "drift"].filter((name) => fields.has(name));
  const { panels, choose } = mix(Panel, $("panel-mix"), operations);
  state.chooseMix = choose;
  $("tab-mix").hidden = !panels.length;
  for (const panel of [dream(), variation(), inpaint(), upscale(), ...panels]) state.panels[panel.kind] = panel;
  $("model").addEventListener("change", showModel);
  const wanted = location.hash.slice(1);
  show(tabs().some((tab) => tab.dataset.tab === wanted) ? wanted : "dream");
  await Promise.all([lookAtModels(), lookAtChannels(), feed.open()]);
  document.body.dataset.ready = "true";
}

open();
