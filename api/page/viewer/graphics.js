/** Slices drawn by the browser's graphics, with NiiVue; it is loaded when a volume is shown. */

import { PLANES } from "./planes.js";
import { ServerPictures } from "./pictures.js";

const LIBRARY = "../vendor/niivue/niivue-0.69.0.umd.js";
/** Larger volumes are shown reduced while the cursor moves, and from the server's slices where it rests. */
const LARGEST_VOXELS = 2 ** 24;
const REDUCED_VOXELS = 2 ** 21;
const REST_MS = 200;
/** Drivers that compute pictures on the processor, and are slower than pictures from the server. */
const SOFTWARE = /swiftshader|llvmpipe|softpipe|software|basic render|apple software/i;
/** The colours of maps at equal distances, as in the scale below the pictures and in the server's pictures. */
const INFERNO = ["000004", "1b0c41", "4a0c6b", "781c6d", "a52c60", "cf4446", "ed6925", "fb9b06", "f7d13d", "fcffa4"];
const SLICE_TYPES = { axial: 0, coronal: 1, sagittal: 2 };

/**
 * What draws in this browser.
 * @returns {{name: string, fast: boolean}|null} null without WebGL2
 */
export function graphics() {
  const context = document.createElement("canvas").getContext("webgl2");
  if (!context) return null;
  const about = context.getExtension("WEBGL_debug_renderer_info");
  const name = String(context.getParameter(about ? about.UNMASKED_RENDERER_WEBGL : context.RENDERER));
  context.getExtension("WEBGL_lose_context")?.loseContext();
  return { name, fast: !SOFTWARE.test(name) };
}

/** Draws rows of three planes, each row on one canvas behind its cells. */
export class Graphics {
  /**
   * @param {VolumeService} service
   * @param {function(Error)} failed called when it cannot draw
   * @param {function(?Error)} tell called with what is missing of the server's slices, null for nothing any more
   * @param {function()} lost called when the browser takes the graphics away
   */
  constructor(service, failed, tell, lost) {
    Object.assign(this, { service, failed, tell, lost });
    this.stopped = new AbortController();
    this.images = new Map();
    this.rows = new Map();
    this.sharp = new ServerPictures(service, tell);
  }

  /** Loads NiiVue. */
  async start() {
    await import(LIBRARY);
    this.library = globalThis.niivue;
  }

  /** Value of a voxel, if the volume is here as a whole; undefined otherwise. */
  value(name, voxel) {
    const image = this.images.get(name)?.ready;
    if (!image || image.reduced) return undefined;
    const [cols, rows] = image.shape;
    return image.values[(voxel[2] * rows + voxel[1]) * cols + voxel[0]];
  }

  /** Shows rows at a cursor. */
  show(rows, cursor) {
    clearTimeout(this.rest);
    for (const [key, row] of this.rows) {
      if (!rows.some((shown) => shown.key === key)) this.remove(row);
    }
    for (const row of rows) this.showRow(row, cursor).catch((error) => error.name === "AbortError" || this.failed(error));
    const large = rows.filter((row) => this.isLarge(row.about));
    for (const row of large) for (const cell of Object.values(row.cells)) cell.clear();
    if (large.length) this.rest = setTimeout(() => this.sharpen(large, cursor), REST_MS);
    else this.tell(null);
  }

  /** Lays the server's slices, which have every voxel, over the reduced ones. */
  sharpen(rows, cursor) {
    this.sharp.close();
    this.sharp = new ServerPictures(this.service, this.tell);
    this.sharp.show(rows, cursor);
  }

  isLarge(about) {
    return about.shape.reduce((product, count) => product * count, 1) > LARGEST_VOXELS;
  }

  async showRow(row, cursor) {
    const drawn = this.rows.get(row.key) ?? this.add(row);
    drawn.wanted = { row, cursor };
    if (drawn.busy) return;
    drawn.busy = true;
    try {
      let done = null;
      while (done !== drawn.wanted && !this.stopped.signal.aborted) {
        done = drawn.wanted;
        await this.draw(drawn, done.row, done.cursor);
      }
    } finally {
      drawn.busy = false;
    }
  }

  add(row) {
    const canvas = document.createElement("canvas");
    canvas.className = "viewer-graphics";
    canvas.setAttribute("aria-hidden", "true");
    // A row that is hidden gives its graphics back by itself.
    canvas.addEventListener("webglcontextlost", () => canvas.isConnected && !this.stopped.signal.aborted && this.lost());
    row.element.prepend(canvas);
    const view = new this.library.Niivue({
      backColor: [0, 0, 0, 1],
      crosshairWidth: 0,
      dragAndDropEnabled: false,
      interactive: false,
      isOrientationTextVisible: false,
      isRadiologicalConvention: row.about.in_patient,
      loadingText: "",
      logLevel: "error",
      sagittalNoseLeft: true,
    });
    view.addColormap("recon-inferno", colourMap(INFERNO));
    const drawn = { canvas, view, element: row.element, attached: view.attachToCanvas(canvas, false), shown: null };
    drawn.sizes = new ResizeObserver(() => drawn.wanted && this.layout(drawn, drawn.wanted.row));
    drawn.sizes.observe(row.element);
    this.rows.set(row.key, drawn);
    return drawn;
  }

