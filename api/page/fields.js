/** Form fields of a specification, made from its JSON schema. */

import { call } from "./api.js";
import { h, newId } from "./dom.js";

const LABELS = {
  pixel_mm: "Pixel size, mm",
  slice_mm: "Slice distance, mm",
  detector_mm: "Detector pitch, mm",
  detector_shift_mm: "Detector shift, mm",
  rotation_center_column: "Rotation axis, column",
  mu_water_per_mm: "Water, 1/mm",
  noise_std: "Noise, standard deviation",
  angles_rad: "Angles, radians",
  object_mm: "Diameter of the object, mm",
  source_origin_mm: "Source to axis, mm",
  origin_detector_mm: "Axis to detector, mm",
  acs_width: "Calibration width, points",
  photons_per_ray: "Photons per ray",
  tube_voltage_kv: "Tube voltage, kV",
  rows: "Image rows",
  cols: "Image columns",
  slices: "Slices, from – to",
};
const HINTS = {
  detector_mm: "that of the file",
  rotation_center_column: "the middle, or “auto” to find it",
  mu_water_per_mm: "given: result in HU",
  pixel_mm: "detector pitch at the axis",
  photons_per_ray: "none: no noise",
  noise_std: "found from the data",
  views: "over half or a full turn",
  tube_voltage_kv: "beams of one energy",
  acceleration: "points per sampled point",
  pattern: "which points are sampled",
  coils: "receive coils",
  acs_width: "the fully sampled centre",
};
const UNITS = [["_per_mm", ", 1/mm"], ["_mm", ", mm"], ["_rad", ", radians"], ["_deg", ", degrees"], ["_kev", ", keV"], ["_kv", ", kV"], ["_pixels", ", pixels"], ["_std", ", standard deviation"]];

/** Label of a field by its name, with its unit. */
export function label(name) {
  if (LABELS[name]) return LABELS[name];
  const unit = UNITS.find(([ending]) => name.endsWith(ending));
  const words = (unit ? name.slice(0, -unit[0].length) : name).replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1) + (unit ? unit[1] : "");
}

/** Value at a dotted path of a specification. */
export const read = (root, path) => path.split(".").reduce((value, key) => value?.[key], root);

/** Sets, or with undefined takes out, the value at a dotted path; objects on the way are made, and left out when empty. */
export function write(root, path, value) {
  const [key, ...rest] = path.split(".");
  if (rest.length) {
    if (root[key] === null || typeof root[key] !== "object") root[key] = {};
    write(root[key], rest.join("."), value);
    if (Object.keys(root[key]).length === 0) delete root[key];
  } else if (value === undefined) delete root[key];
  else root[key] = value;
}

/** The alternatives of a schema, references followed, without null. */
function alternatives(schema, defs) {
  const followed = schema.$ref ? { ...defs[schema.$ref.split("/").pop()], ...schema } : schema;
  const all = followed.anyOf ?? followed.oneOf ?? [followed];
  return all.map((one) => (one.$ref ? defs[one.$ref.split("/").pop()] : one)).filter((one) => one.type !== "null");
}

/**
 * A field with its label, hint and place for an error.
 * @param {Object} about
 * @param {string} about.path dotted, as `acquisition.detector_mm`
 * @param {Object} about.schema of the value
 * @param {Object} about.defs definitions that the schema refers to
 * @param {Object} about.draft the specification that is written
 * @param {function} about.changed called after each change
 * @param {string} [about.hint] instead of the one from the schema
 * @param {string} [about.title] instead of the label by name
 * @param {boolean} [about.needed] whether there is no default
 * @returns {HTMLElement}
 */
export function field({ path, schema, defs, draft, changed, hint, title, needed = false }) {
  const name = path.split(".").pop();
  const [id, hintId, errorId] = [newId("field"), newId("hint"), newId("error")];
  const set = (value) => {
    write(draft, path, value);
    mark(element, null);
    changed();
  };
  const control = made(alternatives(schema, defs), { schema, value: read(draft, path), set, refuse: (text) => mark(element, text) });
  control.id = id;
  if (needed && "placeholder" in control) control.placeholder = "needed";
  control.setAttribute("aria-describedby", `${hintId} ${errorId}`);
  const told = hint ?? HINTS[name] ?? short(schema.description);
  const text = h("label", { htmlFor: id }, title ?? label(name));
  const box = control.type === "checkbox";
  const element = h("div", { class: `field ${box ? "check" : ""} ${control.tagName === "TEXTAREA" ? "wide" : ""}`, dataset: { field: path } },
    box ? [control, text] : [text, control],
    h("span", { class: "hint", id: hintId, title: schema.description ?? null }, told),
    h("span", { class: "err", id: errorId }));
  return element;
}

