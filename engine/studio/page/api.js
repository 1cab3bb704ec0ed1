// Asking the studio. What it refuses comes as an Error with its sentence.

export async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: { Prefer: "respond-async", ...(body ? { "Content-Type": "application/json" } : {}) },
      body: body && JSON.stringify(body),
    });
  } catch {
    throw new Error("The studio is not answering. Try again in a moment.");
  }
  let told = null;
  try {
    told = await answer.json();
  } catch {
    // What is no JSON says nothing that people could read.
  }
  if (!answer.ok) throw new Error(told?.detail ?? `The studio answers ${answer.status} and does not say why.`);
  return told;
}

// A file as the studio takes it in JSON.
export function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(String(reader.result)));
    reader.addEventListener("error", () => reject(new Error("This file cannot be read.")));
    reader.readAsDataURL(file);
  });
}
