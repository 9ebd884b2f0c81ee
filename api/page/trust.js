/** Whether a result can be trusted: its misfit against the noise, its familiarity, and a known truth. */

import { card, facts, h } from "./dom.js";
import { digits, methodName, ordinal } from "./text.js";

const NOTABLE = 1.25;
const TOO_CLOSE = 0.8;
const UNFAMILIAR = 5;

/** The card, of a job's report. */
export function trust(report) {
  const { data_misfit: misfits, expected_misfit: noise, method, familiarity, uncertainty, undetermined, against_truth: truth } = report;
  const own = misfits[method.name];
  const [good, told] = verdict(own, noise);
  return card("Can it be trusted?",
    h("p", { class: good ? "ok-line" : "warn" }, told),
    noise ? meter(own, noise) : null,
    facts([
      ["Data misfit", digits(own)],
      ["Noise leaves", noise ? digits(noise) : "not known"],
      ...Object.entries(misfits).filter(([name]) => name !== method.name).map(([name, value]) => [methodName(name), digits(value)]),
      familiarity ? ["Familiarity", `${ordinal(familiarity.median)} percentile`] : null,
      familiarity ? ["Lowest slice", ordinal(familiarity.lowest)] : null,
      uncertainty?.rms != null ? ["Expected error", `±${digits(uncertainty.rms)} ${report.unit}`] : null,
      uncertainty?.held != null ? ["Intervals hold", `${Math.round(100 * uncertainty.held)} % of voxels`] : null,
      undetermined ? ["Not measured", `${digits(100 * undetermined.inside, 2)} % of the object`] : null,
    ]),
    familiarity && familiarity.lowest < UNFAMILIAR ? h("p", { class: "warn" }, `Some slices are unlike nearly all that the prior ${familiarity.judge} was trained on: details there may be invented.`) : null,
    truth ? scores(truth) : null);
}

function verdict(own, noise) {
  if (!noise) return [false, "How noisy the data are is not known, so that the misfit says little."];
  const times = own / noise;
  if (times > NOTABLE) return [false, `Leaves ${digits(times, 2)} times what the noise explains: something in the data is not in the image.`];
  if (times < TOO_CLOSE) return [false, "Follows the data closer than their noise allows: noise may have been taken for detail."];
  return [true, "Explains the data as far as their noise allows."];
}

function meter(own, noise) {
  const most = Math.max(1.4 * noise, 1.1 * own);
  const [bar, line] = [h("b"), h("u")];
  bar.style.width = `${(100 * own) / most}%`;
  line.style.left = `${(100 * noise) / most}%`;
  return h("div", { class: "meter", role: "img", "aria-label": `Data misfit ${digits(own)}; the noise leaves ${digits(noise)}` }, bar, line);
}

function scores(truth) {
  const rows = Object.entries(truth).map(([name, score]) => h("tr", null, h("th", { scope: "row" }, methodName(name)), h("td", { class: "num" }, score.psnr === null ? "–" : `${score.psnr.toFixed(1)} dB`), h("td", { class: "num" }, score.ssim === null ? "–" : score.ssim.toFixed(3))));
  return h("table", { class: "small" }, h("caption", null, "Against the known volume"), h("thead", null, h("tr", null, ["", "PSNR", "SSIM"].map((text) => (text ? h("th", { scope: "col" }, text) : h("td"))))), h("tbody", null, rows));
}
