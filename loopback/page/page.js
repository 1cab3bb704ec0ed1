// The page of Discord on this machine. No framework; the server tells over a websocket what changes, people act over HTTP.
//
// For browser tests these hold still:
//   #command-box          the message and command box       .suggestion[data-command]   a command in the list under /
//   #option-form          the form of a chosen command      [data-option=NAME]          the control of one option; #option-send
//   #send #attach #file-input                               #error                      what a person did wrong
//   #messages             the list of messages              .message[data-id]           a message; also [data-author] [data-thinking]
//       .content  .embed  .picture img  .file  .only-you  .dismiss  .failure  .reply  .menu[data-name]  button[data-custom-id]  select[data-custom-id]
//       .react  .star  .delete  .reaction[data-emoji], whose aria-pressed tells whether you reacted
//   .pending[data-interaction]   a command that is not answered yet; .missed on it when the bot did not answer in time
//   #modal                the open form of the bot          #modal [data-custom-id]     one field; #modal-submit #modal-cancel #modal-error
//   #user-select          who you are                       .channel[data-id]           a channel, or the direct messages; #open-dm before there are any
//   #add-channel          opens #channel-form             #channel-new-name #channel-new-nsfw #channel-create #channel-error; .badge on a channel
//   #moderator #owner     what you may do: aria-pressed     #channel-mark                shown where the channel is age-restricted
//   #bot-status           online, what it does, or offline  #connection                 shown while the server does not answer
//   #lightbox             the enlarged picture              body[data-connected]        "true" once the state has arrived

import { Composer, flatten } from "./composer.js";
import { modalFields, modalValues } from "./forms.js";
import { make } from "./markup.js";
import { colour, messageElement } from "./messages.js";

const $ = (id) => document.getElementById(id);

const LOCALES = ["en-US", "de", "es-ES", "fr", "ja", "zh-CN"];
const world = { users: [], roles: [], channels: [], commands: [], bot: {}, messages: new Map() };
// Interactions that were started here, and answers that came before the server had told their number.
const mine = new Set();
const early = new Map();
const unread = new Set();
let wanted = null;
const here = { user: localStorage.getItem("user"), channel: localStorage.getItem("channel") };

const me = () => world.users.find((user) => user.id === here.user);
const place = () => world.channels.find((channel) => channel.id === here.channel);
const userName = (id) => world.users.find((user) => user.id === id)?.name ?? "someone";
const view = {
  get me() { return here.user; },
  names: {
    user: userName,
    role: (id) => world.roles.find((role) => role.id === id)?.name ?? "role",
    channel: (id) => world.channels.find((channel) => channel.id === id)?.name ?? "somewhere",
  },
  users: () => world.users,
  // Only the server that one is in has channels and roles to choose from, and the bot knows roles of its own only.
  roles: () => (place()?.guild && !place().foreign ? world.roles : []),
  channels: (types) => world.channels.filter((one) => one.guild && one.guild === place()?.guild && (!types?.length || types.includes(one.type))),
  commands: () => flatten(world.commands),
  menu: () => world.commands.filter((command) => command.type === 3),
  press: (message, customId, values) => onMessage(message, { do: "press", custom_id: customId, values }),
  runMenu: (message, name) => onMessage(message, { do: "menu", name }),
  react: (message, emoji) => onMessage(message, { do: "react", emoji }),
  mayDelete: (message) => message.author.id === here.user || Boolean(place()?.guild && (place().foreign ? me().moderator : me().manages)),
  remove: (message) => onMessage(message, { do: "delete" }),
  dismiss: (message) => onMessage(message, { do: "dismiss" }),
  reply: (message) => composer.reply(message),
  find: (id) => show(id),
  zoom,
};
const composer = new Composer(view, act);

