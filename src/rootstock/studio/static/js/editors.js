// One editor for each kind of label. Each has an `element`, its `keys`, and `parts()`: the label as
// {labels, box, numbers}, or null while it is incomplete. `done` is called when a key decides.
// `propose` is called once with the model's answer, empty if there is none. Until then digits choose
// nothing: the answer changes the order of the names, and a key must not change its name as it is hit.
// `saves`: the editor has its own button for Enter.
import { fill, h } from "./dom.js";

const DIGITS = "123456789".split("");

/** Make the editor of a kind: choice, toggles, numbers, box or text. */
export function makeEditor(kind, options) {
  return { choice, toggles, numbers, box: boxed, mask: masked }[kind]?.(options) || choice(options);
}

const key = (text) => h("kbd", {}, text);

/** Names in the order of the digit keys: the model's guesses first, then all others. */
function ranked(names, proposals) {
  const first = (proposals || []).map((one) => one.label);
  return [...first, ...names.filter((name) => !first.includes(name))];
}

const share = (proposals, name) => proposals?.find((one) => one.label === name)?.probability;
const digit = (proposals, place) => proposals && DIGITS[place];
const named = (proposals, names, event) => proposals && names[DIGITS.indexOf(event.key)];

function option({ name, digit, chance, chosen, current, press }) {
  const bar = h("span", { class: "chance" });
  if (chance !== undefined) bar.style.setProperty("--share", chance);
  return h("button", { class: "option", type: "button", "aria-pressed": String(chosen), onclick: press },
    digit ? key(digit) : h("span", { class: "nokey" }), h("span", { class: "what" }, name, current && h("span", { class: "quiet small" }, " now")),
    chance !== undefined && h("span", { class: "count number" }, `${Math.round(100 * chance)} %`), bar);
}

const MANY = 18;

/** Return a field for a known or new name. */
function nameField(names, take) {
  const id = "known-names";
  const field = h("input", { type: "text", placeholder: "Another name", "aria-label": "Another name", maxLength: 200,
    onkeydown: (event) => {
      if (event.key !== "Enter" || !field.value.trim()) return;
      event.preventDefault();
      const name = field.value.trim();
      field.value = "";
      field.blur();
      take(name);
    } });
  field.setAttribute("list", id);
  return h("div", { class: "row nowrap" }, field, h("datalist", { id }, names.map((name) => h("option", { value: name }))));
}

function choice({ names, parts, done }) {
  let proposals = null, now = parts?.labels?.[0];
  const list = h("div", { class: "options" });
  const take = (name) => done({ labels: [name] });
  const draw = () => fill(list, ranked(names, proposals).slice(0, MANY).map((name, i) => option({ name, digit: digit(proposals, i),
    chance: share(proposals, name), chosen: name === now, current: name === now, press: () => take(name) })));
  draw();
  return {
    element: h("div", { class: "stack" }, list, nameField(names, take)),
    propose: (answer) => { proposals = answer.top || []; draw(); },
    parts: () => (now ? { labels: [now] } : null),
    keys: [{ keys: DIGITS, shown: ["1", "…", "9"], what: "Choose a label and continue", run: (event) => {
      const name = named(proposals, ranked(names, proposals), event);
      if (name) take(name);
    } }],
  };
}

function toggles({ names, parts, done }) {
  let proposals = null;
  const before = parts?.labels || [], chosen = new Set(before);
  const list = h("div", { class: "options" });
  let touched = Boolean(parts);
  const all = () => ranked([...new Set([...names, ...chosen])], proposals);
  const flip = (name) => { touched = true; if (!chosen.delete(name)) chosen.add(name); draw(); };
  const draw = () => fill(list, all().slice(0, 40).map((name, i) => option({ name, digit: digit(proposals, i), chance: share(proposals, name),
    chosen: chosen.has(name), current: before.includes(name), press: () => flip(name) })));
  draw();
  return {
    element: h("div", { class: "stack" }, list, nameField(names, (name) => { chosen.add(name); draw(); }),
      h("button", { class: "main", type: "button", onclick: () => done({ labels: [...chosen] }) }, "Save ", key("Enter"))),
    // An image without labels starts with the model's labels.
    propose: (answer) => {
      proposals = answer.scores || [];
      if (!touched) for (const one of answer.labels || []) chosen.add(one.label ?? one);
      draw();
    },
    saves: true,
    parts: () => ({ labels: [...chosen] }),
    keys: [{ keys: DIGITS, shown: ["1", "…", "9"], what: "Set or clear a label", run: (event) => {
      const name = named(proposals, all(), event);
      if (name) flip(name);
    } }],
  };
}

