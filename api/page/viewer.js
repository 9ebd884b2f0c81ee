/** Viewer of a job's volumes: result, baselines, difference and maps in three linked planes. */

import { fill, h, newId, say } from "./dom.js";
import { Cell } from "./viewer/cell.js";
import { Graphics, graphics } from "./viewer/graphics.js";
import { ServerPictures } from "./viewer/pictures.js";
import { PLANES, alike, middle, millimetres, otherSlice, pixelOf, placeInWords, voxelOf } from "./viewer/planes.js";
import { VolumeService } from "./viewer/service.js";
import { volumesOf } from "./viewer/volumes.js";
import { ofDifference, ofMap, presets, raised, shown, typed, widened } from "./viewer/windows.js";

const MODES = [["beside", "Beside"], ["blink", "Blink"], ["difference", "Difference"]];
const SPEAK_EVERY_MS = 1000;
const AGAIN_MS = 4000;
/** Results that are larger take seconds to read: meanwhile the job's own picture is seen. */
const LARGE_BYTES = 20e6;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const WIDER = 1.1;
const HIGHER = 0.05;

/**
 * Shows the volumes of a job.
 * @param {HTMLElement} element is filled
 * @param {Object} given
 * @param {Object} given.job the job's JSON
 * @param {Object[]} given.files its results
 * @param {string} given.baseUrl prefix of the API
 * @param {"graphics"|"server"} [given.drawnBy] what draws; by default the browser's graphics where they are fast
 * @returns {Promise<{close: function()}>}
 */
export async function openViewer(element, given) {
  const viewer = new Viewer(element, given);
  await viewer.open();
  return viewer;
}

class Viewer {
  constructor(element, { job, files, baseUrl, drawnBy }) {
    Object.assign(this, { element, files, drawnBy });
    this.service = new VolumeService(baseUrl, job.id);
    this.volumes = volumesOf(job, files);
    this.stopped = new AbortController();
    this.abouts = new Map();
    this.rows = [];
    this.mode = "beside";
    this.against = null;
    this.map = null;
    /** Volumes beside the result that can be shown, of those that are chosen. */
    this.beside = [];
    this.problems = new Map();
    this.values = {};
    this.spokenAt = 0;
  }

  async open() {
    loadStyles();
    this.element.classList.add("viewer");
    if (!this.volumes.result) {
      fill(this.element, this.withoutPictures());
      return;
    }
    this.status = h("p", { class: "viewer-status", role: "status" }, "Reading the volume\u2026");
    const large = this.volumes.result.file.bytes > LARGE_BYTES;
    fill(this.element, this.status, large ? this.montage() : null);
    try {
      const about = await this.about(this.volumes.result);
      this.cursor = middle(about);
      this.window = presets(about)[0][1];
      this.presets = presets(about);
      this.against = await this.first(this.volumes.baselines);
      this.map = await this.first(this.volumes.maps);
      this.build(about);
      await this.chooseDrawing();
      this.update();
    } catch (error) {
      if (error.name === "AbortError" || this.stopped.signal.aborted) return;
      say(this.status, error.message);
      fill(this.element, this.status, this.montage());
    }
  }

  /** Takes the viewer away, with all that it holds. */
  close() {
    this.stopped.abort();
    clearTimeout(this.speaking);
    for (const { timer } of this.problems.values()) clearTimeout(timer);
    this.drawing?.close();
    for (const row of this.rows) for (const cell of Object.values(row.cells)) cell.close();
    this.element.classList.remove("viewer");
    fill(this.element);
  }

  // What is there to be seen.

  async about(volume) {
    if (!this.abouts.has(volume.name)) this.abouts.set(volume.name, await this.service.about(volume.name, this.stopped.signal));
    return this.abouts.get(volume.name);
  }

  /** The first volume that lies as the result does, or that cannot be read, which its row says; null if there is none. */
  async first(volumes) {
    for (const volume of volumes) if ((await this.trouble(volume)) !== ELSEWHERE) return volume;
    return null;
  }

  /** Why a volume cannot be shown beside the result; null if it can. */
  async trouble(volume) {
    try {
      return alike(await this.about(volume), this.abouts.get(this.volumes.result.name)) ? null : ELSEWHERE;
    } catch (error) {
      if (error.name === "AbortError") throw error;
      return error;
    }
  }

  /** The pictures that the job has made, where its volumes are in a format that is not shown. */
  withoutPictures() {
    return [
      h("p", { class: "viewer-status" }, "These volumes are in a format of which no slices are shown; download them, or run the job with NIfTI results."),
      this.montage(),
    ];
  }

