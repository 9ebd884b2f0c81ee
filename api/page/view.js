/** The page of `recon view`: opens the viewer for the folder that is served. */

import { openViewer } from "./viewer.js";

const ROOT = new URL("../", import.meta.url);
const element = document.getElementById("viewer");

try {
  const answer = await fetch(new URL("v1/view", ROOT));
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  const { job, files } = await answer.json();
  document.getElementById("name").textContent = job.name;
  document.title = `${job.name} \u2013 Diffusion Recon`;
  await openViewer(element, { job, files, baseUrl: ROOT.href });
} catch (error) {
  element.textContent = `The results cannot be shown: ${error.message}. Is the command still running?`;
}
