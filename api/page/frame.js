/** The frame around every view: what the server is at, whose key it is, help; and the list of jobs. */

import { attempt, call, Problem, ROOT } from "./api.js";
import { dialog, facts, fill, h, s, say } from "./dom.js";
import { jobs } from "./jobs.js";
import { about, counted, elapsed, ended, methodName, nameOf, percent, STATES, stateOf, when } from "./text.js";

const READY_EVERY_MS = 15000;
const FILTER_AFTER_MS = 300;

/** Builds the top bar and the list of jobs; both follow by themselves. */
export function buildFrame() {
  const state = h("span", { class: "state", role: "status" });
  const owner = h("span", { class: "owner" });
  const toggle = h("button", { type: "button", class: "narrow-only", "aria-expanded": "false", "aria-controls": "jobs" }, "Jobs");
  fill(
    document.getElementById("top"),
    h("a", { class: "brand", href: "#/", "aria-label": "Diffusion Recon, to the beginning" }, logo(), h("span", { class: "brand-name" }, "Diffusion Recon")),
    toggle,
    h("a", { class: "button primary", href: "#/new" }, h("span", { class: "wide-only" }, "New reconstruction"), h("span", { class: "narrow-only" }, "New")),
    h("span", { class: "grow" }),
    state,
    owner,
    h("button", { type: "button", class: "round", "aria-label": "Help and keyboard", onclick: help }, "?"),
  );
  const side = document.getElementById("jobs");
  const open = (wanted) => {
    side.classList.toggle("open", wanted);
    toggle.setAttribute("aria-expanded", String(wanted));
  };
  toggle.addEventListener("click", () => open(!side.classList.contains("open")));
  addEventListener("hashchange", () => open(false));
  side.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && side.classList.contains("open")) {
      open(false);
      toggle.focus();
    }
  });
  follow(state);
  buildList(side);
  return { owner: (session) => showOwner(owner, session) };
}

function logo() {
  return s("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" },
    s("circle", { cx: 12, cy: 12, r: 9.5, fill: "none", stroke: "currentColor", "stroke-width": 1.6 }),
    s("path", { d: "M2.5 12h19M12 2.5v19M5.3 5.3l13.4 13.4M18.7 5.3 5.3 18.7", class: "rays", "stroke-width": 1.1 }),
    s("circle", { cx: 12, cy: 12, r: 3.6, fill: "currentColor" }));
}

/** What the server is ready for; asked now and then while the page is seen. */
export const server = { ready: null, workers: null, queued: 0 };

function follow(element) {
  const show = (kind, text) => {
    element.className = `state ${kind}`;
    if (element.textContent !== text) fill(element, h("span", { class: "dot", "aria-hidden": "true" }), h("span", null, text));
  };
  const look = async () => {
    if (document.hidden) return;
    try {
      const found = await call("readyz");
      const workers = Object.values(found.workers).reduce((sum, count) => sum + count, 0);
      Object.assign(server, { ready: true, workers, queued: found.queued });
      const waiting = found.queued ? `, ${counted(found.queued, "job")} waiting` : "";
      if (workers) show("ok", `Ready, ${counted(workers, "worker")}${waiting}`);
      else show("warn", `No worker is there: jobs wait${waiting}`);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      server.ready = false;
      show("bad", error.offline ? "No connection, trying again" : "The queue cannot be reached");
    }
  };
  look();
  setInterval(look, READY_EVERY_MS);
  document.addEventListener("visibilitychange", look);
  jobs.addEventListener("connection", look);
}

function showOwner(element, session) {
  if (!session?.owner) return fill(element);
  const trouble = h("span", { class: "err", role: "alert" });
  const leave = () => attempt(trouble, async () => {
    await call("v1/session", { method: "DELETE" });
    location.reload();
  });
  return fill(element, h("span", { class: "wide-only" }, `Key: ${session.owner}`), session.expires ? [h("button", { type: "button", onclick: leave }, "Sign out"), trouble] : null);
}

function help() {
  const key = (...names) => names.map((name) => [h("kbd", null, name), " "]);
  dialog(
    "Help and keyboard",
    h("p", null, "Drop a scan, see what its reconstruction will take, watch it, look at it, and read whether it can be trusted. Jobs go on when this page is closed."),
    h("h3", null, "In an image"),
    facts([
      [key("←", "→", "↑", "↓"), "move the cursor"],
      [key("Page Up", "Page Down"), "change the slice"],
      [key("[", "]"), "window width"],
      [key("-", "="), "window level"],
      [key("1", "2", "3", "4"), "window presets"],
      [["hold ", key("B")], "blink against the baseline"],
      [key("E"), "error map"],
    ]),
    h("p", null, h("a", { href: new URL("docs", ROOT), target: "_blank", rel: "noopener" }, "The HTTP API"), ", which this page uses as well."),
    h("p", { class: "soft" }, "Research software, not a medical device."),
  );
}

