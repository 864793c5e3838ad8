// The Models page: progress, plan, evaluation, and the champion.
import { get, post, report, state as session } from "./api.js";
import { fill, h, percent, prose, tile } from "./dom.js";
import { drawEvaluation } from "./evaluation.js";
import { setKeys } from "./keys.js";
import { drawRegistry } from "./registry.js";

const STAGES = { index: "Index", assess: "Assess", plan: "Plan", features: "Features", train: "Train", evaluate: "Evaluate", register: "Register" };
const LOOK_MILLISECONDS = 2000;

/** Fill a section with the result of `draw`; an error is shown with what to do about it. */
async function section(title, draw, extra = null) {
  const body = h("div", { class: "stack" });
  const box = h("section", { class: "card stack" }, h("div", { class: "row" }, h("h1", {}, title), h("span", { class: "grow" }), extra), body);
  try {
    fill(body, await draw(body));
  } catch (error) {
    if (!("todo" in error)) throw error;
    fill(body, h("p", { class: "quiet" }, error.message), error.todo && h("p", { class: "quiet" }, "→ ", error.todo));
  }
  return box;
}

function drawProgress(place, state) {
  const steps = h("ol", { class: "stages" }, state.stages.map((one) => h("li", {
    class: state.running && one.name === state.stage ? "now" : one.at && (!state.running || one.fresh) ? "done" : "" }, STAGES[one.name])));
  const minutes = state.seconds >= 90 ? `${Math.round(state.seconds / 60)} minutes` : `${state.seconds} s`;
  fill(place, h("div", { class: "row" }, h("h2", {}, state.running ? `Running: ${STAGES[state.stage]}` : "Nothing is running"),
    h("span", { class: "quiet small" }, state.running ? `since ${minutes}` : "")), steps,
  state.running && state.share !== undefined && h("progress", { value: state.share, max: 1 }),
  state.running && state.text && h("p", { class: "quiet small" }, state.text));
}

// The whole pipeline: reasons to run it, a button, and its output.
async function drawRun(place) {
  const run = await get("api/run"), canRun = session.session.role === "admin";
  const again = async (path) => {
    try { await post(`api/run/${path}`); } catch (error) { report(error); }
    fill(place, await drawRun(place));
  };
  const { advice } = run, pays = Boolean(advice?.pays) && !run.running;
  const log = run.log && h("pre", { class: "log small" }, run.log);
  return [
    advice ? h("div", { class: pays ? "box warn" : "" }, pays && h("b", {}, "A full run is worthwhile. "), advice.why) : h("p", { class: "quiet" }, "No plan yet."),
    advice && h("div", { class: "tiles" }, tile("Changed training labels", `${advice.changed} of ${advice.n_train.toLocaleString("en")}`),
      advice.points && tile("Fine-tuning should add", `${signed(advice.points[0])} to ${signed(advice.points[1])} points`),
      advice.minutes !== null && tile(pays ? "Expected training" : "The last training", minutes(advice.minutes))),
    h("div", { class: "row" }, run.running
      ? h("button", { type: "button", disabled: !canRun, onclick: () => again("stop") }, "Stop")
      : h("button", { type: "button", class: pays ? "main" : "", disabled: !canRun, onclick: () => again("start") }, `Run ${run.command}`),
    run.code !== null && h("span", { class: run.code ? "chip bad" : "chip leaf" }, run.code ? `ended with an error (${run.code})` : "done"),
    !canRun && h("span", { class: "quiet small" }, "This needs an admin key.")),
    log && h("details", { open: run.running || Boolean(run.code) }, h("summary", {}, "Output"), log),
  ];
}

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`;
const minutes = (value) => (value < 1 ? "under a minute" : `${Math.round(value)} min`);

function drawPlan(plan) {
  const { forecast } = plan, chosen = plan.candidates.find((one) => one.strategy === plan.strategy);
  const range = chosen?.expected_accuracy;
  return [
    h("div", { class: "tiles" },
      tile("Strategy", plan.strategy.replaceAll("_", " ")), tile("Backbone", plan.backbone), tile("Data", plan.size_class),
      range && tile(`Expected ${plan.score_name}`, `${percent(range[0])} to ${percent(range[1])}`),
      forecast && tile("Measured", percent(forecast.test_accuracy), forecast.as_expected === false ? "bad" : "")),
    h("details", {}, h("summary", {}, "Why: the evidence for each choice"), h("table", { class: "evidence" }, h("tbody", {}, plan.reasons.map((one) =>
      h("tr", {}, h("th", {}, one.choice), h("td", {}, h("b", {}, one.value), one.pinned && h("span", { class: "chip" }, "set by you"),
        h("div", { class: "quiet small" }, prose(one.why)))))))),
  ];
}

export async function showModels(root) {
  const progress = h("section", { class: "card stack" });
  const pipeline = h("div", { class: "stack" });
  const whole = h("section", { class: "card stack" }, h("h1", {}, "The whole pipeline"), pipeline);
  const column = h("div", { class: "column" }, progress, whole);
  fill(root, h("div", { class: "scroll" }, column));
  let wasRunning = null, timer = 0, ended = false;
  async function look() {
    try {
      const state = await get("api/progress");
      drawProgress(progress, state);
      if (state.running || wasRunning) fill(pipeline, await drawRun(pipeline));
      if (wasRunning && !state.running) root.dispatchEvent(new CustomEvent("again"));
      wasRunning = state.running;
    } catch (error) { report(error); }
    if (!ended) timer = setTimeout(look, LOOK_MILLISECONDS);
  }
  async function draw() {
    column.replaceChildren(progress, whole);
    fill(pipeline, await drawRun(pipeline));
    for (const box of await Promise.all([section("Plan", async () => drawPlan(await get("api/plan"))),
      section("Champion and challenger", drawRegistry), section("Evaluation", drawEvaluation)])) column.append(box);
  }
  root.addEventListener("again", draw);
  setKeys([], root);
  await look();
  await draw();
  return () => { ended = true; clearTimeout(timer); root.removeEventListener("again", draw); };
}
