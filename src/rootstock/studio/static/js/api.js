// Requests to the studio. A problem (RFC 9457) becomes an Error with `todo`, what to do about it.
import { h } from "./dom.js";

export const state = { session: null };

export class Problem extends Error {
  constructor(body, status) {
    super(body.detail || "The request failed.");
    this.todo = body.todo || "";
    this.status = status;
    this.body = body;
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({
      detail: "The studio does not answer. All confirmed changes are saved.",
      todo: "start `rootstock studio` again; this page continues when it is back",
    }, 0);
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  throw new Problem(body, answer.status);
}

/** Return a route's JSON answer; `parameters` may contain lists. */
export async function get(path, parameters = {}, signal = undefined) {
  return (await ask(path + search(parameters), { signal })).json();
}

export async function getBytes(path, parameters = {}) {
  return (await ask(path + search(parameters))).arrayBuffer();
}

export async function send(method, path, body = {}) {
  const answer = await ask(path, {
    method,
    headers: { "Content-Type": "application/json", "X-Studio-Token": state.session?.token || "" },
    body: JSON.stringify(body),
  });
  return answer.json();
}

export const post = (path, body) => send("POST", path, body);

export async function readSession() {
  state.session = await get("api/session");
  return state.session;
}

export function search(parameters) {
  const list = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters))
    for (const one of [value].flat())
      if (one !== "" && one !== null && one !== undefined) list.append(name, one);
  const text = list.toString();
  return text ? `?${text}` : "";
}

/** Show a message at the bottom of the page; errors stay until they are closed. Return its `close`. */
export function toast(text, { todo = "", bad = false, action = null } = {}) {
  const place = document.getElementById("toasts");
  for (const old of place.children) if (old.dataset.text === text) old.remove();
  const close = () => box.remove();
  const box = h("div", { class: bad ? "toast bad" : "toast", data: { text } },
    h("div", {}, text, todo && h("div", { class: "small quiet" }, `→ ${todo}`)),
    action && h("button", { class: "small", type: "button",
      onclick: () => { close(); action.run(); } }, action.name),
    h("button", { class: "plain small", type: "button", title: "Close", onclick: close }, "✕"));
  place.append(box);
  if (!bad) setTimeout(close, 5000);
  while (place.children.length > 3) place.firstChild.remove();
  return close;
}

export const report = (error) => {
  if (error.name === "AbortError") return;
  if (error.status === 401) { location.reload(); return; }
  toast(error.message, { todo: error.todo, bad: true });
  if (!(error instanceof Problem)) throw error;
};

/** Return what a page shows in place of content that it could not read. */
export function explain(error) {
  if (!(error instanceof Problem)) throw error;
  return h("div", { class: "empty" }, h("p", {}, error.message),
    error.todo && h("p", {}, "→ ", error.todo));
}
