/** Sessions: on a server with keys a browser shows its key once, and has a cookie then that scripts cannot read. */

import { call, Problem } from "./api.js";
import { fill, h, newId } from "./dom.js";

let asking = null;

/** Whose session it is; null where a key is needed, and then asked for. */
export async function session() {
  try {
    return await call("v1/session");
  } catch (error) {
    if (error instanceof Problem && error.status === 401) return null;
    throw error;
  }
}

/**
 * Asks for a key until there is one that the server knows.
 * @returns {Promise<Object>} the session
 */
export function askForKey() {
  asking ??= new Promise((resolve) => show(resolve)).finally(() => { asking = null; });
  return asking;
}

function show(resolve) {
  const id = newId("key");
  const key = h("input", { type: "password", id, autocomplete: "current-password", required: true, "aria-describedby": `${id}-told` });
  const told = h("p", { class: "err", role: "alert", id: `${id}-told` });
  const enter = h("button", { type: "submit", class: "primary" }, "Sign in");
  const send = async (event) => {
    event.preventDefault();
    enter.disabled = true;
    try {
      const found = await call("v1/session", { method: "POST", json: { key: key.value.trim() } });
      shown.close();
      shown.remove();
      resolve(found);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      fill(told, error.status === 401 ? "Nobody has this key. Look for spaces or missing letters, or ask the operator for another one." : error.sentence);
      enter.disabled = false;
      key.select();
    }
  };
  const shown = h("dialog", { "aria-labelledby": `${id}-title` },
    h("form", { class: "stack", onsubmit: send },
      h("h2", { class: "title", id: `${id}-title` }, "This server needs a key"),
      h("p", { class: "soft" }, "It is sent once; this browser then keeps a cookie that ends by itself, or when you sign out. What was being uploaded goes on."),
      h("div", { class: "field" }, h("label", { htmlFor: id }, "Key"), key), told, h("p", { class: "buttons" }, enter)));
  shown.addEventListener("cancel", (event) => event.preventDefault());  // nothing works without one
  document.body.append(shown);
  shown.showModal();
}
