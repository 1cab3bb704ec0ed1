// The brush for one picture, for whoever has the link that Discord showed. Confirming uses the link up, looking does not.
//
// For browser tests these hold still: .stage and the brush's [data-do=NAME], #prompt, .send, #problem, #told; body[data-ready].

import { ask } from "./api.js";
import { Brush } from "./brush.js";
import { $, make, say } from "./dom.js";

const brush = new Brush();

async function open() {
  try {
    const sheet = await ask("GET", `${location.pathname}/sheet`);
    const image = make("img", { alt: "" });
    image.src = sheet.picture;
    await image.decode();
    $("where").textContent = `The result will be posted in ${sheet.channel}. This link works once, until ${
      new Date(sheet.expires_at).toLocaleTimeString([], { timeStyle: "short" })}.`;
    $("prompt").value = sheet.prompt;
    $("where").after(brush.element);
    brush.show(image);
    $("paint").hidden = false;
  } catch (error) {
    end(error instanceof DOMException ? "The picture could not be loaded. Open the link again." : error.message);
  }
  document.body.dataset.ready = "true";
}

function end(text) {
  $("paint").hidden = true;
  say($("told"), text);
}

$("paint").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = $("paint").querySelector(".send");
  say($("problem"), "");
  const problem = brush.isEmpty ? "Paint over what is to be repainted first." : brush.isFull ? "Leave something of the picture."
    : $("prompt").value.trim() ? "" : "Write what the whole picture shows afterwards.";
  if (problem) return say($("problem"), problem);
  button.disabled = true;
  try {
    const { told } = await ask("POST", location.pathname, { prompt: $("prompt").value, mask: brush.mask() });
    end(`${told} You may close this page.`);
  } catch (error) {
    say($("problem"), error.message);
  }
  return (button.disabled = false);
});

open();
