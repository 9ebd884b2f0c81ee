/** Elements, made without a framework; text is always text, never markup. */

/**
 * Element with properties and children.
 * @param {string} tag name, as `button`
 * @param {Object} [props] `class`, `on…` listeners, `dataset`, properties of the element, else attributes; null and
 *   false are left out
 * @param {...*} children nodes, text, arrays of these; null and false are left out
 * @returns {HTMLElement}
 */
export function h(tag, props, ...children) {
  return filled(document.createElement(tag), props, children);
}

const SVG = "http://www.w3.org/2000/svg";

/** The same for SVG. */
export function s(tag, props, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

function filled(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "value" || name === "checked" || name === "selected" || name === "htmlFor") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Puts other children into an element. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Changes the text of an element where it differs, so that a live region speaks only of what is new. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Says something to those who do not see the page. */
export function speak(text) {
  say(document.getElementById("spoken"), text);
}

let ids = 0;

/** An id that nothing else on the page has. */
export function newId(stem = "e") {
  ids += 1;
  return `${stem}-${ids}`;
}

/** A list of terms and what there is to say to each; terms of null are left out. */
export function facts(pairs, props = { class: "kv" }) {
  return h("dl", props, pairs.filter((pair) => pair && pair[1] !== null && pair[1] !== undefined).map(([term, told]) => [h("dt", null, term), h("dd", null, told)]));
}

/** A card with a heading. */
export function card(title, ...children) {
  const id = newId("card");
  return h("section", { class: "card", "aria-labelledby": id }, h("h2", { id }, title), ...children);
}

/**
 * A dialog that is shown at once and removed when it is closed; Escape closes it.
 * @param {string} title
 * @param {...*} children
 * @returns {HTMLDialogElement}
 */
export function dialog(title, ...children) {
  const id = newId("dialog");
  const close = h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => found.close() }, "✕");
  const found = h("dialog", { "aria-labelledby": id }, h("div", { class: "head" }, h("h2", { id, class: "title" }, title), close), ...children);
  found.addEventListener("close", () => found.remove());
  document.body.append(found);
  found.showModal();
  return found;
}

/** Copies text, or shows it to be copied by hand where a browser does not let pages do so. */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    speak(`${what} copied`);
    return true;
  } catch {
    dialog(what, h("textarea", { class: "code", rows: 12, readonly: true, "aria-label": what, value: text }));
    return false;
  }
}

/** A button that copies, and says so. */
export function copyButton(label, what, text) {
  const button = h("button", { type: "button", onclick: async () => {
    if (!(await copy(await text(), what))) return;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 2000);
  } }, label);
  return button;
}
