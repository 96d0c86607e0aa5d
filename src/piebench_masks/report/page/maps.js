// @ts-check
// Soft maps in the browser: decode, upsample, cut, paint. Knows arrays and canvases, not the page.

/** @typedef {[number, number]} Size height and width */

/** @param {string} base64 */
function bytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** A stored map (uint16 of 0..1 on its own grid) as {values, height, width}.
 * @param {{values: string, shape: Size}} map */
function decodeMap({ values, shape: [height, width] }) {
  const steps = new Uint16Array(bytes(values).buffer);
  return { values: Float32Array.from(steps, (step) => step / 65535), height, width };
}

/** The annotated mask [start, length, ...] as one byte a pixel, row by row.
 * @param {number[]} runs @param {Size} size */
function decodeRuns(runs, [height, width]) {
  const mask = new Uint8Array(height * width);
  for (let i = 0; i < runs.length; i += 2) mask.fill(1, runs[i], runs[i] + runs[i + 1]);
  return mask;
}

/** Nearest neighbours, as the gallery shows a mask smaller than it is.
 * @param {Uint8Array} mask @param {Size} size @param {Size} newSize */
function resizeMask(mask, [height, width], [newHeight, newWidth]) {
  const resized = new Uint8Array(newHeight * newWidth);
  for (let y = 0, i = 0; y < newHeight; y++) {
    const row = Math.floor(((y + 0.5) * height) / newHeight) * width;
    for (let x = 0; x < newWidth; x++, i++) {
      resized[i] = mask[row + Math.floor(((x + 0.5) * width) / newWidth)];
    }
  }
  return resized;
}

/** Bilinear, pixel centres at one half, edges repeated: as the scored masks are upsampled.
 * @param {{values: Float32Array, height: number, width: number}} map @param {Size} size */
function upsample(map, [height, width]) {
  const along = (/** @type {number} */ size, /** @type {number} */ cells) =>
    Array.from({ length: size }, (_, i) => {
      const at = Math.max(0, ((i + 0.5) * cells) / size - 0.5);
      const low = Math.min(Math.floor(at), cells - 1);
      return [low, Math.min(low + 1, cells - 1), at - low];
    });
  const columns = along(width, map.width);
  const result = new Float32Array(height * width);
  let i = 0;
  for (const [top, bottom, down] of along(height, map.height)) {
    const upper = top * map.width;
    const lower = bottom * map.width;
    for (const [left, right, across] of columns) {
      const a = map.values[upper + left] * (1 - across) + map.values[upper + right] * across;
      const b = map.values[lower + left] * (1 - across) + map.values[lower + right] * across;
      result[i++] = a * (1 - down) + b * down;
    }
  }
  return result;
}

/** One pixel of a canvas as a number, which is written much faster than four.
 * @type {(red: number, green: number, blue: number, alpha: number) => number} */
const rgba = (red, green, blue, alpha) => (alpha << 24) | (blue << 16) | (green << 8) | red;
const HIT = rgba(235, 238, 242, 200);
const EXTRA = rgba(230, 105, 20, 215);
const MISSED = rgba(40, 135, 205, 215);
const NEITHER = 0;
const OUTLINE = rgba(255, 225, 70, 255);

/** @param {HTMLCanvasElement} canvas @param {Size} size @param {(i: number) => number} colour */
function paint(canvas, [height, width], colour) {
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const image = new ImageData(width, height);
  const pixels = new Int32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = colour(i);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** The mask (values above the level), coloured by whether it agrees with the annotated one.
 * @param {HTMLCanvasElement} canvas @param {Size} size @param {ArrayLike<number>} values
 * @param {number} level @param {Uint8Array | null} annotated */
function paintMask(canvas, size, values, level, annotated) {
  paint(canvas, size, (i) => {
    const inside = values[i] > level;
    if (annotated === null || annotated[i]) return inside ? HIT : annotated ? MISSED : NEITHER;
    return inside ? EXTRA : NEITHER;
  });
}

/** The map in colours (`heat`: 256 x RGB); the higher, the less of the picture is seen.
 * @param {HTMLCanvasElement} canvas @param {Size} size @param {Float32Array} values
 * @param {Uint8Array} heat */
function paintHeat(canvas, size, values, heat) {
  paint(canvas, size, (i) => {
    const at = 3 * Math.round(255 * Math.min(1, values[i]));
    return rgba(heat[at], heat[at + 1], heat[at + 2], Math.round(255 * (0.45 + 0.45 * values[i])));
  });
}

/** The inner edge of the annotated mask, two pixels wide on large pictures.
 * @param {HTMLCanvasElement} canvas @param {Size} size @param {Uint8Array} mask */
function paintOutline(canvas, [height, width], mask) {
  const wide = Math.max(height, width) > 128 ? 2 : 1;
  const outside = (/** @type {number} */ x, /** @type {number} */ y) => x < 0 || y < 0 || x >= width || y >= height || !mask[y * width + x];
  paint(canvas, [height, width], (i) => {
    const x = i % width;
    const y = (i - x) / width;
    if (!mask[i]) return NEITHER;
    for (let d = 1; d <= wide; d++) {
      if (outside(x - d, y) || outside(x + d, y) || outside(x, y - d) || outside(x, y + d)) {
        return OUTLINE;
      }
    }
    return NEITHER;
  });
}
