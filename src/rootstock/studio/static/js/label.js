// The Label page: one image after another, the model's opinion, and a key per label.
import { address, place } from "./address.js";
import { get, post, report, state, toast } from "./api.js";
import { count, fill, h } from "./dom.js";
import { makeEditor } from "./editors.js";
import { thumbnail } from "./grid.js";
import { setKeys } from "./keys.js";
import { makeRefit } from "./refit.js";
import { makeSource } from "./source.js";

const NOTHING_TITLES = { requests: "No requests to label", pool: "No images to label" };
const NOTHING = {
  all: "Either no label looks wrong, or the data review has not run. To label other images, filter them on the Data page and press Label.",
  requests: "No requests need a label. Set ROOTSTOCK_JOURNAL=FOLDER and ROOTSTOCK_JOURNAL_IMAGES=true for the service, and start the studio with --journal FOLDER.",
  pool: "Enter a folder of images above.",
};
const KEPT_NAME = "studio.who", AHEAD = 3, REMOVED = "(remove)";
const REASONS = { "doubtful label": "Label looks wrong", "model and label differ": "The model disagrees",
  "answered wrongly": "The service was wrong", unknown: "Unlike the training images", "low confidence": "The model is unsure", "not labelled": "From the folder" };

/** Return the name that corrections are stored with; the user enters it once. */
export async function askName() {
  if (state.session.name) return state.session.name;
  const known = localStorage.getItem(KEPT_NAME);
  if (known) return known;
  return new Promise((resolve) => {
    const field = h("input", { type: "text", required: true, maxLength: 80, autocomplete: "name", "aria-label": "Your name" });
    const dialog = h("dialog", {}, h("form", { onsubmit: (event) => {
      event.preventDefault();
      localStorage.setItem(KEPT_NAME, field.value.trim());
      dialog.close();
    } }, h("h1", {}, "Who are you?"), h("p", { class: "quiet" },
      "Corrections are stored with your name, so that you can see who changed what. This browser remembers it."),
    field, h("button", { class: "main" }, "Continue")));
    dialog.addEventListener("close", () => { dialog.remove(); resolve(localStorage.getItem(KEPT_NAME) || ""); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export async function showLabel(root) {
  const filters = Object.fromEntries([...new Set(place().parameters.keys())].map((key) => [key, place().parameters.getAll(key)]));
  let queue = await get("api/queue", filters), at = 0, editor = null, shown = 0, showsHeat = false;
  const undo = [], skipped = new Set(), opinions = new Map();
  const stage = h("div", { class: "stage" }), side = h("aside", {}), head = h("div", { class: "tools" });
  const page = h("div", { class: "label" }, head, h("div", { class: "label-body" }, stage, side));

  const byFilters = queue.by === "filters";
  const source = makeSource(byFilters ? "all" : queue.by, () => showNew().catch(report));
  if (source.panel) head.after(source.panel);
  const refit = makeRefit();

  const opinion = (image) => {
    if (!opinions.has(image.id)) opinions.set(image.id, get(`api/images/${image.id}/opinion`));
    return opinions.get(image.id);
  };

  function prefetch() {
    for (const image of queue.images.slice(at + 1, at + 1 + AHEAD)) {
      new Image().src = `api/images/${image.id}/picture`;
      opinion(image).catch(() => {});
    }
  }

  function drawHead() {
    const left = queue.images.length - at;
    fill(head, h("span", { class: "total" }, left > 0 ? `${count(left, "image")} to look at` : queue.images.length ? "Done" : "Nothing to look at"),
      byFilters ? [h("span", { class: "quiet small" }, "those of your filters"), h("a", { class: "button small", href: "#/label" }, "Most doubtful")]
        : source.choice,
      h("span", { class: "grow" }), refit.element,
      h("button", { type: "button", disabled: !undo.length, onclick: takeBack }, "Undo ", h("kbd", {}, "u")));
  }

  async function draw() {
    const image = queue.images[at], turn = ++shown;
    drawHead();
    if (!image) { drawEnd(); return; }
    const picture = h("img", { src: `api/images/${image.id}/picture`, alt: "", onerror: () => fill(stage, h("div", { class: "empty" },
      h("p", {}, "This image has changed or vanished since it was indexed."), h("p", {}, "→ run the pipeline again: dvc repro, or rootstock train"))) });
    const frame = h("div", { class: "frame-fit" }, picture);
    fill(stage, frame);
    const label = await get(`api/images/${image.id}/label`);
    if (turn !== shown) return;
    Object.assign(image, { text: label.text, correction: label.correction, labelled: label.text !== "", removed: label.text === REMOVED });
    editor = makeEditor(state.session.project.editor, { names: state.session.project.names, parts: label.parts, picture: frame, numbers: state.session.project.numbers,
      done: (parts) => decide({ parts }) });
    const about = h("div", { class: "stack about" });
    const right = image.removed || editor.saves ? "" : image.labelled ? "Label is right " : image.suggested && state.session.project.editor === "choice" ? `It is ${image.suggested} ` : "";
    fill(side, drawFacts(image, label), editor.element, h("div", { class: "row decide" },
      right && h("button", { type: "button", onclick: confirm }, right, h("kbd", {}, "Enter")),
      h("button", { type: "button", onclick: skip }, "Skip ", h("kbd", {}, "s")),
      canRemove(image) && h("button", { type: "button", onclick: () => decide({ remove: true }) }, "Remove ", h("kbd", {}, "x")),
      canRestore(image) && h("button", { type: "button", onclick: restore }, image.removed ? "Put back " : "Original label ", h("kbd", {}, "r"))), about);
    bind();
    prefetch();
    try {
      const said = await opinion(image);
      if (turn !== shown) return;
      editor.propose(said.answer, said.size);
      fill(about, drawOpinion(image, said));
    } catch (error) {
      if (turn !== shown) return;
      editor.propose({}, null);
      fill(about, h("p", { class: "quiet small" }, error.message, error.todo && ` → ${error.todo}`));
    }
  }

  function drawFacts(image, label) {
    const correction = label.correction;
    return h("div", { class: "stack" },
      h("div", { class: "row" }, h("h1", {}, label.label || "no label"), image.split && h("span", { class: "chip" }, image.split),
        (image.reasons || []).map((reason) => h("span", { class: "chip warn" }, REASONS[reason] || reason))),
      image.suggested && image.suggested !== label.text && h("p", {}, image.labelled ? "Looks like " : "Feedback: ", h("b", {}, image.suggested)),
      label.conflict && h("div", { class: "box warn small" }, h("b", {}, "Two people disagree. "), label.conflict.map((one) =>
        h("div", {}, `${one.who}: ${one.new_label}`, h("span", { class: "quiet" }, ` (${one.when.slice(0, 16).replace("T", " ")})`)))),
      correction && !label.conflict && h("p", { class: "quiet small" }, image.removed ? `Removed by ${correction.who}; before: ` : `Changed by ${correction.who} from `, correction.old_label || "no label",
        correction.why && `: ${correction.why}`),
      h("p", { class: "small quiet path" }, image.origin ? `Request ${image.origin}` : image.path));
  }

  function drawOpinion(image, said) {
    const heat = h("img", { class: "heat", alt: `Where the model sees ${said.explained}`, title: `Evidence for ${said.explained}`,
      src: `api/images/${image.id}/heat-map` });
    return [
      said.answer.unknown && h("span", { class: "chip bad" }, "Unlike the training images"),
      h("h3", {}, "Evidence for ", said.explained, " ", h("kbd", {}, "h")), heat,
      said.neighbours.length > 0 && [h("h3", {}, "Most similar training images"), h("div", { class: "neighbours" },
        said.neighbours.map((one) => h("a", { href: address("data", { text: one.path }), title: one.path },
          h("span", { class: "frame" }, thumbnail({ id: one.id, width: 1 })), h("span", { class: "name" }, one.target))))],
    ];
  }

  function drawEnd() {
    setKeys(keys(), root);
    const nothing = !queue.images.length;
    fill(side);
    fill(stage, h("div", { class: "empty" }, h("h1", {}, nothing ? NOTHING_TITLES[queue.by] || "No doubtful images" : "All done"),
      h("p", {}, nothing ? NOTHING[queue.by] || NOTHING.all : `${count(undo.length, "label")} saved. To use them at once, press New head; or train again with dvc repro or rootstock train.`),
      h("div", { class: "row" }, source.panel && undo.length > 0 && h("button", { class: "main", type: "button", onclick: source.rank }, "Rank the rest"), h("a", { class: "button", href: "#/data" }, "Choose images"),
        skipped.size > 0 && h("button", { type: "button", onclick: again }, `Show the ${count(skipped.size, "skipped image")}`))));
  }

  function again() {
    queue = { ...queue, images: queue.images.filter((image) => skipped.has(image.id)) };
    skipped.clear();
    at = 0;
    draw().catch(report);
  }

  /** Save a label and show the next image at once; if saving fails, return to this image. */
  async function decide(given) {
    const image = queue.images[at], number = at, { text: seen, correction } = image;
    const who = await askName();
    if (!who) return;
    at += 1;
    const entry = { number, image, seen, correction };
    undo.push(entry);
    draw().catch(report);
    try {
      entry.saved = post(`api/images/${image.id}/label`, { seen, who, ...given });
      const written = await entry.saved;
      entry.now = written.text;
      image.text = written.text;
      refit.count();
      if (written.conflict) toast(`${written.conflict[0].who} had chosen “${written.conflict[0].new_label}”. Both are stored, and yours is used.`);
    } catch (error) {
      undo.splice(undo.indexOf(entry), 1);
      at = number;
      draw().catch(report);
      toast(`Not saved: ${error.message}`, { todo: error.todo, bad: true, action: { name: "Try again", run: () => decide(given) } });
    }
  }

  const canRemove = (image) => image?.labelled && !image.removed;
  const canRestore = (image) => Boolean(image?.correction?.old);  // an image that was added has no other label

  function restore() { if (canRestore(queue.images[at])) decide({ original: true }); }

  function confirm() {
    const parts = editor?.parts(), image = queue.images[at];
    if (parts) decide({ parts });
    else if (image && !image.labelled && image.suggested) decide({ text: image.suggested });
    else if (state.session.project.editor === "mask") skip();
  }

  function skip() { if (queue.images[at]) { skipped.add(queue.images[at].id); at += 1; draw().catch(report); } }

  async function takeBack() {
    const last = undo.at(-1);
    if (!last) return;
    try { await last.saved; } catch { return; }  // `decide` reports it
    if (undo.at(-1) !== last) return;
    undo.pop();
    try {
      const given = last.correction ? { text: last.correction.new } : last.seen === "" ? { remove: true } : { original: true };
      await post(`api/images/${last.image.id}/label`, { seen: last.now, who: await askName(), why: "undone", ...given });
      at = last.number;
      draw().catch(report);
    } catch (error) { undo.push(last); report(error); }
  }

  function toggleHeat() {
    showsHeat = !showsHeat;
    const heat = side.querySelector(".heat"), picture = stage.querySelector("img");
    if (heat && picture) picture.src = showsHeat ? heat.src : `api/images/${queue.images[at].id}/picture`;
  }

  const keys = () => [
    ...(queue.images[at] ? editor?.keys || [] : []),
    { keys: ["Enter"], what: "Save: the label is right", run: (event) => (event.target.closest?.("button, a") ? false : confirm()) },
    { keys: ["s", "ArrowRight"], what: "Skip", run: skip },
    { keys: ["ArrowLeft"], what: "Back", run: () => { if (at > 0) { at -= 1; draw().catch(report); } } },
    { keys: ["u"], what: "Undo", run: takeBack },
    { keys: ["x"], what: "Remove the image from the data set", run: () => { if (canRemove(queue.images[at])) decide({ remove: true }); } },
    { keys: ["r"], what: "Go back to the label before all corrections", run: restore },
    { keys: ["h"], what: "Enlarge the evidence", run: toggleHeat },
  ];
  function bind() { showsHeat = false; setKeys(keys(), root); }

  async function showNew() {
    queue = await get("api/queue", filters);
    at = 0;
    undo.length = 0;
    await draw();
  }

  fill(root, page);
  await draw();
  return () => { refit.end(); source.end(); };
}
