/** Slices drawn as pictures from the server: exact, and without a graphics card. */

/** Draws each cell's slice into its canvas; one picture of a cell is fetched at a time, the newest that is wanted. */
export class ServerPictures {
  /**
   * @param {VolumeService} service
   * @param {function(?Error)} tell called with what went wrong, and with null when no picture is missing any more;
   *   to show the rows again is to try again
   */
  constructor(service, tell) {
    this.service = service;
    this.tell = tell;
    this.stopped = new AbortController();
    this.cells = new Map();
  }

  /**
   * Shows slices; those that are there already are left alone.
   * @param {Object[]} rows each with `cells`, by plane, and what is shown in it
   * @param {number[]} cursor
   */
  show(rows, cursor) {
    const cells = new Set(rows.flatMap((row) => Object.values(row.cells)));
    for (const [cell, state] of this.cells) {
      if (!cells.has(cell)) this.cells.delete(cell);
      else if (cell.hidden) state.error = null;
    }
    for (const row of rows) {
      for (const [plane, cell] of Object.entries(row.cells)) {
        if (cell.hidden) continue;
        const index = cursor[row.about.planes[plane].across];
        const wanted = { row, plane, index, key: [row.name, row.minus, row.low, row.high, row.colours, plane, index].join("|") };
        const state = this.cells.get(cell) ?? { busy: false, shown: null, error: null };
        this.cells.set(cell, state);
        state.wanted = wanted;
        if (state.shown === wanted.key) state.error = null;
        else if (!state.busy) this.fetch(cell, state);
      }
    }
    this.tell(this.missing());
  }

  async fetch(cell, state) {
    state.busy = true;
    let tried = null;
    while (![state.shown, tried].includes(state.wanted.key)) {
      const { row, plane, index, key } = state.wanted;
      tried = key;
      try {
        const picture = await this.service.picture(row, plane, index, this.stopped.signal);
        if (this.cells.get(cell) !== state) return picture.close();  // it is not shown any more
        cell.draw(picture);
        cell.mark(key);
        Object.assign(state, { shown: key, error: null });
      } catch (error) {
        if (error.name === "AbortError" || this.cells.get(cell) !== state) return undefined;
        state.error = state.wanted.key === key ? error : null;
      }
      this.tell(this.missing());
    }
    state.busy = false;
    return undefined;
  }

  /** Why a picture is missing; null if none is. */
  missing() {
    return [...this.cells.values()].find((state) => state.error)?.error ?? null;
  }

  close() {
    this.stopped.abort();
    this.cells.clear();
  }
}
