/** The page: its frame, and the view that the address names. */

import { Problem } from "./api.js";
import { fill, h } from "./dom.js";
import { buildFrame } from "./frame.js";
import { showHome } from "./home.js";
import { showJob } from "./job.js";
import { jobs } from "./jobs.js";
import { showNew } from "./new.js";
import { askForKey, session } from "./session.js";
import { current } from "./upload.js";

const main = document.getElementById("main");
let leave = new AbortController();

/** The view of an address, as `#/jobs/ID/report`. */
function viewOf(hash) {
  const [kind, id, tab] = hash.replace(/^#\/?/, "").split("/");
  if (kind === "jobs" && id) return (signal) => showJob(main, { id, tab: tab ?? "images" }, signal);
  if (kind === "new" && id === "from") return (signal) => showNew(main, { from: tab }, signal);
  if (kind === "new") return (signal) => showNew(main, { upload: id }, signal);
  return (signal) => showHome(main, signal);
}

async function show({ first = false } = {}) {
  leave.abort();
  leave = new AbortController();
  const { signal } = leave;
  main.setAttribute("aria-busy", "true");
  try {
    const showing = viewOf(location.hash)(signal);
    // Who cannot see that the view has changed is led to its heading.
    if (!first) focusHeading();
    await showing;
    if (!first && document.activeElement === document.body) focusHeading();
  } catch (error) {
    if (error.name === "AbortError" || signal.aborted) return;
    if (!(error instanceof Problem)) throw error;
    if (error.status !== 401) fill(main, h("h1", { tabindex: -1 }, "This cannot be shown now"), h("p", { class: "above" }, error.sentence), h("p", { class: "above" }, h("button", { type: "button", onclick: () => show() }, "Try again")));
  } finally {
    if (!signal.aborted) main.removeAttribute("aria-busy");
  }
}

function focusHeading() {
  main.querySelector("h1")?.focus();
  scrollTo(0, 0);
}

async function begin() {
  const frame = buildFrame();
  const known = (await session()) ?? (await askForKey());
  frame.owner(known);
  let asking = false;
  document.addEventListener("recon:unauthorized", async () => {
    if (asking) return;
    asking = true;
    try {
      // The answer may be to a request that was sent before the last key was given.
      frame.owner((await session()) ?? (await askForKey()));
    } finally {
      asking = false;
    }
    await jobs.load();
    if (current.transfer?.state === "paused") current.transfer.resume();
    else show();
  });
  await jobs.load();
  jobs.follow();
  addEventListener("hashchange", () => show());
  addEventListener("beforeunload", (event) => {
    if (current.transfer?.state === "sending") event.preventDefault();
  });
  // A file that misses the place for it would replace the page.
  for (const type of ["dragover", "drop"]) addEventListener(type, (event) => event.preventDefault());
  await show({ first: true });
}

begin().catch((error) => {
  fill(main, h("h1", { tabindex: -1 }, "The page could not begin"), h("p", { class: "above" }, error instanceof Problem ? error.sentence : String(error)), h("p", { class: "above" }, h("button", { type: "button", onclick: () => location.reload() }, "Try again")));
});
