// The address contains the page and its filters, so that links and the back button work.

/** Return the path and the parameters of the current address, such as #/data?term=ants. */
export function place() {
  const [path, text] = location.hash.replace(/^#\/?/, "").split("?");
  return { path, parameters: new URLSearchParams(text || "") };
}

/** Return the address of a page with parameters; values may be lists. */
export function address(path, parameters = {}) {
  const list = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters))
    for (const one of [value].flat())
      if (one !== "" && one !== null && one !== undefined) list.append(name, one);
  const text = list.toString();
  return `#/${path}${text ? `?${text}` : ""}`;
}