/** Shows an error at a field, or takes it away. */
export function mark(element, text) {
  const control = element.querySelector("input, select, textarea");
  if (control && text) control.setAttribute("aria-invalid", "true");
  else control?.removeAttribute("aria-invalid");
  const place = element.querySelector(".err");
  if (place.textContent !== (text ?? "")) place.textContent = text ?? "";
}

function made(kinds, { schema, value, set, refuse }) {
  const [first] = kinds;
  const types = kinds.map((kind) => kind.type);
  if (kinds.length === 1 && first.enum) return choice(first.enum, { schema, value, set });
  if (kinds.length === 1 && first.type === "boolean") {
    return h("input", { type: "checkbox", checked: value ?? schema.default ?? false, onchange: (event) => set(event.target.checked === schema.default ? undefined : event.target.checked) });
  }
  if (kinds.length === 1 && first.title === "File") return uploads({ value, set });
  if (kinds.length === 1 && first.prefixItems) return range({ value, set, refuse });
  if (types.every((type) => ["number", "integer", "string"].includes(type))) return plain(types, { schema, value, set, refuse });
  return json({ schema, value, set, refuse });
}

function choice(values, { schema, value, set }) {
  const told = schema.default === undefined || schema.default === null ? "default" : `${schema.default} (default)`;
  const options = values.filter((one) => one !== schema.default);
  return h("select", { onchange: (event) => set(event.target.value === "" ? undefined : options.find((one) => String(one) === event.target.value)) },
    h("option", { value: "" }, told),
    options.map((one) => h("option", { value: String(one), selected: value === one }, String(one))));
}

function plain(types, { schema, value, set, refuse }) {
  const numeric = types.includes("number") || types.includes("integer");
  const shown = schema.default === undefined || schema.default === null ? "default" : String(schema.default);
  const take = (event) => {
    const text = event.target.value.trim();
    if (text === "") return set(undefined);
    const number = Number(text.replace(",", "."));
    if (numeric && Number.isFinite(number)) return set(number);
    if (types.includes("string")) return set(text);
    return refuse(`“${text}” is no number: give one, as 0.5 or 1e5`);
  };
  return h("input", { type: "text", inputmode: numeric && !types.includes("string") ? "decimal" : null, autocomplete: "off", placeholder: shown, value: value ?? "", oninput: take });
}

function range({ value, set, refuse }) {
  const take = (event) => {
    const text = event.target.value.trim();
    if (text === "") return set(undefined);
    const found = text.match(/^(\d+)\s*(?:–|-|,|to|\s)\s*(\d+)$/);
    return found ? set([Number(found[1]), Number(found[2])]) : refuse("Give two whole numbers, as 0 – 64");
  };
  return h("input", { type: "text", autocomplete: "off", placeholder: "all", value: value ? value.join(" – ") : "", oninput: take });
}

function uploads({ value, set }) {
  const select = h("select", { onchange: (event) => set(event.target.value ? { upload: event.target.value } : undefined) }, h("option", { value: "" }, "none"));
  call("v1/uploads?limit=200").then((page) => {
    const whole = page.uploads.filter((upload) => upload.complete);
    select.append(...whole.map((upload) => h("option", { value: upload.id, selected: value?.upload === upload.id }, upload.name || upload.id)));
  }).catch(() => {});
  return select;
}

function json({ schema, value, set, refuse }) {
  const take = (event) => {
    const text = event.target.value.trim();
    if (text === "") return set(undefined);
    try {
      return set(JSON.parse(text));
    } catch {
      return refuse("This is no JSON: give an object, a list or a number, or leave it empty");
    }
  };
  return h("textarea", { class: "code", rows: 2, spellcheck: "false", placeholder: schema.default ? JSON.stringify(schema.default) : "default, or JSON", value: value === undefined || value === null ? "" : JSON.stringify(value), onchange: take });
}

/** First sentence of a description, and what its default is. */
function short(description) {
  if (!description) return "";
  const flat = description.replaceAll("`", "").replace(/\s+/g, " ");
  const preset = flat.match(/Default: ([^.]*)\./)?.[1];
  return preset ?? flat.split(/\. |: /)[0].replace(/\.$/, "");
}

/** A choice of several, as a card. */
export function option({ group, title, text, checked, onchange }) {
  return h("label", { class: "opt" }, h("input", { type: "radio", name: group, checked, onchange }), h("b", null, title), h("small", null, text));
}
