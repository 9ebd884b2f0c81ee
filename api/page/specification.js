/** Specifications of jobs: to read, to take along, and to bring back. */

import { copyButton, dialog, fill, h } from "./dom.js";
import { asYaml, curl } from "./yaml.js";

/** A folded card with a specification. */
export function specificationCard(specification) {
  return specification ? h("details", { class: "card" }, h("summary", null, "Specification"), specificationText(specification)) : null;
}

/** A specification as text, with buttons that copy it. */
export function specificationText(specification) {
  const keys = Boolean(document.querySelector(".owner").textContent);
  return [
    h("pre", { class: "code", tabindex: 0, role: "region", "aria-label": "Specification" }, asYaml(specification)),
    h("p", { class: "buttons" },
      copyButton("Copy as YAML", "Specification", () => asYaml(specification)),
      copyButton("as JSON", "Specification", () => JSON.stringify(specification, null, 2)),
      copyButton("as curl", "Command", () => curl(specification, keys))),
  ];
}

/**
 * Asks for a specification to start from.
 * @param {string|undefined} open id of the upload that is open, for a specification that names none
 * @param {function(Object): void} use what takes the specification
 */
export function askForSpecification(open, use) {
  const text = h("textarea", { class: "code", rows: 14, "aria-label": "Specification as JSON", spellcheck: "false" });
  const trouble = h("p", { class: "err", role: "alert" });
  const take = () => {
    let found;
    try {
      found = JSON.parse(text.value);
    } catch (error) {
      return fill(trouble, `This is no JSON: ${error.message}.`);
    }
    const upload = found?.input?.upload ?? open;
    if (!upload) return fill(trouble, "It names no upload, and none is open: choose a file first.");
    found.input = { ...found.input, upload };
    delete found.input.path;  // of another machine
    shown.close();
    return use(found);
  };
  const shown = dialog("Start from a specification",
    h("p", { class: "soft" }, "A specification as JSON, as the tab “Specification” of a job has it. Without an upload it is for the file that is open here."),
    text, trouble, h("p", { class: "buttons" }, h("button", { type: "button", class: "primary", onclick: take }, "Use it")));
  text.focus();
}
