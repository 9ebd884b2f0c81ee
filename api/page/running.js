/** A job that waits or runs: time left, stages, a picture as it is, and the misfit to the data. */

import { address, call } from "./api.js";
import { chart } from "./chart.js";
import { card, fill, h, say, speak } from "./dom.js";
import { server, timeLeft } from "./frame.js";
import { logCard } from "./log.js";
import { about, between, counted, duration, elapsed, methodName, percent } from "./text.js";

const QUIET_S = 60;
const PREVIEW_EVERY_MS = 5000;

/**
 * Shows a job that has not ended.
 * @returns {function(Object): void} what shows the job as it is later
 */
export function showRunning(body, job, { specification, signal }) {
  const left = h("p", { class: "big num" });
  const range = h("span", { class: "soft small" });
  const bar = h("progress", { max: 1, "aria-label": "Progress" });
  const far = h("p", { class: "soft num" });
  const word = h("span");
  const stages = h("ol", { class: "steps" });
  const misfit = h("div");
  const pictures = h("div");
  fill(body, h("div", { class: "two" },
    h("div", { class: "stack" },
      h("section", { class: "card", "aria-label": "Progress" }, h("p", null, left, range), bar, far, h("p", { class: "num" }, word)),
      pictures, misfit, logCard(job, { open: false, signal })),
    h("div", { class: "stack" },
      card("Stages", stages),
      card("You may close this page", h("p", { class: "soft" }, "The job goes on, and is here when you come back. The title of the tab tells how far it is.")))));
  let now = job;
  let told = -1;
  const watched = new Watched();
  const show = () => {
    const running = now.state === "running";
    const estimate = running ? timeLeft(now) : null;
    say(left, headline(now, estimate));
    say(range, estimate ? (between(estimate.low, estimate.high) ?? "") : "");
    if (running) bar.value = now.progress;
    else bar.removeAttribute("value");
    bar.hidden = now.state === "queued";
    const at = watched.stages.at(-1) ?? now;  // the job itself is told less often, and may be of the stage before
    say(far, running ? [percent(now.progress), watched.stage ? pretty(watched.stage) : null, at.steps ? `step ${at.step} of ${at.steps}` : null].filter(Boolean).join(", ") : reason(now));
    const quiet = running ? Math.min(...[now.seen, now.updated, watched.seen].filter(Boolean).map((at) => elapsed(at))) : 0;
    say(word, running ? `Last word ${duration(Math.max(0, quiet))} ago${quiet > QUIET_S ? ": the worker may be at a long step; if it is lost, another one goes on by itself" : ""}.` : "");
    word.className = quiet > QUIET_S ? "warn" : "soft";
    const tenth = Math.floor(now.progress * 10);
    if (running && tenth > told) {
      if (told >= 0) speak(`${nameless(tenth)} done${estimate ? `, ${about(estimate.likely)} left` : ""}`);
      told = tenth;
    }
    showStages(stages, watched, now, specification);
    const drawn = watched.curves.length ? card("Data misfit", chart(watched.curves)) : null;
    fill(misfit, drawn);
  };
  const clock = setInterval(show, 1000);
  signal.addEventListener("abort", () => clearInterval(clock));
  watched.follow(job, signal);
  followPreview(pictures, () => now, signal);
  show();
  return (later) => {
    now = later;
    show();
  };
}

const nameless = (tenth) => `${tenth * 10} %`;

function headline(job, estimate) {
  if (job.state === "cancelling") return "Stops at its next step";
  if (job.state === "queued") {
    if (server.workers === 0) return "Waits for a worker";
    return job.estimate?.start_s ? `Starts in ${about(job.estimate.start_s)} ` : "Waits for its turn ";
  }
  return estimate ? `${about(estimate.likely)} left ` : "Has begun ";
}

function reason(job) {
  if (job.state === "cancelling") return "What was computed is thrown away.";
  if (server.workers === 0) return "No worker is there: the job begins when one comes. The operator starts one with “recon worker”.";
  if (job.queue_position === null) return "It is in the queue.";
  return job.queue_position === 0 ? "It is next." : `${counted(job.queue_position, "job")} before it.`;
}

/** Events of a job from its beginning: stages with their times, and curves of the misfit. */
class Watched {
  constructor() {
    this.#clear();
  }