  /** The picture that the job has made, which is there at once; null if it made none. */
  montage() {
    const picture = this.files.find((file) => file.name === "montage.png");
    return picture ? h("img", { class: "viewer-montage", src: new URL(picture.href, this.service.root).href, alt: "Middle planes of the result and its baselines" }) : null;
  }

  /** Volumes beside the result that are chosen and can be shown; of the others it is said why they are not. */
  async shownBeside() {
    const found = [];
    for (const what of ["against", "map"]) {
      const volume = this[what];
      const error = volume && (await this.trouble(volume));
      this.tell(what, error, () => this.update(), error && `${volume.title} is not shown. ${error.message}`);
      if (volume && !error) found.push(volume);
    }
    return found;
  }

  /** Rows that are wanted now: what each shows, and in which window. */
  rowsOf(beside) {
    const { result } = this.volumes;
    const [against, map] = [this.against, this.map].map((volume) => (beside.includes(volume) ? volume : null));
    const first = (this.blinking && against) || result;
    const rows = [{ key: "result", title: first.title, volumes: [first], ...this.window }];
    if (against && this.mode === "beside") rows.push({ key: "against", title: against.title, volumes: [against], ...this.window });
    if (against && this.mode === "difference") {
      rows.push({ key: "difference", title: `${result.title} \u2212 ${against.title}`, volumes: [result, against], ...ofDifference(this.window) });
    }
    if (map) rows.push({ key: "map", title: map.title, volumes: [map], colours: "inferno", ...ofMap(this.abouts.get(map.name)) });
    for (const row of rows) {
      [row.name, row.minus] = row.volumes.map((volume) => volume.name);
      row.about = this.abouts.get(row.name);
    }
    return rows;
  }

  // What draws.

  async chooseDrawing() {
    this.graphics ??= graphics();
    const wanted = this.drawnBy ?? (this.graphics?.fast ? "graphics" : "server");
    const tell = (error) => this.tell("pictures", error, () => this.draw());
    let drawing = null;
    if (wanted === "graphics" && this.graphics) {
      const made = new Graphics(this.service, (error) => this.failGraphics(error), tell, () => this.failGraphics(new Error("The browser took the graphics away.")));
      try {
        await made.start();
        drawing = made;
      } catch {
        this.why = "The library that draws could not be loaded.";
      }
      if (this.stopped.signal.aborted) return;
    }
    // What drew until now goes on until here: the cursor may be moved while the library loads.
    this.drawing?.close();
    this.drawing = drawing ?? new ServerPictures(this.service, tell);
    tell(null);
    this.element.dataset.drawnBy = this.drawing instanceof Graphics ? "graphics" : "server";
    for (const row of this.rows) for (const cell of Object.values(row.cells)) cell.clear();
    this.sayWhatDraws();
  }

  sayWhatDraws() {
    const server = this.element.dataset.drawnBy === "server";
    const name = this.graphics?.name;
    const why = this.why ?? (!this.graphics ? "This browser has no WebGL2." : this.graphics.fast ? "" : `This browser's graphics are computed by its processor (${name}).`);
    const text = server ? `${why} Slices are pictures from the server.` : `Drawn by this browser's graphics (${name}).`;
    const other = server ? "Draw in the browser" : "Use pictures from the server";
    const change = () => {
      Object.assign(this, { drawnBy: server ? "graphics" : "server", why: null });
      this.chooseDrawing().then(() => this.update());
    };
    fill(this.source, text.trim(), " ", this.graphics ? h("button", { type: "button", class: "quiet", onclick: change }, other) : null);
  }

  failGraphics(error) {
    if (this.stopped.signal.aborted) return;
    this.why = `This browser could not draw (${error.message ?? error}).`;
    this.drawnBy = "server";
    this.chooseDrawing().then(() => this.update());
  }

  /**
   * Says what went wrong with something, until it is well again.
   * @param {string} what `against`, `map`, `pictures`, `values` or `window`
   * @param {?Error} error null if nothing is wrong with it
   * @param {function()} [again] tries once more, where that may help
   * @param {string} [text] what is said
   */
  tell(what, error, again, text = error?.message) {
    clearTimeout(this.problems.get(what)?.timer);
    this.problems.delete(what);
    if (this.stopped.signal.aborted) return;
    if (error) this.problems.set(what, { text, timer: error.passing ? setTimeout(again, AGAIN_MS) : 0 });
    say(this.problem, [...new Set([...this.problems.values()].map((problem) => problem.text))].join(" "));
  }

