// One image in full, with everything known about it.
import { address } from "./address.js";
import { get, report } from "./api.js";
import { fill, h } from "./dom.js";
import { FLAGS } from "./filters.js";

/** Show image `number` of a grid over the page; return a function that moves by a number of images. */
export function showDetail(grid, number, closed) {
  const stage = h("div", { class: "stage" }), aside = h("aside", {});
  const close = () => { box.remove(); closed(); };
  const box = h("div", { class: "detail", role: "dialog", "aria-label": "Image" },
    h("button", { class: "close", type: "button", onclick: close }, "✕ Close"), stage, aside);
  document.body.append(box);
  box.querySelector("button").focus();
  const draw = async () => {
    try {
      const image = await grid.image(number);
      if (!image) return;
      fill(stage, view(image));
      fill(aside, facts(image, number, grid.total, close));
      if (image.id) get(`api/images/${image.id}`).then((full) => {
        const rows = Object.entries(full.facts).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]);
        if (rows.length) aside.append(h("section", {}, h("h3", {}, "Metadata"), h("dl", { class: "facts" }, rows)));
      }).catch(report);
    } catch (error) { report(error); }
  };
  draw();
  return {
    close,
    move: (by) => {
      const next = Math.min(grid.total - 1, Math.max(0, number + by));
      if (next === number) return;
      number = next;
      grid.choose(number);
      draw();
    },
  };
}

/** Return the large picture of an image, or the reason why there is none. */
export function view(image) {
  if (!image.id || !image.width) return h("p", { class: "quiet" }, `No picture: ${image.reason}`);
  const picture = h("img", { alt: image.path, src: `api/images/${image.id}/picture`,
    onerror: () => picture.replaceWith(h("div", { class: "empty" },
      h("p", {}, image.reason ? `This file is not a usable image: ${image.reason}.`
        : "This image has changed or vanished since it was indexed."),
      !image.reason && h("p", {}, "→ run the pipeline again: dvc repro, or rootstock train"))) });
  return picture;
}

function facts(image, number, total, close) {
  const link = (text, filters) => h("a", { class: "chip leaf", href: address("data", filters), onclick: close }, text);
  const { doubt } = image;
  return [
    h("div", { class: "stack" },
      h("div", { class: "row" }, h("h1", {}, image.label || "no label"),
        image.split && h("span", { class: "chip" }, image.split),
        image.reason && h("span", { class: "chip bad" }, image.reason)),
      image.said && h("p", {}, "Model's answer: ", h("b", {}, image.said)),
      doubt?.suggested && h("p", {}, "Looks like ", h("b", {}, doubt.suggested),
        h("span", { class: "quiet" }, ` (${Math.round(100 * doubt.confidence)} % sure)`)),
      doubt?.distance > 0 && h("p", { class: "quiet" }, `Unlike all other images: ${doubt.distance.toFixed(0)} deviations from the mean`)),
    image.flags.length > 0 && h("div", { class: "row" },
      image.flags.map((flag) => flag === "copies" ? link("Show copies", { picture: image.picture })
        : link(FLAGS[flag] || flag, { flag: [flag] }))),
    image.correction && h("p", { class: "small quiet" }, `Corrected by ${image.correction.who}; before: ${image.correction.old_label || "no label"}.`),
    image.id && image.width > 0 && h("a", { class: "button", href: address("label", { text: image.path }), onclick: close }, "Correct the label"),
    image.id && image.width > 0 && evidence(image),
    h("dl", { class: "facts small" },
      h("dt", {}, "File"), h("dd", {}, image.path),
      image.width > 0 && [h("dt", {}, "Size"), h("dd", {}, `${image.width} × ${image.height} px, ${(image.bytes / 1000).toFixed(0)} kB`)],
      h("dt", {}, "SHA-256"), h("dd", {}, image.id ? `${image.id.slice(0, 16)}…` : "–")),
    h("p", { class: "small quiet number" }, `${(number + 1).toLocaleString("en")} of ${total.toLocaleString("en")} · `,
      h("kbd", {}, "←"), " ", h("kbd", {}, "→"), " move, ", h("kbd", {}, "Esc"), " closes"),
  ];
}

/** Show where the model sees the evidence for its answer, when the section is opened. */
function evidence(image) {
  const body = h("div", { class: "small" });
  return h("details", { ontoggle: (event) => {
    if (!event.target.open || body.firstChild) return;
    fill(body, h("img", { class: "heat", alt: "Evidence for the answer", src: `api/images/${image.id}/heat-map`,
      onerror: () => fill(body, h("p", { class: "quiet" }, "No model is available to explain its answer.")) }));
  } }, h("summary", {}, "Where the model looks"), body);
}
