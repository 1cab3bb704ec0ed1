// Fields of command options and of modals, and what people put into them.

import { make, markdown } from "./markup.js";
import { channelsOf, optionsOf, peopleOf, rolesOf } from "./messages.js";

const KINDS = { 3: "text", 4: "whole number", 5: "true or false", 6: "person", 7: "channel", 8: "role", 9: "person or role", 10: "number", 11: "file" };

function range(option) {
  const [low, high] = [option.min_value ?? option.min_length, option.max_value ?? option.max_length];
  const unit = option.type === 3 ? " characters" : "";
  if (low !== undefined && high !== undefined) return `${low}–${high}${unit}`;
  if (low !== undefined) return `at least ${low}${unit}`;
  return high !== undefined ? `at most ${high}${unit}` : "";
}

function choiceList(entries, empty, attributes) {
  return make("select", attributes, make("option", { value: "" }, empty), ...entries.map(([value, label]) => make("option", { value }, label)));
}

// The people, channels or roles that an option takes; null if it takes something else.
export function named(option, view) {
  switch (option.type) {
    case 6: return peopleOf(view);
    case 7: return channelsOf(view, option.channel_types);
    case 8: return rolesOf(view);
    case 9: return [...peopleOf(view), ...rolesOf(view)];
    default: return null;
  }
}

// One field of a command option: a label that says what it takes, and the control.
export function optionField(option, view, suggest) {
  const id = `option-${option.name}`;
  const required = Boolean(option.required);
  const note = [KINDS[option.type], range(option), required ? "required" : "optional"].filter(Boolean).join(", ");
  const attributes = { id, name: option.name, required, "aria-describedby": `${id}-note`, dataset: { option: option.name } };
  let control;
  if (option.choices?.length) control = choiceList(option.choices.map((choice) => [choice.value, choice.name]), "—", attributes);
  else if (option.type === 5) control = choiceList([["true", "True"], ["false", "False"]], "—", attributes);
  else if (named(option, view)) control = choiceList(named(option, view).map((choice) => [choice.value, choice.label]), "—", attributes);
  else if (option.type === 11) control = make("input", { ...attributes, type: "file" });
  else if (option.type === 4 || option.type === 10) {
    control = make("input", { ...attributes, type: "number", step: option.type === 4 ? "1" : "any", min: option.min_value, max: option.max_value });
  } else {
    control = make("input", { ...attributes, type: "text", minlength: option.min_length, maxlength: option.max_length ?? 6000 });
  }
  const field = make("div", { class: "field", dataset: { field: option.name } },
    make("label", { for: id }, option.name, make("small", { id: `${id}-note` }, note)), control, make("p", { class: "about" }, option.description));
  if (option.autocomplete) offer(option, control, field, suggest);
  return field;
}

// Offer what the bot suggests while somebody types. A suggestion shows its name and sends its value.
function offer(option, control, field, suggest) {
  const list = make("datalist", { id: `${control.id}-choices` });
  const values = new Map();
  let turn = 0;
  control.setAttribute("list", list.id);
  control.chosen = () => values.get(control.value) ?? control.value;
  const ask = async () => {
    const mine = ++turn;
    await new Promise((done) => setTimeout(done, 120));
    if (mine !== turn) return;
    const choices = await suggest(option.name);
    if (mine !== turn) return;
    for (const choice of choices) values.set(choice.name, choice.value);
    list.replaceChildren(...choices.map((choice) => make("option", { value: choice.name })));
  };
  control.addEventListener("input", ask);
  control.addEventListener("focus", ask, { once: true });
  field.append(list);
}

// What is in the fields of an option form: values by name, with files set aside.
export function optionValues(form) {
  const values = {};
  const files = [];
  for (const control of form.querySelectorAll("[data-option]")) {
    if (control.type === "file") {
      if (control.files.length) {
        values[control.dataset.option] = { file: files.length };
        files.push(control.files[0]);
      }
    } else if (control.value !== "") values[control.dataset.option] = control.chosen ? control.chosen() : control.value;
  }
  return { values, files };
}

