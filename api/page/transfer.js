/** An upload on its way: how far it is, with a button that pauses it. */

import { fill, h, say, speak } from "./dom.js";
import { bytes, duration } from "./text.js";
import { current } from "./upload.js";

/**
 * Shows an upload until it is done.
 * @param {HTMLElement} place
 * @param {Transfer} transfer
 * @param {{signal: AbortSignal, other: function, done: function}} then what to do for another file, and at the end
 */
export function showTransfer(place, transfer, { signal, other, done }) {
  const bar = h("progress", { max: 1, value: 0, "aria-label": "Upload" });
  const told = h("span", { class: "soft num" });
  const hold = h("button", { type: "button", onclick: () => (["sending", "broken"].includes(transfer.state) ? transfer.pause() : transfer.resume()) });
  const leave = () => {
    transfer.pause();
    current.transfer = null;
    other();
  };
  const trouble = h("p", { class: "err", role: "alert" });
  fill(place, h("div", { class: "drop" },
    h("p", null, h("b", null, transfer.name), " ", told), bar,
    h("p", { class: "buttons" }, hold, h("button", { type: "button", onclick: leave }, "Choose another file")), trouble));
  const look = () => {
    bar.value = transfer.size ? transfer.sent / transfer.size : 0;
    say(told, words(transfer));
    say(hold, { sending: "Pause", broken: "Pause", waiting: "Pause", refused: "Try again" }[transfer.state] ?? "Go on");
    say(trouble, transfer.problem && ["refused", "paused"].includes(transfer.state) ? transfer.problem.sentence : "");
    if (transfer.state !== "done") return;
    transfer.removeEventListener("change", look);
    current.transfer = null;
    speak("Upload complete");
    done();
  };
  transfer.addEventListener("change", look);
  signal.addEventListener("abort", () => transfer.removeEventListener("change", look));
  look();
}

function words(transfer) {
  const far = `${bytes(transfer.sent)} of ${bytes(transfer.size)}`;
  if (transfer.state === "paused") return `${far}, paused; what was sent is kept.`;
  if (transfer.state === "broken") return `${far}; the line is broken, trying again by itself. What was sent is kept.`;
  if (transfer.state === "refused") return far;
  const left = transfer.rate ? `, ${bytes(transfer.rate)}/s, ${duration((transfer.size - transfer.sent) / transfer.rate)} left` : "";
  return `${far}${left}. A broken line or a closed page loses nothing.`;
}
