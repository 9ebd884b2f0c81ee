/** A job that failed, was lost or was cancelled: what happened, and the way on. */

import { sentence } from "./api.js";
import { copyButton, facts, fill, h } from "./dom.js";
import { logCard } from "./log.js";
import { specificationCard } from "./specification.js";
import { stateOf } from "./text.js";

/** Shows a job that ended without results. */
export function showEnded(body, job, { specification, signal }) {
  const state = stateOf(job);
  const told = state === "cancelled" ? cancelled(job) : failed(job, state);
  fill(body, h("div", { class: "stack narrowed" }, told, specificationCard(specification), logCard(job, { open: false, signal })));
}

function cancelled(job) {
  return h("section", { class: "card", "aria-label": "What happened" },
    h("h2", { class: "title" }, "It was cancelled"),
    h("p", { class: "above" }, job.started ? "It was stopped while it ran; nothing of it is kept. Its upload is still there, so that it can be run again." : "It was cancelled before it began. Its upload is still there."));
}

function failed(job, state) {
  const error = job.error ?? {};
  const { code, message, field, remedy } = error;
  return h("section", { class: "card", "aria-label": "What happened" },
    h("h2", { class: "title" }, state === "lost" ? "Its workers were lost" : sentence((code ?? "failed").replaceAll("_", " ")).slice(0, -1)),
    h("p", { class: "above" }, sentence(message ?? "The worker gave no reason")),
    facts([
      field ? ["Field", h("code", null, field)] : null,
      remedy ? ["What to do", sentence(remedy)] : null,
      ["Job", h("span", null, h("code", null, job.id), " ", copyButton("Copy", "Id of the job", () => job.id))],
    ], { class: "kv left" }));
}
