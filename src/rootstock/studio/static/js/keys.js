// Keyboard shortcuts: each page defines its keys; `?` lists them.
import { fill, h } from "./dom.js";

const shared = [];
let own = [];

/** Set the keys of a page, unless it was left: lists of `{keys, what, run}`; `run` gets the event. */
export function setKeys(bindings, root) { if (root.isConnected) own = bindings; }
export function addShared(bindings) { shared.push(...bindings); }

const isTyping = (target) =>
  target.closest?.("dialog") || target.isContentEditable ||
  (target.matches?.("input, textarea, select") && target.type !== "range" && target.type !== "checkbox");

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (isTyping(event.target)) {
    if (event.key === "Escape" && !event.target.closest("dialog")) event.target.blur();
    return;
  }
  for (const one of [...own, ...shared])
    if (one.keys.includes(event.key)) {
      if (one.run(event) !== false) event.preventDefault();
      return;
    }
});

const SHOWN = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", " ": "Space", Escape: "Esc" };

export function showKeys() {
  const dialog = h("dialog", {});
  const rows = [...own, ...shared].filter((one) => one.what).flatMap((one) => [
    h("dt", {}, (one.shown || one.keys).map((key) => h("kbd", {}, SHOWN[key] || key))),
    h("dd", {}, one.what)]);
  fill(dialog, h("h1", {}, "Keyboard"), h("dl", { class: "keys" }, rows));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
