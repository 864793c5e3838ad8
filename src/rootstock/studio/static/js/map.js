// The map of the features: one point per image; drawing a line around points filters the grid.
import { get, getBytes, report } from "./api.js";
import { fill, h, later } from "./dom.js";
import { thumbnail } from "./grid.js";

const COLOURS = ["#2f7d54", "#c7572b", "#3f6fb5", "#b08a1e", "#8a55a8", "#2a9aa5", "#c04a78", "#6f7f2a",
  "#7b6a58", "#5a5fc8", "#a03c3c", "#4f8f8a"];
const SHOWN_NAMES = 12, REACH_PIXELS = 14, MAX_CORNERS = 200;
const colour = (number) => COLOURS[number] || `hsl(${(number * 137.5) % 360} 45% 50%)`;

export class FeatureMap {
  /** `select(lasso)` gets the corners as `x,y,...` in 0..1, `open(image)` the image that was clicked. */
  constructor({ select, open, choose }) {
    this.select = select;
    this.openImage = open;
    this.canvas = h("canvas", { "aria-label": "Map of the features" });
    this.hover = h("div", { class: "hover", hidden: true });
    this.legend = h("div", { class: "legend" });
    this.message = h("div", { class: "message" }, "Computing the map …");
    this.methods = h("select", { title: "Method of the map", onchange: () => choose(this.methods.value) });
    this.element = h("section", { class: "map", "aria-label": "Map" }, this.canvas, this.legend, this.message, this.hover,
      h("div", { class: "map-tools" }, this.methods,
        h("button", { type: "button", title: "Whole map", onclick: () => this.reset() }, "⤢")));
    this.view = { x: 0, y: 0, scale: 1 };
    this.line = [];
    this.watcher = new ResizeObserver(() => this.draw());
    this.watcher.observe(this.element);
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.redraw = () => this.draw();
    this.dark.addEventListener("change", this.redraw);
    this.peek = later((point) => this.showHover(point), 80);
    for (const [name, run] of Object.entries({ pointerdown: "press", pointermove: "drag", pointerup: "release",
      pointerleave: "hide", wheel: "zoom" }))
      this.canvas.addEventListener(name, (event) => this[run](event), name === "wheel" ? { passive: false } : {});
  }

  end() { this.watcher.disconnect(); this.dark.removeEventListener("change", this.redraw); }

  async show(method, lasso) {
    this.lasso = lasso ? lasso.split(",").map(Number) : [];
    if (this.method === method && this.points) { this.draw(); return; }
    this.method = method;
    fill(this.message, method === "pca" ? "Computing the map …" : "Computing the map … The first time, this can take minutes.");
    this.message.hidden = false;
    try {
      this.facts = await get("api/map", { method });
      const packed = new Uint16Array(await getBytes("api/map/points", { method }));
      this.points = packed;
      this.message.hidden = true;
      this.names();
    } catch (error) {
      this.points = null;
      fill(this.message, h("div", {}, h("p", {}, error.message), error.todo && h("p", {}, "→ ", error.todo)));
    }
    this.draw();
  }

  names() {
    const { names, methods, method, total } = this.facts;
    const titles = { pca: "PCA", tsne: "t-SNE", umap: "UMAP" };
    fill(this.methods, methods.map((one) => h("option", { value: one, selected: one === method }, titles[one] || one)));
    fill(this.legend, names.slice(0, SHOWN_NAMES).map((name, i) => {
      const dot = h("i", {});
      dot.style.background = colour(i);
      return h("span", {}, dot, name);
    }), names.length > SHOWN_NAMES && h("span", {}, `and ${names.length - SHOWN_NAMES} more`),
    h("span", { class: "quiet" }, `${total.toLocaleString("en")} images`));
  }

  // Positions: the map is 0..1 with a margin; the view pans and zooms it.
  box() {
    const { clientWidth: width, clientHeight: height } = this.element;
    const margin = 24, foot = Math.max(8, this.legend.offsetHeight - margin);
    return { width, height, left: margin, top: margin, wide: width - 2 * margin, high: height - 2 * margin - foot };
  }

  toScreen(x, y) {
    const b = this.box(), { view } = this;
    return [b.left + ((x - 0.5) * view.scale + 0.5 + view.x) * b.wide, b.top + ((y - 0.5) * view.scale + 0.5 + view.y) * b.high];
  }

  toMap(px, py) {
    const b = this.box(), { view } = this;
    return [((px - b.left) / b.wide - 0.5 - view.x) / view.scale + 0.5, ((py - b.top) / b.high - 0.5 - view.y) / view.scale + 0.5];
  }

