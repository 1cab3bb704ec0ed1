// One request: what was asked, how far it is, and the pictures that it came to.

import { ask } from "./api.js";
import { make, say } from "./dom.js";

const NAMES = { dream: "Dream", variation: "Variation", inpaint: "Inpaint", upscale: "Upscale", embed: "Embedding", blend: "Blend", morph: "Morph",
  edit: "Edit", explore: "Explore" };
const ENDS = { succeeded: "", failed: "Failed", canceled: "Cancelled" };

export const isUnderWay = (prediction) => prediction.status === "starting" || prediction.status === "processing";

// What was asked, in words.
export function titleOf({ kind, input }) {
  if (input.before !== undefined) return `${input.before} → ${input.after}`;
  const parts = input.ingredients ?? (input.start ? [input.start, input.end] : []);
  if (parts.length) return parts.map((part) => part.prompt ?? "a picture").join(kind === "morph" ? " → " : " + ");
  return input.prompt || `${NAMES[kind] ?? kind} of a picture`;
}

// Everything that is to be known to paint a picture again.
export function receiptOf(prediction, position) {
  const { pictures, ...painted } = prediction.output;
  return { kind: prediction.kind, id: prediction.id, position, ...painted, ...pictures[position], input: prediction.input };
}

export class Card {
  #facts = make("p", { class: "facts" });
  #bar = make("progress", { max: 1, value: 0, "aria-label": "Progress" });
  #stage = make("span", { class: "told", role: "status" });
  #preview = make("img", { class: "preview", alt: "Unfinished", hidden: true });
  #cancel = make("button", { type: "button", class: "cancel" }, "Cancel");
  #failure = make("p", { class: "problem", role: "alert", hidden: true });
  #pictures = make("div", { class: "pictures" });
  #way = make("div", { class: "way" }, this.#preview, make("div", {}, this.#bar, make("div", { class: "row" }, this.#stage, this.#cancel)));

  // `open(prediction, position)` shows one of its pictures.
  constructor(prediction, { open }) {
    this.open = open;
    this.prediction = prediction;
    this.element = make("article", { class: "card", dataset: { id: prediction.id, kind: prediction.kind } },
      make("h3", {}, titleOf(prediction)), this.#facts, this.#way, this.#failure, this.#pictures);
    this.#cancel.addEventListener("click", () => this.#callOff());
    this.update(prediction);
  }

  preview(image) {
    this.#preview.src = image;
    this.#preview.hidden = false;
  }

  update(prediction) {
    const wasDone = this.element.dataset.status && !isUnderWay(this.prediction);
    this.prediction = prediction;
    this.element.dataset.status = prediction.status;
    const { output, input, metrics } = prediction;
    this.#facts.textContent = [NAMES[prediction.kind] ?? prediction.kind, ENDS[prediction.status],
      output?.model ?? input.model, output?.seed !== undefined && `seed ${output.seed}`,
      Boolean(output?.steps) && `${output.steps} steps`, output?.guidance !== undefined && `guidance ${output.guidance}`,
      metrics.predict_time !== undefined && `${metrics.predict_time.toFixed(1)} s`,
      output?.unknown_words?.length && `words it was never shown: ${output.unknown_words.join(", ")}`].filter(Boolean).join(" · ");
    this.#way.hidden = !isUnderWay(prediction);
    if (isUnderWay(prediction)) this.#showProgress(prediction.progress);
    say(this.#failure, prediction.status === "failed" ? prediction.error ?? "Something went wrong here." : "");
    if (!wasDone && output?.pictures) this.#showPictures(output.pictures);
  }

  #showProgress(progress) {
    const { position = 0, done = 0, total = 0, stage = null, eta_s: eta = null } = progress ?? {};
    this.#bar.value = total ? done / total : 0;
    const when = eta === null ? "" : `, about ${Math.max(1, Math.round(eta))} s left`;
    const how = position > 1 ? `Number ${position} in the queue` : position === 1 ? "Next in the queue"
      : stage ? `${stage}, ${Math.floor(done / total * 100)} %` : "Painting";
    this.#stage.textContent = how + when;
  }

  #showPictures(pictures) {
    const side = Math.min(...pictures.map((picture) => picture.width));
    this.#pictures.classList.toggle("small", side <= 256);
    this.#pictures.classList.toggle("wheel", this.prediction.kind === "explore");
    if (this.prediction.kind === "morph") this.#showFilm();
    this.#pictures.replaceChildren(...pictures.map((picture, position) => {
      const image = make("img", { src: picture.url, alt: `${titleOf(this.prediction)}, picture ${position + 1}`, width: picture.width,
        height: picture.height, loading: "lazy", draggable: "true" });
      image.addEventListener("dragstart", (event) => event.dataTransfer.setData("text/uri-list", new URL(picture.url, location.href).href));
      return make("button", { type: "button", class: "picture", dataset: { position }, onclick: () => this.open(this.prediction, position) }, image);
    }));
  }

  // A way between two pictures also comes as one file.
  #showFilm() {
    const place = `/pictures/${this.prediction.id}`;
    const files = [["strip.png", "Strip"], ["morph.gif", "GIF"], ["morph.mp4", "MP4"]];
    this.#pictures.before(make("div", { class: "row" }, ...files.map(([name, text]) =>
      make("a", { class: "button", href: `${place}/${name}`, download: `reverie-${this.prediction.id}-${name}` }, text))));
  }

  async #callOff() {
    this.#cancel.disabled = true;
    try {
      this.update(await ask("POST", this.prediction.urls.cancel));
    } catch (error) {
      say(this.#failure, error.message);
    }
    this.#cancel.disabled = false;
  }
}
