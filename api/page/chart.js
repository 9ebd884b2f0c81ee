/** Curves of the data misfit, drawn as SVG. */

import { h, s } from "./dom.js";
import { digits } from "./text.js";

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [760, 180, 56, 150, 14, 24];

/**
 * A chart of misfits against the share of a stage's steps, on a logarithmic scale.
 * @param {{name: string, points: number[][]}[]} curves the last one is the one of now
 */
export function chart(curves) {
  const values = curves.flatMap((curve) => curve.points.map(([, value]) => value)).filter((value) => value > 0);
  if (values.length === 0) return h("p", { class: "soft" }, "Nothing was measured yet.");
  const [low, high] = [Math.min(...values) * 0.9, Math.max(...values) * 1.1];
  const x = (share) => LEFT + share * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + ((Math.log(high) - Math.log(Math.max(value, low))) / (Math.log(high) - Math.log(low) || 1)) * (HEIGHT - TOP - BOTTOM);
  const last = curves.at(-1);
  const end = last.points.at(-1);
  const drawn = curves.map((curve) => {
    const now = curve === last;
    const path = curve.points.map(([share, value], place) => `${place ? "L" : "M"}${x(share).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    return s("path", { class: now ? "curve now" : "curve", d: path });
  });
  const alone = curves.filter((curve) => curve !== last && curve.points.length === 1).map((curve) => s("circle", { class: "point", cx: x(curve.points[0][0]), cy: y(curve.points[0][1]), r: 2.5 }));
  // Names stand beside the ends, and not on each other.
  const ends = curves.filter((curve) => curve.points.length).map((curve) => ({ curve, at: y(curve.points.at(-1)[1]) })).sort((a, b) => a.at - b.at);
  ends.forEach((one, place) => { if (place) one.at = Math.max(one.at, ends[place - 1].at + 15); });
  const names = ends.map(({ curve, at }) => s("text", { class: curve === last ? "name now" : "name", x: Math.min(x(curve.points.at(-1)[0]) + 10, WIDTH - RIGHT + 8), y: at + 4 }, `${curve.name} ${digits(curve.points.at(-1)[1])}`));
  const picture = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img", "aria-label": `Data misfit of ${last.name}: ${digits(end[1])} after ${Math.round(100 * end[0])} % of its steps` },
    s("path", { class: "axis", d: `M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH - RIGHT}` }),
    [high, low].map((value) => s("text", { class: "tick", x: LEFT - 6, y: y(value) + 4 }, digits(value, 2))),
    s("text", { class: "under", x: WIDTH - RIGHT, y: HEIGHT - 6 }, "steps of each stage"),
    drawn,
    alone,
    s("circle", { class: "dot-now", cx: x(end[0]), cy: y(end[1]), r: 4 }),
    names);
  return picture;
}
