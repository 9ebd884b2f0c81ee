/** The plan of a job: time, start and memory, before it is submitted. */

import { fill, facts, h } from "./dom.js";
import { about, between, bytes, counted, shape, whole } from "./text.js";

const PARTS = [
  ["volumes", ["volumes", "data", "metrics", "montage"]],
  ["operator", ["operator", "setup"]],
  ["network", ["network"]],
];

/** Shows what a job will take. */
export function showPlan(element, plan, specification) {
  const again = specification.output?.uncertainty ?? 0;
  const [low, high] = plan.duration_s;
  const range = between(low, high);
  const source = plan.learned_from > 1 ? `from the last ${counted(plan.learned_from, "job")} of this method` : plan.learned_from ? "from the one job of this method that has run here" : "no job of this method has run here yet";
  fill(element,
    h("p", { class: "big num" }, about(plan.learned_from ? Math.sqrt(low * high) : plan.seconds)),
    h("p", { class: "soft num" }, [range, source].filter(Boolean).join(", ")),
    again ? h("p", { class: "soft" }, `${again + 1} times that of one reconstruction: ${counted(again, "replicate")} for the error map`) : null,
    facts([
      ["Starts", starts(plan.start_s)],
      ["Result", `${shape(plan.shape)} voxels`],
      plan.network_evaluations ? ["Evaluations", whole(plan.network_evaluations)] : null,
      ["In pieces of", plan.chunks > 1 ? counted(plan.chunk, "slice") : "all at once"],
    ]),
    memory(plan));
}

function starts(range) {
  if (range === null) return "when a worker comes";
  const [low, high] = range;
  if (high < 1) return "at once";
  return low < 1 ? `within ${about(high)}` : (between(low, high) ?? `in ${about(high)}`);
}

function memory(plan) {
  const shares = PARTS.map(([name, parts]) => [name, parts.reduce((sum, part) => sum + (plan.memory[part] ?? 0), 0)]);
  shares.push(["rest", plan.memory_bytes - shares.reduce((sum, [, size]) => sum + size, 0)]);
  const most = Math.max(plan.limit_bytes, plan.memory_bytes);
  const bar = shares.map(([name, size]) => {
    const part = h("b", { class: `part ${name}` });
    part.style.width = `${(100 * size) / most}%`;
    return part;
  });
  const told = shares.map(([name, size]) => `${name} ${bytes(size)}`).join(", ");
  return [
    h("p", { class: plan.fits ? "above" : "above err" }, h("b", { class: "num" }, bytes(plan.memory_bytes)), h("span", { class: "soft" }, ` of memory, ${bytes(plan.limit_bytes)} may be taken: ${plan.fits ? "fits" : "does not fit"}`)),
    h("div", { class: "membar", role: "img", "aria-label": `Memory: ${told}, of ${bytes(plan.limit_bytes)}` }, bar),
    h("p", { class: "legend soft" }, shares.map(([name]) => h("span", null, h("i", { class: `part ${name}`, "aria-hidden": "true" }), name))),
  ];
}

/**
 * Shows what keeps a job from being planned.
 * @param {HTMLElement} element
 * @param {Problem[]} problems
 * @param {?string[]} places labels of the fields at which the form shows them; null where there is none
 */
export function showTrouble(element, problems, places) {
  fill(element, problems.map((problem, number) => [
    h("p", { class: "warn" }, places[number] ? `${places[number]}: ` : "", problem.sentence),
    places[number] || !problem.field ? null : facts([["Field", h("code", null, problem.field)]]),
  ]));
}
