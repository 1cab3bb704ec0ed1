// The box at the bottom: text, commands with their options, files, replies.

import { make } from "./markup.js";
import { named, optionField, optionValues, parseOptions } from "./forms.js";

const $ = (id) => document.getElementById(id);

// Commands as people see them: subcommands are spelt out, "history show".
export function flatten(commands) {
  const leaves = [];
  const visit = (name, node, id) => {
    const nested = (node.options || []).filter((option) => option.type === 1 || option.type === 2);
    if (!nested.length) leaves.push({ name, description: node.description, options: node.options || [], id });
    for (const option of nested) visit(`${name} ${option.name}`, option, id);
  };
  for (const command of commands) if (command.type === 1) visit(command.name, command, command.id);
  // A command that is registered for the guild and for everywhere is listed once.
  const seen = new Set();
  return leaves.filter((leaf) => !seen.has(leaf.name) && seen.add(leaf.name)).sort((a, b) => a.name.localeCompare(b.name));
}

export class Composer {
  // `view`: names, users(), roles(), channels(types), commands(); `act(payload, files)` returns the answer or throws an Error for people.
  constructor(view, act) {
    this.view = view;
    this.act = act;
    this.box = $("command-box");
    this.files = [];
    this.replyTo = null;
    this.command = null;
    this.active = 0;
    this.offered = [];
    this.sent = [];
    this.recalled = -1;
    this.box.addEventListener("input", () => this.refresh());
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.box.addEventListener("paste", (event) => this.add(event.clipboardData.files));
    this.box.addEventListener("blur", () => setTimeout(() => $("suggestions").contains(document.activeElement) || this.closeList(), 150));
    $("send").addEventListener("click", () => (this.command ? this.sendOptions() : this.send()));
    $("attach").addEventListener("click", () => $("file-input").click());
    $("file-input").addEventListener("change", (event) => { this.add(event.target.files); event.target.value = ""; });
    $("reply-cancel").addEventListener("click", () => this.reply(null));
    $("option-form").addEventListener("submit", (event) => { event.preventDefault(); this.sendOptions(); });
    $("option-form").addEventListener("keydown", (event) => event.key === "Escape" && this.closeForm());
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => { event.preventDefault(); this.add(event.dataTransfer.files); });
  }

  say(problem) {
    $("error").textContent = problem || "";
    $("error").hidden = !problem;
  }

  // Suggestions and the hint line.

  refresh() {
    const text = this.box.value;
    this.say("");
    this.box.style.height = "auto";
    this.box.style.height = `${Math.min(this.box.scrollHeight, 200)}px`;
    const found = this.match(text);
    $("hint").textContent = found ? this.usage(found.command) : "";
    if (!text.startsWith("/") || text.includes("\n") || (found && found.rest !== null)) return this.closeList();
    const typed = text.slice(1).toLowerCase();
    this.offered = this.view.commands().filter((command) => command.name.startsWith(typed) || command.name.includes(` ${typed}`));
    if (!this.offered.length) {
      $("hint").textContent = this.view.commands().length ? `There is no command /${typed}.` : "The bot has not registered any commands yet.";
      return this.closeList();
    }
    this.active = Math.min(this.active, this.offered.length - 1);
    this.paintList();
  }

  // The command that a text begins with; `rest` is null while its name is still being typed.
  match(text) {
    if (!text.startsWith("/")) return null;
    const all = this.view.commands().slice().sort((a, b) => b.name.length - a.name.length);
    for (const command of all) {
      if (text === `/${command.name}`) return { command, rest: null };
      if (text.startsWith(`/${command.name} `)) return { command, rest: text.slice(command.name.length + 2) };
    }
    return null;
  }

  usage(command) {
    const options = command.options.map((option) => (option.required ? `${option.name}: …` : `[${option.name}: …]`));
    return [`/${command.name}`, ...options].join("  ");
  }

  paintList() {
    const list = $("suggestions");
    list.replaceChildren(...this.offered.map((command, index) => make("div", {
      class: "suggestion", role: "option", id: `suggestion-${index}`, "aria-selected": String(index === this.active), dataset: { command: command.name },
      onmousedown: (event) => event.preventDefault(), onclick: () => this.choose(command),
    }, make("strong", {}, `/${command.name}`), make("span", {}, command.description))));
    list.hidden = false;
    this.box.setAttribute("aria-expanded", "true");
    this.box.setAttribute("aria-activedescendant", `suggestion-${this.active}`);
    list.children[this.active].scrollIntoView({ block: "nearest" });
  }

  closeList() {
    $("suggestions").hidden = true;
    this.box.setAttribute("aria-expanded", "false");
    this.box.removeAttribute("aria-activedescendant");
  }

  key(event) {
    const open = !$("suggestions").hidden;
    if (event.isComposing) return;
    if (open && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      event.preventDefault();
      const count = this.offered.length;
      this.active = (this.active + (event.key === "ArrowDown" ? 1 : count - 1)) % count;
      this.paintList();
    } else if (open && (event.key === "Enter" || event.key === "Tab")) {
      event.preventDefault();
      this.choose(this.offered[this.active]);
    } else if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.send();
    } else if (event.key === "Escape") {
      if (open) this.closeList();
      else this.reply(null);
    } else if (event.key === "ArrowUp" && (this.box.value === "" || this.recalled >= 0)) this.recall(event, 1);
    else if (event.key === "ArrowDown" && this.recalled >= 0) this.recall(event, -1);
    else this.recalled = -1;
  }

  // Arrow up brings back what was sent before, as in a shell.
  recall(event, step) {
    const next = this.recalled + step;
    if (next >= this.sent.length || next < -1) return;
    event.preventDefault();
    this.recalled = next;
    this.box.value = next === -1 ? "" : this.sent.at(-1 - next);
    this.refresh();
    this.closeList();
  }

  // The option form.

  choose(command) {
    this.closeList();
    this.command = command;
    this.say("");
    $("hint").textContent = "Enter sends, Escape goes back.";
    const form = $("option-form");
    const suggest = async (focused) => {
      const { values } = optionValues(form);
      const answer = await this.act({ do: "autocomplete", name: command.name, options: values, focused }).catch(() => ({ choices: [] }));
      return answer.choices;
    };
    form.replaceChildren(
      make("div", { class: "form-head" }, make("strong", {}, `/${command.name}`), make("span", {}, command.description),
        make("button", { type: "button", "aria-label": "Close the command", onclick: () => this.closeForm() }, "✕")),
      make("div", { class: "fields" }, ...command.options.map((option) => optionField(option, this.view, suggest))),
      make("button", { type: "submit", class: "button primary", id: "option-send" }, "Send"));
    form.hidden = false;
    form.noValidate = true;
    $("box-row").hidden = true;
    (form.querySelector("[data-option]") || $("option-send")).focus();
  }

  closeForm() {
    this.command = null;
    $("option-form").hidden = true;
    $("box-row").hidden = false;
    $("hint").textContent = "";
    this.say("");
    this.box.value = "";
    this.box.focus();
  }

  async sendOptions() {
    const { values, files } = optionValues($("option-form"));
    const invalid = $("option-form").querySelector(":invalid");
    if (invalid) {
      invalid.focus();
      return this.say(`${invalid.name}: ${invalid.validationMessage}`);
    }
    const command = this.command;
    if (await this.try({ do: "command", name: command.name, options: values }, files)) {
      const text = Object.entries(values).filter(([, value]) => typeof value === "string").map(([name, value]) => `${name}: ${value}`);
      this.keep([`/${command.name}`, ...text].join(" "));
      this.closeForm();
    }
  }

  // Sending.

  async send() {
    const text = this.box.value.trim();
    const found = this.match(text);
    if (found) return this.sendTyped(found.command, found.rest || "");
    if (text.startsWith("/") && /^\/[\w-]/.test(text)) return this.say(`There is no command ${text.split(" ")[0]}.`);
    if (!text && !this.files.length) return;
    if (await this.try({ do: "say", text, reply_to: this.replyTo?.id }, this.files)) this.clear(text);
  }

  async sendTyped(command, rest) {
    const values = parseOptions(rest, command.options);
    const files = [];
    const takers = command.options.filter((option) => option.type === 11);
    this.files.slice(0, takers.length).forEach((file, index) => {
      values[takers[index].name] = { file: files.length };
      files.push(file);
    });
    const missing = command.options.find((option) => option.required && values[option.name] === undefined);
    if (missing) return this.choose(command);
    // Names are easier to type than numbers.
    for (const option of command.options) {
      const given = String(values[option.name] ?? "").replace(/^[@#]/, "").toLowerCase();
      const meant = named(option, this.view)?.find((choice) => choice.label.replace(/^[@#]/, "").toLowerCase() === given);
      if (meant) values[option.name] = meant.value;
    }
    if (await this.try({ do: "command", name: command.name, options: values }, files)) this.clear(this.box.value.trim());
  }

  async try(payload, files) {
    this.say("");
    $("send").disabled = true;
    try {
      await this.act(payload, files);
      return true;
    } catch (error) {
      this.say(error.message);
      return false;
    } finally {
      $("send").disabled = false;
    }
  }

  keep(text) {
    if (text && text !== this.sent.at(-1)) this.sent.push(text);
    this.recalled = -1;
  }

  clear(text) {
    this.keep(text);
    this.box.value = "";
    this.files = [];
    this.paintFiles();
    this.reply(null);
    this.refresh();
  }

  // Files and replies.

  add(files) {
    if (!files?.length) return;
    this.files.push(...files);
    this.paintFiles();
    this.box.focus();
  }

  paintFiles() {
    $("files").hidden = !this.files.length;
    $("files").replaceChildren(...this.files.map((file, index) => make("li", {}, file.name, make("button", {
      type: "button", "aria-label": `Remove ${file.name}`, onclick: () => { this.files.splice(index, 1); this.paintFiles(); },
    }, "✕"))));
  }

  reply(message) {
    this.replyTo = message;
    $("reply-bar").hidden = !message;
    if (message) {
      $("reply-to").textContent = `Replying to ${message.author.username}`;
      this.box.focus();
    }
  }
}