// Understand "/dream a red fox" and "/dream prompt: a red fox seed: 7": text before the first named option is the first text option.
export function parseOptions(text, options) {
  const names = options.map((option) => option.name).sort((a, b) => b.length - a.length);
  const values = {};
  if (!names.length) return values;
  const marker = new RegExp(`(?:^|\\s)(${names.map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")}):\\s*`, "g");
  const marks = [...text.matchAll(marker)];
  const lead = text.slice(0, marks.length ? marks[0].index : undefined).trim();
  const first = options.find((option) => option.type === 3) || options[0];
  if (lead) values[first.name] = lead;
  marks.forEach((mark, index) => {
    const end = index + 1 < marks.length ? marks[index + 1].index : undefined;
    const value = text.slice(mark.index + mark[0].length, end).trim();
    if (value) values[mark[1]] = value;
  });
  return values;
}

// The fields of a modal.
export function modalFields(modal, view) {
  const fields = [];
  for (const part of modal.components) {
    if (part.type === 10) fields.push(make("div", { class: "text" }, markdown(part.content, view.names)));
    else if (part.type === 18) fields.push(modalField(part.component, part.label, part.description, view));
    else for (const inner of part.components || []) fields.push(modalField(inner, inner.label, null, view));
  }
  return fields;
}

function modalField(part, label, description, view) {
  const id = `field-${part.custom_id}`;
  const required = part.required ?? part.type !== 23;
  const attributes = { id, required, dataset: { customId: part.custom_id, type: part.type }, "aria-describedby": description ? `${id}-about` : undefined };
  const about = description ? make("p", { class: "about", id: `${id}-about` }, description) : null;
  if (part.type === 21 || part.type === 22) {
    const kind = part.type === 21 ? "radio" : "checkbox";
    const choices = part.options.map((option, index) => make("label", { class: "choice" },
      make("input", { type: kind, name: id, value: option.value, checked: Boolean(option.default), id: `${id}-${index}` }), option.label));
    return make("fieldset", { dataset: { customId: part.custom_id, type: part.type } }, make("legend", {}, label), about, ...choices);
  }
  let control;
  if (part.type === 4) {
    const shared = { ...attributes, minlength: part.min_length, maxlength: part.max_length ?? 4000, placeholder: part.placeholder };
    control = part.style === 2 ? make("textarea", { ...shared, rows: 4 }) : make("input", { ...shared, type: "text" });
    control.value = part.value || "";
  } else if (part.type === 19) control = make("input", { ...attributes, type: "file", multiple: (part.max_values ?? 1) > 1 });
  else if (part.type === 23) control = make("input", { ...attributes, type: "checkbox", checked: Boolean(part.default) });
  else {
    const many = (part.max_values ?? 1) > 1;
    control = make("select", { ...attributes, multiple: many }, many ? null : make("option", { value: "" }, part.placeholder || "Choose"),
      ...optionsOf(part, view).map((option) => make("option", { value: option.value, selected: Boolean(option.default) }, option.label)));
  }
  return make("div", { class: "field" }, make("label", { for: id }, label, required ? make("small", {}, "required") : null), control, about);
}

// What is in a modal's fields: values by custom id, with files set aside.
export function modalValues(form) {
  const values = {};
  const files = [];
  for (const control of form.querySelectorAll("[data-custom-id]")) {
    const id = control.dataset.customId;
    switch (Number(control.dataset.type)) {
      case 4: values[id] = control.value; break;
      case 19:
        values[id] = { files: [...control.files].map((file) => files.push(file) - 1) };
        break;
      case 21: values[id] = control.querySelector("input:checked")?.value; break;
      case 22: values[id] = [...control.querySelectorAll("input:checked")].map((input) => input.value); break;
      case 23: values[id] = control.checked; break;
      default: values[id] = [...control.selectedOptions].map((option) => option.value).filter(Boolean);
    }
  }
  return { values, files };
}