  draw() {
    const { width, height } = this.box(), ratio = devicePixelRatio || 1;
    if (!width || !height) return;
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    if (!this.points) return;
    const total = this.points.length / 3;
    const size = Math.max(1.5, Math.min(7, 90 / Math.sqrt(total)) * Math.min(2, this.view.scale ** 0.3));
    pen.globalAlpha = total > 20000 ? 0.55 : 0.8;
    const groups = this.byColour();
    for (const [number, members] of groups) {
      pen.fillStyle = colour(number);
      pen.beginPath();
      for (const i of members) {
        const [x, y] = this.toScreen(this.points[3 * i] / 65535, this.points[3 * i + 1] / 65535);
        if (x < -9 || y < -9 || x > width + 9 || y > height + 9) continue;
        if (size < 3) pen.rect(x - size / 2, y - size / 2, size, size);
        else { pen.moveTo(x + size / 2, y); pen.arc(x, y, size / 2, 0, 7); }
      }
      pen.fill();
    }
    this.drawLine(pen);
  }

  byColour() {
    if (this.grouped?.of === this.points) return this.grouped.groups;
    const groups = new Map();
    for (let i = 0; i < this.points.length / 3; i++) {
      const number = this.points[3 * i + 2];
      if (!groups.has(number)) groups.set(number, []);
      groups.get(number).push(i);
    }
    this.grouped = { of: this.points, groups };
    return groups;
  }

  drawLine(pen) {
    const line = this.line.length ? this.line : pairs(this.lasso || []).map(([x, y]) => this.toScreen(x, y));
    if (line.length < 2) return;
    pen.globalAlpha = 1;
    pen.strokeStyle = getComputedStyle(this.element).getPropertyValue("--leaf");
    pen.lineWidth = 2;
    pen.beginPath();
    line.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.closePath();
    pen.stroke();
    pen.globalAlpha = 0.08;
    pen.fillStyle = pen.strokeStyle;
    pen.fill();
  }

  press(event) {
    if (!this.points) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.moving = event.button === 1 || event.shiftKey ? [event.offsetX, event.offsetY, { ...this.view }] : null;
    this.line = this.moving ? [] : [[event.offsetX, event.offsetY]];
    this.hide();
  }

  drag(event) {
    if (this.moving) {
      const [x, y, view] = this.moving, b = this.box();
      this.view = { ...view, x: view.x + (event.offsetX - x) / b.wide, y: view.y + (event.offsetY - y) / b.high };
      this.draw();
    } else if (this.line.length) {
      const [x, y] = this.line.at(-1);
      if (Math.hypot(event.offsetX - x, event.offsetY - y) < 4) return;
      this.line.push([event.offsetX, event.offsetY]);
      this.draw();
    } else if (this.points) this.peek([event.offsetX, event.offsetY]);
  }

  release(event) {
    const line = this.line;
    this.line = [];
    if (this.moving || !this.points) { this.moving = null; return; }
    if (line.length > 3) {
      const step = Math.ceil(line.length / MAX_CORNERS);
      const corners = line.filter((_, i) => i % step === 0).map(([x, y]) => this.toMap(x, y));
      this.select(corners.flat().map((value) => value.toFixed(4)).join(","));
    } else {
      const near = this.nearest([event.offsetX, event.offsetY]);
      this.draw();
      if (near >= 0) get("api/map/image", { method: this.method, number: near }).then(this.openImage).catch(report);
    }
  }

  nearest([px, py]) {
    let best = -1, least = REACH_PIXELS ** 2;
    for (let i = 0; i < this.points.length / 3; i++) {
      const [x, y] = this.toScreen(this.points[3 * i] / 65535, this.points[3 * i + 1] / 65535);
      const far = (x - px) ** 2 + (y - py) ** 2;
      if (far < least) { least = far; best = i; }
    }
    return best;
  }

  async showHover(point) {
    const near = this.nearest(point);
    if (near < 0) { this.hide(); return; }
    const image = await get("api/map/image", { method: this.method, number: near }).catch(() => null);
    if (!image) return;
    fill(this.hover, thumbnail(image), h("div", {}, image.label));
    const { width, height } = this.box();
    this.hover.style.left = `${Math.min(point[0] + 14, width - 150)}px`;
    this.hover.style.top = `${Math.max(0, Math.min(point[1] + 14, height - 140))}px`;
    this.hover.hidden = false;
  }

  hide() { this.peek([-99, -99]); this.hover.hidden = true; }

  zoom(event) {
    event.preventDefault();
    const b = this.box(), [x, y] = this.toMap(event.offsetX, event.offsetY);
    const scale = Math.min(40, Math.max(1, this.view.scale * Math.exp(-event.deltaY * 0.002)));
    if (scale === 1) this.view = { x: 0, y: 0, scale };
    else this.view = { scale, x: (event.offsetX - b.left) / b.wide - 0.5 - (x - 0.5) * scale, y: (event.offsetY - b.top) / b.high - 0.5 - (y - 0.5) * scale };
    this.draw();
  }

  reset() { this.view = { x: 0, y: 0, scale: 1 }; this.select(""); this.draw(); }
}

const pairs = (flat) => flat.reduce((list, value, i) => (i % 2 ? list.at(-1).push(value) : list.push([value]), list), []);