async function act(payload, files = []) {
  const form = new FormData();
  form.append("payload", JSON.stringify({ user: here.user, channel: here.channel, ...payload }));
  for (const file of files) form.append("file", file, file.name);
  let response;
  try {
    response = await fetch("/page/act", { method: "POST", body: form });
  } catch {
    throw new Error("The server is not answering.");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  if (answer.interaction) {
    mine.add(answer.interaction);
    const met = early.get(answer.interaction);
    if (met) interaction(met);
  }
  return answer;
}

// Act on a message; what goes wrong is said under it.
async function onMessage(message, payload) {
  const pressed = payload.custom_id && elementOf(message.id)?.querySelector(`[data-custom-id="${CSS.escape(payload.custom_id)}"]`);
  fail(message.id, "");
  try {
    pressed?.setAttribute("aria-busy", "true");
    await act({ message: message.id, channel: message.channel_id, ...payload });
  } catch (error) {
    fail(message.id, error.message);
    pressed?.removeAttribute("aria-busy");
  }
}

function fail(messageId, problem) {
  const line = elementOf(messageId)?.querySelector(".failure");
  if (!line) return;
  line.textContent = problem;
  line.hidden = !problem;
}

// What the server tells.

const told = {
  state(news) {
    world.messages.clear();
    for (const message of news.messages) channelMessages(message.channel_id).set(message.id, message);
    told.frame(news, true);
    paintChannel();
    document.body.dataset.connected = "true";
  },
  frame(news, silent) {
    const before = shownTo();
    const { guild, owner, users, roles, channels, commands, bot } = news;
    Object.assign(world, { guild, owner, users, roles, channels, commands, bot });
    const people = world.users.filter((user) => !user.bot);
    if (!people.some((user) => user.id === here.user)) here.user = people[0].id;
    if (!mayOpen(place())) here.channel = world.channels.find(mayOpen)?.id;
    paintFrame();
    if (silent) return;
    if (before !== shownTo()) paintChannel();
    composer.refresh();
    openWanted();
  },
  message({ message }) {
    channelMessages(message.channel_id).set(message.id, message);
    if (message.visible_to && message.visible_to !== here.user) return;
    if (message.channel_id !== here.channel) {
      unread.add(message.channel_id);
      return paintFrame();
    }
    const atEnd = isAtEnd();
    $("typing").textContent = "";
    $("messages").append(messageElement(message, view));
    arrange();
    if (atEnd || message.author.id === here.user) toEnd();
    announce(message);
  },
  edit({ message }) {
    const known = channelMessages(message.channel_id);
    const wasThinking = known.get(message.id)?.thinking;
    if (!known.has(message.id)) return;
    known.set(message.id, message);
    const old = elementOf(message.id);
    if (!old) return;
    const atEnd = isAtEnd();
    replaceKeepingFocus(old, messageElement(message, view));
    arrange();
    if (atEnd) toEnd();
    if (wasThinking && !message.thinking) announce(message);
  },
  delete({ ids, channel_id: channelId }) {
    for (const id of ids) {
      channelMessages(channelId).delete(id);
      elementOf(id)?.remove();
    }
    arrange();
  },
  interaction: (news) => interaction(news.interaction),
  typing({ channel_id: channelId, name }) {
    if (channelId !== here.channel) return;
    $("typing").textContent = `${name} is typing…`;
    clearTimeout(told.typingEnds);
    told.typingEnds = setTimeout(() => { $("typing").textContent = ""; }, 8000);
  },
};

function interaction(use) {
  const number = use.id;
  if (!mine.has(number)) {
    early.set(number, use);
    if (early.size > 50) early.delete(early.keys().next().value);
    if (use.user_id !== here.user) return;
  }
  const row = document.querySelector(`.pending[data-interaction="${number}"]`);
  if (use.state === "waiting") {
    if (use.type === 2 && !row && use.channel_id === here.channel) {
      const atEnd = isAtEnd();
      $("messages").append(make("div", { class: "pending", dataset: { interaction: number } }, make("span", { class: "dots", "aria-hidden": "true" }),
        make("span", { class: "pending-text" }, `Sending ${use.name}…`)));
      if (atEnd) toEnd();
    }
    return;
  }
  const source = use.source_id && elementOf(use.source_id);
  for (const busy of source ? source.querySelectorAll("[aria-busy]") : []) busy.removeAttribute("aria-busy");
  if (use.state === "missed") {
    if (source) fail(use.source_id, "This interaction failed");
    if (row && !row.classList.contains("missed")) {
      row.classList.add("missed");
      row.setAttribute("role", "alert");
      row.replaceChildren(make("span", {}, `/${use.name} – The application did not respond`),
        make("button", { type: "button", onclick: () => row.remove() }, "Dismiss"));
    }
    return;
  }
  row?.remove();
  if (use.modal && mine.delete(number)) openModal(use);
}

// The list of messages.

function channelMessages(id) {
  if (!world.messages.has(id)) world.messages.set(id, new Map());
  return world.messages.get(id);
}

// What the list of messages depends on besides them: where one is, and whether one may delete those of others.
const shownTo = () => `${here.channel} ${me()?.manages} ${me()?.moderator}`;

const elementOf = (id) => document.querySelector(`.message[data-id="${CSS.escape(id)}"]`);

function paintChannel() {
  const shown = [...channelMessages(here.channel).values()].filter((message) => !message.visible_to || message.visible_to === here.user);
  $("messages").replaceChildren(
    make("div", { class: "welcome" }, make("h2", {}, `Welcome to ${title()}`),
      make("p", {}, `Type / to see what ${world.bot.name} can do, or write a message. Everything stays on this machine.`)),
    ...shown.map((message) => messageElement(message, view)));
  arrange();
  toEnd();
}

// Messages of one author in a row share a head, unless there is something to say above them.
function arrange() {
  let before = null;
  for (const element of document.querySelectorAll(".message")) {
    const message = channelMessages(here.channel).get(element.dataset.id);
    const joined = before && message && before.author.id === message.author.id && !element.querySelector(".context")
      && Date.parse(message.timestamp) - Date.parse(before.timestamp) < 300_000;
    element.classList.toggle("joined", Boolean(joined));
    before = message;
  }
}

function replaceKeepingFocus(old, fresh) {
  const held = old.contains(document.activeElement) ? document.activeElement : null;
  const failure = old.querySelector(".failure:not([hidden])")?.textContent;
  for (const picture of old.querySelectorAll("img")) {
    // A picture that is still the same keeps its element, so that it does not flicker.
    const same = [...fresh.querySelectorAll("img")].find((image) => image.getAttribute("src") === picture.getAttribute("src"));
    same?.replaceWith(picture);
  }
  // A preview stays behind its successor until that has arrived.
  const frames = [...fresh.querySelectorAll(".picture")];
  [...old.querySelectorAll(".picture > img")].forEach((picture, index) => {
    if (frames[index]) frames[index].style.backgroundImage = `url("${picture.getAttribute("src")}")`;
  });
  old.replaceWith(fresh);
  if (failure) fail(fresh.dataset.id, failure);
  if (held?.dataset.customId) fresh.querySelector(`[data-custom-id="${CSS.escape(held.dataset.customId)}"]`)?.focus();
}

const isAtEnd = () => $("messages").scrollHeight - $("messages").scrollTop - $("messages").clientHeight < 120;

function toEnd() {
  $("messages").scrollTop = $("messages").scrollHeight;
}

function show(id) {
  const element = elementOf(id);
  if (!element) return;
  element.scrollIntoView({ block: "center" });
  element.classList.add("found");
  setTimeout(() => element.classList.remove("found"), 1500);
}

function announce(message) {
  if (message.author.id === here.user || message.thinking) return;
  const pictures = message.attachments.map((file) => file.description || file.filename).join(", ");
  $("announce").textContent = `${message.author.username}: ${message.content} ${pictures}`;
}

// The frame: channels, people, the bot.

const mayOpen = (channel) => channel && (!channel.recipient || channel.recipient === here.user);

function title() {
  const channel = place();
  if (channel?.recipient) return `@${world.bot.name}`;
  return channel?.group ? channel.name : `#${channel?.name ?? "nowhere"}`;
}

// Threads follow the channel that they are below.
function listed() {
  const visible = world.channels.filter(mayOpen);
  return visible.filter((channel) => !channel.parent).flatMap((channel) => [channel, ...visible.filter((one) => one.parent === channel.id)]);
}

function channelButton(channel) {
  const sign = channel.recipient ? "@" : channel.parent ? "↳" : channel.group ? "👥" : "#";
  return make("button", {
    type: "button", class: ["channel", unread.has(channel.id) && "unread", channel.parent && "thread"].filter(Boolean).join(" "),
    dataset: { id: channel.id }, title: channel.foreign ? `${world.bot.name} is not a member here` : undefined,
    "aria-current": channel.id === here.channel ? "page" : undefined, onclick: () => open({ channel: channel.id }),
  }, `${sign} ${channel.recipient ? world.bot.name : channel.name}`, channel.nsfw ? make("span", { class: "badge", title: "Age-restricted" }, "18+") : null);
}

function paintFrame() {
  $("guild-name").textContent = world.guild;
  const entries = listed();
  const held = document.activeElement?.classList.contains("channel") ? document.activeElement.dataset.id : null;
  $("channels").replaceChildren(...entries.map(channelButton));
  if (!entries.some((channel) => channel.recipient)) {
    $("channels").append(make("button", { type: "button", class: "channel", id: "open-dm", onclick: openDm }, `@ ${world.bot.name}`));
  }
  if (held) document.querySelector(`.channel[data-id="${held}"]`)?.focus();
  $("bot-name").textContent = world.bot.name;
  $("bot-status").textContent = world.bot.online ? world.bot.activity || "Online" : "Offline";
  $("bot-card").dataset.online = String(world.bot.online);
  const people = world.users.filter((user) => !user.bot);
  $("user-select").replaceChildren(...people.map((user) => make("option", { value: user.id, selected: user.id === here.user }, user.name)));
  $("locale-select").value = me().locale;
  $("moderator").setAttribute("aria-pressed", String(me().moderator));
  $("owner").setAttribute("aria-pressed", String(world.owner === here.user));
  $("user-avatar").textContent = userName(here.user)[0].toUpperCase();
  $("user-avatar").style.backgroundColor = colour(here.user);
  $("channel-name").textContent = title();
  $("channel-mark").hidden = !place()?.nsfw;
  $("command-box").placeholder = `Message ${title()}, or / for a command`;
  document.title = `${unread.size ? "• " : ""}${title()} – ${world.guild}`;
}

function open(change) {
  Object.assign(here, change);
  if (!mayOpen(place())) here.channel = world.channels.find(mayOpen)?.id;
  unread.delete(here.channel);
  localStorage.setItem("user", here.user);
  localStorage.setItem("channel", here.channel);
  composer.reply(null);
  paintFrame();
  paintChannel();
}

async function openDm() {
  const { channel } = await act({ do: "dm" });
  wanted = channel;
  openWanted();
}

// The answer and the news of a channel arrive in either order.
function openWanted() {
  if (!wanted || !world.channels.some((channel) => channel.id === wanted)) return;
  const channel = wanted;
  wanted = null;
  open({ channel });
}

$("locale-select").replaceChildren(...LOCALES.map((locale) => make("option", { value: locale }, locale)));
$("locale-select").addEventListener("change", (event) => act({ do: "locale", locale: event.target.value }));
$("user-select").addEventListener("change", (event) => open({ user: event.target.value }));
$("moderator").addEventListener("click", () => act({ do: "moderator" }));
$("owner").addEventListener("click", () => act({ do: "owner" }));

// Dialogs.

function zoom(address, description) {
  $("lightbox-image").src = address;
  $("lightbox-image").alt = description;
  $("lightbox-caption").textContent = description;
  $("lightbox-link").href = address;
  $("lightbox").showModal();
}

$("lightbox").addEventListener("click", (event) => event.target.tagName !== "A" && $("lightbox").close());

$("add-channel").addEventListener("click", () => {
  $("channel-form").reset();
  $("channel-error").hidden = true;
  $("channel-dialog").showModal();
});
$("channel-cancel").addEventListener("click", () => $("channel-dialog").close());
$("channel-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const { channel } = await act({ do: "channel", name: $("channel-new-name").value, nsfw: $("channel-new-nsfw").checked });
    $("channel-dialog").close();
    wanted = channel;
    openWanted();
  } catch (error) {
    $("channel-error").textContent = error.message;
    $("channel-error").hidden = false;
  }
});

