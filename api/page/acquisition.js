/** The second part of the form: the kind of scan, and what the file does not tell of it. */

import { sentence } from "./api.js";
import { fill, h } from "./dom.js";
import { option, read, write } from "./fields.js";
import { showMeasurement } from "./measurement.js";
import { showMethod } from "./method.js";
import { digits, kindName } from "./text.js";

const ASKED = { ct: ["pixel_mm", "rotation_center_column", "mu_water_per_mm"], mri: ["pixel_mm", "acs_width", "noise_std"] };
const KIND_HINTS = { "ct-parallel": "angles, detector", "ct-fan": "and distances", "ct-cone": "flat panel", "ct-laminography": "laminography", "ct-superresolution": "thick slices", "mri-cartesian": "multi-coil k-space", "mri-noncartesian": "radial, spiral", "mri-superresolution": "low-resolution stack" };

/** Shows the kinds of scans, and the fields of the chosen one. */
export function showAcquisition(form) {
  const now = read(form.draft, "acquisition.kind");
  const choose = (kind) => {
    const { properties } = kind.fields;
    const kept = Object.entries(form.draft.acquisition ?? {}).filter(([name]) => name in properties);
    form.draft.acquisition = { ...Object.fromEntries(kept), kind: kind.name };
    const method = form.draft.method.name;
    if (!kind.methods.includes(method)) form.draft.method = { name: form.about.default_method };
    if (form.draft.output?.baselines) write(form.draft, "output.baselines", undefined);
    if (form.contents.holds === "volume") write(form.draft, "input.simulate", undefined);
    showMeasurement(form);
    showFields(form);
    showMethod(form);
    form.changed();
  };
  const cards = form.about.acquisitions.map((kind) => option({ group: "kind", title: kindName(kind.name), text: KIND_HINTS[kind.name] ?? kind.summary, checked: kind.name === now, onchange: () => choose(kind) }));
  form.fields = h("div");
  const asked = form.contents.missing.find((missing) => missing.field === "acquisition.kind");
  fill(form.acquisition,
    h("div", { class: "opts kinds", role: "radiogroup", "aria-label": "Kind of scan", dataset: { field: "acquisition.kind" } }, cards, h("span", { class: "err" })),
    asked ? h("p", { class: "above soft" }, sentence(asked.why)) : null,
    form.fields);
  showFields(form);
}

function showFields(form) {
  const kind = form.kind();
  if (!kind) return fill(form.fields);
  const { properties, $defs: defs = {} } = kind.fields;
  const missing = form.contents.missing.map((one) => one.field).filter((path) => path.startsWith("acquisition.") && path !== "acquisition.kind").map((path) => path.split(".")[1]);
  const given = Object.keys(form.draft.acquisition).filter((name) => name !== "kind");
  const first = [...new Set([...missing, ...given, ...ASKED[kind.modality]])].filter((name) => name in properties);
  const others = Object.keys(properties).filter((name) => name !== "kind" && !first.includes(name));
  const hint = (name) => form.contents.geometry[name] !== undefined ? `${digits(form.contents.geometry[name], 5)}, from the file` : undefined;
  const made = (names) => names.map((name) => form.field(`acquisition.${name}`, properties[name], defs, missing.includes(name) ? { hint: "", needed: true } : { hint: hint(name) }));
  const count = form.contents.axes?.[0] === "slices" ? form.contents.shape[0] : 1;
  const slices = count > 1 || form.draft.input.slices ? form.field("input.slices", form.schemas.Input.properties.slices, form.schemas, { hint: `of ${count}; counted from 0, the second left out` }) : null;
  return fill(form.fields,
    h("div", { class: "grid" }, made(first), slices),
    h("details", null, h("summary", null, "More about the acquisition"), h("div", { class: "grid" }, made(others))));
}
