// Champion and challenger side by side, and the champion's history.
import { get, post, report, state, toast } from "./api.js";
import { count, fill, h, percent } from "./dom.js";
import { followChampion } from "./service.js";

const KINDS = { gate: "by the gate", promotion: "promoted", rollback: "rolled back", adopted: "adopted" };
const NAMES = { accuracy: "Accuracy", balanced_accuracy: "Balanced accuracy", macro_f1: "Macro F1", log_loss: "Log loss", ece: "Calibration error",
  brier: "Brier score", coverage_95: "Coverage of 95 % sets", set_size_95: "Size of 95 % sets", unknown_share: "Unlike the training images",
  robust_accuracy: "Accuracy under corruptions", n_test: "Test images", mean_iou: "Mean overlap (IoU)",
  median_iou: "Median overlap (IoU)" };
export const title = (name) => NAMES[name] || (name[0].toUpperCase() + name.slice(1)).replaceAll("_", " ");

export async function drawRegistry(place) {
  const listed = await get("api/models");
  const again = async () => { fill(place, await drawRegistry(place)); };
  const { champion, challenger, previous_champion: previous } = listed.compared;
  const canDecide = state.session.role === "admin";
  const act = (path, body, what) => ask(what, async (why) => {
    try {
      const done = await post(`api/champion/${path}`, { ...body, why, who: localStorage.getItem("studio.who") || "" });
      let close = () => {};
      followChampion(done.version, ({ text, ...more }) => { close(); close = toast(text, more); }).catch(report);
    } catch (error) { report(error); }
    again().catch(report);
  });
  const second = challenger || previous;
  return [
    listed.moved && h("div", { class: "box warn" }, `The alias champion was moved to version ${listed.moved} outside of Rootstock.`),
    champion ? side(champion, second, challenger ? "Challenger" : "Previous champion") : h("p", { class: "quiet" }, "There is no champion yet."),
    challenger && gate(listed, challenger),
    h("div", { class: "row" },
      challenger && h("button", { class: "main", type: "button", disabled: !canDecide, onclick: () => act("promote", { version: challenger.version,
        expect: champion?.version || "" }, `Make version ${challenger.version} the champion?`) }, `Promote version ${challenger.version}`),
      previous && h("button", { type: "button", disabled: !canDecide, onclick: () => act("rollback", {}, `Make version ${previous.version} the champion again?`) },
        `Roll back to version ${previous.version}`),
      champion?.card && h("button", { type: "button", onclick: () => showCard(champion) }, "Model card"),
      !canDecide && h("span", { class: "quiet small" }, "Promoting needs an admin key.")),
    h("details", {}, h("summary", {}, `History: ${count(listed.changes.length, "change")}, ${count(listed.versions.length, "version")}`),
      h("table", {}, h("tbody", {}, listed.changes.map((one) => h("tr", {}, h("td", { class: "number" }, one.number),
        h("td", {}, h("b", {}, `Version ${one.version}`), ` ${KINDS[one.kind] || one.kind}`, h("div", { class: "quiet small" }, one.why)),
        h("td", { class: "quiet small" }, one.by, h("br"), new Date(1000 * one.at).toLocaleString()))))),
      h("h3", {}, "Versions"), h("table", {}, h("tbody", {}, listed.versions.map((one) => h("tr", {}, h("td", {}, `Version ${one.version}`, " ",
        one.aliases.map((alias) => h("span", { class: "chip leaf" }, alias.replaceAll("_", " ")))), h("td", { class: "quiet small" }, one.gate),
        h("td", {}, canDecide && one.version !== champion?.version && h("button", { class: "small", type: "button", onclick: () => act("promote",
          { version: one.version, expect: champion?.version || "" }, `Make version ${one.version} the champion?`) }, "Promote"))))))),
  ];
}

function gate(listed, model) {
  const said = listed.versions.find((one) => one.version === model.version)?.gate;
  return said && h("p", { class: "quiet" }, "The gate: ", said);
}

function side(champion, second, heading) {
  const names = Object.keys(champion.metrics).filter((name) => typeof champion.metrics[name] === "number" && !/^val_|_low$|_high$|temperature/.test(name));
  const cell = (model, name) => {
    const value = model?.metrics[name];
    return value === undefined ? "–" : value >= 0 && value <= 1 && !/loss|ece|brier|size/.test(name) ? percent(value) : Number(value.toPrecision(3)).toLocaleString("en");
  };
  return h("div", { class: "wide" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, ""), h("th", { class: "number" }, `Champion, version ${champion.version}`),
    second && h("th", { class: "number" }, `${heading}, version ${second.version}`))),
  h("tbody", {}, h("tr", {}, h("td", {}, "Strategy"), h("td", { class: "number" }, champion.strategy.replaceAll("_", " ")), second && h("td", { class: "number" }, second.strategy.replaceAll("_", " "))),
    names.map((name) => h("tr", {}, h("td", {}, title(name)), h("td", { class: "number" }, cell(champion, name)),
      second && h("td", { class: "number" }, cell(second, name)))))));
}

function ask(what, run) {
  const why = h("input", { type: "text", maxLength: 200, placeholder: "Reason, for the history", "aria-label": "Reason" });
  const dialog = h("dialog", {}, h("form", { onsubmit: (event) => { event.preventDefault(); dialog.close(); run(why.value.trim()); } },
    h("h1", {}, what), why, h("div", { class: "row" }, h("button", { class: "main" }, "Yes"),
      h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"))));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

function showCard(model) {
  const dialog = h("dialog", { class: "reader" }, h("div", { class: "row" }, h("h1", {}, `Card of version ${model.version}`), h("span", { class: "grow" }),
    h("button", { type: "button", onclick: () => dialog.close() }, "Close")), h("pre", { class: "card-text" }, model.card));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
