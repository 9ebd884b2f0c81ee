/** Grey windows: which values are black and white, by name, and how keys change them. */

/**
 * @typedef {Object} Window
 * @property {number} low value that is black
 * @property {number} high value that is white
 */

const byWidth = (width, level) => ({ low: level - width / 2, high: level + width / 2 });
const HOUNSFIELD = [
  ["Soft tissue", byWidth(400, 40)],
  ["Bone", byWidth(1800, 400)],
  ["Lung", byWidth(1500, -600)],
];

/**
 * Four windows to choose from: for CT the usual ones in HU, otherwise by the volume's own values.
 * @param {Object} about a `VolumeView`
 * @returns {Array} pairs of name and window
 */
export function presets(about) {
  const share = about.percentiles;
  const whole = ["Whole range", between(share["0"], share["100"])];
  if (about.unit === "HU") return [...HOUNSFIELD, whole];
  return [["Usual", between(about.low, about.high)], ["Contrast", between(share["5"], share["95"])], ["Bright parts", between(share["50"], share["100"])], whole];
}

/** Window with another width about the same level; wider for factors above one. */
export function widened(window, factor) {
  const level = (window.low + window.high) / 2;
  return byWidth((window.high - window.low) * factor, level);
}

/** Window whose level is higher by a share of its width. */
export function raised(window, share) {
  const by = (window.high - window.low) * share;
  return { low: window.low + by, high: window.high + by };
}

/** Window of a width and a level that somebody typed, or null if these are none. */
export function typed(width, level) {
  return Number.isFinite(width) && Number.isFinite(level) && width > 0 ? byWidth(width, level) : null;
}

/** Window of a map: all angles of a phase; else black at zero and white at the largest errors but the last hundredth. */
export function ofMap(about) {
  if (about.unit === "rad") return { low: -Math.PI, high: Math.PI };
  return between(0, about.percentiles["99"] > 0 ? about.percentiles["99"] : about.percentiles["100"]);
}

/** Window of a difference: as wide as that of what is compared, grey where both are alike. */
export const ofDifference = (window) => byWidth(window.high - window.low, 0);

/** A value with as many digits as say something. */
export function shown(value) {
  if (value === null || !Number.isFinite(value)) return "no number";
  const size = Math.abs(value);
  const digits = size >= 100 || size === 0 ? 0 : size >= 1 ? 1 : size >= 0.001 ? 4 : -1;
  return (digits < 0 ? value.toExponential(2) : value.toFixed(digits)).replace("-", "\u2212");
}

function between(low, high) {
  return { low, high: high > low ? high : low + 1e-6 };
}
