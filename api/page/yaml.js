/** Specifications as text to take along: YAML, and commands of curl. */

import { ROOT } from "./api.js";

const PLAIN = /^[A-Za-z_][\w ./()+-]*$/;
const RESERVED = /^(true|false|null|yes|no|on|off|~)$/i;

/** A value as YAML, of plain objects, arrays and scalars. */
export function yaml(value, indent = "") {
  if (Array.isArray(value)) {
    if (value.every((item) => item === null || typeof item !== "object")) return `[${value.map(scalar).join(", ")}]`;
    return value.map((item) => `\n${indent}- ${yaml(item, `${indent}  `).trimStart()}`).join("");
  }
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value);
    if (entries.length === 0) return "{}";
    return entries
      .map(([key, inner]) => {
        const text = yaml(inner, `${indent}  `);
        return `\n${indent}${key}:${text.startsWith("\n") ? text : ` ${text}`}`;
      })
      .join("");
  }
  return scalar(value);
}

function scalar(value) {
  // YAML 1.1 takes a power of ten without a point for text.
  if (typeof value !== "string") return JSON.stringify(value).replace(/^(-?\d+)e/, "$1.0e");
  return PLAIN.test(value) && !RESERVED.test(value) && !value.endsWith(" ") ? value : JSON.stringify(value);
}

/** A whole specification as a YAML document. */
export const asYaml = (specification) => `${yaml(specification).trimStart()}\n`;

/** The command that submits a specification. */
export function curl(specification, keys) {
  const quoted = JSON.stringify(specification, null, 2).replaceAll("'", "'\\''");
  return `curl ${keys ? '-H "Authorization: Bearer $RECON_API_KEY" ' : ""}${new URL("v1/jobs", ROOT)} --json '${quoted}'\n`;
}