function numbers({ parts, done, numbers: known }) {
  const fields = new Map(), said = h("p", { class: "quiet" });
  for (const [name, value] of Object.entries(parts?.numbers || Object.fromEntries(known.map((name) => [name, ""]))))
    fields.set(name, h("input", { type: "number", step: "any", value, "aria-label": name,
      onkeydown: (event) => { if (event.key === "Enter") { event.preventDefault(); save(); } } }));
  const whole = () => {
    const values = [...fields].map(([name, field]) => [name, field.valueAsNumber]);
    return values.some(([, value]) => Number.isNaN(value)) ? null : { numbers: Object.fromEntries(values) };
  };
  const save = () => { const found = whole(); if (found) { document.activeElement.blur(); done(found); } };
  let proposed = [];
  return {
    element: h("div", { class: "stack" }, [...fields].map(([name, field]) => h("label", { class: "row nowrap" }, h("span", {}, name), field)),
      said, h("button", { class: "main", type: "button", onclick: save }, "Save ", key("Enter"))),
    propose: (answer) => {
      proposed = answer.values || [];
      if (proposed.length) fill(said, "Model's answer: ", proposed.map((one) => `${one.name} ${Number(one.value.toPrecision(4))}`).join(", "), " ", key("1"));
    },
    saves: true,
    parts: whole,
    keys: [
      { keys: ["1"], what: "Use the model's number", run: () => {
        for (const one of proposed) if (fields.has(one.name)) fields.get(one.name).value = Number(one.value.toPrecision(6));
      } },
      { keys: ["e"], what: "Edit the number", run: () => { const [field] = fields.values(); field.focus(); field.select(); } },
    ],
  };
}

const SVG = "http://www.w3.org/2000/svg";

/** A name and a box that the user drags over the picture, in shares of the image's sides. */
function boxed({ names, parts, done, picture }) {
  let now = parts?.labels?.[0] || names[0], sides = parts?.box || null, proposals = null, proposed = null, from = null;
  const overlay = document.createElementNS(SVG, "svg");
  overlay.setAttribute("viewBox", "0 0 1 1");
  overlay.setAttribute("preserveAspectRatio", "none");
  overlay.classList.add("boxes");
  const list = h("div", { class: "options" });
  const rectangle = (box, name) => {
    if (!box) return null;
    const one = document.createElementNS(SVG, "rect");
    const [left, top, right, bottom] = box;
    for (const [key, value] of Object.entries({ x: left, y: top, width: right - left, height: bottom - top }))
      one.setAttribute(key, value);
    one.classList.add(name);
    return one;
  };
  const draw = () => {
    overlay.replaceChildren(...[rectangle(proposed, "proposed"), rectangle(sides, "own")].filter(Boolean));
    fill(list, ranked(names, proposals).slice(0, MANY).map((name, i) => option({ name, digit: digit(proposals, i), chance: share(proposals, name),
      chosen: name === now, current: name === parts?.labels?.[0], press: () => { now = name; draw(); } })));
  };
  const at = (event) => {
    const b = overlay.getBoundingClientRect();
    return [(event.clientX - b.x) / b.width, (event.clientY - b.y) / b.height].map((one) => Math.min(1, Math.max(0, one)));
  };
  overlay.addEventListener("pointerdown", (event) => { overlay.setPointerCapture(event.pointerId); from = at(event); event.preventDefault(); });
  overlay.addEventListener("pointermove", (event) => {
    if (!from) return;
    const to = at(event);
    sides = [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])];
    draw();
  });
  overlay.addEventListener("pointerup", () => { from = null; });
  picture.append(overlay);
  const whole = () => (sides && sides[2] > sides[0] && sides[3] > sides[1] ? { labels: [now], box: sides } : null);
  const save = () => { const found = whole(); if (found) done(found); };
  draw();
  return {
    element: h("div", { class: "stack" }, h("p", { class: "quiet small" }, "Drag over the picture to draw the box."), list,
      nameField(names, (name) => { now = name; if (!names.includes(name)) names = [...names, name]; draw(); }),
      h("button", { class: "main", type: "button", onclick: save }, "Save ", key("Enter"))),
    propose: (answer, size) => {
      proposals = answer.top || [];
      if (!parts && proposals.length) now = proposals[0].label;
      const { box } = answer;
      proposed = box && [box.x / size[0], box.y / size[1], (box.x + box.width) / size[0], (box.y + box.height) / size[1]];
      draw();
    },
    saves: true,
    parts: whole,
    keys: [
      { keys: DIGITS, shown: ["1", "…", "9"], what: "Choose the class", run: (event) => {
        const name = named(proposals, ranked(names, proposals), event);
        if (name) { now = name; draw(); }
      } },
      { keys: ["b"], what: "Use the model's box", run: () => { if (proposed) { sides = proposed; draw(); } } },
    ],
  };
}

/** A mask, shown over the picture. Masks are drawn in another tool. */
function masked({ picture }) {
  const cover = h("img", { class: "mask", alt: "The model's mask", hidden: true }), list = h("div", { class: "options" });
  picture.append(cover);
  return {
    element: h("div", { class: "stack" }, h("p", { class: "quiet small" }, "The mask that the model predicts. To correct the label, draw the mask file again in another tool: the file of the same name in ", h("code", {}, "masks/"), ", or the one that the column ", h("code", {}, "mask"), " names. The next run of the stage index reads it."), list),
    propose: (answer) => {
      if (answer.mask) Object.assign(cover, { src: `data:image/png;base64,${answer.mask}`, hidden: false });
      fill(list, (answer.areas || []).map((one) => {
        const dot = h("i", { class: "swatch" });
        dot.style.background = one.colour;
        return h("div", { class: "row nowrap" }, dot, h("span", { class: "grow" }, one.label), h("span", { class: "quiet number" }, `${Math.round(100 * one.share)} %`));
      }));
    },
    parts: () => null,
    keys: [{ keys: ["v"], what: "Show or hide the mask", run: () => { cover.hidden = !cover.hidden; } }],
  };
}
