// The brush: a picture, and over it a veil of what is to be repainted. Everything that was done is kept as a list, so that it can be taken back.

import { make, say } from "./dom.js";

const VEIL = "#ff00aa";
const LONGEST = 1024; // The studio keeps pictures at this size at most.
const LARGEST = 4096; // Browsers of phones paint on nothing larger; the studio takes a mask of another size for one of the same shape.
const SOLID = 127;
const NEAR = 48; // Of 255 in any channel, between a pixel and the colour of the background: as the studio has it.
const HELP = "Paint over what is to be repainted. Arrow keys move the brush, space dabs, Shift with arrow keys draws; B brush, E eraser, "
  + "[ and ] size, I invert, Delete clears, Ctrl+Z takes back.";
const REGIONS = [["left", "Left half"], ["right", "Right half"], ["top", "Top half"], ["bottom", "Bottom half"], ["centre", "Centre"],
  ["background", "Background"]];

export class Brush {
  #ground = make("canvas", { class: "ground" });
  #veil = make("canvas", { class: "veil" });
  #ring = make("div", { class: "ring", hidden: true });
  #size = make("input", { type: "range", min: 1, max: 32, value: 8, "aria-label": "Brush size in pixels" });
  #sizeTold = make("output", {}, "8 px");
  #share = make("p", { class: "share", role: "status" });
  #buttons = {};
  #natural = { width: 1, height: 1 };
  #done = [];
  #undone = [];
  #stroke = null;
  #cursor = null;
  #erases = false;
  #isEmpty = true;
  #isFull = false;

