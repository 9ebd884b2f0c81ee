/** The form of a new reconstruction: measurement, acquisition, method, and beside it the plan, live. */

import { call, catalogue, idempotencyKey, once, Problem, sentence } from "./api.js";
import { card, copyButton, dialog, fill, h, newId, say, speak } from "./dom.js";
import { field, mark, read, write } from "./fields.js";
import { dropZone } from "./home.js";
import { jobs } from "./jobs.js";
import { showPlan, showTrouble } from "./plan.js";
import { bytes, digits, duration, kindName, methodName } from "./text.js";
import { current } from "./upload.js";
import { asYaml, curl } from "./yaml.js";

const PLAN_AFTER_MS = 250;
const ASKED = { ct: ["pixel_mm", "rotation_center_column", "mu_water_per_mm"], mri: ["pixel_mm", "acs_width", "noise_std"] };
const SIMULATED = { ct: ["views", "photons_per_ray", "tube_voltage_kv"], mri: ["acceleration", "pattern", "coils"] };
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
const KIND_HINTS = { "ct-parallel": "angles, detector", "ct-fan": "and distances", "mri-cartesian": "multi-coil k-space", "mri-noncartesian": "radial, spiral", "mri-superresolution": "low-resolution stack" };

/**
 * Shows the view.
 * @param {HTMLElement} main
 * @param {{upload?: string, from?: string, problem?: Object}} start an upload, or a job to run again with changes
 * @param {AbortSignal} signal aborted when the view is left
 */
export async function showNew(main, start, signal) {
  document.title = "New reconstruction – Diffusion Recon";
  const form = new Form(signal);
  form.build(main);
  const [about, api] = await Promise.all([catalogue(), once("openapi.json")]);
  form.know(about, api.components.schemas);
  if (start.from) await form.again(start.from);
  else if (start.upload) await form.open(start.upload);
  else if (current.transfer) form.wait(current.transfer);
}

class Form {
  constructor(signal) {
    Object.assign(this, { signal, upload: null, contents: null, draft: null, plan: null, timer: 0, asked: 0 });
  }

  build(main) {
    this.measurement = h("div");
    this.acquisition = h("div");
    this.method = h("div");
    this.planned = h("div", { role: "status" });
    this.name = h("input", { type: "text", maxlength: 100, autocomplete: "off", id: newId("name"), oninput: () => { write(this.draft, "name", this.name.value.trim() || undefined); this.save(); } });
    this.submit = h("button", { type: "submit", class: "primary", "aria-describedby": "why" }, "Reconstruct");
    this.why = h("p", { class: "soft", id: "why" });
    this.trouble = h("p", { class: "err", role: "alert" });
    this.rest = h("div", { hidden: true },
      h("fieldset", null, h("legend", null, "Acquisition"), this.acquisition),
      h("fieldset", null, h("legend", null, "Method"), this.method));
    this.copies = h("p", { class: "buttons", hidden: true },
      copyButton("Copy as YAML", "Specification", () => asYaml(this.specification())),
      copyButton("as JSON", "Specification", () => JSON.stringify(this.specification(), null, 2)),
      copyButton("as curl", "Command", () => curl(this.specification(), Boolean(document.querySelector(".owner").textContent))));
    const aside = h("div", { class: "stack stuck" },
      card("The plan", this.planned),
      h("div", { class: "card stack" },
        h("div", { class: "field", dataset: { field: "name" } }, h("label", { htmlFor: this.name.id }, "Name"), this.name, h("span", { class: "err" })),
        this.submit, this.why, this.trouble, this.copies));
    const submitted = (event) => {
      event.preventDefault();
      this.send();
    };
    fill(main,
      h("div", { class: "head" }, h("h1", { tabindex: -1 }, "New reconstruction"), h("button", { type: "button", onclick: () => this.paste() }, "Start from a specification…")),
      h("form", { class: "form", novalidate: true, onsubmit: submitted }, h("div", null, h("fieldset", null, h("legend", null, "Measurement"), this.measurement), this.rest), aside));
    fill(this.measurement, dropZone());
    this.ready("Waits for a measurement.");
    fill(this.planned, h("p", { class: "soft" }, "Time and memory stand here once there is a measurement."));
  }

