/** Planes of a volume as they are shown: which voxel a pixel is, and where the cursor is in a picture. */

export const PLANES = ["axial", "coronal", "sagittal"];
/** Names of the axes of a voxel. */
export const AXES = ["col", "row", "slice"];

/**
 * Pixel of a voxel in a plane, counted from the left and from the top.
 * @param {Object} plane one of a `VolumeView`'s planes
 * @param {number[]} voxel [col, row, slice]
 * @returns {number[]} [x, y]
 */
export function pixelOf(plane, voxel) {
  const along = (axis, flip, count) => (flip ? count - 1 - voxel[axis] : voxel[axis]);
  return [along(plane.right, plane.flip_right, plane.width), along(plane.down, plane.flip_down, plane.height)];
}

/**
 * Voxel of a pixel; the slice is the cursor's.
 * @param {Object} plane
 * @param {number[]} pixel [x, y], cut to the picture
 * @param {number[]} cursor the voxel of the cursor
 * @returns {number[]}
 */
export function voxelOf(plane, pixel, cursor) {
  const voxel = [...cursor];
  const [x, y] = [clamp(pixel[0], plane.width), clamp(pixel[1], plane.height)];
  voxel[plane.right] = plane.flip_right ? plane.width - 1 - x : x;
  voxel[plane.down] = plane.flip_down ? plane.height - 1 - y : y;
  return voxel;
}

/** The voxel one slice further, `by` slices; upwards, to the front or to the patient's left for positive numbers. */
export function otherSlice(plane, cursor, by) {
  const voxel = [...cursor];
  voxel[plane.across] = clamp(voxel[plane.across] + by, plane.count);
  return voxel;
}

/** Place of a voxel in millimetres. */
export function millimetres(affine, voxel) {
  return [0, 1, 2].map((row) => affine[row][0] * voxel[0] + affine[row][1] * voxel[1] + affine[row][2] * voxel[2] + affine[row][3]);
}

/**
 * A place in words, as radiology gives it: how far to the patient's right or left, front or back, top or bottom.
 * @param {number[]} mm
 * @param {boolean} inPatient otherwise the axes of the scanner are named
 */
export function placeInWords(mm, inPatient) {
  if (!inPatient) return `x ${round(mm[0])}, y ${round(mm[1])}, z ${round(mm[2])} mm`;
  const letters = [["R", "L"], ["A", "P"], ["S", "I"]];
  return `${mm.map((value, axis) => letters[axis][value < 0 ? 1 : 0] + Math.abs(round(value))).join(" ")} mm`;
}

/** Whether volumes have the same voxels; as close as the service asks for where it subtracts them. */
export function alike(one, other) {
  const near = (value, wanted) => Math.abs(value - wanted) <= 1e-8 + 1e-5 * Math.abs(wanted);
  return one.shape.every((count, axis) => count === other.shape[axis]) && one.affine.every((row, at) => row.every((value, column) => near(value, other.affine[at][column])));
}

/** Middle of a volume. */
export const middle = (about) => [about.shape[2], about.shape[1], about.shape[0]].map((count) => Math.floor(count / 2));

/** Ratio of width to height of a plane in millimetres. */
export const ratio = (plane) => (plane.width * plane.pixel_mm[0]) / (plane.height * plane.pixel_mm[1]);

const clamp = (index, count) => Math.max(0, Math.min(count - 1, Math.floor(index)));
const round = (value) => Math.round(value) || 0;
