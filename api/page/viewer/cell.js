/** One picture of the viewer: a plane of a volume, with the cursor and what lies on its sides. */

import { h, s } from "../dom.js";
import { pixelOf, ratio } from "./planes.js";

/** Pixels around the cursor that its lines leave free. */
const GAP = 4;
const SIDES = ["left", "right", "top", "bottom"];

/** A picture with a cursor; whoever draws it calls `draw`, or draws behind it. */
export class Cell {
  /**
   * @param {string} name of the plane
   * @param {Object} plane of a `VolumeView`
   */
  constructor(name, plane) {
    this.name = name;
    this.canvas = h("canvas", { class: "viewer-picture", width: 1, height: 1, "aria-hidden": "true" });
    this.lines = s("path", { "vector-effect": "non-scaling-stroke" });
    this.cross = s("svg", { class: "viewer-cross", "aria-hidden": "true", preserveAspectRatio: "none" }, this.lines);
    this.sides = SIDES.map((side) => h("i", { class: `viewer-side ${side}`, "aria-hidden": "true" }));
    this.frame = h("div", { class: "viewer-frame" }, this.canvas, this.cross, this.sides);
    this.element = h("div", { class: "viewer-cell", role: "img", tabindex: 0, dataset: { plane: name } }, this.frame);
    this.sizes = new ResizeObserver(() => this.fit());
    this.sizes.observe(this.element);
    this.update(plane);
  }

  /** Whether there is no room for it now, as on narrow screens. */
  get hidden() {
    return this.element.offsetWidth === 0;
  }

  /** Takes another plane, which may have another shape. */
  update(plane) {
    this.plane = plane;
    plane.labels.forEach((label, side) => { this.sides[side].textContent = label; });
    this.cross.setAttribute("viewBox", `0 0 ${plane.width} ${plane.height}`);
    this.fit();
  }

  /** Makes the frame as large as the cell allows, in the proportions of the body. */
  fit() {
    const [width, height] = [this.element.clientWidth, this.element.clientHeight];
    const wide = ratio(this.plane);
    const size = width / height > wide ? [height * wide, height] : [width, width / wide];
    this.frame.style.width = `${size[0]}px`;
    this.frame.style.height = `${size[1]}px`;
  }

  /** Shows a picture of one pixel per voxel. */
  draw(picture) {
    Object.assign(this.canvas, { width: picture.width, height: picture.height });
    this.canvas.getContext("2d").drawImage(picture, 0, 0);
    this.canvas.hidden = false;
    picture.close();
  }

  /** Takes the picture away, so that what is drawn behind it is seen. */
  clear() {
    this.canvas.hidden = true;
  }

  /** Notes what is drawn. */
  mark(key) {
    this.element.dataset.shown = key;
  }

  /** Puts the cursor at a voxel. */
  point(voxel, label) {
    const [x, y] = pixelOf(this.plane, voxel).map((pixel) => pixel + 0.5);
    const { width, height } = this.plane;
    this.lines.setAttribute("d", `M${x} 0V${y - GAP}M${x} ${y + GAP}V${height}M0 ${y}H${x - GAP}M${x + GAP} ${y}H${width}`);
    if (this.element.getAttribute("aria-label") !== label) this.element.setAttribute("aria-label", label);
  }

  /** Pixel under a pointer. */
  pixelAt(event) {
    const box = this.frame.getBoundingClientRect();
    const { width, height } = this.plane;
    return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
  }

  close() {
    this.sizes.disconnect();
  }
}