  async draw(drawn, row, cursor) {
    await drawn.attached;
    const image = await (row.minus ? this.difference(row) : this.image(row.name, row.about));
    if (this.stopped.signal.aborted) return;
    const { view } = drawn;
    const key = `${row.name}|${row.minus ?? ""}`;
    const window = `${row.low}|${row.high}`;
    if (drawn.shown !== key || drawn.window !== window) {
      // Each row has an image of its own, with its window and colours, of values that rows share.
      const own = drawn.shown === key ? view.volumes[0] : this.copyOf(image);
      own.colormap = row.colours ? "recon-inferno" : "gray"; // which sets a window, too
      own.cal_min = row.low;
      own.cal_max = row.high;
      view.volumes = [own];
      view.back = own;
      view.opts.isRadiologicalConvention = row.about.in_patient;
      this.layout(drawn, row);
      view.updateGLVolume();
      Object.assign(drawn, { shown: key, window });
    }
    view.scene.crosshairPos = fraction(row.about, cursor);
    view.drawScene();
    for (const cell of Object.values(row.cells)) cell.mark(key);
  }

  copyOf(image) {
    const own = image.volume.clone();
    own.img = image.volume.img;
    return own;
  }

  layout(drawn, row) {
    const frame = row.element.getBoundingClientRect();
    if (!frame.width || !frame.height) return;
    const tiles = PLANES.map((plane) => ({ plane, box: row.cells[plane].element.getBoundingClientRect() })).filter(({ box }) => box.width > 0);
    drawn.view.setCustomLayout(
      tiles.map(({ plane, box }) => ({
        sliceType: SLICE_TYPES[plane],
        position: [(box.left - frame.left) / frame.width, (box.top - frame.top) / frame.height, box.width / frame.width, box.height / frame.height],
      })),
    );
  }

  /** A volume, as a whole if it is small; what is being fetched is fetched once. */
  image(name, about) {
    if (!this.images.has(name)) {
      const entry = { pending: this.load(name, about) };
      entry.pending.then((ready) => { entry.ready = ready; }, () => this.images.delete(name));
      this.images.set(name, entry);
    }
    return this.images.get(name).pending;
  }

  async load(name, about) {
    const reduced = this.isLarge(about);
    const bytes = await this.service.volume(name, reduced ? REDUCED_VOXELS : LARGEST_VOXELS, this.stopped.signal);
    const volume = await this.library.NVImage.new(placed(bytes, about), "volume.nii", "gray", 1, null, about.low, about.high);
    return { volume, values: volume.img, shape: [about.shape[2], about.shape[1]], reduced };
  }

  async difference(row) {
    const key = `${row.name}|${row.minus}`;
    if (!this.images.has(key)) {
      const make = async () => {
        const [one, other] = await Promise.all([this.image(row.name, row.about), this.image(row.minus, row.about)]);
        const volume = one.volume.clone();
        volume.img = Float32Array.from(one.values, (value, index) => value - other.values[index]);
        return { ...one, volume, values: volume.img };
      };
      const pending = make();
      pending.catch(() => this.images.delete(key));
      this.images.set(key, { pending });
    }
    return this.images.get(key).pending;
  }

  remove(drawn) {
    drawn.sizes.disconnect();
    drawn.view.cleanup();
    drawn.canvas.remove();
    // Browsers have few graphics contexts, and give them back late by themselves.
    drawn.view.gl?.getExtension("WEBGL_lose_context")?.loseContext();
    for (const [key, row] of this.rows) if (row === drawn) this.rows.delete(key);
  }

  close() {
    clearTimeout(this.rest);
    this.stopped.abort();
    this.sharp.close();
    for (const row of [...this.rows.values()]) this.remove(row);
    this.images.clear();
  }
}

/**
 * Bytes of a NIfTI-1 file with an affine along the axes of the frame: NiiVue draws planes of the array in that order and
 * direction, and also where the file's codes say that nothing is known of the patient.
 */
function placed(bytes, about) {
  const header = new DataView(bytes);
  header.setInt16(252, 0, true); // the affine of the sform is meant
  header.setInt16(254, 1, true);
  frameAxes(about).forEach(({ axis, grows, mm }, frame) => {
    const count = header.getInt16(42 + 2 * axis, true);
    const step = ((mm * fullCount(about, axis)) / count) * (grows ? 1 : -1);
    const start = (-step * (count - 1)) / 2;
    for (let column = 0; column < 4; column += 1) {
      header.setFloat32(280 + 16 * frame + 4 * column, column === axis ? step : column === 3 ? start : 0, true);
    }
    header.setFloat32(80 + 4 * axis, Math.abs(step), true);
  });
  return bytes;
}

/** Colours as NiiVue wants them. */
function colourMap(colours) {
  const part = (at) => colours.map((colour) => parseInt(colour.slice(at, at + 2), 16));
  const places = colours.map((_, index) => Math.round((255 * index) / (colours.length - 1)));
  return { R: part(0), G: part(2), B: part(4), A: colours.map(() => 255), I: places };
}

const fullCount = (about, axis) => about.shape[2 - axis];

/** For each axis of the frame (right, front, top): the voxel's axis along it, whether it grows, and the voxel's size. */
function frameAxes(about) {
  const { axial, coronal } = about.planes;
  return [
    { axis: axial.right, grows: axial.flip_right === about.in_patient, mm: axial.pixel_mm[0] },
    { axis: axial.down, grows: axial.flip_down, mm: axial.pixel_mm[1] },
    { axis: coronal.down, grows: coronal.flip_down, mm: coronal.pixel_mm[1] },
  ];
}

/** The cursor as NiiVue counts: fractions from right to left, back to front, bottom to top of the middle of a voxel. */
function fraction(about, cursor) {
  return frameAxes(about).map(({ axis, grows }) => {
    const count = fullCount(about, axis);
    return ((grows ? cursor[axis] : count - 1 - cursor[axis]) + 0.5) / count;
  });
}