  // What is on the page.

  build(about) {
    const select = (label, options, chosen, change) => {
      const found = h("select", { "aria-label": label, onchange: (event) => change(options[event.target.selectedIndex][1]) });
      found.append(...options.map(([text, value]) => h("option", { selected: value === chosen }, text)));
      return found;
    };
    const { baselines, maps } = this.volumes;
    const number = (label, change) => h("input", { type: "number", step: "any", class: "num", "aria-label": label, onchange: change });
    this.width = number("Window width", () => this.typedWindow());
    this.level = number("Window level", () => this.typedWindow());
    this.preset = select("Window", [...this.presets, ["As set", null]], this.presets[0][1], (window) => window && this.setWindow(window));
    this.modes = MODES.map(([mode, text]) => h("button", { type: "button", dataset: { mode }, onclick: () => this.change({ mode }) }, text));
    this.mapSelect = select("Map", [...maps.map((map) => [map.title, map]), ["None", null]], this.map, (map) => this.change({ map }));
    const bar = h("div", { class: "viewer-bar" },
      baselines.length ? h("label", null, "Against ", select("Compared with", [...baselines.map((one) => [one.title, one]), ...(this.against ? [] : [["None", null]])], this.against, (against) => this.change({ against }))) : null,
      baselines.length ? h("span", { class: "seg", role: "group", "aria-label": "How to compare" }, this.modes) : null,
      this.preset,
      h("label", null, "W ", this.width), h("label", null, "L ", this.level),
      maps.length ? h("label", null, "Map ", this.mapSelect) : null,
    );
    this.sliders = Object.fromEntries(PLANES.map((name) => [name, this.slider(name, about.planes[name])]));
    this.heads = h("div", { class: "viewer-heads" }, PLANES.map((name) => this.sliders[name].element));
    this.body = h("div", { class: "viewer-rows" });
    this.scale = h("div", { class: "viewer-scale", "aria-hidden": "true" }, h("span"), h("div", { class: "viewer-colours" }), h("span"));
    const keys = h("p", { class: "viewer-keys", id: newId("keys") }, KEYS.map(([names, what]) => [names.map((key) => [h("kbd", null, key), " "]), `${what} `]));
    this.keysId = keys.id;
    this.readout = h("dl", { class: "viewer-readout", "aria-label": "At the cursor" });
    this.spoken = h("div", { class: "viewer-spoken", "aria-live": "polite" });
    this.problem = h("p", { class: "viewer-problem", role: "alert" });
    this.source = h("p", { class: "viewer-source" });
    this.choosePlane("axial");
    fill(this.element, bar,
      h("div", { class: "viewer-planes", role: "group", "aria-label": "Three planes of the result" }, this.heads, this.body, this.scale),
      this.problem, this.readout, keys, this.source, this.spoken);
  }

  slider(name, plane) {
    const title = name.charAt(0).toUpperCase() + name.slice(1);
    const told = h("span", { class: "num" });
    const range = h("input", { type: "range", "aria-label": title, min: 1, max: plane.count, step: 1, oninput: () => this.slide(name, Number(range.value) - 1) });
    const choose = h("button", { type: "button", class: "viewer-choose", "aria-label": `Show the ${name} plane`, onclick: () => this.choosePlane(name) }, title);
    return { range, told, element: h("div", { class: "viewer-head", dataset: { plane: name } }, choose, h("b", { class: "viewer-name", "aria-hidden": "true" }, title), told, range) };
  }

  /** On narrow screens one plane is seen at a time. */
  choosePlane(name) {
    this.element.dataset.plane = name;
    for (const [plane, { element }] of Object.entries(this.sliders)) element.firstChild.setAttribute("aria-pressed", plane === name);
    if (this.rows.length) this.update();
  }

  rowOf(wanted) {
    const cells = Object.fromEntries(PLANES.map((name) => [name, new Cell(name, wanted.about.planes[name])]));
    for (const cell of Object.values(cells)) this.listen(cell);
    const heading = h("div", { class: "viewer-title" });
    const element = h("div", { class: "viewer-row" }, PLANES.map((name) => cells[name].element));
    return { key: wanted.key, cells, heading, element, line: h("div", { class: "viewer-line", dataset: { row: wanted.key } }, heading, element) };
  }

  /** Shows what is wanted, as far as it is here; whatever changes meanwhile is shown afterwards. */
  async update() {
    this.again = true;
    if (this.updating) return;
    this.updating = true;
    try {
      while (this.again && !this.stopped.signal.aborted) {
        this.again = false;
        this.beside = await this.shownBeside();
        this.place(this.rowsOf(this.beside));
        this.draw();
      }
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    } finally {
      this.updating = false;
    }
  }

