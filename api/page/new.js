/** The form of a new reconstruction: measurement, acquisition, method, and beside it the plan, live. */

import { showAcquisition } from "./acquisition.js";
import { call, catalogue, idempotencyKey, once, Problem } from "./api.js";
import { card, copyButton, fill, h, newId, say } from "./dom.js";
import { field, mark, read, write } from "./fields.js";
import { dropZone } from "./home.js";
import { jobs } from "./jobs.js";
import { keep, recall } from "./kept.js";
import { showMeasurement } from "./measurement.js";
import { showMethod } from "./method.js";
import { showPlan, showTrouble } from "./plan.js";
import { askForSpecification } from "./specification.js";
import { bytes } from "./text.js";
import { showTransfer } from "./transfer.js";
import { current } from "./upload.js";
import { asYaml, curl } from "./yaml.js";

const PLAN_AFTER_MS = 250;
/** A name that was typed before there was a measurement: the form is made anew when a file is chosen. */
let early = null;

/**
 * Shows the view.
 * @param {HTMLElement} main
 * @param {{upload?: string, from?: string}} start an upload, or a job to run again with changes
 * @param {AbortSignal} signal aborted when the view is left
 */
export async function showNew(main, start, signal) {
  document.title = "New reconstruction – Diffusion Recon";
  const form = new Form(signal);
  form.build(main);
  const [about, api] = await Promise.all([catalogue(), once("openapi.json")]);
  form.know(about, api.components.schemas);
  if (start.from) {
    early = form.typed = null;
    await form.again(start.from);
  } else if (start.upload) await form.open(start.upload);
  else if (current.transfer) form.wait(current.transfer);
}

/** The form; its parts are in `measurement.js`, `acquisition.js` and `method.js`. */
class Form {
  constructor(signal) {
    Object.assign(this, { signal, upload: null, contents: null, draft: null, plan: null, typed: null, timer: 0, asked: 0 });
  }

  build(main) {
    this.measurement = h("div");
    this.acquisition = h("div");
    this.method = h("div");
    this.planned = h("div", { role: "status" });
    this.name = h("input", { type: "text", maxlength: 100, autocomplete: "off", id: newId("name"), oninput: () => { early = this.typed = this.name.value; this.takeName(); } });
    if (early) this.name.value = this.typed = early;
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

  /** Waits for an upload that is on its way. */
  wait(transfer) {
    showTransfer(this.measurement, transfer, {
      signal: this.signal,
      other: () => this.restart(),
      done: () => {
        history.replaceState(null, "", `#/new/${transfer.id}`);
        this.open(transfer.id);
      },
    });
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
      [this.before, this.tried] = [job, structuredClone(this.draft)];
      const { format, file, dataset, scan } = specification.input;
      await this.open(specification.input.upload, { format, file, dataset, scan });
    } catch (error) {
      this.notThere(error);
    }
  }

  notThere(error) {
    if (!(error instanceof Problem)) throw error;
    const name = this.upload?.name;
    // The service does not keep files under the names that they came with.
    const told = name ? `${name} cannot be read as a scan. ${error.sentence.replace(/\bdata\.\w+(\.gz)?/gi, name)}` : error.sentence;
    const formats = error.status === 422 ? h("p", { class: "soft" }, `Formats that are read: ${this.formats().join(", ")}.`) : null;
    fill(this.measurement, h("p", { class: "warn", role: "alert" }, told), formats, dropZone());
    this.ready("Waits for a measurement.");
  }

  formats() {
    return this.schemas.Input.properties.format.anyOf.find((one) => one.enum).enum;
  }

  unfinished() {
    fill(this.measurement, h("p", { class: "warn" }, `${this.upload.name || "This upload"} is not complete: ${bytes(this.upload.received)} of ${bytes(this.upload.bytes)} are here. Choose the same file again, and it goes on from there.`), dropZone());
  }

  kept() {
    return recall("sessionStorage", `recon.draft.${this.upload.id}`);
  }

  /** The draft as it is sent: a method without settings is its name. */
  specification() {
    const { method } = this.draft;
    return { ...this.draft, method: Object.keys(method).length > 1 ? method : method.name };
  }

  save() {
    keep("sessionStorage", `recon.draft.${this.upload.id}`, this.draft);
  }

  /** Takes the name that was typed into the draft; while the upload runs there is none yet, and the name waits. */
  takeName() {
    if (this.typed === null || !this.draft || !this.upload) return;
    write(this.draft, "name", this.typed.trim() || undefined);
    early = this.typed = null;
    this.save();
  }

  /** Shows all that depends on the draft. */
  show() {
    for (const missing of this.contents.missing) if (read(this.draft, missing.field) === null) write(this.draft, missing.field, undefined);
    this.draft.method ??= this.about.default_method;
    if (typeof this.draft.method === "string") this.draft.method = { name: this.draft.method };
    this.takeName();
    this.name.value = this.draft.name ?? "";
    this.name.placeholder = this.upload.name;
    showMeasurement(this);
    this.rest.hidden = false;
    this.copies.hidden = false;
    showAcquisition(this);
    showMethod(this);
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
      this.markCause();
      this.ready(plan.fits ? null : "Does not fit into the memory that a job may take: choose fewer slices, or larger pixels.");
    } catch (error) {
      if (error.name === "AbortError" || mine !== this.asked) return;
      if (!(error instanceof Problem)) throw error;
      this.unmark();
      const all = error.problems?.map((problem) => new Problem(problem)) ?? [error];
      const places = all.map((problem) => this.markAt(problem));
      showTrouble(this.planned, all, places);
      const named = places.filter(Boolean).map(plainly).join(" and ");
      this.ready(error.offline ? "Waits for the server." : named ? `Waits for ${named}.` : "Waits for what stands above to be mended.");
      if (error.offline) this.timer = setTimeout(() => this.ask(), 4000);
    }
    return undefined;
  }

  /** Shows at its field what made the job fail that is run again, as long as that field is as it was. */
  markCause() {
    const { field: path, message, remedy } = this.before?.error ?? {};
    if (!path || JSON.stringify(read(this.draft, path)) !== JSON.stringify(read(this.tried, path))) return;
    this.markAt(new Problem({ field: path, detail: message, remedy }));
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

  /** Kind of acquisition of the draft, as the catalogue has it; null while there is none. */
  kind() {
    return this.about.acquisitions.find((one) => one.name === read(this.draft, "acquisition.kind")) ?? null;
  }

  async send() {
    this.submit.disabled = true;
    // The same for the same draft: what was sent twice is one job.
    const text = JSON.stringify(this.specification());
    if (this.sent !== text) [this.sent, this.once] = [text, idempotencyKey()];
    try {
      const job = await call("v1/jobs", { method: "POST", json: this.specification(), headers: { "Idempotency-Key": this.once } });
      jobs.take(job);
      keep("sessionStorage", `recon.draft.${this.upload.id}`, null);
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      fill(this.trouble, error.sentence);
      this.markAt(error);
      this.submit.disabled = false;
    }
  }

  paste() {
    askForSpecification(this.upload?.id, (specification) => {
      this.draft = specification;
      const { upload, format, file, dataset, scan } = specification.input;
      history.replaceState(null, "", `#/new/${upload}`);
      return this.open(upload, { format, file, dataset, scan });
    });
  }
}

/** Label of a field in a sentence, without its unit. */
function plainly(text) {
  const words = text.split(",")[0];
  return /^[A-Z][a-z]/.test(words) ? words.charAt(0).toLowerCase() + words.slice(1) : words;
}
