/** Uploads in pieces: paused, gone on with after a broken line, and after the page was closed. */

import { call, catalogue, Problem } from "./api.js";
import { keep, recall } from "./kept.js";
import { tar } from "./tar.js";
import { bytes } from "./text.js";

const LEAST = 256 * 1024;
const MOST = 16 * 1024 * 1024;
const AGAIN_S = [1, 2, 5, 10, 30];
const KEPT = "recon.uploads";

/**
 * A file, or files as a folder, on their way to the server.
 *
 * `state` is `waiting`, `sending`, `paused`, `broken` (it goes on by itself), `done` or `refused`; each change is an
 * event `change`.
 */
export class Transfer extends EventTarget {
  /** @param {{path: string, file: File}[]} entries */
  constructor(entries) {
    super();
    const folder = entries.length > 1 || entries[0].path.includes("/");
    this.packed = folder;
    this.name = folder ? entries[0].path.split("/")[0] : entries[0].file.name;
    if (folder && !entries[0].path.includes("/")) this.name = `${entries[0].file.name} and ${entries.length - 1} more`;
    this.body = folder ? tar(entries) : entries[0].file;
    this.mark = JSON.stringify([this.name, this.body.size, entries.map(({ file }) => file.lastModified)]);
    Object.assign(this, { size: this.body.size, sent: 0, complete: false, rate: null, state: "waiting", problem: null, id: null, tries: 0 });
  }

  /** Sends until all is there; ends when it is done, paused or refused. */
  async start() {
    this.stopper = new AbortController();
    this.#become("sending");
    try {
      await this.#check();
      if (this.id === null) await this.#begin();
      else await this.#whereWasI();
      while (!this.complete) await this.#piece();
      forget(this.id);
      this.#become("done");
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof Problem)) throw error;
      this.problem = error;
      if (error.status === 404 || error.status === 410) [this.id, this.sent] = [null, 0];  // expired, or discarded elsewhere
      if (error.offline || error.status >= 500 || error.status === 409) await this.#wait();
      else this.#become(error.status === 401 ? "paused" : "refused");
    }
  }

  /** Stops sending; what is there is kept. */
  pause() {
    this.stopper.abort();
    clearTimeout(this.timer);
    this.#become("paused");
  }

  /** Goes on where the server has got to. */
  resume() {
    clearTimeout(this.timer);
    this.problem = null;
    return this.start();
  }

  async #check() {
    if (this.size === 0) throw new Problem({ status: 422, detail: `${this.name} is empty`, remedy: "choose a file that holds data" });
    const { limits } = await catalogue();
    if (this.size > limits.upload_bytes)
      throw new Problem({ status: 413, detail: `${this.name} has ${bytes(this.size)}, this server takes ${bytes(limits.upload_bytes)} at most`, remedy: "choose fewer slices, or have the operator raise RECON_MAX_UPLOAD_BYTES" });
  }

  async #begin() {
    const before = await begunBefore(this.mark);
    if (before) {
      [this.id, this.sent] = [before.id, before.received];
      return;
    }
    const headers = { "Upload-Length": String(this.size), "Content-Type": this.packed ? "application/x-tar" : "application/octet-stream" };
    const begun = await call(`v1/uploads?name=${encodeURIComponent(this.name)}`, { method: "POST", headers, signal: this.stopper.signal });
    this.id = begun.id;
    remember(this.id, this.mark);
  }

  async #whereWasI() {
    const answer = await call(`v1/uploads/${this.id}`, { method: "HEAD", raw: true, signal: this.stopper.signal });
    this.sent = Number(answer.headers.get("Upload-Offset"));
    this.complete = answer.headers.get("Upload-Complete") === "?1";
  }

  /**
   * Sends a piece that takes about a second.
   *
   * Where all bytes are there, but what followed the last one was interrupted, it is an empty piece, which has the server
   * complete the upload; 409 if it is still at that.
   */
  async #piece() {
    const length = Math.min(MOST, Math.max(LEAST, Math.round(this.rate ?? 4 * LEAST)));
    const piece = this.body.slice(this.sent, this.sent + length);
    const begun = performance.now();
    const headers = { "Upload-Offset": String(this.sent), "Content-Type": "application/octet-stream" };
    try {
      const answer = await call(`v1/uploads/${this.id}`, { method: "PATCH", body: piece, headers, signal: this.stopper.signal });
      this.complete = answer.complete === true;
    } catch (error) {
      if (error.status !== 404 || piece.size > 0) throw error;
      return this.#whereWasI();  // it was completed meanwhile, or is gone, which this says
    }
    const now = piece.size / Math.max(0.001, (performance.now() - begun) / 1000);
    this.rate = this.rate === null ? now : 0.7 * this.rate + 0.3 * now;
    this.sent += piece.size;
    this.tries = 0;
    this.#become("sending");
    return undefined;
  }

  async #wait() {
    const seconds = AGAIN_S[Math.min(this.tries, AGAIN_S.length - 1)];
    this.tries += 1;
    this.#become("broken");
    await new Promise((resolve) => { this.timer = setTimeout(resolve, 1000 * seconds); });
    if (this.state === "broken") await this.resume();
  }

  #become(state) {
    this.state = state;
    this.dispatchEvent(new CustomEvent("change"));
  }
}

/** Uploads that were begun on this browser, by id: what tells whether a file is the same one. */
const remembered = () => recall("localStorage", KEPT) ?? {};

function remember(id, mark) {
  keep("localStorage", KEPT, { ...remembered(), [id]: mark });
}

function forget(id) {
  const known = remembered();
  delete known[id];
  keep("localStorage", KEPT, known);
}

/** An unfinished upload of the same file, by name, size and time of its last change. */
async function begunBefore(mark) {
  const ids = Object.entries(remembered()).filter(([, known]) => known === mark).map(([id]) => id);
  if (ids.length === 0) return null;
  return (await unfinished()).find((upload) => ids.includes(upload.id)) ?? null;
}

/** Uploads that are still arriving, or that a closed page left. */
export async function unfinished() {
  return (await call("v1/uploads?limit=1000")).uploads.filter((upload) => !upload.complete);
}

/** The upload that is on its way, which goes on while other views are looked at. */
export const current = { transfer: null };
