// The Data page: filters, grid, map, and findings of the review.
import { address } from "./address.js";
import { get, report } from "./api.js";
import { count, fill, h, later, prose } from "./dom.js";
import { showDetail } from "./detail.js";
import { drawChips, drawFacets, filtersOf, go, readFilters } from "./filters.js";
import { Grid } from "./grid.js";
import { setKeys } from "./keys.js";
import { FeatureMap } from "./map.js";

const ORDERS = { path: "By name", doubt: "Doubtful labels first", outlier: "Unlike others first", smallest: "Smallest first", largest: "Largest first" };
const KEPT = "studio.map";

export async function showData(root) {
  let filters = readFilters(), detail = null, map = null;
  let facets = { facets: { flags: {}, terms: {}, splits: {}, reasons: {} }, total: 0 };
  const openNumber = (number) => { detail = showDetail(grid, number, () => { detail = null; grid.element.focus(); }); };
  const grid = new Grid(openNumber);
  const side = h("aside", { class: "side", "aria-label": "Filters" });
  const chips = h("div", { class: "chips" }), total = h("span", { class: "total" });
  const split = h("div", { class: "split" });
  const found = h("section", { class: "findings", hidden: true, "aria-label": "Findings" });
  const setSize = (pixels) => { grid.element.style.setProperty("--tile", pixels); grid.measure(); };
  const text = h("input", { type: "search", placeholder: "Find by path", "aria-label": "Find by path", value: filters.text || "",
    oninput: later(() => go({ ...filters, text: text.value }), 250) });
  const order = h("select", { "aria-label": "Order", onchange: () => go({ ...filters, order: order.value }) },
    Object.entries(ORDERS).map(([value, name]) => h("option", { value }, name)));
  const mapButton = h("button", { type: "button", title: "Map of the features (m)", onclick: () => showMap(!map) }, "Map");
  const findingsButton = h("button", { type: "button", hidden: true, onclick: () => {
    found.hidden = !found.hidden;
    findingsButton.setAttribute("aria-pressed", String(!found.hidden));
  } }, "Findings");
  const labelLink = h("a", { class: "button", title: "Label these images", href: "#/label" }, "Label");
  const tools = h("div", { class: "tools" }, total,
    h("button", { class: "narrow-only", type: "button", onclick: () => side.classList.add("open") }, "Filters"),
    findingsButton, mapButton, labelLink, h("span", { class: "grow" }), text, order,
    h("input", { type: "range", min: 80, max: 280, value: 148, title: "Picture size", "aria-label": "Picture size",
      class: "wide-only", oninput: (event) => setSize(event.target.value) }));
  const empty = h("div", { class: "empty", hidden: true }, h("p", {}, "No image matches these filters."),
    h("button", { type: "button", onclick: () => go({}) }, "Clear all filters"));
  fill(root, h("div", { class: "data" }, side, h("div", { class: "work" }, tools, found, chips, empty, split)));

  function drawSide() { drawFacets(side, structuredClone(facets.facets), filters, facets.total, drawSide); }

  function showMap(isShown) {
    map?.end();
    map = isShown ? new FeatureMap({
      select: (lasso) => go({ ...filters, lasso }),
      choose: (method) => go({ ...filters, method, lasso: "" }),
      open: async (image) => {
        const one = { total: 1, element: grid.element, image: async () => image, choose: () => {} };
        detail = showDetail(one, 0, () => { detail = null; });
      },
    }) : null;
    localStorage.setItem(KEPT, isShown ? "shown" : "");
    mapButton.setAttribute("aria-pressed", String(isShown));
    split.classList.toggle("with-map", isShown);
    fill(split, map?.element, grid.element);
    map?.show(filters.method || "pca", filters.lasso);
  }

  async function update() {
    detail?.close();
    filters = readFilters();
    order.value = filters.order || "path";
    if (document.activeElement !== text) text.value = filters.text || "";
    drawChips(chips, filters);
    labelLink.href = address("label", filters);
    map?.show(filters.method || "pca", filters.lasso);
    try {
      const [, counted] = await Promise.all([grid.show(filters), get("api/facets", filters)]);
      facets = counted;
      total.textContent = count(counted.total, "image");
      empty.hidden = counted.total > 0;
      split.hidden = counted.total === 0 && !map;
      drawSide();
    } catch (error) { report(error); }
  }

  const findings = await get("api/findings").catch(() => ({ findings: [] }));
  if (findings.findings.length) {
    findingsButton.hidden = false;
    findingsButton.textContent = count(findings.findings.length, "finding");
    fill(found, findings.findings.map((one) => {
      const wish = filtersOf(one.about);
      return h("article", { class: "finding" }, h("span", { class: `dot w${one.weight}` }),
        h("div", {}, h("p", {}, prose(one.what)), h("p", { class: "small quiet" }, prose(one.todo))),
        wish ? h("button", { class: "small", type: "button", onclick: () => { findingsButton.click(); go(wish); } }, "Show images") : h("span", {}));
    }));
  }
  showMap(localStorage.getItem(KEPT) === "shown");
  root.onaddress = update;
  await update();

  const move = (by) => () => (detail ? detail.move(Math.sign(by())) : grid.move(by()));
  setKeys([
    { keys: ["ArrowLeft"], what: "Move through the images", shown: ["←", "→", "↑", "↓"], run: move(() => -1) },
    { keys: ["ArrowRight"], run: move(() => 1) },
    { keys: ["ArrowUp"], run: move(() => -grid.columns) },
    { keys: ["ArrowDown"], run: move(() => grid.columns) },
    { keys: ["Enter"], what: "Open the image", run: (event) => {
      if (detail || grid.chosen < 0 || event.target.closest("button, a, select, label")) return false;
      return openNumber(grid.chosen);
    } },
    { keys: ["Escape"], what: "Close, or clear the filters", run: () => {
      if (detail) detail.close();
      else if (side.classList.contains("open")) side.classList.remove("open");
      else go({});
    } },
    { keys: ["m"], what: "Show or hide the map", run: () => showMap(!map) },
    { keys: ["/"], what: "Find by path", run: () => text.focus() },
  ], root);
  return () => { detail?.close(); map?.end(); grid.end(); };
}
