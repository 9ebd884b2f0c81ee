/** The first view: drop a scan, go on with an upload, or try a sample. */

import { address, attempt, call, catalogue, idempotencyKey, Problem } from "./api.js";
import { card, fill, h, speak } from "./dom.js";
import { jobs } from "./jobs.js";
import { dropped } from "./tar.js";
import { bytes } from "./text.js";
import { Transfer, current, unfinished } from "./upload.js";

/** Shows the view. */
export async function showHome(main) {
  const title = jobs.loaded && jobs.total === 0 ? "No jobs yet" : "Reconstruct a scan";
  const arriving = h("div");
  const samples = h("div", { class: "samples" });
  const trouble = h("p", { class: "err", role: "alert" });
  fill(main, h("h1", { tabindex: -1 }, title), dropZone({ large: true }), arriving, h("h2", { class: "above" }, "Or try one that is shipped"), samples, trouble);
  document.title = `${title} – Diffusion Recon`;
  const [found, begun] = await Promise.all([call("v1/samples"), unfinished()]);
  fill(samples, found.samples.map((sample) => sampleCard(sample, trouble)));
  const waiting = begun.filter((upload) => upload.id !== current.transfer?.id);
  if (waiting.length) fill(arriving, leftUploads(waiting));
}

function sampleCard(sample, trouble) {
  const run = async () => {
    button.setAttribute("aria-busy", "true");
    speak(`Starting ${sample.title}`);
    try {
      const { specification } = await call(`v1/samples/${sample.name}`, { method: "POST" });
      const job = await call("v1/jobs", { method: "POST", json: specification, headers: { "Idempotency-Key": idempotencyKey() } });
      jobs.take(job);
      location.hash = `#/jobs/${job.id}`;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      fill(trouble, error.sentence);
    } finally {
      button.removeAttribute("aria-busy");
    }
  };
  const button = h("button", { type: "button", class: "card sample", onclick: run },
    h("img", { src: address(`page/pictures/${sample.name}.png`), alt: "", width: 84, height: 84 }),
    h("span", null, h("b", null, sample.title), h("span", { class: "soft" }, sample.about), h("span", { class: "soft small" }, sample.source)));
  return button;
}

function leftUploads(waiting) {
  const row = (upload) => {
    const trouble = h("span", { class: "err", role: "alert" });
    const discard = () => attempt(trouble, async () => {
      await call(`v1/uploads/${upload.id}`, { method: "DELETE" });
      line.remove();
    });
    const line = h("li", null,
      h("b", null, upload.name || upload.id),
      h("span", { class: "soft num" }, `${bytes(upload.received)} of ${bytes(upload.bytes)} are here. Choose the same file again, and it goes on from there.`),
      h("button", { type: "button", onclick: discard, "aria-label": `Discard ${upload.name || upload.id}` }, "Discard"), trouble);
    return line;
  };
  return card("Uploads that are not complete", h("ul", { class: "rows" }, waiting.map(row)));
}

/**
 * A place to drop files, and buttons for those who cannot drag.
 * @param {{large?: boolean}} options
 */
export function dropZone({ large = false } = {}) {
  const trouble = h("p", { class: "err", role: "alert" });
  const take = (entries) => {
    const files = entries.filter(({ file }) => !/(^|\/)\.(DS_Store|_.*)$/.test(file.name));
    if (files.length === 0) return fill(trouble, "There is no file in what was dropped: drop a scan, or a folder that holds one.");
    send(files);
  };
  const chosen = (input) => take([...input.files].map((file) => ({ path: file.webkitRelativePath || file.name, file })));
  const file = h("input", { type: "file", class: "unseen", multiple: true, tabindex: -1, "aria-label": "Files of a scan", onchange: (event) => chosen(event.target) });
  const folder = h("input", { type: "file", class: "unseen", webkitdirectory: true, tabindex: -1, "aria-label": "Folder of a scan", onchange: (event) => chosen(event.target) });
  const limit = h("span");
  catalogue().then((found) => fill(limit, `, up to ${bytes(found.limits.upload_bytes)}`)).catch(() => {});
  const zone = h("div", { class: `drop ${large ? "large" : ""}` },
    large ? h("p", { class: "big" }, "Drop a scan here") : h("p", null, h("b", null, "Drop a scan here")),
    h("p", { class: "soft" }, "Sinograms, k-space, raw data of scanners, volumes; a file or a folder", limit, ". It stays on this server."),
    h("p", { class: "buttons" },
      h("button", { type: "button", class: "primary", onclick: () => file.click() }, "Choose a file"),
      h("button", { type: "button", onclick: () => folder.click() }, "Choose a folder")),
    file, folder, trouble);
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", async (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    let entries;
    try {
      entries = await dropped(event.dataTransfer);
    } catch (error) {
      fill(trouble, `What was dropped cannot be read (${error.message}): see whether it is still there and yours to read, or choose it with the buttons.`);
      return;
    }
    take(entries);
  });
  return zone;
}

/** Sends files, and shows the form that waits for them. */
function send(entries) {
  if (current.transfer && !["done", "refused"].includes(current.transfer.state)) current.transfer.pause();
  current.transfer = new Transfer(entries);
  current.transfer.start();
  if (location.hash === "#/new") dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = "#/new";
}
