// The grid: only visible tiles exist, and pages of images are loaded as they become visible.
import { get, report } from "./api.js";
import { fill, h } from "./dom.js";

const PAGE_IMAGES = 200, KEPT_PAGES = 20, GAP = 12, NAME_PIXELS = 24, SPARE_ROWS = 2;
/** Browsers limit the height of an element; a longer grid scrolls faster instead. */
const MAX_PIXELS = 8_000_000;

export class Grid {
  /** `open(number)` is called with the number of the opened image. */
  constructor(open) {
    this.space = h("div", { class: "grid-space" });
    this.element = h("div", { class: "grid", tabIndex: 0, role: "listbox", "aria-label": "Images" }, this.space);
    this.open = open;
    this.total = 0;
    this.chosen = -1;
    this.pages = new Map();
    this.tiles = new Map();
    this.element.addEventListener("scroll", () => this.plan(), { passive: true });
    this.watcher = new ResizeObserver(() => this.measure());
    this.watcher.observe(this.element);
  }

  end() { this.watcher.disconnect(); this.stop?.abort(); cancelAnimationFrame(this.frame); }

  /** Show the images that match these filters. */
  async show(filters) {
    this.stop?.abort();
    this.stop = new AbortController();
    this.filters = filters;
    this.pages.clear();
    const page = this.read(0);
    this.total = (await page).total;
    this.chosen = -1;
    this.element.scrollTop = 0;
    this.clear();
    this.measure();
  }

  read(number) {
    let page = this.pages.get(number);
    if (page) { this.pages.delete(number); this.pages.set(number, page); return page; }
    page = get("api/images", { ...this.filters, offset: number * PAGE_IMAGES, limit: PAGE_IMAGES }, this.stop.signal);
    this.pages.set(number, page);
    page.catch(() => this.pages.delete(number));
    while (this.pages.size > KEPT_PAGES) this.pages.delete(this.pages.keys().next().value);
    return page;
  }

  /** Return the shown image with this number. */
  async image(number) {
    const page = await this.read(Math.floor(number / PAGE_IMAGES));
    return page.images[number % PAGE_IMAGES];
  }

  measure() {
    const width = this.element.clientWidth - 2 * GAP;
    const wish = parseFloat(getComputedStyle(this.element).getPropertyValue("--tile")) || 148;
    this.columns = Math.max(2, Math.floor((width + GAP) / (wish + GAP)));
    this.side = Math.floor((width + GAP) / this.columns) - GAP;
    this.pitch = this.side + NAME_PIXELS + GAP;
    this.rows = Math.ceil(this.total / this.columns);
    this.real = this.rows * this.pitch + 2 * GAP;
    this.virtual = Math.min(this.real, MAX_PIXELS);
    this.space.style.height = `${this.virtual}px`;
    this.clear();
    this.plan();
  }

  clear() { this.tiles.clear(); fill(this.space); }

  plan() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.draw());
  }

  /** Return how many pixels of the real content are above the view. */
  offset() {
    const height = this.element.clientHeight;
    if (this.real === this.virtual) return this.element.scrollTop;
    return (this.element.scrollTop * (this.real - height)) / Math.max(1, this.virtual - height);
  }

  draw() {
    const top = this.offset(), height = this.element.clientHeight;
    const shift = this.element.scrollTop - top;
    const first = Math.max(0, Math.floor(top / this.pitch) - SPARE_ROWS) * this.columns;
    const end = Math.min(this.total, (Math.ceil((top + height) / this.pitch) + SPARE_ROWS) * this.columns);
    for (const [number, tile] of this.tiles)
      if (number < first || number >= end) { tile.remove(); this.tiles.delete(number); }
    for (let number = first; number < end; number++) {
      if (!this.tiles.has(number)) this.add(number);
      const row = Math.floor(number / this.columns), column = number % this.columns;
      const tile = this.tiles.get(number);
      tile.style.transform = `translate(${GAP + column * (this.side + GAP)}px, ${GAP + row * this.pitch + shift}px)`;
    }
  }

  add(number) {
    const frame = h("span", { class: "frame" }), name = h("span", { class: "name" }, " ");
    frame.style.height = `${this.side}px`;
    const tile = h("button", { class: "tile", type: "button", role: "option", tabIndex: -1,
      "aria-selected": String(number === this.chosen), onclick: () => { this.choose(number); this.open(number); } }, frame, name);
    tile.style.width = `${this.side}px`;
    this.tiles.set(number, tile);
    this.space.append(tile);
    this.image(number).then((image) => {
      if (this.tiles.get(number) !== tile || !image) return;
      name.textContent = image.label || image.path;
      tile.title = image.path;
      frame.append(thumbnail(image));
      if (image.correction) frame.append(h("span", { class: "chip leaf mark" }, image.conflict ? "disputed" : "corrected"));
      else if (image.doubt?.suggested) frame.append(h("span", { class: "chip warn mark" }, `${image.doubt.suggested}?`));
      else if (image.reason) frame.append(h("span", { class: "chip bad mark" }, image.reason));
    }).catch(report);
  }

  choose(number) {
    if (number < 0 || number >= this.total) return;
    this.tiles.get(this.chosen)?.setAttribute("aria-selected", "false");
    this.chosen = number;
    const top = GAP + Math.floor(number / this.columns) * this.pitch, height = this.element.clientHeight;
    const now = this.offset();
    let wish = now;
    if (top < now) wish = top - GAP;
    else if (top + this.pitch > now + height) wish = top + this.pitch - height + GAP;
    if (wish !== now)
      this.element.scrollTop = this.real === this.virtual ? wish
        : (wish * (this.virtual - height)) / (this.real - height);
    this.draw();
    this.tiles.get(number)?.setAttribute("aria-selected", "true");
  }

  move(by) { this.choose(this.chosen < 0 ? 0 : Math.min(this.total - 1, Math.max(0, this.chosen + by))); }
}

/** Return the picture of an image, or the reason why there is none. */
export function thumbnail(image) {
  if (!image.id || !image.width) return h("span", { class: "gone" }, "no picture");
  const picture = h("img", { alt: "", loading: "lazy", decoding: "async", src: `api/images/${image.id}/thumbnail`,
    onload: () => picture.classList.add("here"),
    onerror: () => picture.replaceWith(h("span", { class: "gone" }, image.reason || "no longer readable")) });
  return picture;
}
