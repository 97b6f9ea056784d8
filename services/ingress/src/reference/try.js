// Sends the calls of the page. All that comes back is shown as text. The key lives in its field and nowhere else.
"use strict";

const keyField = document.getElementById("key");

// A page that is gone, or kept by the browser to come back to, has no key.
addEventListener("pagehide", () => { if (keyField) keyField.value = ""; });

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

// Where the form's request goes, and what it carries; the page's own address has the service's in front.
function requestOf(form) {
  let path = form.dataset.path;
  const query = new URLSearchParams();
  const headers = new Headers({ accept: "*/*" });
  for (const input of form.querySelectorAll("[data-in]")) {
    const value = input.value;
    if (input.dataset.in === "path") path = path.replace(`{${input.name}}`, encodeURIComponent(value));
    else if (value === "") continue;
    else if (input.dataset.in === "query") query.append(input.name, value);
    else if (input.dataset.in === "header") headers.set(input.name, value);
  }
  if ("key" in form.dataset && keyField.value !== "") headers.set(keyField.dataset.header, keyField.value.trim());
  const init = { method: form.dataset.method, headers, redirect: "manual", credentials: "omit", cache: "no-store" };
  const body = form.elements.body;
  if (body && body.value.trim() !== "") {
    init.body = body.value;
    headers.set("content-type", "application/json");
  }
  const asked = query.size > 0 ? `?${query}` : "";
  return [new URL(`.${path}${asked}`, document.baseURI), init];
}

function pretty(text, type) {
  if (!/[/+]json/.test(type)) return text;
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

// Shows an answer as it comes: a stream goes on until it ends or is stopped.
async function show(response, outcome) {
  const at = response.type === "opaqueredirect" ? "Redirected elsewhere" : `${response.status} ${response.statusText}`;
  const good = response.ok || response.type === "opaqueredirect";
  outcome.append(element("p", `status ${good ? "good" : "bad"}`, at));
  const lines = [...response.headers].map(([name, value]) => `${name}: ${value}`);
  if (lines.length > 0) outcome.append(element("pre", "headers", lines.join("\n")));
  if (response.body === null) return;
  const body = element("pre", "body", "");
  body.tabIndex = 0;
  outcome.append(body);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) body.append(read.value);
  body.textContent = pretty(body.textContent, response.headers.get("content-type") ?? "");
  if (body.textContent === "") body.remove();
}

async function send(form, outcome, stop) {
  const aborting = new AbortController();
  const button = form.querySelector("[type=submit]");
  stop.onclick = () => aborting.abort();
  button.disabled = true;
  stop.hidden = false;
  outcome.replaceChildren();
  try {
    const [url, init] = requestOf(form);
    await show(await fetch(url, { ...init, signal: aborting.signal }), outcome);
  } catch (error) {
    const what = error.name === "AbortError" ? "Stopped" : `Not sent, or not answered: ${error.message}`;
    outcome.append(element("p", "status bad", what));
  } finally {
    button.disabled = false;
    stop.hidden = true;
  }
}

for (const place of document.querySelectorAll(".try")) {
  const form = place.querySelector("form");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form, place.querySelector(".outcome"), form.querySelector(".stop"));
  });
  place.hidden = false;
}
const keyForm = document.getElementById("key-form");
if (keyForm) {
  keyForm.addEventListener("submit", (event) => event.preventDefault());
  keyForm.hidden = false;
}
// On a narrow page the list of calls would be all that is seen.
if (matchMedia("(max-width: 60rem)").matches) document.querySelector("nav details").open = false;
