/** Folders and several files as one tar archive, made of the files where they lie: nothing is copied into memory. */

const BLOCK = 512;

/**
 * The archive (POSIX ustar, with pax headers for long names and large files).
 * @param {{path: string, file: File}[]} entries
 * @returns {Blob}
 */
export function tar(entries) {
  const parts = entries.flatMap(({ path, file }) => [...named(path, file.size), file, padding(file.size)]);
  return new Blob([...parts, new Uint8Array(2 * BLOCK)]);
}

function named(path, size) {
  const name = new TextEncoder().encode(path);
  if (name.length <= 100 && size < 8 ** 11) return [header(name, size, "0")];
  const records = new TextEncoder().encode(record("path", path) + record("size", String(size)));
  const short = new TextEncoder().encode("file");
  return [header(short, records.length, "x"), records, padding(records.length), header(short, size < 8 ** 11 ? size : 0, "0")];
}

/** A pax record begins with its own length in bytes. */
function record(key, value) {
  const rest = ` ${key}=${value}\n`;
  const bytes = new TextEncoder().encode(rest).length;
  let length = bytes + 1;
  while (String(length).length + bytes !== length) length += 1;
  return length + rest;
}

function header(name, size, type) {
  const block = new Uint8Array(BLOCK);
  const put = (text, at) => block.set(new TextEncoder().encode(text), at);
  block.set(name, 0);
  put("0000644\0", 100);
  put("0000000\0", 108);
  put("0000000\0", 116);
  put(`${size.toString(8).padStart(11, "0")}\0`, 124);
  put("00000000000\0", 136);
  put("        ", 148);
  put(type, 156);
  put("ustar\x0000", 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

const padding = (size) => new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK);

/** Files of what was dropped, with their paths inside; folders are walked through. */
export async function dropped(transfer) {
  const roots = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!roots.some((root) => root.isDirectory)) return [...transfer.files].map((file) => ({ path: file.name, file }));
  const found = [];
  for (const root of roots) await walk(root, "", found);
  return found;
}

async function walk(entry, folder, found) {
  const path = folder ? `${folder}/${entry.name}` : entry.name;
  if (entry.isFile) {
    found.push({ path, file: await new Promise((resolve, reject) => entry.file(resolve, reject)) });
    return;
  }
  const reader = entry.createReader();
  for (;;) {  // a reader gives a hundred entries at a time
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return;
    for (const inner of some) await walk(inner, path, found);
  }
}