function buildList(side) {
  const filter = h("input", { type: "search", "aria-label": "Filter jobs by name or tag", placeholder: "Filter by name or tag" });
  const list = h("ul");
  const foot = h("p", { class: "soft small" });
  const trouble = h("p", { class: "err", role: "alert" });
  const more = h("button", { type: "button", onclick: () => attempt(trouble, () => jobs.more()) }, "Show older jobs");
  fill(side, h("div", { class: "side" }, filter, list, more, trouble, foot));
  const rows = new Map();
  const show = () => {
    const wanted = filter.value.trim().toLowerCase();
    const shown = jobs.list.filter((job) => !wanted || nameOf(job).toLowerCase().includes(wanted) || job.tags.some((tag) => tag.toLowerCase() === wanted));
    for (const id of [...rows.keys()]) if (!shown.some((job) => job.id === id)) rows.delete(id);
    const nodes = shown.map((job) => {
      const row = rows.get(job.id) ?? new Row();
      rows.set(job.id, row);
      row.show(job);
      return row.element;
    });
    // Only what moved is moved: a row that is focused stays so.
    nodes.forEach((node, place) => { if (list.children[place] !== node) list.insertBefore(node, list.children[place] ?? null); });
    while (list.children.length > nodes.length) list.lastChild.remove();
    more.hidden = !jobs.next || Boolean(wanted);
    say(foot, !jobs.loaded ? "" : jobs.total === 0 ? "Jobs appear here." : `${shown.length} of ${counted(jobs.total, "job")}.`);
  };
  let timer = 0;
  filter.addEventListener("input", () => {
    show();
    clearTimeout(timer);
    if (filter.value.trim()) timer = setTimeout(() => jobs.find(filter.value.trim()).catch(() => {}), FILTER_AFTER_MS);
  });
  let pending = false;
  const soon = () => {
    if (pending) return;
    pending = true;
    // A hidden page draws no frames, and its list need not be drawn either.
    requestAnimationFrame(() => { pending = false; show(); });
  };
  for (const type of ["change", "gone"]) jobs.addEventListener(type, soon);
  addEventListener("hashchange", soon);
  setInterval(soon, 30000);  // "6 min left" goes on
  show();
}

class Row {
  constructor() {
    this.glyph = h("span", { "aria-hidden": "true" });
    this.name = h("b");
    this.share = h("span", { class: "soft num" });
    this.told = h("small");
    this.bar = h("progress", { max: 1, "aria-hidden": "true" });
    this.link = h("a", null, this.glyph, this.name, this.share, this.told);
    this.element = h("li", null, this.link);
  }

  show(job) {
    const [glyph, word, kind] = STATES[stateOf(job)];
    const here = location.hash.split("/")[2] === job.id;
    this.link.href = `#/jobs/${job.id}`;
    if (here) this.link.setAttribute("aria-current", "page");
    else this.link.removeAttribute("aria-current");
    this.glyph.className = kind;
    say(this.glyph, glyph);
    say(this.name, nameOf(job));
    this.name.title = nameOf(job);
    const running = job.state === "running";
    say(this.share, running ? percent(job.progress) : "");
    say(this.told, `${methodName(job.method)}, ${inShort(job, word)}`);
    if (running) this.bar.value = job.progress;
    if (running && !this.bar.isConnected) this.link.append(this.bar);
    if (!running) this.bar.remove();
  }
}

/** What a job is at, in a few words. */
function inShort(job, word) {
  if (job.state === "queued") {
    const place = job.queue_position === 0 ? "next" : job.queue_position === null ? "waiting" : `${counted(job.queue_position, "job")} before it`;
    return job.estimate?.start_s ? `${place}, starts in ${about(job.estimate.start_s)}` : place;
  }
  if (job.state === "running") {
    const left = timeLeft(job);
    return left ? `${about(left.likely)} left` : "running";
  }
  if (!ended(job)) return word.toLowerCase();
  const at = job.finished ?? job.updated;
  return job.state === "succeeded" ? when(at) : `${word.toLowerCase()} ${when(at)}`;
}

/**
 * Seconds until a running job is done: what its plan leaves, and what its pace so far would take.
 * @returns {?{low: number, high: number, likely: number, by: string}} null while nothing can be said
 */
export function timeLeft(job) {
  if (!job.started) return null;
  const took = Math.max(0, elapsed(job.started));
  const byPace = job.progress > 0.05 ? (took / job.progress) * (1 - job.progress) : null;
  const expected = job.estimate?.duration_s ?? job.planned_s;
  // What is left of the work, at the plan's pace: a plan that was overrun still says something.
  const byPlan = expected ? expected * (1 - job.progress) : null;
  const [least, most] = job.estimate?.duration_range_s ?? [null, null];
  const all = [byPace, byPlan, least === null ? null : Math.max(0, least - took), most === null ? null : most * (1 - job.progress)].filter((seconds) => seconds !== null);
  if (all.length === 0) return null;
  // The plan knows what is to come, the pace how fast this machine is today.
  const likely = byPace === null ? byPlan : byPlan === null ? byPace : byPlan * (1 - job.progress) + byPace * job.progress;
  return { low: Math.min(...all), high: Math.max(...all), likely };
}

