/** The report of a job in figures; report.html has it as a page to print. */

import { address, sentence } from "./api.js";
import { card, facts, h } from "./dom.js";
import { bytes, counted, digits, duration, methodName, shape, whole } from "./text.js";

/** The tab. */
export function reportTab(job, files, report) {
  const file = (name) => files.find((one) => one.name === name);
  const page = file("report.html");
  const montage = file("montage.png");
  return h("div", { class: "stack" },
    h("p", { class: "buttons" },
      page ? h("a", { class: "button", href: address(page.href), target: "_blank", rel: "noopener" }, "Open the report to print") : null,
      h("a", { class: "button", href: address(file("report.json").href), download: true }, "Report as JSON")),
    h("div", { class: "cards" },
      card("Result", facts([
        ["Voxels", shape(report.shape)],
        ["Unit", report.unit],
        ["Took", duration(report.seconds.total)],
        ["of it the method", duration(report.seconds.solve)],
        ["Network evaluations", whole(report.network_evaluations)],
        ["Network arithmetic", report.network_arithmetic],
        ["Memory", report.memory ? `${bytes(report.memory.peak_bytes)}, planned ${bytes(report.memory.planned_bytes)}` : null],
        ["Noise", report.noise_std ? digits(report.noise_std) : "none, or not known"],
      ])),
      card("Acquisition", settings(report.acquisition)),
      card(methodName(report.method.name), settings(report.method)),
      report.prior ? card("Prior", facts([["Name", report.prior.name], ["Parameters", whole(report.prior.parameters)]]), (report.prior.limits ?? []).map((limit) => h("p", { class: "note" }, sentence(limit)))) : null,
      card("Made with", settings(report.versions))),
    report.preparation?.length ? card("Preparation", h("ol", { class: "rows" }, report.preparation.map((step) => h("li", { class: step.warning ? "warn" : null }, h("b", null, step.name.replaceAll("_", " ")), h("span", null, sentence(step.text)))))) : null,
    montage ? h("figure", { class: "black" }, h("figcaption", null, "Middle slices"), h("img", { class: "montage", src: address(montage.href), alt: "Middle slices of the result and of its baselines" })) : null);
}

/** Settings that have a value. */
function settings(values) {
  const told = (value) => {
    if (typeof value === "number") return digits(value, 5);
    if (Array.isArray(value) && value.length > 6) return counted(value.length, "value");
    if (Array.isArray(value)) return value.map(told).join(", ");
    if (value !== null && typeof value === "object") return Object.entries(value).map(([name, inner]) => `${name} ${told(inner)}`).join(", ");
    return String(value);
  };
  return facts(Object.entries(values).filter(([, value]) => value !== null).map(([name, value]) => [h("code", null, name), told(value)]));
}
