// The frame of the page: user, navigation, and warnings.
import { place } from "./address.js";
import { explain, post, readSession, report, state } from "./api.js";
import { fill, h } from "./dom.js";
import { addShared, setKeys, showKeys } from "./keys.js";
import { showData } from "./data.js";
import { showLabel } from "./label.js";
import { showModels } from "./models.js";
import { showProduction } from "./production.js";

const PAGES = [
  { path: "data", name: "Data", key: "d", show: showData },
  { path: "label", name: "Label", key: "l", show: showLabel },
  { path: "models", name: "Models", key: "o", show: showModels },
  { path: "production", name: "Production", key: "p", show: showProduction },
];
let leave = () => {};

export function showNotes() {
  const notes = state.session.project?.notes || [];
  fill(document.getElementById("notes"), notes.map((note) => h("div", { class: "note" },
    h("b", {}, note.text), h("span", {}, note.todo))));
}

function drawNav(current) {
  fill(document.getElementById("nav"), PAGES.map((page) => h("a", {
    href: `#/${page.path}`, "aria-current": page === current ? "page" : null }, page.name)));
}

async function show() {
  const page = PAGES.find((one) => one.path === place().path) || PAGES[0];
  const before = document.getElementById("page");
  if (before.dataset.page === page.path && before.onaddress) { before.onaddress(); return; }
  leave();
  leave = () => {};
  // A page that was left while it loaded must not draw over the next one, nor take its keys.
  const root = before.cloneNode(false);
  before.replaceWith(root);
  setKeys([], root);
  root.dataset.page = page.path;
  drawNav(page);
  document.title = `${page.name} · ${state.session.project.name}`;
  try {
    const end = (await page.show(root)) || (() => {});
    if (root.isConnected) leave = end;
    else end();
  } catch (error) {
    fill(root, explain(error));
  }
}

function askForKey() {
  const input = h("input", { type: "password", autocomplete: "current-password", required: true,
    "aria-label": "Key" });
  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    try {
      state.session = await post("api/session", { key: input.value.trim() });
      dialog.close();
      begin();
    } catch (error) { report(error.status === 401 ? Object.assign(error, { status: 403 }) : error); }
  } }, h("h1", {}, "Rootstock studio"), h("p", { class: "quiet" }, "Log in with your key."),
  input, h("button", { class: "main" }, "Log in"));
  const dialog = h("dialog", { oncancel: (event) => event.preventDefault() }, form);
  document.body.append(dialog);
  dialog.showModal();
}

function begin() {
  document.getElementById("project").textContent = state.session.project.name;
  showNotes();
  addShared([
    ...PAGES.map((page) => ({ keys: [page.key], what: `${page.name} page`,
      run: () => { location.hash = `#/${page.path}`; } })),
    { keys: ["?"], what: "Show this list", run: showKeys },
  ]);
  window.addEventListener("hashchange", show);
  show();
}

document.getElementById("help").addEventListener("click", showKeys);
readSession().then((session) => (session.role ? begin() : askForKey()))
  .catch((error) => fill(document.getElementById("page"), explain(error)));
