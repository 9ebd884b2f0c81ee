/** The jobs of this key, live: one stream of events for all tabs of the browser. */

import { address, call, Problem } from "./api.js";
import { ended } from "./text.js";

const PAGE = 50;
const AGAIN_MS = 4000;
const HIDDEN_POLL_MS = 15000;

/**
 * Jobs that were heard of, by id.
 *
 * Events: `change` (detail: the job), `gone` (detail: its id), `connection` (detail: whether the server is heard).
 * Browsers open six connections to a server, so one tab, which holds a lock, has the stream and tells the others. Where
 * pages get no locks (plain http to another machine) each tab has its own while it is seen, and asks now and then
 * while it is not.
 */
class Jobs extends EventTarget {
  constructor() {
    super();
    this.known = new Map();
    this.next = null;
    this.total = 0;
    this.newest = "";
    this.loaded = false;
    this.heard = null;
    this.channel = new BroadcastChannel(`recon:${address("")}`);
    this.channel.onmessage = (message) => this.#hear(message.data);
  }

  /** Jobs, newest first. */
  get list() {
    return [...this.known.values()].sort((a, b) => b.created.localeCompare(a.created) || b.id.localeCompare(a.id));
  }

  /** Loads the newest jobs, and tells what has become of those that were known; older ones are forgotten. */
  async load() {
    const before = [...this.known.keys()];  // what is heard of while the server answers is newer than its answer
    const page = await call(`v1/jobs?limit=${PAGE}`);
    const here = new Set(page.jobs.map((job) => job.id));
    const left = before.filter((id) => !here.has(id) && this.known.has(id)).map((id) => this.known.get(id));
    for (const job of left) this.known.delete(job.id);
    page.jobs.forEach((job) => this.take(job));
    [this.next, this.total, this.loaded] = [page.next, page.total, true];
    this.newest = page.jobs[0]?.created ?? "";
    const oldest = page.next ? page.jobs.at(-1).created : "";
    for (const job of left) if (job.created > oldest) this.#tell("gone", job.id);
    this.#tell("change", null);
  }

  /** Loads older jobs. */
  async more() {
    if (!this.next) return;
    const page = await call(this.next);
    this.next = page.next;
    page.jobs.forEach((job) => this.take(job));
  }

  /** Loads jobs by a part of their name, and by a tag. */
  async find(text) {
    const asked = [call(`v1/jobs?limit=${PAGE}&name=${encodeURIComponent(text.slice(0, 100))}`)];
    if (/^[A-Za-z0-9._:/=-]{1,64}$/.test(text)) asked.push(call(`v1/jobs?limit=${PAGE}&tag=${encodeURIComponent(text)}`));
    (await Promise.all(asked)).forEach((page) => page.jobs.forEach((job) => this.take(job)));
  }

  /** Loads one job, whatever is known of it. */
  async fetch(id) {
    return this.take(await call(`v1/jobs/${id}`));
  }

  /** Keeps a job as it is now, and tells of it; what is older than what is known is left out. */
  take(job) {
    const before = this.known.get(job.id);
    if (before && before.updated > job.updated) return before;
    if (!before && this.loaded && job.created > this.newest) this.total += 1;  // older ones are among those counted
    this.known.set(job.id, job);
    this.#tell("change", job);
    return job;
  }

  /** Forgets a job that was deleted. */
  forget(id) {
    if (this.known.delete(id)) this.total -= 1;
    this.#tell("gone", id);
  }

  /** Follows the stream until the page is closed. */
  follow() {
    if (navigator.locks) {
      navigator.locks.request(`recon:${address("")}`, () => this.#stream(() => true));
      return;
    }
    this.#stream(() => !document.hidden);
    setInterval(() => { if (document.hidden) this.#ask(); }, HIDDEN_POLL_MS);
  }

  /** Asks for each job that has not ended, where no stream tells of them. */
  #ask() {
    this.list.filter((job) => !ended(job)).forEach((job) => this.fetch(job.id).catch(() => {}));
  }

  /** Streams while `wanted`; never ends, since with it the lock would. */
  async #stream(wanted) {
    for (;;) {
      if (wanted()) {
        await this.#listen(wanted);
        this.#ask();  // a server that has no stream for this tab still answers
      }
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }

  /** Listens until the stream is refused, or is not wanted any more. */
  #listen(wanted) {
    return new Promise((resolve) => {
      const source = new EventSource(address("v1/events"));
      const end = () => {
        document.removeEventListener("visibilitychange", look);
        source.close();
        resolve();
      };
      const look = () => { if (!wanted()) end(); };
      document.addEventListener("visibilitychange", look);
      const hear = (event) => {
        const message = { kind: event.type, data: JSON.parse(event.data) };
        this.channel.postMessage(message);
        this.#hear(message);
      };
      source.addEventListener("job", hear);
      source.addEventListener("gone", hear);
      source.onopen = () => this.#connected(true);
      source.onerror = () => {
        this.#connected(false);
        if (source.readyState !== EventSource.CLOSED) return;
        call("v1/session").catch(() => {});  // refused: if the key was revoked, another one is asked for
        end();
      };
    });
  }

  #connected(heard) {
    this.channel.postMessage({ kind: "connection", data: heard });
    this.#hear({ kind: "connection", data: heard });
  }

  #hear({ kind, data }) {
    if (kind === "job") this.take(data);
    else if (kind === "gone") this.forget(data.id);
    else {
      // A stream tells what is unfinished or has just changed, not what ended or was deleted while nobody listened.
      if (data) this.load().catch((error) => { if (!(error instanceof Problem)) throw error; });
      this.heard = data;
      this.#tell("connection", data);
    }
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** The jobs of this page. */
export const jobs = new Jobs();
