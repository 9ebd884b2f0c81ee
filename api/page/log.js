/** The log of a job, line by line. */

import { address, call } from "./api.js";
import { card, fill, h } from "./dom.js";
import { ended } from "./text.js";

const EVERY_MS = 3000;

/**
 * A card with the log; while the job runs, it is read again as long as it is open.
 * @param {Object} job
 * @param {{open: boolean, signal: AbortSignal}} options
 */
export function logCard(job, { open, signal }) {
  const lines = h("pre", { class: "log", tabindex: 0, role: "region", "aria-label": "Lines of the log" });
  const look = async () => {
    if (document.hidden || signal.aborted || (!open && !shown.open)) return;
    const text = await call(job.links.logs, { signal }).catch(() => null);
    if (text === null) return;
    const atEnd = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 4;
    fill(lines, text || "Nothing has been logged.");
    if (atEnd) lines.scrollTop = lines.scrollHeight;
  };
  const download = h("p", null, h("a", { href: address(job.links.logs), download: `${job.id}.log` }, "Download the log"));
  const shown = open ? card("Log", lines, download) : h("details", { class: "card", ontoggle: look }, h("summary", null, "Log"), lines, download);
  look();
  if (!ended(job)) {
    const clock = setInterval(look, EVERY_MS);
    signal.addEventListener("abort", () => clearInterval(clock));
  }
  return shown;
}
