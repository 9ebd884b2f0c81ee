/** Volumes among the results of a job: the result, what it is compared with, and maps of what is not known. */

const ENDING = /\.nii(\.gz)?$/;
const MAPS = {
  uncertainty: ["Error, 1 sd", "\u00b1"],
  interval: ["Half of the 90 % interval", "\u00b1"],
  undetermined: ["Not determined", ""],
};
const NAMES = { "red-diff": "RED-Diff", diffpir: "DiffPIR", "diffusion-mbir": "DiffusionMBIR", boundary: "Boundary", auto: "Automatic choice" };

/**
 * @typedef {Object} Volume
 * @property {string} name name of the file
 * @property {string} title what it is, for people
 * @property {string} sign what stands before its values
 * @property {Object} file entry of the list of results
 */

/**
 * Sorts the results of a job.
 * @param {Object} job
 * @param {Object[]} files
 * @returns {{result: Volume|null, baselines: Volume[], maps: Volume[]}} result is null where there are no pictures
 */
export function volumesOf(job, files) {
  const found = { result: null, baselines: [], maps: [] };
  for (const file of files) {
    if (!ENDING.test(file.name)) continue;
    const stem = file.name.replace(ENDING, "");
    // Complex values have no slices, and the phase of a baseline is not compared with the result.
    if (stem.endsWith("-complex") || /^baseline-.*-phase$/.test(stem)) continue;
    const volume = (title, sign = "") => ({ name: file.name, title, sign, file });
    if (stem === "volume") found.result = volume(methodName(job.method) || "Result");
    else if (stem.startsWith("baseline-")) found.baselines.push(volume(methodName(stem.slice(9))));
    else if (MAPS[stem]) found.maps.push(volume(...MAPS[stem]));
    else if (stem === "volume-phase") found.maps.push(volume("Phase"));
    else found.baselines.push(volume(stem));
  }
  // A folder of volumes that no job has written is looked at as well.
  if (!found.result && found.baselines.length) found.result = found.baselines.shift();
  found.maps.sort((one, other) => Object.keys(MAPS).indexOf(stemOf(one)) - Object.keys(MAPS).indexOf(stemOf(other)));
  return found;
}

/** Name of a method as papers write it. */
export function methodName(name) {
  if (!name) return "";
  if (NAMES[name]) return NAMES[name];
  return name.length <= 4 ? name.toUpperCase() : name.charAt(0).toUpperCase() + name.slice(1);
}

const stemOf = (volume) => volume.name.replace(ENDING, "");