  know(about, schemas) {
    Object.assign(this, { about, schemas });
  }

  /** Waits for an upload that is on its way, and shows how far it is. */
  wait(transfer) {
    const bar = h("progress", { max: 1, value: 0, "aria-label": "Upload" });
    const told = h("span", { class: "soft num" });
    const hold = h("button", { type: "button", onclick: () => (transfer.state === "sending" || transfer.state === "broken" ? transfer.pause() : transfer.resume()) });
    const other = h("button", { type: "button", onclick: () => { transfer.pause(); current.transfer = null; this.restart(); } }, "Choose another file");
    const trouble = h("p", { class: "err", role: "alert" });
    fill(this.measurement, h("div", { class: "drop" }, h("p", null, h("b", null, transfer.name), " ", told), bar, h("p", { class: "buttons" }, hold, other), trouble));
    const look = () => {
      if (this.signal.aborted) return transfer.removeEventListener("change", look);
      bar.value = transfer.size ? transfer.sent / transfer.size : 0;
      const left = transfer.rate ? `, ${bytes(transfer.rate)}/s, ${duration((transfer.size - transfer.sent) / transfer.rate)} left` : "";
      const far = `${bytes(transfer.sent)} of ${bytes(transfer.size)}`;
      say(told, { paused: `${far}, paused; what was sent is kept.`, broken: `${far}; the line is broken, trying again by itself. What was sent is kept.`, refused: far }[transfer.state] ?? `${far}${left}. A broken line or a closed page loses nothing.`);
      say(hold, transfer.state === "sending" ? "Pause" : transfer.state === "broken" ? "Pause" : transfer.state === "refused" ? "Try again" : "Go on");
      say(trouble, transfer.state === "refused" || (transfer.state === "paused" && transfer.problem) ? transfer.problem.sentence : "");
      if (transfer.state === "done") {
        transfer.removeEventListener("change", look);
        current.transfer = null;
        history.replaceState(null, "", `#/new/${transfer.id}`);
        speak("Upload complete");
        this.open(transfer.id);
      }
    };
    transfer.addEventListener("change", look);
    look();
    this.ready("Waits for the upload.");
  }

  restart() {
    if (location.hash === "#/new") dispatchEvent(new HashChangeEvent("hashchange"));
    else location.hash = "#/new";
  }

  /** Opens an upload: shows what is in it, and a specification to start from, or the one begun before. */
  async open(id, chosen = {}) {
    try {
      this.upload = await call(`v1/uploads/${id}`);
      if (!this.upload.complete) return this.unfinished();
      fill(this.measurement, h("p", { class: "soft", role: "status" }, `Looking into ${this.upload.name || id}…`));
      await this.inspect(chosen);
    } catch (error) {
      if (this.draft) this.draft = null;
      return this.notThere(error);
    }
    this.draft ??= this.kept() ?? structuredClone(this.contents.specification);
    this.show();
  }

  async inspect(chosen) {
    const asked = new URLSearchParams(Object.entries(chosen).filter(([, value]) => value));
    this.contents = await call(`v1/uploads/${this.upload.id}/contents?${asked}`);
  }

  /** Opens the specification of a job, to be changed and sent again. */
  async again(jobId) {
    try {
      const [job, specification] = await Promise.all([jobs.fetch(jobId), call(`v1/jobs/${jobId}/spec`)]);
      this.draft = structuredClone(specification);
      this.before = job;
      const { format, file, dataset, scan } = specification.input;
      await this.open(specification.input.upload, { format, file, dataset, scan });
    } catch (error) {
      this.notThere(error);
    }
  }

