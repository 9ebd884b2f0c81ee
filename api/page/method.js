/** The third part of the form: the method with its settings, and what is computed beside it. */

import { fill, h, newId } from "./dom.js";
import { field, option, read, write } from "./fields.js";
import { methodName } from "./text.js";

const SHORT = {
  auto: "judged by withheld samples; the safe choice",
  "red-diff": "diffusion prior",
  tv: "no prior, edges kept",
  fbp: "seconds, streaks with few views",
  boundary: "conditional prior, few steps",
  "cg-sense": "no prior, least squares",
  "zero-filled": "seconds, aliased",
  gridding: "seconds, aliased",
  interpolation: "seconds, blurred",
};

/** Shows the methods that fit the kind of scan, and the settings of the chosen one. */
export function showMethod(form) {
  const kind = form.kind();
  if (!kind) return fill(form.method, h("p", { class: "soft" }, "Choose the kind of scan first."));
  const now = form.draft.method.name;
  const wanted = ["auto", "red-diff", "tv", kind.baseline];
  const shown = wanted.filter((name) => kind.methods.includes(name));
  if (!shown.includes(now)) shown.push(now);
  const choose = (name) => {
    form.draft.method = { name };
    showMethod(form);
    form.changed();
    form.method.querySelector("input:checked, select")?.focus();
  };
  const summary = (name) => SHORT[name] ?? form.about.methods.find((one) => one.name === name).summary;
  const cards = shown.map((name) => option({ group: "method", title: methodName(name), text: summary(name), checked: name === now, onchange: () => choose(name) }));
  const open = form.method.querySelector("details")?.open;
  return fill(form.method,
    h("div", { class: "opts", role: "radiogroup", "aria-label": "Method", dataset: { field: "method" } }, cards, h("span", { class: "err" })),
    h("details", { open }, h("summary", null, "More methods and settings"), settings(form, kind, now, choose)),
    beside(form, kind, now),
    h("details", null, h("summary", null, "Files, queue and seed"), others(form)));
}

function settings(form, kind, now, choose) {
  const id = newId("method");
  const about = form.about.methods.find((one) => one.name === now);
  const select = h("select", { id, onchange: (event) => choose(event.target.value) }, kind.methods.map((name) => h("option", { value: name, selected: name === now }, methodName(name))));
  const { properties, $defs: defs = {} } = about.settings;
  const wrap = (name) => {
    const schema = name === "prior" ? { anyOf: [{ enum: priors(form, kind), type: "string" }, { type: "null" }], default: null, description: "Default: the modality's." } : properties[name];
    const changed = () => form.changed();
    return field({ path: `method.${name}`, schema, defs, draft: form.draft, changed });
  };
  return [
    h("div", { class: "field" }, h("label", { htmlFor: id }, "Method"), select, h("span", { class: "hint" }, about.summary)),
    about.description ? h("p", { class: "soft" }, about.description) : null,
    h("div", { class: "grid" }, Object.keys(properties).filter((name) => name !== "name" && name !== "frozen_noise").map(wrap)),
  ];
}

function priors(form, kind) {
  return form.about.priors.filter((prior) => prior.modality === kind.modality && Boolean(prior.super_resolution) === (kind.name === "mri-superresolution")).map((prior) => prior.name);
}

/** What is computed beside the result. */
function beside(form, kind, now) {
  const classical = form.about.methods.filter((one) => one.classical && kind.methods.includes(one.name) && one.name !== now).map((one) => one.name);
  const chosen = new Set(form.draft.output?.baselines ?? [kind.baseline]);
  const toggle = (name, on) => {
    if (on) chosen.add(name);
    else chosen.delete(name);
    write(form.draft, "output.baselines", classical.filter((one) => chosen.has(one)));
    form.changed();
  };
  const replicates = read(form.draft, "output.uncertainty") ?? 0;
  const count = h("input", { type: "number", min: 1, max: 64, value: replicates || 4, "aria-label": "Replicates", disabled: !replicates });
  const setReplicates = () => {
    count.disabled = !errors.checked;
    write(form.draft, "output.uncertainty", errors.checked ? Number(count.value) || undefined : undefined);
    form.changed();
  };
  count.addEventListener("input", setReplicates);
  const errors = h("input", { type: "checkbox", checked: replicates > 0, onchange: setReplicates });
  return h("div", { class: "bar", role: "group", "aria-label": "Beside the result", dataset: { field: "output" } },
    h("span", { class: "lab" }, "Beside it"),
    classical.map((name) => h("label", null, h("input", { type: "checkbox", checked: chosen.has(name), onchange: (event) => toggle(name, event.target.checked) }), methodName(name))),
    h("span", { class: "break" }),
    h("label", null, errors, "Map of errors to be expected,"), h("span", { class: "lab" }, count, " replicates"),
    h("label", null, h("input", { type: "checkbox", checked: read(form.draft, "output.undetermined") ?? false, onchange: (event) => { write(form.draft, "output.undetermined", event.target.checked || undefined); form.changed(); } }), "What no sample determined"),
    h("span", { class: "err" }));
}

function others(form) {
  const { Output, JobSpec } = form.schemas;
  return h("div", { class: "grid" },
    form.field("output.format", Output.properties.format, form.schemas, { title: "Format of the volumes" }),
    ...["priority", "device", "seed", "tags"].map((name) => form.field(name, JobSpec.properties[name], form.schemas)));
}
