// `h` makes elements; text is always inserted as text, never as markup.

/** Make an element: properties, then children (elements, texts, arrays; null and false are left out). */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  return add(element, children);
}

/** Append children to an element and return it. */
export function add(element, children) {
  for (const child of [children].flat(Infinity))
    if (child !== null && child !== undefined && child !== false) element.append(child);
  return element;
}

/** Replace the content of an element. */
export function fill(element, ...children) {
  element.replaceChildren();
  return add(element, children);
}

/** Return the sentences of a report with code spans; the reports escape markdown by backslashes. */
export function prose(text) {
  return text.split("`").map((part, i) =>
    i % 2 ? h("code", {}, part) : part.replace(/\\([\\`*_{}[\]()#+\-.!|<>~&])/g, "$1"));
}

export const count = (number, noun) =>
  `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

export const percent = (share, digits = 1) =>
  share === null || share === undefined ? "–" : `${(100 * share).toFixed(digits)} %`;

/** Return a function that runs once calls have paused for some milliseconds. */
export function later(run, milliseconds) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => run(...values), milliseconds);
  };
}

/** Return a number with its name. */
export function tile(name, value, kind = "") {
  return h("div", { class: `figure ${kind}` }, h("span", { class: "quiet small" }, name), h("b", {}, value));
}
