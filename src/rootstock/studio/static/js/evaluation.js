// The evaluation: figures, confusions that link to their images, and a threshold.
import { address } from "./address.js";
import { get } from "./api.js";
import { count, fill, h, percent, tile } from "./dom.js";
import { title } from "./registry.js";


const MAX_CELLS = 14, SHOWN_PAIRS = 12;

export async function drawEvaluation() {
  const found = await get("api/evaluation");
  const slices = get("api/slices");
  const shares = Object.entries(found.metrics).filter(([name, value]) => found.first.includes(name) && typeof value === "number");
  const [low, high] = [found.metrics[`${found.first[0]}_low`], found.metrics[`${found.first[0]}_high`]];
  return [
    h("div", { class: "tiles" }, shares.map(([name, value]) => tile(title(name), show(name, value, found.lower))),
      low !== undefined && tile(`${title(found.first[0])}, 95 % interval`, `${percent(low)} to ${percent(high)}`),
      tile("Test images", found.metrics.n_test.toLocaleString("en"))),
    found.said.length > 0 && [drawThreshold(found), drawConfusions(found)],
    await drawSlices(slices),
  ];
}

const show = (name, value, lower) => (lower.includes(name) || value > 1 ? value.toPrecision(3) : percent(value));
const link = (target, said) => address("data", { target, said, split: "test" });

function drawConfusions(found) {
  const wrong = found.confusions.filter((one) => one.target !== one.said);
  const heading = h("div", { class: "row" }, h("h2", {}, "Confusions"),
    h("a", { class: "button small", href: address("data", { flag: "wrong" }) }, `Show ${count(sum(wrong), "mistake")}`));
  if (found.names.length <= MAX_CELLS) return h("div", { class: "stack" }, heading, drawMatrix(found));
  return h("div", { class: "stack" }, heading, h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, "Label"), h("th", {}, "Answer"), h("th", { class: "number" }, "Images"))),
    h("tbody", {}, wrong.slice(0, SHOWN_PAIRS).map((one) => h("tr", {}, h("td", {}, one.target), h("td", {}, one.said),
      h("td", { class: "number" }, h("a", { href: link(one.target, one.said) }, one.count)))))));
}

const sum = (list) => list.reduce((total, one) => total + one.count, 0);

function drawMatrix({ names, confusions }) {
  const counts = new Map(confusions.map((one) => [`${one.target}\0${one.said}`, one.count]));
  const largest = Math.max(...confusions.map((one) => one.count));
  return h("div", { class: "wide" }, h("table", { class: "matrix" },
    h("thead", {}, h("tr", {}, h("th", { class: "corner" }, "label ↓ answer →"), names.map((name) => h("th", { title: name }, name)))),
    h("tbody", {}, names.map((target) => h("tr", {}, h("th", { title: target }, target), names.map((said) => {
      const number = counts.get(`${target}\0${said}`) || 0;
      const cell = h("td", { class: target === said ? "right" : number ? "wrong" : "" },
        number ? h("a", { href: link(target, said), title: `${target} answered ${said}; show the images` }, number) : "·");
      cell.style.setProperty("--share", number / largest);
      return cell;
    }))))));
}

/** A slider: answers below the threshold go to a person. */
function drawThreshold({ names, targets, said, certainty }) {
  if (!certainty.length) return null;
  const chosen = h("select", { "aria-label": "Class", onchange: () => draw() }, h("option", { value: "-1" }, "all classes"),
    names.map((name, i) => h("option", { value: i }, name)));
  const slider = h("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0, "aria-label": "Threshold", oninput: () => draw() });
  const figures = h("div", { class: "tiles" });
  function draw() {
    const least = Number(slider.value), one = Number(chosen.value);
    let kept = 0, right = 0, answered = 0, wanted = 0;
    for (let i = 0; i < said.length; i++) {
      const isKept = certainty[i] >= least, isOne = one < 0 || said[i] === one;
      kept += isKept;
      wanted += one < 0 || targets[i] === one;
      if (isKept && isOne) { answered += 1; right += said[i] === targets[i]; }
    }
    fill(figures, tile("Threshold", least.toFixed(2)), tile("Precision", answered ? percent(right / answered) : "–"),
      tile("Recall", wanted ? percent(right / wanted) : "–"), tile("Left for review", percent(1 - kept / said.length)));
  }
  draw();
  return h("div", { class: "stack" }, h("div", { class: "row" }, h("h2", {}, "Answer only if certain"), h("span", { class: "grow" }), chosen),
    h("p", { class: "quiet small" }, "A person reviews answers below the threshold. Certainty is the margin to the second answer. Measured on the test images."), slider, figures);
}

async function drawSlices(asked) {
  const { worse, looked_at: lookedAt } = await asked.catch(() => ({ worse: [], looked_at: 0 }));
  if (!lookedAt) return null;
  return h("div", { class: "stack" }, h("h2", {}, "Groups with more errors"), worse.length ? h("table", {},
    h("thead", {}, h("tr", {}, h("th", {}, "Images"), h("th", { class: "number" }, "Count"), h("th", { class: "number" }, "Mean error"), h("th", { class: "number" }, "Others"))),
    h("tbody", {}, worse.map((one) => h("tr", {}, h("td", {}, h("a", { href: address("data", { fact: `${one.column}=${one.value}`, split: "test" }) }, `${one.column} = ${one.value}`)),
      h("td", { class: "number" }, one.n_images), h("td", { class: "number" }, one.error.toPrecision(3)), h("td", { class: "number" }, one.others.toPrecision(3))))))
    : h("p", { class: "quiet" }, `Compared ${count(lookedAt, "group")} by metadata; none is significantly worse.`));
}