let modalOf = null;

function openModal(use) {
  modalOf = use.id;
  $("modal-title").textContent = use.modal.title;
  $("modal-error").hidden = true;
  $("modal-fields").replaceChildren(...modalFields(use.modal, view));
  $("modal").showModal();
  $("modal-fields").querySelector("input, textarea, select")?.focus();
}

$("modal-cancel").addEventListener("click", () => $("modal").close());
$("modal-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { values, files } = modalValues($("modal-form"));
  try {
    await act({ do: "modal", interaction: modalOf, values }, files);
    $("modal").close();
  } catch (error) {
    $("modal-error").textContent = error.message;
    $("modal-error").hidden = false;
  }
});

// The line to the server, taken up again whenever it breaks.

function connect(wait) {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/page/socket`);
  socket.addEventListener("message", (event) => {
    $("connection").hidden = true;
    wait = 300;
    const news = JSON.parse(event.data);
    told[news.kind](news);
  });
  socket.addEventListener("close", () => {
    document.body.dataset.connected = "false";
    $("connection").hidden = false;
    setTimeout(() => connect(Math.min(wait * 1.5, 3000)), wait);
  });
}

// Keys pressed anywhere go to the box, as people expect.
document.addEventListener("keydown", (event) => {
  const busy = event.target.closest("input, textarea, select, button, a, dialog, [role=button]");
  if (!busy && event.key.length === 1 && !event.ctrlKey && !event.metaKey && !event.altKey) $("command-box").focus();
});

connect(300);
$("command-box").focus();
