// The Production page: the service's work, how far its images are from the training images, and
// how often it is right.
import { address } from "./address.js";
import { get, post, report, state, toast } from "./api.js";
import { count, fill, h, percent, tile } from "./dom.js";
import { setKeys } from "./keys.js";
import { askName } from "./label.js";

const LOOK_MILLISECONDS = 5000;
const time = (milliseconds) => new Date(milliseconds).toLocaleString();
const short = (seconds) => (seconds === null ? "–" : seconds < 1 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(1)} s`);

function drawService({ service, problem }) {
  if (problem) return h("section", { class: "card stack" }, h("h1", {}, "Service"), h("p", {}, problem.text), h("p", { class: "quiet" }, "→ ", problem.todo));
  if (!service) return null;
  const { latency, model, drift } = service;
  return h("section", { class: "card stack" },
    h("div", { class: "row" }, h("h1", {}, "Service"), h("span", { class: service.ready ? "chip leaf" : "chip bad" }, service.ready ? "ready" : "not ready"),
      h("span", { class: "grow" }), h("span", { class: "quiet small" }, service.address)),
    h("div", { class: "tiles" }, model && tile("Model", `${model.name} ${model.version}`), tile("Requests", service.requests.toLocaleString("en")),
      tile("Failed", service.failed.toLocaleString("en"), service.failed ? "bad" : ""), tile("Median", short(latency.p50)), tile("95 %", short(latency.p95)),
      tile("99 %", short(latency.p99)), tile("Unknown images", service.images ? percent(service.unknown / service.images) : "–"),
      drift && drift.images >= drift.needed && Object.entries(drift.psi).map(([name, value]) =>
        tile(`Drift of the ${name}`, `${value.toFixed(2)}, ${value < 0.1 ? "none" : value < 0.25 ? "some" : "strong"}`, value >= 0.25 ? "bad" : ""))),
    drift && drift.images < drift.needed && h("p", { class: "quiet small" }, `Drift needs ${drift.needed} images; there are ${drift.images} since the start.`));
}

function gauge(name, found, quiet) {
  const line = h("div", { class: "gauge" }, h("i", {}), h("b", {}));
  for (const key of ["low", "high", "value"]) line.style.setProperty(`--${key}`, found[key]);
  return h("div", { class: "stack tight" }, h("div", { class: "row" }, h("h2", {}, name), h("span", { class: "grow" }),
    h("b", { class: "number" }, percent(found.value)), h("span", { class: "quiet small number" }, `${percent(found.low)} to ${percent(found.high)}`)), line,
  h("p", { class: "quiet small" }, quiet));
}

function drawQuality(measured, estimated) {
  const isShare = measured && measured.high <= 1;
  return h("section", { class: "card stack" }, h("h1", {}, "Accuracy in production"),
    measured ? isShare ? gauge("Measured", measured, `From feedback on ${count(measured.images, "image")}, 95 % interval.`)
      : h("p", {}, `Measured ${measured.metric.replaceAll("_", " ")}: ${measured.value.toPrecision(3)} on ${count(measured.images, "image")}.`)
      : h("p", { class: "quiet" }, "There is no feedback yet. Send true labels to ", h("code", {}, "POST /v1/feedback"), ", or run ", h("code", {}, "rootstock feedback FILE.csv"), "."),
    estimated && (estimated.value === null ? h("p", { class: "quiet" }, `No estimate without labels: ${estimated.reason}.`)
      : gauge("Estimated without labels", estimated, `From the confidence of ${count(estimated.images, "recent answer")}. Valid as long as images resemble the validation images.`)));
}

function drawTimeline(journal) {
  const largest = Math.max(1, ...journal.timeline.map((one) => one.answers));
  return h("section", { class: "card stack" }, h("div", { class: "row" }, h("h1", {}, "Answers"), h("span", { class: "grow" }),
    h("span", { class: "quiet small" }, journal.since ? `${count(journal.answers, "answer")} since ${time(journal.since)}` : "none yet")),
  h("div", { class: "bars", role: "img", "aria-label": "Answers over time, unknown images in red" }, journal.timeline.map((one) => {
    const part = h("i", {}), bar = h("span", { title: `${time(one.time_ms)}: ${count(one.answers, "answer")}, ${one.unknown} unknown` }, part);
    bar.style.setProperty("--share", one.answers / largest);
    part.style.setProperty("--part", one.answers ? one.unknown / one.answers : 0);
    return bar;
  })), h("div", { class: "tiles" }, tile("Unknown", percent(journal.unknown)), journal.labels.slice(0, 5).map(([name, number]) =>
    tile(name, percent(number / journal.answers)))));
}

// An image that the service stored becomes training data in the next run of the stage `index`.
function chooseClass(image, names) {
  const choice = h("select", { "aria-label": "Add to the data as", onchange: async () => {
    const label = choice.value, who = await askName();
    if (!label || !who) { choice.value = ""; return; }
    choice.disabled = true;
    try {
      await post(`api/images/${image.id}/label`, { seen: "", who, parts: { labels: [label] } });
      choice.replaceWith(h("span", { class: "chip leaf" }, `added to ${label}`));
      toast(`Added to ${label}. The next pipeline run uses it; New head uses it at once.`);
    } catch (error) { choice.disabled = false; choice.value = ""; report(error); }
  } }, h("option", { value: "" }, "Add to …"), names.map((name) => h("option", { value: name }, name)));
  return choice;
}

function drawForeign(journal) {
  if (!journal.foreign.length) return null;
  const { editor, names } = state.session.project;
  return h("section", { class: "card stack" }, h("div", { class: "row" }, h("h1", {}, "Most unlike the training images"), h("span", { class: "grow" }),
    h("a", { class: "button", href: address("label", { source: "requests" }) }, "Label requests")), h("div", { class: "foreign" }, journal.foreign.map((one) => {
    const frame = h("span", { class: "frame" }), picture = h("img", { alt: "", loading: "lazy", src: `api/production/images/${one.id}`,
      onerror: () => fill(frame, h("span", { class: "gone quiet small" }, "not stored")) });
    frame.append(picture, ...(one.unknown ? [h("span", { class: "chip bad mark" }, "unknown")] : []));
    return h("figure", { title: time(one.time_ms) }, frame, h("figcaption", {}, `${one.answer} · ${one.novelty.toFixed(2)}`),
      editor === "choice" && chooseClass(one, names));
  })));
}

export async function showProduction(root) {
  const column = h("div", { class: "column" });
  fill(root, h("div", { class: "scroll" }, column));
  setKeys([], root);
  let timer = 0, ended = false, last = "";
  async function look() {
    try {
      const found = await get("api/production");
      const text = JSON.stringify(found);
      if (text !== last) {
        last = text;
        const { journal } = found;
        fill(column, found.known ? [drawService(found), drawQuality(journal?.measured, found.service?.drift?.estimated_accuracy),
          journal && [drawTimeline(journal), drawForeign(journal)],
          !journal && h("p", { class: "quiet" }, "Images and measured accuracy need a journal. Set ROOTSTOCK_JOURNAL=FOLDER for the service, and start the studio with --journal FOLDER.")]
          : h("div", { class: "empty" }, h("h1", {}, "No service configured"),
            h("p", {}, "Start the studio with the URL of the service, its journal, or both:"), h("code", {}, "rootstock studio --service http://127.0.0.1:8000 --journal journal")));
      }
    } catch (error) { report(error); }
    if (!ended) timer = setTimeout(look, LOOK_MILLISECONDS);
  }
  await look();
  return () => { ended = true; clearTimeout(timer); };
}
