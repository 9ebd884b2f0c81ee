/** A job that succeeded: its images, whether they can be trusted, and all there is to take along. */

import { address, call, Problem, sentence } from "./api.js";
import { card, fill, h } from "./dom.js";
import { logCard } from "./log.js";
import { reportTab } from "./report.js";
import { specificationText } from "./specification.js";
import { trust } from "./trust.js";
import { bytes, digits, methodName } from "./text.js";

const TABS = [["images", "Images"], ["report", "Report"], ["log", "Log"], ["specification", "Specification"]];

/** Shows a job with results. */
export async function showDone(body, job, { specification, tab, signal, heading }) {
  fill(body, h("p", { class: "soft", role: "status" }, "Fetching the results…"));
  let files;
  let report;
  try {
    [{ files }, report] = await Promise.all([call(job.links.results, { signal }), call(`${job.links.results}/report.json`, { signal })]);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Problem)) throw error;
    fill(body, h("p", { class: "warn", role: "alert" }, error.sentence));
    return;
  }
  if (signal.aborted) return;
  heading.querySelector(".buttons").append(downloads(job, files));
  const panels = {
    images: () => images(job, files, report, signal),
    report: () => reportTab(job, files, report),
    log: () => logCard(job, { open: true, signal }),
    specification: () => h("div", { class: "card" }, specification ? specificationText(specification) : null),
  };
  tabs(body, job, panels, tab);
}

/** Tabs, each made when it is first looked at; the address says which one is open. */
function tabs(body, job, panels, first) {
  const made = {};
  const panel = Object.fromEntries(TABS.map(([name]) => [name, h("div", { role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}`, hidden: true })]));
  const button = Object.fromEntries(TABS.map(([name, title]) => [name, h("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`, onclick: () => open(name) }, title)]));
  const open = (name) => {
    for (const [other] of TABS) {
      panel[other].hidden = other !== name;
      button[other].setAttribute("aria-selected", String(other === name));
      button[other].tabIndex = other === name ? 0 : -1;
    }
    if (!made[name]) panel[name].append((made[name] = panels[name]()));
    const place = `#/jobs/${job.id}${name === "images" ? "" : `/${name}`}`;
    if (location.hash !== place) history.replaceState(null, "", place);
  };
  const names = TABS.map(([name]) => name);
  const list = h("div", { class: "tabs", role: "tablist", "aria-label": "Result" }, names.map((name) => button[name]));
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = names[(names.findIndex((name) => button[name] === document.activeElement) + step + names.length) % names.length];
    open(next);
    button[next].focus();
  });
  fill(body, list, names.map((name) => panel[name]));
  open(names.includes(first) ? first : "images");
}

function images(job, files, report, signal) {
  const place = h("div", { class: "viewer" });
  showViewer(place, job, files, signal);
  return h("div", { class: "two" }, place, h("div", { class: "stack" }, [trust, scoreboard, notes].map((make) => tried(make, report))));
}

/** A card of a report; where an old or damaged report lacks what it tells, that is said in its place. */
function tried(make, report) {
  try {
    return make(report);
  } catch (error) {
    console.error(error);
    return card("Not in this report", h("p", { class: "warn" }, `A part of this job's report cannot be shown (${error.message}). The report as JSON has all that was written.`));
  }
}

async function showViewer(place, job, files, signal) {
  fill(place, h("p", { class: "soft", role: "status" }, "Opening the viewer…"));
  let openViewer;
  try {
    ({ openViewer } = await import("./viewer.js"));
  } catch {
    const montage = files.find((file) => file.name === "montage.png");
    fill(place, h("p", { class: "warn" }, "The viewer could not be loaded: the middle slices are shown instead. Reload the page to try again."),
      montage ? h("img", { class: "montage", src: address(montage.href), alt: "Middle slices of the result and its baselines" }) : null);
    return;
  }
  if (signal.aborted) return;
  fill(place);
  try {
    const viewer = await openViewer(place, { job, files, baseUrl: address("") });
    if (signal.aborted) viewer.close();
    else signal.addEventListener("abort", () => viewer.close());
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    fill(place, h("p", { class: "warn", role: "alert" }, error.sentence));
  }
}

/** What the automatic choice found. */
function scoreboard(report) {
  const { selection } = report;
  if (!selection) return null;
  const judged = selection.folds > 0; // where nothing was withheld there are no gains
  const rows = selection.candidates.map((one) => h("tr", null, h("th", { scope: "row" }, methodName(one.method.name), one.method.prior ? h("small", null, ` ${one.method.prior}`) : null), judged ? h("td", { class: "num" }, `${one.gain_db > 0 ? "+" : ""}${digits(one.gain_db, 2)} dB`) : null, h("td", { class: "num" }, `${Math.round(100 * one.weight)} %`)));
  return card("What was chosen, and why",
    h("table", { class: "small" }, h("thead", null, h("tr", null, (judged ? ["method", "gain", "share"] : ["method", "share"]).map((text) => h("th", { scope: "col" }, text)))), h("tbody", null, rows)),
    h("p", { class: "soft" }, sentence(selection.text)));
}

function notes(report) {
  const told = (report.notes ?? []).filter((note) => note !== report.selection?.text);
  const steps = (report.preparation ?? []).filter((step) => step.warning).map((step) => step.text);
  return card("Keep in mind", [...steps, ...told].map((note) => h("p", { class: "note" }, sentence(note))), h("p", { class: "soft" }, "Research software, not a medical device."));
}

function downloads(job, files) {
  const link = (href, name, size) => h("li", null, h("a", { href: address(href), download: true }, name), h("span", { class: "soft num" }, size));
  const menu = h("details", { class: "menu" },
    h("summary", { class: "button" }, "Download ", h("span", { "aria-hidden": "true" }, "▾")),
    h("ul", null, link(job.links.results_zip, "All of it as a zip", bytes(files.reduce((sum, file) => sum + file.bytes, 0))), files.map((file) => link(file.href, file.name, bytes(file.bytes)))));
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
  document.addEventListener("click", (event) => { if (!menu.contains(event.target)) menu.open = false; });
  return menu;
}

