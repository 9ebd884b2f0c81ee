/** The first part of the form: what was uploaded, what is asked about it, how a volume is measured. */

import { Problem, sentence } from "./api.js";
import { fill, h, newId } from "./dom.js";
import { read, write } from "./fields.js";
import { bytes, digits, refines } from "./text.js";

const SIMULATED = { ct: ["views", "photons_per_ray", "tube_voltage_kv"], mri: ["acceleration", "pattern", "coils"] };

/** Shows what was uploaded, with what is asked about it. */
export function showMeasurement(form) {
  const { contents, upload } = form;
  fill(form.measurement,
    h("div", { class: "drop" },
      h("p", null, h("b", null, upload.name || upload.id), " ", h("span", { class: "soft num" }, `${bytes(upload.bytes)}${contents.files > 1 ? `, ${contents.files} files` : ""}`)),
      h("p", { class: "buttons" }, h("button", { type: "button", onclick: () => form.restart() }, "Choose another file"))),
    h("p", { class: "above soft" }, recognised(form)),
    questions(form),
    holdsVolume(form) ? simulation(form) : null,
    details(form));
}

function recognised(form) {
  const { format, told_by: by, shape, axes, angles, holds, values } = form.contents;
  if (!format) return "Nothing is known of its format.";
  const parts = [`Recognised: ${format}, by ${by}`];
  if (holds) parts.push({ measurement: "a measurement", volume: "a volume, whose measurement is simulated", array: "an array" }[holds]);
  if (shape) parts.push(shape.map((size, place) => (axes?.[place] ? `${size} ${axes[place]}` : size)).join(" × "));
  if (angles) parts.push(`angles ${digits(angles.first_deg)}° to ${digits(angles.last_deg)}°${angles.step_deg ? `, step ${digits(angles.step_deg)}°` : ""}`);
  if (values) parts.push(`values ${digits(values.lowest)} to ${digits(values.highest)}`);
  return `${parts.join("; ")}.`;
}

function holdsVolume(form) {
  return form.contents.holds === "volume" && !refines(read(form.draft, "acquisition.kind"));
}

/** What to read of a file that holds several things. */
function questions(form) {
  const asked = form.contents.missing.filter((missing) => missing.field.startsWith("input."));
  const answered = ["scan", "dataset", "file"].filter((name) => form.draft.input[name] && !asked.some((missing) => missing.field === `input.${name}`));
  const controls = asked.map((missing) => {
    const name = missing.field.slice("input.".length);
    const choices = (missing.remedy?.match(/one of:? (.*)/)?.[1] ?? "").split(", ").filter(Boolean);
    const choose = async (event) => {
      write(form.draft, missing.field, event.target.value.trim() || undefined);
      await look(form);
    };
    const id = newId("choice");
    const control = choices.length ? h("select", { id, onchange: choose }, h("option", { value: "" }, "choose"), choices.map((choice) => h("option", { value: choice }, choice))) : h("input", { id, type: "text", onchange: choose });
    return h("div", { class: "field", dataset: { field: missing.field } }, h("label", { htmlFor: id }, `Which ${name}`), control, h("span", { class: "hint" }, sentence(missing.why)), h("span", { class: "err" }));
  });
  const other = answered.map((name) => h("p", { class: "soft" }, `Read: ${name} ${form.draft.input[name]}. `, h("button", { type: "button", onclick: () => { write(form.draft, `input.${name}`, undefined); look(form); } }, "Choose another")));
  return controls.length || other.length ? [h("div", { class: "grid" }, controls), other] : null;
}

/** Looks into the upload again after a choice, and takes what the specification then lacks. */
async function look(form) {
  const { format, file, dataset, scan } = form.draft.input;
  try {
    await form.inspect({ format, file, dataset, scan });
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    return form.markAt(error);
  }
  const found = structuredClone(form.contents.specification);
  form.draft.acquisition ??= found.acquisition;
  if (form.draft.acquisition === undefined) delete form.draft.acquisition;
  form.draft.input = { ...found.input, ...form.draft.input };
  return form.show();
}

function simulation(form) {
  const { properties } = form.schemas.Simulation;
  const modality = form.kind()?.modality ?? "ct";
  const mine = Object.keys(properties).filter((name) => SIMULATED[modality].includes(name));
  const others = Object.keys(properties).filter((name) => !mine.includes(name) && fits(properties[name], modality));
  const made = (names) => names.map((name) => form.field(`input.simulate.${name}`, properties[name], form.schemas));
  return h("div", null,
    h("p", { class: "above" }, h("b", null, "Simulated scan")),
    h("div", { class: "grid" }, made(mine)),
    h("details", null, h("summary", null, "More about the simulated scan"), h("div", { class: "grid" }, made(others))));
}

function details(form) {
  const rows = form.contents.datasets.map((set) => h("tr", null, h("th", { scope: "row" }, set.name), h("td", { class: "num" }, set.shape?.join(" × ") ?? ""), h("td", null, [set.dtype, set.unit].filter(Boolean).join(", ")), h("td", null, set.note ?? "")));
  const table = rows.length ? h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Data sets" }, h("table", null, h("thead", null, h("tr", null, ["data set", "shape", "type", ""].map((text) => (text ? h("th", { scope: "col" }, text) : h("td"))))), h("tbody", null, rows))) : null;
  return h("details", null, h("summary", null, "What is in it"), form.contents.notes.map((note) => h("p", { class: "soft" }, sentence(note))), table);
}

/** Whether a setting of a simulation is for a modality, which its description says in brackets. */
function fits(schema, modality) {
  const text = schema.description ?? "";
  const [ct, mri] = [/\(CT\)/.test(text), /\(MRI\)|\(k-space\)/.test(text)];
  return (!ct && !mri) || (modality === "ct" ? ct : mri);
}
