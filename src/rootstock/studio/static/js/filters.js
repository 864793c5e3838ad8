// The filters of the Data page: kept in the address, shown as lists with counts and as chips.
import { address, place } from "./address.js";
import { fill, h } from "./dom.js";

const MANY = ["term", "split", "reason", "flag", "fact", "target", "said"];
const ONE = ["picture", "min_side", "max_side", "text", "order", "lasso", "method"];
export const FLAGS = {
  doubt: "Label looks wrong", outlier: "Unlike all other images", copies: "Copies", conflict: "Copies with other labels",
  leak: "Copies in other splits", burst: "Bursts", scarce: "Small classes",
  wrong: "The model is wrong", corrected: "Corrected by people", disputed: "Two people disagree",
};
const FOLDED = 12;

/** Return the filters in the address: lists and single values. */
export function readFilters() {
  const { parameters } = place();
  const filters = {};
  for (const name of MANY) if (parameters.has(name)) filters[name] = parameters.getAll(name);
  for (const name of ONE) if (parameters.get(name)) filters[name] = parameters.get(name);
  return filters;
}

export function go(filters) { location.hash = address("data", filters); }

function toggle(filters, name, value) {
  const values = new Set(filters[name] || []);
  if (!values.delete(value)) values.add(value);
  go({ ...filters, [name]: [...values] });
}

/** Return the filters that show the images of a review finding; null if it has none. */
export function filtersOf(about) {
  if (!about) return null;
  if (about === "quarantine") return { reason: ["any"] };
  if (about === "smallest" || about === "largest") return { order: about };
  return { flag: [about], order: about === "doubt" || about === "outlier" ? about : "" };
}

const open = new Set();

/** Draw the lists of values with their counts. */
export function drawFacets(place, facets, filters, total, redraw) {
  const groups = [
    ["flag", "Review", facets.flags, (value) => FLAGS[value] || value],
    ["term", "Labels", facets.terms],
    ["split", "Splits", facets.splits],
    ["reason", "Quarantine", facets.reasons],
    ...Object.keys(facets).filter((key) => key.startsWith("fact:")).map((key) =>
      ["fact", key.slice(5), facets[key], undefined, `${key.slice(5)}=`]),
  ];
  fill(place, h("div", { class: "row narrow-only" }, h("h1", {}, "Filters"), h("span", { class: "grow" }),
    h("button", { class: "main", type: "button", onclick: () => place.classList.remove("open") }, "Show images")),
  groups.map(([name, title, counts, say = (value) => value, prefix = ""]) => {
    const chosen = (filters[name] || []).filter((value) => value.startsWith(prefix));
    for (const value of chosen) counts[value.slice(prefix.length)] ??= 0;
    const entries = Object.entries(counts);
    if (!entries.length) return null;
    const isOpen = open.has(title) || entries.length <= FOLDED + 2;
    return h("section", { class: "facet" }, h("h3", {}, title),
      (isOpen ? entries : entries.slice(0, FOLDED)).map(([value, number]) => h("label", {
        class: number ? "" : "zero", title: say(value) },
      h("input", { type: "checkbox", checked: chosen.includes(prefix + value),
        onchange: () => toggle(filters, name, prefix + value) }),
      h("span", {}, say(value)), h("span", { class: "count" }, number.toLocaleString("en")),
      name === "term" && h("meter", { value: number, max: Math.max(1, total), "aria-hidden": "true" }))),
      !isOpen && h("button", { class: "plain small", type: "button",
        onclick: () => { open.add(title); redraw(); } }, `${entries.length - FOLDED} more`));
  }));
}

/** Draw the filters in use as chips that remove them. */
export function drawChips(place, filters) {
  const chips = [];
  const chip = (text, rest) => chips.push(h("button", { class: "chip leaf", type: "button",
    title: "Remove this filter", onclick: () => go(rest) }, text, " ✕"));
  for (const name of MANY)
    for (const value of filters[name] || [])
      chip({ flag: FLAGS[value] || value, target: `label is ${value}`, said: `answered ${value}` }[name] || value,
        { ...filters, [name]: filters[name].filter((one) => one !== value) });
  const said = { picture: () => "copies of one image", lasso: () => "inside the lasso", text: (v) => `“${v}” in the path`,
    min_side: (v) => `short side ≥ ${v} px`, max_side: (v) => `short side ≤ ${v} px` };
  for (const [name, say] of Object.entries(said))
    if (filters[name]) chip(say(filters[name]), { ...filters, [name]: "" });
  if (chips.length > 1) chips.push(h("button", { class: "chip", type: "button",
    onclick: () => go({ method: filters.method }) }, "Clear all"));
  fill(place, chips);
  place.hidden = !chips.length;
}