  #clear() {
    Object.assign(this, { stages: [], curves: [], stage: null, seen: null });
  }

  /** Listens while the page is seen, each time from the beginning. */
  follow(job, signal) {
    let source = null;
    const look = () => {
      source?.close();
      source = null;
      if (document.hidden || signal.aborted) return;
      source = new EventSource(address(job.links.events));
      source.onopen = () => this.#clear();
      source.addEventListener("state", (event) => this.#state(JSON.parse(event.data)));
      source.addEventListener("seen", (event) => { this.seen = JSON.parse(event.data).seen; });
      source.addEventListener("progress", (event) => this.#progress(JSON.parse(event.data)));
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", () => {
      document.removeEventListener("visibilitychange", look);
      look();
    });
    look();
  }

  #state(event) {
    if (event.state === "running") this.#clear();  // another attempt begins anew
  }

  #progress(event) {
    const stage = grouped(event.stage);
    this.stage = event.stage;
    const last = this.stages.at(-1);
    if (last?.stage === stage) Object.assign(last, { step: event.step, steps: event.steps });
    else {
      if (last) last.ended = event.at;
      this.stages.push({ stage, at: event.at, step: event.step, steps: event.steps });
    }
    if (event.data_misfit === null || !event.steps) return;
    let curve = this.curves.find((one) => one.stage === stage);
    if (!curve) this.curves.push((curve = { stage, name: pretty(stage).replace(/^Baseline /, ""), points: [] }));
    const share = event.step / event.steps;
    if (curve.points.length && share < curve.points.at(-1)[0]) curve.points = [];  // the next chunk of slices
    curve.points.push([share, event.data_misfit]);
  }
}

/** Stages that belong together, as the folds of a choice, the chunks of a volume or its replicates. */
function grouped(stage) {
  if (stage.startsWith("judging")) return "judging";
  if (stage.startsWith("replicate")) return "replicates";
  return stage.split(", ")[0];
}

/** Name of a stage for people. */
function pretty(stage) {
  if (stage === "judging") return "Judging candidates";
  const [base, ...rest] = stage.split(", ");
  const [first, second] = base.split(" ");
  const named = ["baseline", "judging"].includes(first) ? `${first} ${methodName(second)}` : methodName(base);
  return [named.charAt(0).toUpperCase() + named.slice(1), ...rest].join(", ");
}

function showStages(list, watched, job, specification) {
  const rows = watched.stages.map((stage, place) => {
    const done = place < watched.stages.length - 1;
    const took = done ? duration(elapsed(stage.at, stage.ended)) : stage.steps ? `${stage.step} of ${stage.steps}` : "";
    return [done ? "✓" : "●", done ? "ok" : "run", pretty(stage.stage), took, !done];
  });
  for (const name of coming(watched, job, specification)) rows.push(["○", "soft", name, "", false]);
  const key = JSON.stringify(rows);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  fill(list, rows.map(([glyph, kind, name, told, current]) => h("li", { "aria-current": current ? "step" : null },
    h("span", { class: kind, "aria-hidden": "true" }, glyph), current ? h("b", null, name) : h("span", null, name), h("span", { class: "soft num" }, told))));
}

/** Stages that are still to come, as far as the specification tells. */
function coming(watched, job, specification) {
  const output = specification?.output ?? {};
  const all = ["reading", "modelling", ...(job.method === "auto" ? ["judging"] : []), ...(output.baselines ?? []).map((name) => `baseline ${name}`), job.method];
  const last = all.findLastIndex((stage) => watched.stages.some((seen) => seen.stage === stage));
  const names = all.slice(last + 1).filter((stage) => !watched.stages.some((seen) => seen.stage === stage)).map(pretty);
  if (output.uncertainty && !watched.stages.some((seen) => seen.stage === "replicates")) names.push(`Error map, ${counted(output.uncertainty, "replicate")}`);
  if (!watched.stages.some((seen) => seen.stage === "writing")) names.push("Writing");
  return names;
}

/** Shows the middle planes as they are, where the service has a picture of them; nothing is fetched while hidden. */
function followPreview(place, job, signal) {
  let url = null;
  let tag = null;
  const image = h("img", { alt: "Middle planes of the image as it is now" });
  const look = async () => {
    const path = job().links.preview;
    if (!path || document.hidden || signal.aborted) return;
    const answer = await call(path, { raw: true, cache: "no-store", signal, headers: tag ? { "If-None-Match": tag } : {} }).catch(() => null);
    if (!answer || answer.status === 304) return;
    tag = answer.headers.get("ETag");
    const blob = await answer.blob();
    if (signal.aborted) return;
    if (url) URL.revokeObjectURL(url);
    url = URL.createObjectURL(blob);
    image.src = url;
    if (!image.isConnected) fill(place, h("figure", { class: "black" }, h("figcaption", null, "The middle planes now; a new picture at most every 5 s"), image));
  };
  const clock = setInterval(look, PREVIEW_EVERY_MS);
  look();
  signal.addEventListener("abort", () => {
    clearInterval(clock);
    if (url) URL.revokeObjectURL(url);
  });
}
