/** Slices drawn as pictures from the server: exact, and without a graphics card. */

/** Draws each cell's slice into its canvas; one picture of a cell is fetched at a time, the newest that is wanted. */
export class ServerPictures {
  /**
   * @param {VolumeService} service
   * @param {function(Error)} failed called with what went wrong
   */
  constructor(service, failed) {
    this.service = service;
    this.failed = failed;
    this.stopped = new AbortController();
    this.cells = new Map();
  }

  /**
   * Shows slices; those that are there already are left alone.
   * @param {Object[]} rows each with `cells`, by plane, and what is shown in it
   * @param {number[]} cursor
   */
  show(rows, cursor) {
    for (const row of rows) {
      for (const [plane, cell] of Object.entries(row.cells)) {
        if (cell.hidden) continue;
        const index = cursor[row.about.planes[plane].across];
        const wanted = { row, plane, index, key: [row.name, row.minus, row.low, row.high, row.colours, plane, index].join("|") };
        const state = this.cells.get(cell) ?? { busy: false, shown: null };
        this.cells.set(cell, state);
        state.wanted = wanted;
        if (!state.busy && state.shown !== wanted.key) this.fetch(cell, state);
      }
    }
  }

  async fetch(cell, state) {
    state.busy = true;
    try {
      while (state.shown !== state.wanted.key && !this.stopped.signal.aborted) {
        const { row, plane, index, key } = state.wanted;
        const picture = await this.service.picture(row, plane, index, this.stopped.signal);
        cell.draw(picture);
        cell.mark(key);
        state.shown = key;
      }
    } catch (error) {
      if (error.name !== "AbortError") this.failed(error);
    } finally {
      state.busy = false;
    }
  }

  close() {
    this.stopped.abort();
    this.cells.clear();
  }
}
