/** The specification of a job, to read and to take along. */

import { copyButton, h } from "./dom.js";
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
