/** Pictures and values of a job's volumes, as the service gives them. */

/** Times that a busy server is asked, and the time between. */
const MOST_TRIES = 5, AGAIN_MS = 1000;

/** An error that the service answered with, or that it could not be reached; its message is a sentence. */
export class ViewerProblem extends Error {
  /**
   * @param {string} sentence
   * @param {number} status of the answer; 0 if there was none
   */
  constructor(sentence, status = 0) {
    super(sentence);
    this.status = status;
  }

  /** Whether it may go well when it is tried again: nothing answered, or the server had trouble of its own. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** Volumes of one job on the service. */
export class VolumeService {
  /**
   * @param {string} baseUrl prefix of the API
   * @param {string} jobId
   */
  constructor(baseUrl, jobId) {
    const root = new URL(baseUrl || "./", document.baseURI);
    if (!root.pathname.endsWith("/")) root.pathname += "/";
    this.root = root;
    this.job = new URL(`v1/jobs/${encodeURIComponent(jobId)}/`, root);
  }

  /** Shape, affine, unit, windows and planes of a volume. */
  async about(name, signal) {
    return (await this.fetched(this.address(`slices/${encodeURIComponent(name)}`), signal)).json();
  }

  /**
   * A slice as a picture.
   * @param {Object} row what is shown: `name`, `low`, `high`, perhaps `minus` and `colours`
   * @param {string} plane
   * @param {number} index
   * @returns {Promise<ImageBitmap>}
   */
  async picture(row, plane, index, signal) {
    const address = this.address(`slices/${encodeURIComponent(row.name)}/${plane}/${index}.png`);
    address.searchParams.set("low", row.low);
    address.searchParams.set("high", row.high);
    if (row.colours) address.searchParams.set("colours", row.colours);
    if (row.minus) address.searchParams.set("minus", row.minus);
    return createImageBitmap(await (await this.fetched(address, signal)).blob());
  }

  /** Values of volumes at a voxel, by name. */
  async values(names, voxel, signal) {
    const address = this.address(`voxels/${voxel.join("/")}`);
    for (const name of names) address.searchParams.append("file", name);
    return (await (await this.fetched(address, signal)).json()).values;
  }

  /** Bytes of a volume as NIfTI, float32, of at most so many voxels: of more, blocks are averaged. */
  async volume(name, voxels, signal) {
    const address = this.address(`slices/${encodeURIComponent(name)}/volume.nii`);
    address.searchParams.set("voxels", voxels);
    return (await this.fetched(address, signal)).arrayBuffer();
  }

  address(path) {
    return new URL(path, this.job);
  }

  async fetched(address, signal) {
    let answer;
    for (let tried = 1; ; tried += 1) {
      try {
        answer = await fetch(address, { signal, credentials: "same-origin" });
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new ViewerProblem("The server cannot be reached; pictures that were seen before are still here.");
      }
      if (answer.ok) return answer;
      if (answer.status !== 503 || tried === MOST_TRIES) break;
      await new Promise((resolve) => { setTimeout(resolve, AGAIN_MS); });
    }
    if (answer.status === 401) document.dispatchEvent(new CustomEvent("recon:unauthorized"));  // the page asks for a key
    const about = await answer.json().catch(() => ({}));
    const sentence = [about.detail ?? `The server answered ${answer.status}`, about.remedy].filter(Boolean).join("; ");
    throw new ViewerProblem(`${sentence.charAt(0).toUpperCase()}${sentence.slice(1)}.`, answer.status);
  }
}