  notThere(error) {
    if (!(error instanceof Problem)) throw error;
    fill(this.measurement, h("p", { class: "err", role: "alert" }, error.sentence), dropZone());
    this.ready("Waits for a measurement.");
  }

  unfinished() {
    fill(this.measurement, h("p", { class: "warn" }, `${this.upload.name || "This upload"} is not complete: ${bytes(this.upload.received)} of ${bytes(this.upload.bytes)} are here. Choose the same file again, and it goes on from there.`), dropZone());
  }

  kept() {
    try {
      return JSON.parse(sessionStorage.getItem(`recon.draft.${this.upload.id}`));
    } catch {
      return null;
    }
  }

  /** The draft as it is sent: a method without settings is its name. */
  specification() {
    const { method } = this.draft;
    return { ...this.draft, method: Object.keys(method).length > 1 ? method : method.name };
  }

  save() {
    sessionStorage.setItem(`recon.draft.${this.upload.id}`, JSON.stringify(this.draft));
  }

  /** Shows all that depends on the draft. */
  show() {
    for (const missing of this.contents.missing) if (read(this.draft, missing.field) === null) write(this.draft, missing.field, undefined);
    this.draft.method ??= this.about.default_method;
    if (typeof this.draft.method === "string") this.draft.method = { name: this.draft.method };
    this.name.value = this.draft.name ?? "";
    this.name.placeholder = this.upload.name;
    this.showMeasurement();
    this.rest.hidden = false;
    this.copies.hidden = false;
    this.showAcquisition();
    this.showMethod();
    this.ready("Waits for the plan.");
    this.changed();
  }

