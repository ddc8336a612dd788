// Greys of stamps: the same stretch as gotorb/stamps/images.py, whose constants the server sends. Pixels are sigma above
// the sky in half precision; a table holds the stretched value of each of its 65,536 numbers.

const HALVES = 65536;
export const NO_VIEW = { contrast: 1, shift: 0, invert: false, lock: false, colour: false };

function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1, power = (bits >> 10) & 31, part = bits & 1023;
  if (power === 31) return part ? NaN : sign * Infinity;
  return sign * (power ? (1 + part / 1024) * 2 ** (power - 15) : part * 2 ** -24);
}

export const VALUES = Float64Array.from({ length: HALVES }, (_, bits) => half(bits));

// answer of /pixels: sky and sigma of each layer of each row, then the layers one after the other
export function unpackStamps(buffer, rows, nLayers, size) {
  const heads = new Float32Array(buffer, 0, rows.length * 2 * nLayers), pixels = nLayers * size * size;
  return rows.map((row, i) => ({
    row, size, sky: heads.subarray(2 * i * nLayers, (2 * i + 1) * nLayers),
    sigma: heads.subarray((2 * i + 1) * nLayers, (2 * i + 2) * nLayers),
    bits: new Uint16Array(buffer, heads.byteLength + 2 * i * pixels, pixels),
  }));
}

export class Stretch {
  constructor(constants, layers) {
    Object.assign(this, { constants, layers });
    this.table = VALUES.map((z) => Math.asinh(z / constants.softening));
    this.greys = Uint32Array.from({ length: 256 }, (_, g) => rgba(g, g, g));
    this.colours = Uint32Array.from({ length: 256 }, (_, g) => blueOrange(g / 255));
    this.hatch = [rgba(...constants.hatch.ground), rgba(...constants.hatch.line)];
  }

  symmetric(layer) { return this.constants.symmetric.includes(this.layers[layer]); }

  plane(stamp, layer) { const n = stamp.size ** 2; return stamp.bits.subarray(layer * n, (layer + 1) * n); }

  // sigma drawn black and white
  limits(stamp, layer) {
    const { lowest, least_high, peak_share, least_reach, middle_part } = this.constants, { size } = stamp;
    const plane = this.plane(stamp, layer), middle = Math.floor(size / 2), symmetric = this.symmetric(layer);
    const reach = Math.max(Math.floor(size / middle_part), 1);
    let peak = 0;
    for (let y = Math.max(middle - reach, 0); y <= Math.min(middle + reach, size - 1); y++) {
      for (let x = Math.max(middle - reach, 0); x <= Math.min(middle + reach, size - 1); x++) {
        const z = VALUES[plane[y * size + x]], height = symmetric ? Math.abs(z) : z;
        if (height > peak) peak = height;
      }
    }
    const high = Math.max(peak * peak_share, symmetric ? least_reach : least_high);
    return [symmetric ? -high : lowest, high];
  }

  // grey of each pixel of a layer, -1 where it is missing; row 0 is the bottom
  greyLevels(stamp, layer, view = NO_VIEW) {
    const plane = this.plane(stamp, layer), { softening } = this.constants, found = new Int16Array(plane.length);
    const reference = view.lock ? stamp.sigma[0] : stamp.sigma[layer], unit = stamp.sigma[layer] / reference || 1;
    const [least, most] = view.lock && !this.symmetric(layer) ? this.limits(stamp, 0) : this.limits(stamp, layer);
    const low = Math.asinh(least / softening), wide = (Math.asinh(most / softening) - low) / view.contrast;
    const start = this.symmetric(layer) ? (low + Math.asinh(most / softening)) / 2 - wide / 2 : low;
    for (let i = 0; i < plane.length; i++) {
      const value = unit === 1 ? this.table[plane[i]] : Math.asinh(VALUES[plane[i]] * unit / softening);
      if (Number.isNaN(value)) { found[i] = -1; continue; }
      const part = Math.min(Math.max((value - start) / wide + view.shift, 0), 1);
      found[i] = Math.floor((view.invert ? 1 - part : part) * 255 + 0.5);
    }
    return found;
  }

  // paint a layer into an ImageData, its first pixel at (left, top), y upwards
  paint(image, left, top, stamp, layer, view = NO_VIEW) {
    const { size } = stamp, out = new Uint32Array(image.data.buffer), greys = this.greyLevels(stamp, layer, view);
    const palette = view.colour && this.symmetric(layer) ? this.colours : this.greys, { step } = this.constants.hatch;
    for (let y = 0; y < size; y++) {
      const line = (top + size - 1 - y) * image.width + left;
      for (let x = 0; x < size; x++) {
        const grey = greys[y * size + x];
        out[line + x] = grey < 0 ? this.hatch[(x + y) % step === 0 ? 1 : 0] : palette[grey];
      }
    }
  }
}

function rgba(r, g, b) { return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0; }

// negative orange, sky white, positive blue: the colours of bogus and real have nothing to do with it
function blueOrange(part) {
  const ends = part < 0.5 ? [213, 94, 0] : [0, 90, 160], share = Math.abs(part - 0.5) * 2;
  return rgba(...ends.map((c) => Math.round(245 + (c - 245) * share)));
}
