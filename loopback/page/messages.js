// Messages as elements: author, text, embeds, pictures, components, reactions.

import { localFile, make, markdown, webAddress } from "./markup.js";

const EPHEMERAL = 1 << 6;
const COLOURS = ["#5b63f0", "#2d9d78", "#c9572f", "#b0418f", "#3c7fd0", "#8f6a1f"];
const STYLES = { 1: "primary", 2: "secondary", 3: "success", 4: "danger", 5: "link" };

// Spoilers that were opened stay open when their message changes.
const opened = new Set();

export function colour(id) {
  return COLOURS[Number(BigInt(id) % BigInt(COLOURS.length))];
}

export function avatar(user) {
  const badge = make("span", { class: user.bot ? "avatar bot" : "avatar", "aria-hidden": "true" }, user.bot ? "" : user.username[0].toUpperCase());
  if (!user.bot) badge.style.backgroundColor = colour(user.id);
  return badge;
}

export function clock(iso) {
  return new Date(iso).toLocaleTimeString("en", { hour: "2-digit", minute: "2-digit", hour12: false });
}

// `view` gives names, the current user, message commands, and what happens: press, choose, reply, menu, react, remove, zoom, find.
export function messageElement(message, view) {
  const { author } = message;
  const names = view.names;
  const private_ = Boolean(message.flags & EPHEMERAL);
  const pinged = message.mentions.some((user) => user.id === view.me);
  const element = make("article", {
    class: ["message", private_ && "ephemeral", pinged && "pinged", message.thinking && "thinking"].filter(Boolean).join(" "),
    dataset: { id: message.id, author: author.id, thinking: message.thinking, ephemeral: private_ },
    "aria-label": `Message of ${author.username}, ${clock(message.timestamp)}`,
  });
  element.append(...context(message, view), avatar(author));
  const body = make("div", { class: "body" });
  body.append(make("div", { class: "byline" },
    make("strong", { class: "author" }, author.username),
    author.bot ? make("span", { class: "tag" }, "APP") : null,
    make("time", { datetime: message.timestamp, title: new Date(message.timestamp).toLocaleString("en") }, clock(message.timestamp))));
  const content = make("div", { class: "content" });
  if (message.thinking) content.append(make("span", { class: "dots", "aria-hidden": "true" }), make("em", {}, `${author.username} is thinking…`));
  else content.append(markdown(message.content, names));
  if (message.edited_timestamp && !message.thinking && !author.bot) content.append(make("small", { class: "edited" }, " (edited)"));
  if (content.childNodes.length) body.append(content);
  if (message.attachments.length) body.append(attachments(message.attachments, view));
  for (const embed of message.embeds) body.append(embedElement(embed, view));
  if (message.components.length) body.append(make("div", { class: "components" }, ...message.components.map((part) => component(part, message, view))));
  if (message.reactions?.length) body.append(reactions(message, view));
  if (private_) body.append(make("p", { class: "only-you" }, "👁 Only you can see this · ",
    make("button", { type: "button", class: "dismiss", onclick: () => view.dismiss(message) }, "Dismiss message")));
  body.append(make("p", { class: "failure", role: "alert", hidden: true }));
  element.append(body, actions(message, view, private_));
  return element;
}

function context(message, view) {
  if (message.interaction) {
    const { user, name } = message.interaction;
    return [make("div", { class: "context" }, make("strong", {}, user.username), " used ", make("code", {}, /^[a-z0-9_-]+( |$)/.test(name) ? `/${name}` : name))];
  }
  if (!message.message_reference) return [];
  const target = message.referenced_message;
  if (!target) return [make("div", { class: "context" }, make("em", {}, "Original message was deleted"))];
  const summary = target.content || (target.attachments.length || target.embeds.length ? "Click to see the picture" : "…");
  const jump = make("button", { type: "button", class: "context jump", onclick: () => view.find(target.id) },
    make("strong", {}, target.author.username), ` ${summary.slice(0, 120)}`);
  jump.setAttribute("aria-label", `In reply to ${target.author.username}`);
  return [jump];
}

function attachments(files, view) {
  return make("div", { class: files.length > 1 ? "attachments many" : "attachments" }, ...files.map((file) => attachment(file, view)));
}