  changed() {
    this.save();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), PLAN_AFTER_MS);
  }

  /** What the file does not tell, and nobody has said yet. */
  lacking() {
    const open = ({ field: path }) => path === "acquisition.kind" ? !this.kind() : [undefined, null].includes(read(this.draft, path));
    return this.contents.missing.filter((missing) => open(missing) && document.querySelector(`main [data-field="${CSS.escape(missing.field)}"]`));
  }

  /** Asks for the plan of the draft; the last question's answer counts. */
  async ask() {
    this.asked += 1;
    const mine = this.asked;
    const lacking = this.lacking();
    if (lacking.length) {
      this.unmark();
      const places = lacking.map(({ field: path, why, remedy }) => this.markAt(new Problem({ field: path, detail: why, remedy })));
      fill(this.planned, h("p", { class: "soft" }, "Time and memory stand here once it is known what the file does not say."));
      return this.ready(`Waits for ${places.map(plainly).join(" and ")}.`);
    }
    try {
      const plan = await call("v1/estimates", { method: "POST", json: this.specification(), signal: this.signal });
      if (mine !== this.asked) return;
      this.unmark();
      showPlan(this.planned, plan, this.draft);
      this.ready(plan.fits ? null : "Does not fit into the memory that a job may take: choose fewer slices, or larger pixels.");
    } catch (error) {
      if (error.name === "AbortError" || mine !== this.asked) return;
      if (!(error instanceof Problem)) throw error;
      this.unmark();
      const place = this.markAt(error);
      showTrouble(this.planned, error, place);
      this.ready(error.offline ? "Waits for the server." : place ? `Waits for ${plainly(place)}.` : "Waits for what stands above to be mended.");
      if (error.offline) this.timer = setTimeout(() => this.ask(), 4000);
    }
    return undefined;
  }

  unmark() {
    document.querySelectorAll("main [data-field]").forEach((element) => element.querySelector(".err") && mark(element, null));
  }

  /** Shows a problem at its field, or at the nearest around it; returns that field's label, null if there is none. */
  markAt(problem) {
    const parts = (problem.field ?? "").split(".");
    for (; parts.length; parts.pop()) {
      const element = document.querySelector(`main [data-field="${CSS.escape(parts.join("."))}"]`);
      if (!element || parts.join(".") === "") continue;
      for (let around = element.closest("details"); around; around = around.parentElement.closest("details")) around.open = true;
      mark(element, problem.sentence);
      return (element.querySelector("label, legend") ?? element).textContent || element.dataset.field;
    }
    return null;
  }

  ready(why) {
    this.submit.disabled = why !== null;
    say(this.why, why ?? "");
    this.why.hidden = why === null;
  }

  field(path, schema, defs, more = {}) {
    return field({ path, schema, defs, draft: this.draft, changed: () => this.changed(), ...more });
  }

  // The measurement

  showMeasurement() {
    const { contents, upload } = this;
    fill(this.measurement,
      h("div", { class: "drop" },
        h("p", null, h("b", null, upload.name || upload.id), " ", h("span", { class: "soft num" }, `${bytes(upload.bytes)}${contents.files > 1 ? `, ${contents.files} files` : ""}`)),
        h("p", { class: "buttons" }, h("button", { type: "button", onclick: () => this.restart() }, "Choose another file"))),
      h("p", { class: "above soft" }, this.recognised()),
      this.questions(),
      this.holdsVolume() ? this.simulation() : null,
      this.details());
  }

  recognised() {
    const { format, told_by: by, shape, axes, angles, holds, values } = this.contents;
    if (!format) return "Nothing is known of its format.";
    const parts = [`Recognised: ${format}, by ${by}`];
    if (holds) parts.push({ measurement: "a measurement", volume: "a volume, whose measurement is simulated", array: "an array" }[holds]);
    if (shape) parts.push(shape.map((size, place) => (axes?.[place] ? `${size} ${axes[place]}` : size)).join(" × "));
    if (angles) parts.push(`angles ${digits(angles.first_deg)}° to ${digits(angles.last_deg)}°${angles.step_deg ? `, step ${digits(angles.step_deg)}°` : ""}`);
    if (values) parts.push(`values ${digits(values.lowest)} to ${digits(values.highest)}`);
    return `${parts.join("; ")}.`;
  }

  holdsVolume() {
    return this.contents.holds === "volume" && read(this.draft, "acquisition.kind") !== "mri-superresolution";
  }

  /** What to read of a file that holds several things. */
  questions() {
    const asked = this.contents.missing.filter((missing) => missing.field.startsWith("input."));
    const answered = ["scan", "dataset", "file"].filter((name) => this.draft.input[name] && !asked.some((missing) => missing.field === `input.${name}`));
    const controls = asked.map((missing) => {
      const name = missing.field.slice("input.".length);
      const choices = (missing.remedy?.match(/one of:? (.*)/)?.[1] ?? "").split(", ").filter(Boolean);
      const choose = async (event) => {
        write(this.draft, missing.field, event.target.value.trim() || undefined);
        await this.look();
      };
      const id = newId("choice");
      const control = choices.length ? h("select", { id, onchange: choose }, h("option", { value: "" }, "choose"), choices.map((choice) => h("option", { value: choice }, choice))) : h("input", { id, type: "text", onchange: choose });
      return h("div", { class: "field", dataset: { field: missing.field } }, h("label", { htmlFor: id }, `Which ${name}`), control, h("span", { class: "hint" }, sentence(missing.why)), h("span", { class: "err" }));
    });
    const other = answered.map((name) => h("p", { class: "soft" }, `Read: ${name} ${this.draft.input[name]}. `, h("button", { type: "button", onclick: () => { write(this.draft, `input.${name}`, undefined); this.look(); } }, "Choose another")));
    return controls.length || other.length ? [h("div", { class: "grid" }, controls), other] : null;
  }

  /** Looks into the upload again after a choice, and takes what the specification then lacks. */
  async look() {
    const { format, file, dataset, scan } = this.draft.input;
    try {
      await this.inspect({ format, file, dataset, scan });
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      return this.markAt(error);
    }
    const found = structuredClone(this.contents.specification);
    this.draft.acquisition ??= found.acquisition;
    if (this.draft.acquisition === undefined) delete this.draft.acquisition;
    this.draft.input = { ...found.input, ...this.draft.input };
    return this.show();
  }

  simulation() {
    const { properties } = this.schemas.Simulation;
    const modality = this.kind()?.modality ?? "ct";
    const mine = Object.keys(properties).filter((name) => SIMULATED[modality].includes(name));
    const others = Object.keys(properties).filter((name) => !mine.includes(name) && fits(properties[name], modality));
    const made = (names) => names.map((name) => this.field(`input.simulate.${name}`, properties[name], this.schemas));
    return h("div", null,
      h("p", { class: "above" }, h("b", null, "Simulated scan")),
      h("div", { class: "grid" }, made(mine)),
      h("details", null, h("summary", null, "More about the simulated scan"), h("div", { class: "grid" }, made(others))));
  }

  details() {
    const rows = this.contents.datasets.map((set) => h("tr", null, h("th", { scope: "row" }, set.name), h("td", { class: "num" }, set.shape?.join(" × ") ?? ""), h("td", null, [set.dtype, set.unit].filter(Boolean).join(", ")), h("td", null, set.note ?? "")));
    const table = rows.length ? h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Data sets" }, h("table", null, h("thead", null, h("tr", null, ["data set", "shape", "type", ""].map((text) => (text ? h("th", { scope: "col" }, text) : h("td"))))), h("tbody", null, rows))) : null;
    return h("details", null, h("summary", null, "What is in it"), this.contents.notes.map((note) => h("p", { class: "soft" }, sentence(note))), table);
  }

  // The acquisition

  kind() {
    return this.about.acquisitions.find((one) => one.name === read(this.draft, "acquisition.kind")) ?? null;
  }

  showAcquisition() {
    const now = read(this.draft, "acquisition.kind");
    const choose = (kind) => {
      const { properties } = kind.fields;
      const kept = Object.entries(this.draft.acquisition ?? {}).filter(([name]) => name in properties);
      this.draft.acquisition = { ...Object.fromEntries(kept), kind: kind.name };
      const method = this.methodNow();
      if (!kind.methods.includes(method)) this.draft.method = { name: this.about.default_method };
      if (this.draft.output?.baselines) write(this.draft, "output.baselines", undefined);
      if (this.contents.holds === "volume") write(this.draft, "input.simulate", undefined);
      this.showMeasurement();
      this.showFields();
      this.showMethod();
      this.changed();
    };
    const cards = this.about.acquisitions.map((kind) => option({ group: "kind", title: kindName(kind.name), text: KIND_HINTS[kind.name] ?? kind.summary, checked: kind.name === now, onchange: () => choose(kind) }));
    this.fields = h("div");
    const asked = this.contents.missing.find((missing) => missing.field === "acquisition.kind");
    fill(this.acquisition,
      h("div", { class: "opts kinds", role: "radiogroup", "aria-label": "Kind of scan", dataset: { field: "acquisition.kind" } }, cards, h("span", { class: "err" })),
      asked ? h("p", { class: "above soft" }, sentence(asked.why)) : null,
      this.fields);
    this.showFields();
  }

  showFields() {
    const kind = this.kind();
    if (!kind) return fill(this.fields);
    const { properties, $defs: defs = {} } = kind.fields;
    const missing = this.contents.missing.map((one) => one.field).filter((path) => path.startsWith("acquisition.") && path !== "acquisition.kind").map((path) => path.split(".")[1]);
    const given = Object.keys(this.draft.acquisition).filter((name) => name !== "kind");
    const first = [...new Set([...missing, ...given, ...ASKED[kind.modality]])].filter((name) => name in properties);
    const others = Object.keys(properties).filter((name) => name !== "kind" && !first.includes(name));
    const hint = (name) => this.contents.geometry[name] !== undefined ? `${digits(this.contents.geometry[name], 5)}, from the file` : undefined;
    const made = (names) => names.map((name) => this.field(`acquisition.${name}`, properties[name], defs, missing.includes(name) ? { hint: "", needed: true } : { hint: hint(name) }));
    const count = this.contents.axes?.[0] === "slices" ? this.contents.shape[0] : 1;
    const slices = count > 1 || this.draft.input.slices ? this.field("input.slices", this.schemas.Input.properties.slices, this.schemas, { hint: `of ${count}; counted from 0, the second left out` }) : null;
    return fill(this.fields,
      h("div", { class: "grid" }, made(first), slices),
      h("details", null, h("summary", null, "More about the acquisition"), h("div", { class: "grid" }, made(others))));
  }

  // The method

  methodNow() {
    return this.draft.method.name;
  }

  showMethod() {
    const kind = this.kind();
    if (!kind) return fill(this.method, h("p", { class: "soft" }, "Choose the kind of scan first."));
    const now = this.methodNow();
    const wanted = ["auto", "red-diff", "tv", kind.baseline];
    const shown = wanted.filter((name) => kind.methods.includes(name));
    if (!shown.includes(now)) shown.push(now);
    const choose = (name) => {
      this.draft.method = { name };
      this.showMethod();
      this.changed();
      this.method.querySelector("input:checked, select")?.focus();
    };
    const summary = (name) => SHORT[name] ?? this.about.methods.find((one) => one.name === name).summary;
    const cards = shown.map((name) => option({ group: "method", title: methodName(name), text: summary(name), checked: name === now, onchange: () => choose(name) }));
    const open = this.method.querySelector("details")?.open;
    return fill(this.method,
      h("div", { class: "opts", role: "radiogroup", "aria-label": "Method", dataset: { field: "method" } }, cards, h("span", { class: "err" })),
      h("details", { open }, h("summary", null, "More methods and settings"), this.settings(kind, now, choose)),
      this.beside(kind, now),
      h("details", null, h("summary", null, "Files, queue and seed"), this.others()));
  }

  settings(kind, now, choose) {
    const id = newId("method");
    const about = this.about.methods.find((one) => one.name === now);
    const select = h("select", { id, onchange: (event) => choose(event.target.value) }, kind.methods.map((name) => h("option", { value: name, selected: name === now }, methodName(name))));
    const { properties, $defs: defs = {} } = about.settings;
    const wrap = (name) => {
      const schema = name === "prior" ? { anyOf: [{ enum: this.priors(kind), type: "string" }, { type: "null" }], default: null, description: "Default: the modality's." } : properties[name];
      const changed = () => this.changed();
      return field({ path: `method.${name}`, schema, defs, draft: this.draft, changed });
    };
    return [
      h("div", { class: "field" }, h("label", { htmlFor: id }, "Method"), select, h("span", { class: "hint" }, about.summary)),
      about.description ? h("p", { class: "soft" }, about.description) : null,
      h("div", { class: "grid" }, Object.keys(properties).filter((name) => name !== "name" && name !== "frozen_noise").map(wrap)),
    ];
  }

  priors(kind) {
    return this.about.priors.filter((prior) => prior.modality === kind.modality && Boolean(prior.super_resolution) === (kind.name === "mri-superresolution")).map((prior) => prior.name);
  }

  /** What is computed beside the result. */
  beside(kind, now) {
    const classical = this.about.methods.filter((one) => one.classical && kind.methods.includes(one.name) && one.name !== now).map((one) => one.name);
    const chosen = new Set(this.draft.output?.baselines ?? [kind.baseline]);
    const toggle = (name, on) => {
      if (on) chosen.add(name);
      else chosen.delete(name);
      write(this.draft, "output.baselines", classical.filter((one) => chosen.has(one)));
      this.changed();
    };
    const replicates = read(this.draft, "output.uncertainty") ?? 0;
    const count = h("input", { type: "number", min: 1, max: 64, value: replicates || 4, "aria-label": "Replicates", disabled: !replicates });
    const setReplicates = () => {
      count.disabled = !errors.checked;
      write(this.draft, "output.uncertainty", errors.checked ? Number(count.value) || undefined : undefined);
      this.changed();
    };
    count.addEventListener("input", setReplicates);
    const errors = h("input", { type: "checkbox", checked: replicates > 0, onchange: setReplicates });
    return h("div", { class: "bar", role: "group", "aria-label": "Beside the result", dataset: { field: "output" } },
      h("span", { class: "lab" }, "Beside it"),
      classical.map((name) => h("label", null, h("input", { type: "checkbox", checked: chosen.has(name), onchange: (event) => toggle(name, event.target.checked) }), methodName(name))),
      h("span", { class: "break" }),
      h("label", null, errors, "Map of errors to be expected,"), h("span", { class: "lab" }, count, " replicates"),
      h("label", null, h("input", { type: "checkbox", checked: read(this.draft, "output.undetermined") ?? false, onchange: (event) => { write(this.draft, "output.undetermined", event.target.checked || undefined); this.changed(); } }), "What no sample determined"),
      h("span", { class: "err" }));
  }

  others() {
    const { Output, JobSpec } = this.schemas;
    return h("div", { class: "grid" },
      this.field("output.format", Output.properties.format, this.schemas, { title: "Format of the volumes" }),
      ...["priority", "device", "seed", "tags"].map((name) => this.field(name, JobSpec.properties[name], this.schemas)));
  }

  // Sending it

  async send() {
    this.submit.disabled = true;
    // The same for the same draft: what was sent twice is one job.
    const text = JSON.stringify(this.specification());
    if (this.sent !== text) [this.sent, this.once] = [text, idempotencyKey()];
    try {
      const job = await call("v1/jobs", { method: "POST", json: this.specification(), headers: { "Idempotency-Key": this.once } });
      jobs.take(job);
      sessionStorage.removeItem(`recon.draft.${this.upload.id}`);
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      fill(this.trouble, error.sentence);
      this.markAt(error);
      this.submit.disabled = false;
    }
  }

  paste() {
    const text = h("textarea", { class: "code", rows: 14, "aria-label": "Specification as JSON", spellcheck: "false" });
    const trouble = h("p", { class: "err", role: "alert" });
    const take = () => {
      let found;
      try {
        found = JSON.parse(text.value);
      } catch (error) {
        return fill(trouble, `This is no JSON: ${error.message}.`);
      }
      const upload = found?.input?.upload ?? this.upload?.id;
      if (!upload) return fill(trouble, "It names no upload, and none is open: choose a file first.");
      delete found.input?.path;
      found.input = { ...found.input, upload };
      this.draft = found;
      shown.close();
      history.replaceState(null, "", `#/new/${upload}`);
      return this.open(upload, found.input);
    };
    const shown = dialog("Start from a specification", h("p", { class: "soft" }, "A specification as JSON, as the tab “Specification” of a job has it. Without an upload it is for the file that is open here."), text, trouble, h("p", { class: "buttons" }, h("button", { type: "button", class: "primary", onclick: take }, "Use it")));
    text.focus();
  }
}

/** A choice of several, as a card. */
function option({ group, title, text, checked, onchange }) {
  return h("label", { class: "opt" }, h("input", { type: "radio", name: group, checked, onchange }), h("b", null, title), h("small", null, text));
}

/** Label of a field in a sentence, without its unit. */
function plainly(text) {
  const words = text.split(",")[0];
  return /^[A-Z][a-z]/.test(words) ? words.charAt(0).toLowerCase() + words.slice(1) : words;
}

/** Whether a setting of a simulation is for a modality, which its description says in brackets. */
function fits(schema, modality) {
  const text = schema.description ?? "";
  const [ct, mri] = [/\(CT\)/.test(text), /\(MRI\)|\(k-space\)/.test(text)];
  return (!ct && !mri) || (modality === "ct" ? ct : mri);
}
