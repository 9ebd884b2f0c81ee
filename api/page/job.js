/** A job: waiting, running, done, failed or cancelled; the view follows its state. */

import { call, Problem } from "./api.js";
import { dialog, fill, h, speak } from "./dom.js";
import { showDone } from "./done.js";
import { showEnded } from "./ended.js";
import { jobs } from "./jobs.js";
import { showRunning } from "./running.js";
import { duration, elapsed, ended, kindName, methodName, nameOf, percent, STATES, stateOf, when } from "./text.js";

/**
 * Shows the view.
 * @param {HTMLElement} main
 * @param {{id: string, tab: string}} which job, and which of its tabs
 * @param {AbortSignal} signal aborted when the view is left
 */
export async function showJob(main, { id, tab }, signal) {
  let job;
  try {
    job = await jobs.fetch(id);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    return notThere(main, error);
  }
  const specification = await call(`v1/jobs/${id}/spec`).catch(() => null);
  if (signal.aborted) return undefined;
  let shown = null;
  let inner = new AbortController();
  let update = () => {};
  const show = async (now) => {
    title(now);
    const state = stateOf(now);
    if (state === shown) return update(now);
    const first = shown === null;
    shown = state;
    inner.abort();
    inner = new AbortController();
    const body = h("div");
    const heading = head(now, specification);
    const hadFocus = main.contains(document.activeElement);
    fill(main, heading, body);
    if (!first) {
      speak(`${nameOf(now)}: ${STATES[state][1].toLowerCase()}`);
      if (hadFocus) main.querySelector("h1").focus();
    }
    const about = { specification, tab, signal: inner.signal, heading };
    update = () => {};
    if (state === "succeeded") await showDone(body, now, about);
    else if (ended(now)) showEnded(body, now, about);
    else update = showRunning(body, now, about);
    return undefined;
  };
  const changed = (event) => {
    if (event.detail?.id === id) show(event.detail);
    else if (event.detail === null && !jobs.known.has(id)) look();  // older than those that were loaded anew
  };
  const look = () => jobs.fetch(id).catch((error) => {
    if (!(error instanceof Problem)) throw error;
    if ([404, 410].includes(error.status)) jobs.forget(id);
  });
  const gone = (event) => {
    if (event.detail !== id) return;
    stop();
    notThere(main, new Problem({ status: 410, detail: "this job was deleted" }));
  };
  const stop = () => {
    inner.abort();
    jobs.removeEventListener("change", changed);
    jobs.removeEventListener("gone", gone);
  };
  jobs.addEventListener("change", changed);
  jobs.addEventListener("gone", gone);
  signal.addEventListener("abort", stop);
  return show(job);
}

function notThere(main, error) {
  document.title = "Not there – Diffusion Recon";
  fill(main, h("h1", { tabindex: -1 }, error.status === 410 ? "This job was deleted" : "This job cannot be shown"), h("p", { class: "above" }, error.sentence), h("p", null, h("a", { href: "#/" }, "To the beginning")));
}

function title(job) {
  const state = stateOf(job);
  const before = state === "running" ? `${percent(job.progress)} ` : state === "succeeded" ? "✓ " : ["failed", "lost"].includes(state) ? "✕ " : "";
  document.title = `${before}${nameOf(job)} – Diffusion Recon`;
}

function head(job, specification) {
  const [glyph, word, kind] = STATES[stateOf(job)];
  return h("div", { class: "head" },
    h("div", null,
      h("h1", { tabindex: -1 }, nameOf(job), h("span", { class: `chip ${kind}` }, h("span", { "aria-hidden": "true" }, glyph), word)),
      h("p", { class: "soft num" }, subtitle(job, specification))),
    h("div", { class: "buttons" }, actions(job)));
}

function subtitle(job, specification) {
  const kind = specification?.acquisition?.kind ?? specification?.acquisition;
  const what = [methodName(job.method), kind ? kindName(kind) : null].filter(Boolean).join(", ");
  if (job.state === "queued") return `${what}. Submitted ${when(job.created)}.`;
  if (!job.started) return `${what}. Never started.`;
  const took = job.finished ? duration(elapsed(job.started, job.finished)) : null;
  if (job.state === "succeeded") return `${what}. Took ${took}${job.planned_s ? `, planned ${duration(job.planned_s)}` : ""}, ended ${when(job.finished)}.`;
  if (took) return `${what}. Stopped after ${took}, attempt ${job.attempt}, ${when(job.finished)}.`;
  return `${what}. Started ${when(job.started)}${job.attempt > 1 ? `, attempt ${job.attempt}` : ""}.`;
}

function actions(job) {
  if (job.state === "cancelling") return [];
  if (!ended(job)) return [h("button", { type: "button", class: "danger", onclick: (event) => cancel(job, event.target) }, "Cancel")];
  const again = h("a", { class: job.state === "succeeded" ? "button" : "button primary", href: `#/new/from/${job.id}` }, job.state === "succeeded" ? "Run again with changes" : stateOf(job) === "cancelled" ? "Run again" : "Mend and run again");
  return [h("button", { type: "button", onclick: () => remove(job) }, "Delete"), again];
}

async function cancel(job, button) {
  button.disabled = true;
  speak("Cancelling");
  try {
    jobs.take(await call(`v1/jobs/${job.id}`, { method: "DELETE" }));
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    button.disabled = false;
    dialog("It was not cancelled", h("p", null, error.sentence));
  }
}

function remove(job) {
  const trouble = h("p", { class: "err", role: "alert" });
  const go = async () => {
    try {
      await call(`v1/jobs/${job.id}?purge=1`, { method: "DELETE" });
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      return fill(trouble, error.sentence);
    }
    shown.close();
    location.hash = "#/";
    return jobs.forget(job.id);
  };
  const shown = dialog(`Delete ${nameOf(job)}?`, h("p", null, "The job and its results are deleted for good; its upload stays for a week."), trouble,
    h("p", { class: "buttons" }, h("button", { type: "button", onclick: () => shown.close() }, "Keep it"), h("button", { type: "button", class: "danger", onclick: go }, "Delete")));
}
