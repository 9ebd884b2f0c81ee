/** What the browser keeps for the page. Where it keeps nothing (it was told not to, or is full) the page goes on without. */

/**
 * A value that was kept; null if there is none.
 * @param {"localStorage"|"sessionStorage"} place
 * @param {string} key
 */
export function recall(place, key) {
  try {
    return JSON.parse(window[place].getItem(key));
  } catch {
    return null;
  }
}

/** Keeps a value; null takes it away. */
export function keep(place, key, value) {
  try {
    if (value === null) window[place].removeItem(key);
    else window[place].setItem(key, JSON.stringify(value));
  } catch { /* even to name the place is an error where it is blocked */ }
}