  /** Makes the rows that are wanted, and removes the others. */
  place(wanted) {
    const before = this.rows;
    this.rows = wanted.map((one) => Object.assign(before.find((row) => row.key === one.key) ?? this.rowOf(one), one));
    for (const row of this.rows) for (const [name, cell] of Object.entries(row.cells)) if (cell.plane !== row.about.planes[name]) cell.update(row.about.planes[name]);
    for (const row of before) if (!this.rows.includes(row)) for (const cell of Object.values(row.cells)) cell.close();
    const lines = this.rows.map((row) => row.line);
    // One by one: an element that is moved loses the focus.
    for (const line of [...this.body.children]) if (!lines.includes(line)) line.remove();
    lines.forEach((line, index) => line === this.body.children[index] || this.body.insertBefore(line, this.body.children[index] ?? null));
    this.body.dataset.rows = lines.length;
    for (const row of this.rows) say(row.heading, row.key === "map" && row.about.unit ? `${row.title}, ${row.about.unit}` : row.title);
    for (const button of this.modes) button.setAttribute("aria-pressed", button.dataset.mode === this.mode);
    const map = this.rows.find((row) => row.key === "map");
    this.scale.hidden = !map;
    if (map) [this.scale.firstChild.textContent, this.scale.lastChild.textContent] = [map.low, map.high].map((value) => `${shown(value)} ${map.about.unit}`.trim());
    const { low, high } = this.window;
    this.width.value = tidy(high - low);
    this.level.value = tidy((high + low) / 2);
    const known = this.presets.findIndex(([, window]) => window.low === low && window.high === high);
    this.preset.selectedIndex = known < 0 ? this.presets.length : known;
  }

  /** Draws at the cursor, and tells what is there. */
  draw() {
    const about = this.abouts.get(this.volumes.result.name);
    for (const name of PLANES) {
      const { range, told } = this.sliders[name];
      const text = `${this.cursor[about.planes[name].across] + 1} of ${about.planes[name].count}`;
      range.value = this.cursor[about.planes[name].across] + 1;
      range.setAttribute("aria-valuetext", text);
      say(told, text);
      for (const row of this.rows) {
        row.cells[name].point(this.cursor, `${row.title}, ${name}, ${text}`);
        row.cells[name].element.setAttribute("aria-describedby", this.keysId);
      }
    }
    this.drawing?.show(this.rows, this.cursor);
    this.read();
  }

  // The values at the cursor.

  /** Volumes whose values are told. */
  told() {
    return [this.volumes.result, ...this.beside];
  }

  async read() {
    this.readAgain = true;
    this.showReadout();
    if (this.reading) return;
    this.reading = true;
    try {
      while (this.readAgain && !this.stopped.signal.aborted) {
        this.readAgain = false;
        const [at, told] = [this.cursor, this.told()];
        const names = told.map((volume) => volume.name);
        const here = Object.fromEntries(names.map((name) => [name, this.drawing?.value?.(name, at)]));
        const missing = names.filter((name) => here[name] === undefined);
        const values = missing.length ? { ...here, ...(await this.service.values(missing, at, this.stopped.signal)) } : here;
        this.values = { at, values };
        this.showReadout();
        this.tell("values", null);
      }
    } catch (error) {
      if (error.name !== "AbortError") this.tell("values", error, () => this.read());
    } finally {
      this.reading = false;
    }
  }

  showReadout() {
    const about = this.abouts.get(this.volumes.result.name);
    const known = this.values.at && this.values.at.every((index, axis) => index === this.cursor[axis]);
    const lines = [["Place", placeInWords(millimetres(about.affine, this.cursor), about.in_patient)], ["Voxel", this.cursor.join(", ")]];
    for (const volume of this.told()) {
      const value = known ? this.values.values[volume.name] : undefined;
      const unit = this.abouts.get(volume.name)?.unit ?? about.unit;
      lines.push([volume.title, value === undefined ? "\u2026" : `${volume.sign}${shown(value)} ${unit}`.trim()]);
    }
    fill(this.readout, lines.map(([term, text]) => h("div", null, h("dt", null, term), h("dd", { class: "num" }, text))));
    if (known) this.speakSoon(lines.map(([term, text]) => `${term} ${text}`).join(", "));
  }