function attachment(file, view) {
  const address = localFile(file.url);
  if (!address || !file.width) {
    const size = file.size < 1024 ? `${file.size} bytes` : `${Math.round(file.size / 1024)} KiB`;
    return make("a", { class: "file", href: address, download: file.filename, dataset: { file: file.filename } }, `📄 ${file.filename}`, make("small", {}, size));
  }
  return picture(address, file.description || file.filename, file.width, file.height, file.filename.startsWith("SPOILER_") ? file.id : null, view);
}

function picture(address, description, width, height, spoilerKey, view) {
  const image = make("img", { src: address, alt: description, width, height });
  const hidden = spoilerKey !== null && !opened.has(spoilerKey);
  const button = make("button", { type: "button", class: hidden ? "picture covered" : "picture", "aria-label": hidden ? "Spoiler, show the picture" : `Enlarge: ${description}` }, image);
  // Small pictures are shown as large as they are; large ones shrink into the column.
  const scale = Math.min(1, 550 / (width || 550), 450 / (height || 450));
  if (width) button.style.width = `${Math.round(width * scale)}px`;
  button.addEventListener("click", () => {
    if (button.classList.contains("covered")) {
      opened.add(spoilerKey);
      button.classList.remove("covered");
      button.setAttribute("aria-label", `Enlarge: ${description}`);
    } else view.zoom(address, description);
  });
  return button;
}

