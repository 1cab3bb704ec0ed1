// One picture, large, and what can be done with it.

import { ask } from "./api.js";
import { receiptOf, titleOf } from "./card.js";
import { $, keep, make, say } from "./dom.js";

export class Viewer {
  #prediction = null;
  #position = 0;

  // `send(kind, address)` takes a picture on to a tab.
  constructor(send) {
    this.dialog = $("viewer");
    for (const button of this.dialog.querySelectorAll("[data-send]")) {
      button.addEventListener("click", () => {
        this.dialog.close();
        send(button.dataset.send, this.#picture.url);
      });
    }
    $("viewer-close").addEventListener("click", () => this.dialog.close());
    $("viewer-settings").addEventListener("click", () => keep(`${this.#name}.json`, JSON.stringify(receiptOf(this.#prediction, this.#position), null, 2)));
    $("viewer-before").addEventListener("click", () => this.#go(-1));
    $("viewer-after").addEventListener("click", () => this.#go(1));
    $("post-send").addEventListener("click", () => this.#post());
    this.dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step && event.target.tagName !== "SELECT") this.#go(step);
    });
  }

  get #picture() { return this.#prediction.output.pictures[this.#position]; }
  get #name() { return `reverie-${this.#prediction.id}-${this.#position}`; }

  // Offer what the models that are here can do with a picture.
  offer(kinds) {
    for (const button of this.dialog.querySelectorAll("[data-send]")) button.hidden = !kinds.has(button.dataset.send);
  }

  // Offer channels of Discord to post to.
  channels(channels) {
    $("post").hidden = !channels.length;
    $("post-channel").replaceChildren(...channels.map((channel) => make("option", { value: channel.id }, channel.name)));
  }

  open(prediction, position) {
    this.#prediction = prediction;
    this.#position = position;
    this.#show();
    this.dialog.showModal();
  }

  #go(step) {
    const count = this.#prediction.output.pictures.length;
    this.#position = (this.#position + step + count) % count;
    this.#show();
  }

  #show() {
    const { url, width, height, seed } = this.#picture;
    const several = this.#prediction.output.pictures.length > 1;
    $("viewer-title").textContent = titleOf(this.#prediction);
    Object.assign($("viewer-image"), { src: url, alt: titleOf(this.#prediction) });
    $("viewer-image").classList.toggle("small", Math.max(width, height) <= 256);
    $("viewer-facts").textContent = `${width} × ${height} px · seed ${seed}`;
    Object.assign($("viewer-png"), { href: url, download: `${this.#name}.png` });
    for (const id of ["viewer-before", "viewer-after"]) $(id).hidden = !several;
    say($("post-told"), "");
  }

  async #post() {
    $("post-send").disabled = true;
    say($("post-told"), "Posting …");
    try {
      await ask("POST", `${this.#picture.url.replace(/\.png$/, "")}/post`, { channel: $("post-channel").value, with_prompt: $("post-prompt").checked });
      say($("post-told"), `Posted to ${$("post-channel").selectedOptions[0].textContent}.`);
    } catch (error) {
      say($("post-told"), error.message);
    }
    $("post-send").disabled = false;
  }
}