  /** Says it to those who do not see it, at most once a second, and not before somebody moved the cursor. */
  speakSoon(text) {
    if (!this.moved) return;
    clearTimeout(this.speaking);
    const wait = Math.max(0, this.spokenAt + SPEAK_EVERY_MS - Date.now());
    this.speaking = setTimeout(() => {
      this.spokenAt = Date.now();
      say(this.spoken, text);
    }, wait);
  }

  // What somebody does.

  change(what) {
    Object.assign(this, what);
    this.update();
  }

  setWindow(window) {
    this.window = window;
    this.tell("window", null);
    this.update();
  }

  typedWindow() {
    const window = typed(this.width.valueAsNumber, this.level.valueAsNumber);
    if (window) this.setWindow(window);
    else this.tell("window", new Error("A window has a width above zero and a level, both numbers."));
  }

  slide(name, index) {
    const { across } = this.abouts.get(this.volumes.result.name).planes[name];
    this.moveTo(this.cursor.map((before, axis) => (axis === across ? index : before)));
  }

  moveTo(voxel) {
    this.cursor = voxel;
    this.moved = true;
    if (this.rows.length) this.draw();
  }

  listen(cell) {
    const { element } = cell;
    const point = (event) => this.moveTo(voxelOf(cell.plane, cell.pixelAt(event), this.cursor));
    element.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      element.setPointerCapture(event.pointerId);
      element.focus({ preventScroll: true });
      point(event);
    });
    element.addEventListener("pointermove", (event) => element.hasPointerCapture(event.pointerId) && point(event));
    element.addEventListener("wheel", (event) => {
      if (document.activeElement !== element || event.ctrlKey) return; // elsewhere it scrolls the page
      event.preventDefault();
      this.moveTo(otherSlice(cell.plane, this.cursor, event.deltaY > 0 ? -1 : 1));
    }, { passive: false });
    element.addEventListener("keydown", (event) => this.key(event, cell) && event.preventDefault());
    element.addEventListener("keyup", (event) => event.key.toLowerCase() === "b" && this.blink(false));
    element.addEventListener("blur", () => this.blink(false));
  }

  /** Keys of a picture; returns whether it was one. */
  key(event, cell) {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const { key } = event;
    if (ARROWS[key]) {
      const by = event.shiftKey ? 10 : 1;
      const pixel = pixelOf(cell.plane, this.cursor).map((place, axis) => place + by * ARROWS[key][axis]);
      this.moveTo(voxelOf(cell.plane, pixel, this.cursor));
    } else if (key === "PageUp" || key === "PageDown") this.moveTo(otherSlice(cell.plane, this.cursor, key === "PageUp" ? 1 : -1));
    else if (key === "[" || key === "]") this.setWindow(widened(this.window, key === "]" ? WIDER : 1 / WIDER));
    else if (key === "-" || key === "=") this.setWindow(raised(this.window, key === "=" ? HIGHER : -HIGHER));
    else if (this.presets[Number(key) - 1] && key !== " ") this.setWindow(this.presets[Number(key) - 1][1]);
    else if (key.toLowerCase() === "b") event.repeat || this.blink(true);
    else if (key.toLowerCase() === "e" && this.volumes.maps.length) this.toggleMap();
    else return false;
    return true;
  }

  /** Shows the baseline in place of the result while a key is held. */
  blink(on) {
    if (this.against && Boolean(this.blinking) !== on) this.change({ blinking: on });
  }

  toggleMap() {
    const { maps } = this.volumes;
    const map = this.map ? null : (this.lastMap ?? maps[0]);
    this.lastMap = this.map ?? this.lastMap;
    this.mapSelect.selectedIndex = map ? maps.indexOf(map) : maps.length;
    this.change({ map });
  }
}

const KEYS = [
  [["\u2190", "\u2192", "\u2191", "\u2193"], "move the cursor,"],
  [["Page Up", "Page Down"], "change the slice,"],
  [["[", "]"], "width,"],
  [["-", "="], "level,"],
  [["1", "2", "3", "4"], "windows, hold"],
  [["B"], "to see what it is compared with,"],
  [["E"], "map."],
];

/** Adds the viewer's style sheet to the page, unless the page has it. */
function loadStyles() {
  const href = new URL("viewer.css", import.meta.url).href;
  if ([...document.styleSheets].some((sheet) => sheet.href === href)) return;
  if (!document.head.querySelector(`link[href="${href}"]`)) document.head.append(h("link", { rel: "stylesheet", href }));
}

/** What is wrong with a volume of another shape or place, whose voxels are not those of the result. */
const ELSEWHERE = new Error("It lies otherwise than the result.");

const tidy = (value) => Number(value.toPrecision(5));
