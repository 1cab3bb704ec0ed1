// Discord's Markdown, the part that people meet daily, as DOM nodes. Text only ever becomes text nodes: nothing here parses HTML.

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

// The address if it is a web address, else null: javascript: and its kin never become links.
export function webAddress(text) {
  try {
    const address = new URL(text);
    return address.protocol === "https:" || address.protocol === "http:" ? address.href : null;
  } catch {
    return null;
  }
}

// Files of this server are fetched from wherever the page came from (127.0.0.1 or localhost); others are not shown.
export function localFile(address) {
  const url = webAddress(address || "");
  if (!url) return null;
  const { pathname, search } = new URL(url);
  return pathname.startsWith("/attachments/") ? pathname + search : null;
}

const INLINE = new RegExp(
  [
    "```(?:[\\w+-]*\\n)?(?<block>[\\s\\S]+?)```",
    "``(?<code2>.+?)``",
    "`(?<code>[^`\\n]+)`",
    "\\\\(?<escaped>[\\\\*_~`|<>\\[\\]()#:.-])",
    "\\*\\*(?<bold>[\\s\\S]+?)\\*\\*(?!\\*)",
    "__(?<under>[\\s\\S]+?)__",
    "~~(?<strike>[\\s\\S]+?)~~",
    "\\|\\|(?<spoiler>[\\s\\S]+?)\\|\\|",
    "\\*(?<star>[^\\s*](?:[^*]*[^\\s*])?)\\*",
    "(?<![\\w])_(?<line>[^_]+)_(?![\\w])",
    "\\[(?<label>[^\\]\\n]+)\\]\\(<?(?<target>https?://[^\\s)>]+)>?\\)",
    "<(?<bare2>https?://[^\\s>]+)>",
    "(?<bare>https?://[^\\s<>]*[^\\s<>.,:;\"'\\])])",
    "<t:(?<unix>-?\\d{1,13})(?::(?<style>[tTdDfFR]))?>",
    "<@!?(?<user>\\d{1,20})>",
    "<@&(?<role>\\d{1,20})>",
    "<#(?<channel>\\d{1,20})>",
  ].join("|"),
  "g",
);

function link(address, ...children) {
  const safe = webAddress(address);
  return safe ? make("a", { href: safe, target: "_blank", rel: "noopener noreferrer" }, ...children) : document.createTextNode(address);
}

function inline(text, names, depth = 0) {
  const nodes = [];
  let from = 0;
  if (depth > 8) return [document.createTextNode(text)];
  for (const match of text.matchAll(INLINE)) {
    nodes.push(text.slice(from, match.index));
    from = match.index + match[0].length;
    const g = match.groups;
    const inner = (part) => inline(part, names, depth + 1);
    if (g.block !== undefined) nodes.push(make("pre", {}, make("code", {}, g.block)));
    else if (g.code ?? g.code2) nodes.push(make("code", {}, g.code ?? g.code2));
    else if (g.escaped) nodes.push(g.escaped);
    else if (g.bold) nodes.push(make("strong", {}, ...inner(g.bold)));
    else if (g.under) nodes.push(make("u", {}, ...inner(g.under)));
    else if (g.strike) nodes.push(make("s", {}, ...inner(g.strike)));
    else if (g.spoiler) nodes.push(spoiler(inner(g.spoiler)));
    else if (g.star ?? g.line) nodes.push(make("em", {}, ...inner(g.star ?? g.line)));
    else if (g.label) nodes.push(link(g.target, ...inner(g.label)));
    else if (g.bare ?? g.bare2) nodes.push(link(g.bare ?? g.bare2, g.bare ?? g.bare2));
    else if (g.unix) nodes.push(moment(Number(g.unix), g.style || "f"));
    else if (g.user) nodes.push(make("span", { class: "mention", dataset: { user: g.user } }, `@${names.user(g.user)}`));
    else if (g.role) nodes.push(make("span", { class: "mention" }, `@${names.role(g.role)}`));
    else if (g.channel) nodes.push(make("span", { class: "mention" }, `#${names.channel(g.channel)}`));
  }
  nodes.push(text.slice(from));
  return nodes.filter((node) => node !== "");
}

function spoiler(children) {
  const cover = make("span", { class: "spoiler", role: "button", tabindex: "0", "aria-label": "Spoiler, show it" }, ...children);
  const show = () => {
    cover.classList.add("shown");
    cover.removeAttribute("role");
    cover.removeAttribute("aria-label");
  };
  cover.addEventListener("click", show);
  cover.addEventListener("keydown", (event) => (event.key === "Enter" || event.key === " ") && show());
  return cover;
}

// Turn a text into nodes. `names` tells what <@id>, <@&id> and <#id> are called.
export function markdown(text, names) {
  const root = document.createDocumentFragment();
  // Code blocks keep their lines; everything else is laid out line by line.
  const parts = text.split(/(```[\s\S]+?```)/);
  for (const part of parts) {
    if (part.startsWith("```") && part.length > 6) {
      root.append(...inline(part, names));
      continue;
    }
    let plain = [];
    const flush = () => {
      if (plain.length) root.append(...inline(plain.join("\n"), names));
      plain = [];
    };
    for (const line of part.split("\n")) {
      const shape = line.match(/^(?<mark>#{1,3}|-#|>|[-*]) (?<rest>.+)$/);
      if (!shape) {
        plain.push(line);
        continue;
      }
      flush();
      const { mark, rest } = shape.groups;
      const tag = mark === ">" ? "blockquote" : mark === "-#" ? "small" : mark[0] === "#" ? "strong" : "div";
      const kind = mark[0] === "#" ? `heading h${mark.length}` : mark === "-" || mark === "*" ? "item" : "line";
      root.append(make(tag, { class: kind }, ...inline(rest, names)));
    }
    flush();
  }
  return root;
}

// Times that count themselves.

const UNITS = [["year", 31536000], ["month", 2592000], ["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "always" });

function written(unix, style) {
  const date = new Date(unix * 1000);
  if (Number.isNaN(date.getTime())) return "Invalid date";
  if (style === "R") {
    const seconds = Math.round(unix - Date.now() / 1000);
    const [unit, size] = UNITS.find(([, length]) => Math.abs(seconds) >= length) || UNITS.at(-1);
    return relative.format(Math.trunc(seconds / size), unit);
  }
  const styles = {
    t: { timeStyle: "short" }, T: { timeStyle: "medium" }, d: { dateStyle: "short" }, D: { dateStyle: "long" },
    f: { dateStyle: "long", timeStyle: "short" }, F: { dateStyle: "full", timeStyle: "short" },
  };
  return date.toLocaleString("en", styles[style]);
}

function moment(unix, style) {
  const date = new Date(unix * 1000);
  const iso = Number.isNaN(date.getTime()) ? undefined : date.toISOString();
  return make("time", { class: "stamp", datetime: iso, dataset: { unix, style } }, written(unix, style));
}

setInterval(() => {
  for (const time of document.querySelectorAll('time.stamp[data-style="R"]')) {
    const text = written(Number(time.dataset.unix), "R");
    if (time.textContent !== text) time.textContent = text;
  }
}, 500);