function embedElement(embed, view) {
  const card = make("section", { class: "embed" });
  if (typeof embed.color === "number") card.style.borderLeftColor = `#${embed.color.toString(16).padStart(6, "0")}`;
  const add = (...nodes) => card.append(...nodes);
  const thumbnail = embed.thumbnail && localFile(embed.thumbnail.url);
  if (thumbnail) {
    card.classList.add("with-thumbnail");
    add(make("img", { class: "thumbnail", src: thumbnail, alt: embed.thumbnail.description || "" }));
  }
  if (embed.author) {
    const address = embed.author.url && webAddress(embed.author.url);
    const name = address ? make("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, embed.author.name) : embed.author.name;
    add(make("div", { class: "embed-author" }, icon(embed.author.icon_url), name));
  }
  if (embed.title) {
    const address = embed.url && webAddress(embed.url);
    const title = markdown(embed.title, view.names);
    add(make("div", { class: "embed-title" }, address ? make("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, title) : title));
  }
  if (embed.description) add(make("div", { class: "embed-description" }, markdown(embed.description, view.names)));
  if (embed.fields?.length) {
    add(make("dl", { class: "fields" }, ...embed.fields.map((field) => make("div", { class: field.inline ? "inline" : "" },
      make("dt", {}, markdown(field.name, view.names)), make("dd", {}, markdown(field.value, view.names))))));
  }
  const image = embed.image && localFile(embed.image.url);
  if (image) add(picture(image, embed.image.description || embed.title || "Embedded picture", embed.image.width, embed.image.height, null, view));
  const when = embed.timestamp ? new Date(embed.timestamp).toLocaleString("en") : "";
  const footer = [embed.footer?.text, when].filter(Boolean).join(" • ");
  if (footer) add(make("footer", {}, icon(embed.footer?.icon_url), footer));
  return card;
}

function icon(address) {
  const local = address && localFile(address);
  return local ? make("img", { class: "icon", src: local, alt: "" }) : null;
}

function component(part, message, view) {
  const inner = (parts) => (parts || []).map((child) => component(child, message, view));
  switch (part.type) {
    case 1: return make("div", { class: "row" }, ...inner(part.components));
    case 2: return button(part, message, view);
    case 3: case 5: case 6: case 7: case 8: return select(part, message, view);
    case 9: return make("div", { class: "section" }, make("div", {}, ...inner(part.components)), ...inner(part.accessory ? [part.accessory] : []));
    case 10: return make("div", { class: "text" }, markdown(part.content, view.names));
    case 11: return media(part, view);
    case 12: return make("div", { class: part.items.length > 1 ? "attachments many" : "attachments" }, ...part.items.map((item) => media(item, view)));
    case 13: return make("a", { class: "file", href: localFile(part.file.url), download: true }, "📄 file");
    case 14: return make("hr", {});
    case 17: {
      const card = make("section", { class: "embed" }, ...inner(part.components));
      if (typeof part.accent_color === "number") card.style.borderLeftColor = `#${part.accent_color.toString(16).padStart(6, "0")}`;
      return card;
    }
    default: return make("span", {}, "");
  }
}

function media(item, view) {
  const address = localFile(item.media.url);
  if (!address) return make("span", { class: "file" }, "picture from elsewhere");
  return picture(address, item.description || "Picture", item.media.width, item.media.height, item.spoiler ? address.split("?")[0] : null, view);
}

function emojiText(emoji) {
  return emoji ? (emoji.id ? `:${emoji.name}:` : emoji.name) : "";
}

function button(part, message, view) {
  const label = [emojiText(part.emoji), part.label].filter(Boolean).join(" ");
  if (part.style === 5) {
    return make("a", { class: "button link", href: webAddress(part.url || ""), target: "_blank", rel: "noopener noreferrer" }, `${label} ↗`);
  }
  return make("button", {
    type: "button", class: `button ${STYLES[part.style] || "secondary"}`, disabled: Boolean(part.disabled),
    dataset: { customId: part.custom_id }, onclick: () => view.press(message, part.custom_id),
  }, label);
}

// People, roles and channels as choices.
export function peopleOf(view) {
  return view.users().map((user) => ({ value: user.id, label: user.name }));
}

export function rolesOf(view) {
  return view.roles().map((role) => ({ value: role.id, label: `@${role.name}` }));
}

export function channelsOf(view, types) {
  return view.channels(types).map((channel) => ({ value: channel.id, label: `#${channel.name}` }));
}

// The choices of a select, those that it stands at as defaults.
export function optionsOf(part, view) {
  const choices = {
    5: () => peopleOf(view), 6: () => rolesOf(view), 7: () => [...peopleOf(view), ...rolesOf(view)], 8: () => channelsOf(view, part.channel_types),
  }[part.type];
  if (!choices) return part.options || [];
  const standing = new Set((part.default_values || []).map((value) => value.id));
  return choices().map((choice) => ({ ...choice, default: standing.has(choice.value) }));
}

function select(part, message, view) {
  const many = (part.max_values ?? 1) > 1;
  const placeholder = part.placeholder || "Make a selection";
  const options = optionsOf(part, view);
  const empty = { value: "", selected: !options.some((option) => option.default), disabled: part.min_values !== 0 };
  const choice = make("select", { "aria-label": placeholder, multiple: many, disabled: Boolean(part.disabled), dataset: { customId: part.custom_id } },
    many ? null : make("option", empty, placeholder),
    ...options.map((option) => make("option", { value: option.value, selected: Boolean(option.default) },
      [emojiText(option.emoji), option.label, option.description && `– ${option.description}`].filter(Boolean).join(" "))));
  const send = () => view.press(message, part.custom_id, [...choice.selectedOptions].map((option) => option.value).filter(Boolean));
  if (!many) choice.addEventListener("change", send);
  return many ? make("div", { class: "row" }, choice, make("button", { type: "button", class: "button secondary", onclick: send }, "Choose")) : choice;
}

function reactions(message, view) {
  return make("div", { class: "row reactions" }, ...message.reactions.map((reaction) => {
    const by = message.reacted[reaction.emoji.name];
    return make("button", {
      type: "button", class: "reaction", dataset: { emoji: reaction.emoji.name }, "aria-pressed": String(by.includes(view.me)),
      title: by.map(view.names.user).join(", "), "aria-label": `${reaction.emoji.name}, ${reaction.count}`,
      onclick: () => view.react(message, reaction.emoji.name),
    }, `${reaction.emoji.name} ${reaction.count}`);
  }));
}

function actions(message, view, private_) {
  const bar = make("div", { class: "actions", role: "group", "aria-label": "Message actions" });
  if (!private_ && !message.thinking) {
    for (const [kind, emoji] of [["react", "👍"], ["star", "⭐"]]) {
      const label = `React with ${emoji}`;
      bar.append(make("button", { type: "button", class: kind, title: label, "aria-label": label, onclick: () => view.react(message, emoji) }, emoji));
    }
    bar.append(make("button", { type: "button", class: "reply", title: "Reply", "aria-label": "Reply", onclick: () => view.reply(message) }, "↩"));
  }
  for (const command of private_ ? [] : view.menu()) {
    bar.append(make("button", { type: "button", class: "menu", dataset: { name: command.name }, onclick: () => view.runMenu(message, command.name) }, command.name));
  }
  if (!private_ && view.mayDelete(message)) {
    const label = "Delete message";
    bar.append(make("button", { type: "button", class: "delete", title: label, "aria-label": label, onclick: () => view.remove(message) }, "🗑"));
  }
  return bar;
}
