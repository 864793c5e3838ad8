// The source of the Label page's queue, and the folder of images without labels.
import { address } from "./address.js";
import { get, post, report, state } from "./api.js";
import { count, fill, h } from "./dom.js";

const SOURCES = { all: "All, most urgent first", labels: "Doubtful labels", requests: "Service requests",
  pool: "Unlabelled folder" };
const LOOK_MILLISECONDS = 700;

/** Return the source selector and, for a folder, its panel; `ranked` is called when the list has changed. */
export function makeSource(chosen, ranked) {
  const choice = h("select", { "aria-label": "Images to label", onchange: () => {
    location.hash = address("label", choice.value === "all" ? {} : { source: choice.value });
  } }, Object.entries(SOURCES).map(([value, name]) => h("option", { value, selected: value === chosen }, name)));
  const panel = h("div", { class: "pool" });
  let timer = 0, ended = false;

  async function look(wasWorking = false) {
    clearTimeout(timer);
    const pool = await get("api/pool");
    if (ended) return;
    draw(pool);
    if (pool.working) timer = setTimeout(() => look(true).catch(report), LOOK_MILLISECONDS);
    else if (wasWorking && !pool.problem) ranked();
  }

  async function act(path, body) {
    try { await post(path, body); await look(true); } catch (error) { report(error); }
  }

  function draw(pool) {
    const canChoose = state.session.role === "admin";
    const folder = h("input", { type: "text", placeholder: "Folder on the studio's machine", "aria-label": "Folder", value: pool.folder, disabled: !canChoose });
    fill(panel, h("form", { class: "row", onsubmit: (event) => { event.preventDefault(); act("api/pool/choose", { folder: folder.value }); } },
      folder, canChoose && h("button", { disabled: pool.working }, "Scan folder"),
      pool.images > 0 && h("button", { type: "button", disabled: pool.working, onclick: () => act("api/pool/rank") }, "Rank the rest")),
    pool.working && h("progress", pool.total ? { value: pool.done, max: pool.total } : {}),
    pool.problem && h("div", { class: "box bad small" }, pool.problem.text, pool.problem.todo && h("div", {}, "→ ", pool.problem.todo)),
    h("p", { class: "quiet small" }, pool.images ? `${count(pool.images, "image")} without a label; the queue has the ${pool.ranked} that help the model most. ` : "",
      pool.unusable > 0 && `${count(pool.unusable, "file")} unusable. `,
      "A labelled image is copied into the data; the folder does not change."));
  }

  if (chosen === "pool") look().catch(report);
  return { choice, panel: chosen === "pool" ? panel : null, rank: () => act("api/pool/rank"), end: () => { ended = true; clearTimeout(timer); } };
}
