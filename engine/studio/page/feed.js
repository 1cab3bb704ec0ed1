// What was asked and what became of it, newest first. What is under way is followed as it happens.

import { ask } from "./api.js";
import { Card, isUnderWay } from "./card.js";
import { say } from "./dom.js";

const STREAMS = 2; // A browser keeps six connections to one server, over all windows; these stay open.
const LOOK_EVERY_MS = 2000;
const PAGE = 20;

export class Feed {
  #cards = new Map();
  #streams = new Map();
  #deaf = new Set();
  #next = null;
  #timer = null;

  // `act` is what can be done with pictures, see Card.
  constructor({ list, more, empty, problem }, act) {
    Object.assign(this, { list, more, empty, problem, act });
    more.addEventListener("click", () => this.#page());
    document.addEventListener("visibilitychange", () => this.#turned());
  }

  // Show what there is, from the newest on.
  async open() {
    this.#next = `/predictions?limit=${PAGE}`;
    await this.#page();
    this.list.dataset.loaded = "true";
  }

  add(prediction) {
    this.#put(prediction, true);
    this.#follow();
  }

  async #page() {
    this.more.disabled = true;
    try {
      const page = await ask("GET", this.#next);
      for (const prediction of page.results) this.#put(prediction, false);
      this.#next = page.next;
      say(this.problem, "");
    } catch (error) {
      say(this.problem, error.message);
    }
    this.more.disabled = false;
    this.more.hidden = !this.#next;
    this.empty.hidden = this.#cards.size > 0;
    this.#follow();
  }

  // Newer ones come in front of those that are shown, older ones behind.
  #put(prediction, isNew) {
    const known = this.#cards.get(prediction.id);
    if (known) return known.update(prediction);
    const card = new Card(prediction, this.act);
    this.#cards.set(prediction.id, card);
    if (isNew) this.list.prepend(card.element);
    else this.list.append(card.element);
    this.empty.hidden = true;
    return card;
  }

  // Following.

  #follow() {
    clearTimeout(this.#timer);
    if (document.hidden) return;
    const open = [...this.#cards.values()].filter((card) => isUnderWay(card.prediction)).sort((one, other) =>
      one.prediction.created_at.localeCompare(other.prediction.created_at));
    for (const [id, stream] of this.#streams) {
      if (!open.some((card) => card.prediction.id === id)) this.#stop(id, stream);
    }
    for (const card of open) {
      if (this.#streams.size >= STREAMS) break;
      if (!this.#streams.has(card.prediction.id) && !this.#deaf.has(card.prediction.id)) this.#listen(card);
    }
    if (open.some((card) => !this.#streams.has(card.prediction.id))) this.#timer = setTimeout(() => this.#look(), LOOK_EVERY_MS);
  }

  #listen(card) {
    const { id } = card.prediction;
    const stream = new EventSource(card.prediction.urls.events);
    this.#streams.set(id, stream);
    const told = (name, act) => stream.addEventListener(name, (event) => act(JSON.parse(event.data)));
    told("progress", ({ status, ...progress }) => card.update({ ...card.prediction, status, progress }));
    told("preview", ({ image }) => card.preview(image));
    told("completed", (prediction) => {
      card.update(prediction);
      this.#stop(id, stream);
      this.#follow();
    });
    stream.addEventListener("error", () => {
      // Where the browser does not try again by itself, it was refused: asking now and then will do.
      if (stream.readyState !== EventSource.CLOSED) return;
      this.#deaf.add(id);
      this.#stop(id, stream);
      this.#follow();
    });
  }

  #stop(id, stream) {
    stream.close();
    this.#streams.delete(id);
  }

  // Ask after what is under way and not listened to.
  async #look() {
    const waiting = [...this.#cards.values()].filter((card) => isUnderWay(card.prediction) && !this.#streams.has(card.prediction.id));
    try {
      for (const card of waiting) card.update(await ask("GET", card.prediction.urls.get));
      say(this.problem, "");
    } catch (error) {
      say(this.problem, error.message);
    }
    this.#follow();
  }

  // A window that nobody sees keeps no connection that another one may need.
  #turned() {
    if (document.hidden) for (const [id, stream] of this.#streams) this.#stop(id, stream);
    else this.#refresh();
    if (document.hidden) clearTimeout(this.#timer);
  }

  async #refresh() {
    try {
      const page = await ask("GET", `/predictions?limit=${PAGE}`);
      for (const prediction of page.results.reverse()) this.#put(prediction, true);
      say(this.problem, "");
    } catch (error) {
      say(this.problem, error.message);
    }
    this.#follow();
  }
}