  constructor() {
    const button = (name, text, act, pressed) => {
      this.#buttons[name] = make("button", { type: "button", dataset: { do: name }, "aria-pressed": pressed, onclick: act }, text);
      return this.#buttons[name];
    };
    this.stage = make("div", { class: "stage", tabindex: 0, role: "application", "aria-label": HELP }, this.#ground, this.#veil, this.#ring);
    const regions = REGIONS.map(([name, text]) => button(name, text, () => this.#act({ do: "region", name })));
    this.element = make("div", { class: "brush", hidden: true, onkeydown: (event) => this.#key(event) },
      make("div", { class: "tools", role: "toolbar", "aria-label": "Brush" },
        button("paint", "Brush", () => this.#choose(false), "true"), button("erase", "Eraser", () => this.#choose(true), "false"),
        make("span", { class: "size" }, this.#size, this.#sizeTold),
        button("undo", "Undo", () => this.undo()), button("redo", "Redo", () => this.redo()),
        button("invert", "Invert", () => this.#act({ do: "invert" })), button("clear", "Clear", () => this.#act({ do: "clear" }))),
      make("div", { class: "tools", role: "group", "aria-label": "Regions" }, ...regions),
      this.stage, this.#share);
    this.#size.addEventListener("input", () => this.#sized());
    const on = (name, act) => this.stage.addEventListener(name, act);
    on("pointerdown", (event) => this.#press(event));
    on("pointermove", (event) => this.#move(event));
    on("pointerup", () => this.#lift());
    on("pointercancel", () => this.#lift());
    on("pointerleave", () => { this.#ring.hidden = true; });
    this.#told();
  }

  // Begin with a picture, as an element whose pixels are there.
  show(image) {
    this.#natural = { width: image.naturalWidth, height: image.naturalHeight };
    const scale = Math.min(1, LONGEST / Math.max(image.naturalWidth, image.naturalHeight));
    for (const canvas of [this.#ground, this.#veil]) {
      canvas.width = Math.max(1, Math.round(image.naturalWidth * scale));
      canvas.height = Math.max(1, Math.round(image.naturalHeight * scale));
    }
    this.#ground.getContext("2d").drawImage(image, 0, 0, this.#ground.width, this.#ground.height);
    const ratio = image.naturalWidth / image.naturalHeight;
    this.stage.style.aspectRatio = String(ratio);
    this.stage.style.width = `min(100%, ${(60 * ratio).toFixed(3)}vh)`;
    this.stage.classList.toggle("small", Math.max(image.naturalWidth, image.naturalHeight) <= 256);
    const longest = Math.max(this.#veil.width, this.#veil.height);
    this.#size.max = String(Math.max(2, Math.round(longest / 2)));
    this.#size.value = String(Math.max(1, Math.round(longest / 8)));
    this.#cursor = { x: this.#veil.width / 2, y: this.#veil.height / 2 };
    this.#done = [];
    this.#undone = [];
    this.element.hidden = false;
    this.#sized();
    this.#again();
  }

  hide() { this.element.hidden = true; }

  get isEmpty() { return this.#isEmpty; }
  get isFull() { return this.#isFull; }

  // What is to be repainted, white on black, as PNG of the picture's own size.
  mask() {
    const sheet = make("canvas");
    const scale = Math.min(1, LARGEST / Math.max(this.#natural.width, this.#natural.height));
    sheet.width = Math.round(this.#natural.width * scale);
    sheet.height = Math.round(this.#natural.height * scale);
    const pen = sheet.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.drawImage(this.#solid(), 0, 0, sheet.width, sheet.height);
    pen.globalCompositeOperation = "source-in";
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, sheet.width, sheet.height);
    pen.globalCompositeOperation = "destination-over";
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, sheet.width, sheet.height);
    return sheet.toDataURL("image/png");
  }

  undo() {
    if (!this.#done.length) return;
    this.#undone.push(this.#done.pop());
    this.#again();
  }

  redo() {
    if (!this.#undone.length) return;
    this.#done.push(this.#undone.pop());
    this.#again();
  }

  // Strokes.

  #press(event) {
    if (this.#stroke || !event.isPrimary || event.button > 0 && !(event.buttons & 32)) return;
    event.preventDefault();
    this.stage.focus({ preventScroll: true });
    this.stage.setPointerCapture(event.pointerId);
    // The other end of a pen erases.
    this.#begin(this.#at(event), this.#erases || Boolean(event.buttons & 32));
  }

  #move(event) {
    if (!event.isPrimary) return;
    for (const one of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) {
      this.#cursor = this.#at(one);
      if (this.#stroke) this.#reach(this.#cursor);
    }
    this.#showRing();
  }

  #lift() {
    if (!this.#stroke) return;
    this.#stroke = null;
    this.#told();
  }

  #begin(point, erase) {
    this.#stroke = { do: "stroke", points: [point], size: Number(this.#size.value), erase };
    this.#done.push(this.#stroke);
    this.#undone = [];
    this.#cursor = point;
    draw.stroke(this.#pen(), this.#stroke);
  }

  #reach(point) {
    const before = this.#stroke.points.at(-1);
    this.#stroke.points.push(point);
    draw.stroke(this.#pen(), { ...this.#stroke, points: [before, point] });
  }

  #at(event) {
    const box = this.stage.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width * this.#veil.width, y: (event.clientY - box.top) / box.height * this.#veil.height };
  }

  // Everything else that can be done.

  #act(act) {
    this.#done.push(act.name === "background" ? { ...act, sheet: background(this.#ground) } : act);
    this.#undone = [];
    draw[act.do](this.#pen(), this.#done.at(-1));
    this.#told();
  }

  #again() {
    this.#pen().clearRect(0, 0, this.#veil.width, this.#veil.height);
    for (const act of this.#done) draw[act.do](this.#pen(), act);
    this.#told();
  }

  #choose(erases) {
    this.#erases = erases;
    this.#buttons.paint.setAttribute("aria-pressed", String(!erases));
    this.#buttons.erase.setAttribute("aria-pressed", String(erases));
  }

  #sized() {
    this.#sizeTold.textContent = `${this.#size.value} px`;
    this.#size.setAttribute("aria-valuetext", this.#sizeTold.textContent);
    this.#showRing();
  }

  #showRing() {
    if (!this.#cursor) return;
    const share = Number(this.#size.value) / this.#veil.width * 100;
    Object.assign(this.#ring.style, {
      left: `${this.#cursor.x / this.#veil.width * 100}%`, top: `${this.#cursor.y / this.#veil.height * 100}%`, width: `${share}%`,
    });
    this.#ring.hidden = false;
  }

  #key(event) {
    const key = event.key.toLowerCase();
    const step = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] }[key];
    const isOnStage = event.target === this.stage;
    if (event.altKey || event.target.matches?.("input[type=range]") && step) return;
    if (event.ctrlKey || event.metaKey) {
      if (key === "z" && !event.shiftKey) this.undo();
      else if (key === "y" || key === "z") this.redo();
      else return;
    } else if (isOnStage && step) this.#go(step, event.shiftKey);
    else if (isOnStage && key === " ") this.#dab();
    else if (key === "b" || key === "e") this.#choose(key === "e");
    else if (key === "[" || key === "]") {
      this.#size.value = String(Number(this.#size.value) + (key === "]" ? 1 : -1) * Math.max(1, Math.round(Number(this.#size.value) / 5)));
      this.#sized();
    } else if (key === "i") this.#act({ do: "invert" });
    else if (key === "delete") this.#act({ do: "clear" });
    else return;
    event.preventDefault();
  }

  #go([right, down], draws) {
    const far = Math.max(1, Number(this.#size.value) / 4);
    const from = this.#cursor;
    const within = (value, most) => Math.min(Math.max(value, 0), most);
    const to = { x: within(from.x + right * far, this.#veil.width), y: within(from.y + down * far, this.#veil.height) };
    if (draws) {
      this.#begin(from, this.#erases);
      this.#reach(to);
      this.#lift();
    }
    this.#cursor = to;
    this.#showRing();
  }

  #dab() {
    this.#begin(this.#cursor, this.#erases);
    this.#lift();
  }

  #pen() { return this.#veil.getContext("2d", { willReadFrequently: true }); }

  // The veil without half-tones, which mean neither.
  #solid() {
    const sheet = make("canvas", { width: this.#veil.width, height: this.#veil.height });
    const pixels = this.#pen().getImageData(0, 0, sheet.width, sheet.height);
    for (let place = 3; place < pixels.data.length; place += 4) pixels.data[place] = pixels.data[place] > SOLID ? 255 : 0;
    sheet.getContext("2d").putImageData(pixels, 0, 0);
    return sheet;
  }

  #told() {
    const { data } = this.#pen().getImageData(0, 0, this.#veil.width, this.#veil.height);
    let count = 0;
    for (let place = 3; place < data.length; place += 4) count += data[place] > SOLID;
    this.#isEmpty = count === 0;
    this.#isFull = count === data.length / 4;
    this.#buttons.undo.disabled = !this.#done.length;
    this.#buttons.redo.disabled = !this.#undone.length;
    const percent = Math.round(count / (data.length / 4) * 100);
    say(this.#share, count ? `${count && !percent ? "Less than 1" : percent} % would be repainted.` : "Nothing would be repainted yet.");
  }
}

// What each thing that can be done draws.
const draw = {
  stroke(pen, { points, size, erase }) {
    pen.globalCompositeOperation = erase ? "destination-out" : "source-over";
    pen.strokeStyle = pen.fillStyle = VEIL;
    pen.lineWidth = size;
    pen.lineCap = pen.lineJoin = "round";
    const [first, ...others] = points;
    pen.beginPath();
    // A line that goes nowhere draws nothing.
    pen.arc(first.x, first.y, size / 2, 0, 2 * Math.PI);
    pen.fill();
    pen.beginPath();
    pen.moveTo(first.x, first.y);
    for (const point of others) pen.lineTo(point.x, point.y);
    pen.stroke();
  },
  invert(pen) {
    pen.globalCompositeOperation = "source-out";
    pen.fillStyle = VEIL;
    pen.fillRect(0, 0, pen.canvas.width, pen.canvas.height);
  },
  clear(pen) {
    pen.clearRect(0, 0, pen.canvas.width, pen.canvas.height);
  },
  region(pen, { name, sheet }) {
    const { width, height } = pen.canvas;
    const [halfWidth, halfHeight, fourth] = [Math.floor(width / 2), Math.floor(height / 2), (side) => Math.floor(side / 4)];
    pen.globalCompositeOperation = "source-over";
    pen.fillStyle = VEIL;
    if (name === "background") pen.drawImage(sheet, 0, 0);
    else {
      pen.fillRect(...{
        left: [0, 0, halfWidth, height],
        right: [halfWidth, 0, width - halfWidth, height],
        top: [0, 0, width, halfHeight],
        bottom: [0, halfHeight, width, height - halfHeight],
        centre: [fourth(width), fourth(height), width - 2 * fourth(width), height - 2 * fourth(height)],
      }[name]);
    }
  },
};

// A sheet that covers all that has nearly the colour in the middle of those on the picture's border.
function background(canvas) {
  const { width, height } = canvas;
  const pixels = canvas.getContext("2d").getImageData(0, 0, width, height);
  const border = [];
  for (let x = 0; x < width; x += 1) border.push(x, (height - 1) * width + x);
  for (let y = 0; y < height; y += 1) border.push(y * width, y * width + width - 1);
  const middle = [0, 1, 2].map((channel) => border.map((place) => pixels.data[4 * place + channel]).sort((one, other) => one - other)[border.length >> 1]);
  const [red, green, blue] = [1, 3, 5].map((place) => parseInt(VEIL.slice(place, place + 2), 16));
  for (let place = 0; place < pixels.data.length; place += 4) {
    const isNear = middle.every((value, channel) => Math.abs(pixels.data[place + channel] - value) <= NEAR);
    pixels.data.set([red, green, blue, isNear ? 255 : 0], place);
  }
  const sheet = make("canvas", { width, height });
  sheet.getContext("2d").putImageData(pixels, 0, 0);
  return sheet;
}
