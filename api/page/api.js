/** Requests to the service that served this page, wherever a proxy puts it. */

/** Address of the service. */
export const ROOT = new URL("../", import.meta.url);

/** Address of a path of the service, as `v1/jobs`; links in answers, which begin with a slash, are as they are. */
export const address = (path) => new URL(path, ROOT).href;

let ahead = null;

/** The time, in ms since 1970, by the server's clock: those of the times that it tells. */
export const now = () => Date.now() + (ahead ?? 0);

/** Takes from an answer by how much the server's clock is ahead of this machine's. */
function setClock(answer) {
  const told = Date.parse(answer.headers.get("Date"));
  if (Number.isFinite(told)) ahead = told - Date.now();
}

/** An error that the service answered with (RFC 9457), or that it could not be reached. */
export class Problem extends Error {
  constructor(about) {
    super(about.detail ?? "something went wrong");
    Object.assign(this, { status: 0, code: "unknown", field: null, remedy: null, requestId: null, problems: null, ...about });
  }

  /** Whether nothing answered: the network is gone, or the server. */
  get offline() {
    return this.code === "offline";
  }

  /** What is wrong and what to do, as sentences. */
  get sentence() {
    return [this.message, this.remedy].filter(Boolean).map(sentence).join(" ");
  }
}

/** Text as a sentence: with a capital and a full stop. */
export function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

/**
 * Sends a request; the answer is JSON, or text, or the response itself if `raw`.
 * @param {string} path
 * @param {Object} [options] those of fetch, and `json`, a value to send; `raw`
 * @throws {Problem}
 */
export async function call(path, { json, raw, ...options } = {}) {
  if (json !== undefined) {
    options.body = JSON.stringify(json);
    options.headers = { "Content-Type": "application/json", ...options.headers };
  }
  let answer;
  try {
    answer = await fetch(address(path), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ code: "offline", detail: "the server does not answer", remedy: "see whether it runs and the network is there; this page tries again by itself" });
  }
  if (ahead === null) setClock(answer);
  if (!answer.ok && answer.status !== 304) throw await problemOf(answer);
  if (raw) return answer;
  const kind = answer.headers.get("Content-Type") ?? "";
  return kind.includes("json") ? answer.json() : answer.text();
}

async function problemOf(answer) {
  let told = {};
  try {
    told = await answer.json();
  } catch { /* not of this service: a proxy's own page */ }
  const found = new Problem({
    status: answer.status,
    code: told.code ?? `http_${answer.status}`,
    detail: told.detail ?? `the server answered ${answer.status}`,
    field: told.field ?? null,
    remedy: told.remedy ?? null,
    problems: told.problems ?? null,
    requestId: told.request_id ?? answer.headers.get("X-Request-ID"),
  });
  if (found.status === 401) document.dispatchEvent(new CustomEvent("recon:unauthorized", { detail: found }));
  return found;
}

/** Does what a button is for; a problem with it is a sentence in an element near it. */
export async function attempt(trouble, work) {
  trouble.textContent = "";
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    trouble.textContent = error.sentence;
  }
}

const kept = new Map();

/** An answer that does not change while the page is open, asked for once. */
export function once(path) {
  if (!kept.has(path)) {
    const asked = call(path);
    kept.set(path, asked);
    asked.catch(() => kept.delete(path));
  }
  return kept.get(path);
}

/** What this server can do: acquisitions, methods, priors, limits. */
export const catalogue = () => once("v1/catalogue");

/** A key for a request that may be sent twice and must act once. */
export function idempotencyKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
