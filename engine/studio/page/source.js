// Where a picture is handed in: chosen as a file, dropped, pasted, or sent on from a result. It is then an address here, or a file.

import { dataUrl } from "./api.js";
import { make, say } from "./dom.js";

const LIMIT_MB = 25;
const OWN = /^\/pictures\/[A-Za-z0-9_-]{1,64}\/[0-9]{1,2}\.png$/;

export class Source {
  #file = null;
  #own = null;
  #input = make("input", { type: "file", accept: "image/*", class: "unseen" });
  #image = make("img", { class: "chosen", alt: "The chosen picture", hidden: true });
  #remove = make("button", { type: "button", class: "plain", hidden: true, onclick: () => this.#empty() }, "Remove");
  #problem = make("p", { class: "problem", role: "alert", hidden: true });

  constructor(label, changed = () => {}) {
    this.changed = changed;
    this.#input.setAttribute("aria-label", label);
    this.element = make("div", { class: "source" }, make("label", { class: "drop" }, this.#input, this.#image,
      make("span", {}, make("strong", {}, label), " Choose a file, drop or paste one, or drag a result here.")), this.#remove, this.#problem);
    this.#input.addEventListener("change", () => this.#input.files[0] && this.take(this.#input.files[0]));
  }

  get image() { return this.#image; }
  get isEmpty() { return !this.#file && !this.#own; }

  // Take a file, or the address of a picture that is here.
  async take(what) {
    say(this.#problem, "");
    if (typeof what === "string" ? !OWN.test(what) : what.size > LIMIT_MB * 2 ** 20) {
      return say(this.#problem, typeof what === "string" ? "Only pictures that are here can be dragged from a page."
        : `The picture must be at most ${LIMIT_MB} MB large.`);
    }
    const [file, own] = typeof what === "string" ? [null, what] : [what, null];
    const address = own ?? URL.createObjectURL(file);
    const before = this.#image.src;
    this.#image.src = address;
    try {
      await this.#image.decode();
    } catch {
      this.#empty();
      return say(this.#problem, "Your browser cannot show this file; choose a PNG, JPEG, WebP or GIF picture.");
    } finally {
      if (before.startsWith("blob:")) URL.revokeObjectURL(before);
    }
    this.#file = file;
    this.#own = own;
    this.#image.hidden = this.#remove.hidden = false;
    return this.changed(this.#image);
  }

  #empty() {
    this.#file = this.#own = null;
    this.#input.value = "";
    this.#image.hidden = this.#remove.hidden = true;
    this.changed(null);
  }

  // What was chosen, as a request takes it.
  async value() {
    if (this.isEmpty) throw new Error("Choose a picture first.");
    return this.#own ?? dataUrl(this.#file);
  }
}

// The first picture in what was dropped or pasted: a file, or the address of a picture that is here; null where there is none.
export function pictureIn(transfer) {
  const file = [...(transfer?.files ?? [])].find((one) => one.type.startsWith("image/"));
  if (file) return file;
  const address = transfer?.getData("text/uri-list") || "";
  try {
    const url = new URL(address);
    return url.origin === location.origin && OWN.test(url.pathname) ? url.pathname : null;
  } catch {
    return null;
  }
}
