// The head fitted again to the current labels, and its gain over the model.
import { get, post, report, state } from "./api.js";
import { count, fill, h, percent } from "./dom.js";
import { followChampion } from "./service.js";

/** Number of new labels after which the head is fitted again automatically. */
const EVERY = 10, LOOK_MILLISECONDS = 500;

/** Return the button with the current state; `count` is called for each saved label. */
export function makeRefit() {
  const button = h("button", { type: "button", title: "Fit the head to the current labels", onclick: () => open() }, "New head");
  let found = null, labels = 0, timer = 0, dialog = null, service = null;

  async function look() {
    clearTimeout(timer);
    try {
      const before = found;
      found = await get("api/refit");
      draw();
      if (before && !before.outcome && found.outcome?.alias === "champion")
        followChampion(found.outcome.version, (state) => { service = state; draw(); }).catch(report);
      if (found.work) timer = setTimeout(look, LOOK_MILLISECONDS);
    } catch (error) { report(error); }
  }

  async function start() {
    labels = 0;
    try { await post("api/refit"); await look(); } catch (error) { report(error); }
  }

  async function register() {
    service = null;
    try { await post("api/champion/refit"); await look(); } catch (error) { report(error); }
  }

  function gain() {
    const { comparison } = found;
    if (!comparison || comparison.champion === null) return "";
    const points = 100 * (comparison.challenger - comparison.champion);
    return `${points >= 0 ? "+" : "−"}${Math.abs(points).toFixed(1)} points`;
  }

  function draw() {
    if (found.work) fill(button, found.work === "refit" ? "Fitting …" : "Registering …");
    else fill(button, "New head", found.metrics && h("span", { class: "chip leaf" }, gain() || "ready"));
    if (dialog?.open) fill(dialog, content());
  }

  function content() {
    const { comparison, problem, outcome } = found;
    const interval = comparison?.gain_interval;
    return [
      h("div", { class: "row" }, h("h1", {}, "New head"), h("span", { class: "grow" }),
        h("button", { type: "button", onclick: () => dialog.close() }, "Close")),
      h("p", { class: "quiet" }, "Fits the model's head again to the current labels, in seconds. The backbone does not change."),
      found.work && h("progress", {}),
      problem && h("div", { class: "box bad" }, problem.text, problem.todo && h("div", { class: "small" }, "→ ", problem.todo)),
      found.metrics && !found.work && [
        h("table", {}, h("tbody", {},
          comparison && h("tr", {}, h("td", {}, `Current model, ${comparison.metric.replaceAll("_", " ")}`), h("td", { class: "number" }, show(comparison.champion))),
          comparison && h("tr", {}, h("td", {}, "New head"), h("td", { class: "number" }, show(comparison.challenger))),
          interval && h("tr", {}, h("td", {}, "Gain, 95 % interval"), h("td", { class: "number" }, `${points(interval[0])} to ${points(interval[1])} points`)),
          h("tr", {}, h("td", {}, "Corrected labels"), h("td", { class: "number" }, found.corrected)),
          h("tr", {}, h("td", {}, "Time"), h("td", { class: "number" }, `${found.seconds.toFixed(1)} s`)))),
        !outcome && h("p", {}, verdict(comparison)),
        outcome && h("div", { class: "box warn" }, outcome.reason),
        outcome && service && h("div", { class: service.bad ? "box bad" : "box" }, service.text, service.todo && h("div", { class: "small" }, "→ ", service.todo)),
      ],
      h("div", { class: "row" }, h("button", { type: "button", class: found.metrics ? "" : "main", disabled: Boolean(found.work), onclick: start },
        `Fit to ${count(found.waiting, "corrected label")}`),
      found.metrics && !outcome && h("button", { class: "main", type: "button", disabled: Boolean(found.work) || state.session.role !== "admin", onclick: register },
        "Register and compare with the champion")),
      h("p", { class: "quiet small" }, "A full run may choose another strategy: dvc repro, or rootstock train."),
    ];
  }

  async function open() {
    await look();
    dialog = h("dialog", { class: "reader stack" });
    fill(dialog, content());
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }

  return {
    element: button,
    count: () => { labels += 1; if (labels >= EVERY && !found?.work) start(); },
    end: () => { clearTimeout(timer); dialog?.close(); },
  };
}

function verdict(comparison) {
  if (!comparison) return "The classes have changed, so the two models cannot be compared.";
  if (comparison.promote) return "By the rule of the gate, the new head would become the champion.";
  const isWorse = comparison.gain_interval && comparison.gain_interval[1] < 0;
  const why = isWorse ? "The new head is worse." : "The test images do not show that the new head is better.";
  return `${why} By the rule of the gate, the model would stay.`;
}

const show = (value) => (value === null ? "–" : value <= 1 ? percent(value) : value.toPrecision(3));
const points = (share) => `${share >= 0 ? "+" : "−"}${Math.abs(100 * share).toFixed(1)}`;
