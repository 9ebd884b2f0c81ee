/** Numbers, times and names as people read them. */

import { now } from "./api.js";

const PLAIN = { fbp: "FBP", sirt: "SIRT", cgls: "CGLS", tv: "TV", "l1-wavelet": "L1 wavelet", "low-rank": "Low rank", "zero-filled": "Zero-filled", gridding: "Gridding", "cg-sense": "CG-SENSE", interpolation: "Interpolation", diffpir: "DiffPIR", dds: "DDS", "red-diff": "RED-Diff", "diffusion-mbir": "DiffusionMBIR", dps: "DPS", boundary: "Boundary", auto: "Automatic" };
const KINDS = { "ct-parallel": "CT, parallel beam", "ct-fan": "CT, fan beam", "ct-cone": "CT, cone beam", "ct-laminography": "CT, tilted axis", "ct-superresolution": "CT, resolution", "mri-cartesian": "MRI, Cartesian", "mri-noncartesian": "MRI, non-Cartesian", "mri-superresolution": "MRI, resolution" };

/** Whether a kind of scan refines a volume: that is measured as it is, not simulated. */
export function refines(kind) {
  return Boolean(kind?.endsWith("-superresolution"));
}

/** States of a job: glyph, word, class; never colour alone. */
export const STATES = {
  queued: ["○", "Queued", "soft"],
  running: ["●", "Running", "run"],
  cancelling: ["●", "Being cancelled", "soft"],
  succeeded: ["✓", "Succeeded", "ok"],
  failed: ["✕", "Failed", "bad"],
  lost: ["✕", "Lost", "bad"],
  cancelled: ["–", "Cancelled", "soft"],
};

/** State of a job, in which one that its workers left is told from one that failed. */
export const stateOf = (job) => (job.state === "failed" && job.error?.code === "worker_lost" ? "lost" : job.state);

/** Whether a job has ended. */
export const ended = (job) => ["succeeded", "failed", "cancelled"].includes(job.state);

/** Name of a method for people; that of another package as it is. */
export const methodName = (name) => PLAIN[name] ?? name;

/** Name of a kind of acquisition for people. */
export const kindName = (kind) => KINDS[kind] ?? kind;

/** Seconds in words, as `4 min 38 s`. */
export function duration(seconds) {
  const whole = Math.round(seconds);
  if (seconds < 1) return "under 1 s";
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return [`${Math.floor(whole / 60)} min`, whole % 60 && whole < 600 ? `${whole % 60} s` : ""].filter(Boolean).join(" ");
  const minutes = Math.round(whole / 60);
  return [`${Math.floor(minutes / 60)} h`, minutes % 60 ? `${minutes % 60} min` : ""].filter(Boolean).join(" ");
}

/** Seconds rounded as an estimate deserves. */
function rounded(seconds) {
  const step = seconds < 10 ? 1 : seconds < 60 ? 5 : seconds < 600 ? 30 : seconds < 3600 ? 60 : 600;
  return Math.max(1, Math.round(seconds / step) * step);
}

/** Estimated seconds, as `about 21 min`. */
export const about = (seconds) => `about ${duration(rounded(seconds))}`;

/** A range of seconds, as `between 4 min and 9 min`; null if both ends read alike. */
export function between(low, high) {
  const [first, last] = [duration(rounded(low)), duration(rounded(high))];
  return first === last ? null : `between ${first} and ${last}`;
}

/** Bytes, as `1.8 GB`. */
export function bytes(count) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  const power = Math.min(units.length - 1, count > 0 ? Math.floor(Math.log10(count) / 3) : 0);
  const value = count / 1000 ** power;
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
}

/** Whole number with spaces, as `3 840`. */
export const whole = (count) => Math.round(count).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");

/** Number with a few significant digits. */
export function digits(value, count = 3) {
  if (Math.abs(value) >= 10 ** count && Math.abs(value) < 1e9) return whole(value);
  return String(Number(Number(value).toPrecision(count))).replace(/e\+?/, " · 10^");
}

/** Time of day, with the day where it is not today. */
export function when(iso) {
  const then = new Date(iso);
  const time = then.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(iso).setHours(0, 0, 0, 0)) / 86400000);
  if (days === 0) return time;
  if (days === 1) return `yesterday ${time}`;
  return `${then.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" })} ${time}`;
}

/** Seconds from one time of the server to another, or to now. */
export const elapsed = (from, to) => ((to ? Date.parse(to) : now()) - Date.parse(from)) / 1000;

/** Percent of a share, never 100 before it is whole. */
export const percent = (share) => `${Math.min(share < 1 ? 99 : 100, Math.round(100 * share))} %`;

/** A word with its count, as `1 worker`, `2 workers`. */
export const counted = (count, word) => `${whole(count)} ${word}${count === 1 ? "" : "s"}`;

/** Name of a job, or its id. */
export const nameOf = (job) => job.name || job.id.slice(0, 8);

/** Numbers of an array's shape, as `8 × 101 × 122`. */
export const shape = (sizes) => sizes.join(" × ");

/** Ordinal number, as `63rd`. */
export function ordinal(value) {
  const number = Math.round(value);
  const ending = number % 100 >= 11 && number % 100 <= 13 ? "th" : { 1: "st", 2: "nd", 3: "rd" }[number % 10] ?? "th";
  return `${number}${ending}`;
}
