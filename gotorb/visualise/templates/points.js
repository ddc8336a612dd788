// Points on a plain canvas: pixels are written by hand, which takes ten thousand points per millisecond or so and
// needs no graphics card.

// Okabe and Ito: told apart with any colour vision
const CATEGORIES = ["#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#0072b2", "#b8a800", "#8c8c8c"];
const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
// kinds of rows keep the colours of their label: real ones blue and green, bogus ones orange and purple
const OF_REAL = ["#1e88cf", "#009e73", "#56b4e9", "#4053a0"], OF_BOGUS = ["#de8200", "#d55e00", "#cc79a7", "#b8a800"];
const RAMPS = { score: ["#de8200", "#8b96a5", "#1e88cf"], default: VIRIDIS };
const UNKNOWN = "#7a8492", FADED = 0.22, STEPS = 256;

const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const pack = ([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r;
const mix = (a, b, part) => a.map((c, i) => Math.round(c + (b[i] - c) * part));

function ramp(colours) {
  const stops = colours.map(channels);
  return Array.from({ length: STEPS }, (_, i) => {
    const at = i / (STEPS - 1) * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2);
    return mix(stops[low], stops[low + 1], at - low);
  });
}

// colours of kinds; areReal has true, false, or null for a kind without labels
function colourKinds(kinds, areReal) {
  const pools = new Map([[true, OF_REAL], [false, OF_BOGUS], [null, [UNKNOWN]]]), used = new Map();
  return kinds.map((_, i) => {
    const pool = pools.get(areReal[i]), n = used.get(pool) ?? 0;
    used.set(pool, n + 1);
    return pool[n % pool.length];
  });
}

// colours of all points for one column: codes into a table, their shapes, and the legend
export function colourBy(values, name, kinds, areReal) {
  const codes = new Uint16Array(values.length);
  if (kinds) {
    const plain = kinds.map((_, i) => CATEGORIES[i % CATEGORIES.length]), own = areReal && name !== "tag";
    const table = [...(own ? colourKinds(kinds, areReal) : plain), UNKNOWN].map(channels);
    const shapes = [...kinds.map((_, i) => (!areReal || areReal[i] ? "real" : areReal[i] === null ? "unknown" : "bogus")), "unknown"];
    for (let i = 0; i < values.length; i++) codes[i] = Number.isNaN(values[i]) ? kinds.length : values[i];
    const shown = codes.includes(kinds.length) ? [...kinds, "unknown"] : kinds;
    return { codes, table, shapes, legend: shown.map((kind, i) => [kind, `rgb(${table[i].join(",")})`, shapes[i]])
      .filter((_, i) => name !== "tag" || codes.includes(i)) };
  }
  let low = Infinity, high = -Infinity;
  for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
  if (name === "score" || name === "confidence" || name === "disagreement") { low = 0; high = 1; }
  const table = [...ramp(RAMPS[name] || RAMPS.default), channels(UNKNOWN)];
  const scale = (STEPS - 1) / (high - low || 1);
  for (let i = 0; i < values.length; i++) {
    codes[i] = Number.isNaN(values[i]) ? STEPS : Math.min(STEPS - 1, Math.max(0, (values[i] - low) * scale));
  }
  return { codes, table, ends: [low, high] };
}

// the page's ground, which is light or dark
function groundOf(canvas) {
  const found = getComputedStyle(canvas.ownerDocument.body).backgroundColor.match(/\d+/g);
  return found ? found.slice(0, 3).map(Number) : [13, 17, 23];
}

export class Plot {
  constructor(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
    this.view = { x: 0, y: 0, scale: 1 };
    this.selected = null;
  }

  resize() {
    const { width, height } = this.canvas.parentElement.getBoundingClientRect(), dense = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(width * dense));
    this.canvas.height = Math.max(1, Math.round(height * dense));
    this.dense = dense;
    this.image = this.pen.createImageData(this.canvas.width, this.canvas.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
  }

  setPoints(x, y) {
    this.x = x; this.y = y;
    // a fixed shuffle, so that no class always lies above the others
    this.turn = Uint32Array.from({ length: x.length }, (_, i) => i);
    let state = 12345;
    for (let i = x.length - 1; i > 0; i--) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      const j = state % (i + 1), kept = this.turn[i];
      this.turn[i] = this.turn[j]; this.turn[j] = kept;
    }
    this.fit();
  }

  fit() {
    const { width, height } = this.canvas, side = Math.min(width, height) * 0.9;
    let mx = 0, my = 0;
    for (let i = 0; i < this.x.length; i++) { if (this.x[i] > mx) mx = this.x[i]; if (this.y[i] > my) my = this.y[i]; }
    const scale = Math.min(width * 0.92 / (mx || 1), height * 0.9 / (my || 1), side * 3);
    this.view = { scale, x: (width - mx * scale) / 2, y: (height + my * scale) / 2 };
    this.home = scale;
  }

  place(i) { return [this.view.x + this.x[i] * this.view.scale, this.view.y - this.y[i] * this.view.scale]; }

  draw(colours) {
    if (colours) this.colours = colours;
    const { codes, table, shapes } = this.colours, { pixels, view, x, y, turn, selected } = this;
    const width = this.canvas.width, height = this.canvas.height, ground = groundOf(this.canvas);
    const bright = Int32Array.from(table, pack), faint = Int32Array.from(table, (colour) => pack(mix(ground, colour, FADED)));
    const zoom = view.scale / this.home, radius = Math.round((x.length > 20000 ? 1 : 2.4) * Math.min(2.2, zoom ** 0.35) * this.dense);
    const disc = [], cross = [], dash = [], arm = Math.floor(radius / 3);
    for (let dy = -radius; dy <= radius; dy++) for (let dx = -radius; dx <= radius; dx++) {
      if (dx * dx + dy * dy <= radius * radius + radius * 0.7) disc.push(dy * width + dx);
      if (Math.abs(Math.abs(dx) - Math.abs(dy)) <= arm) cross.push(dy * width + dx);
      if (dy >= -arm && dy <= Math.max(arm, 1)) dash.push(dy * width + dx);
    }
    const marks = table.map((_, code) => ({ bogus: cross, unknown: dash })[shapes?.[code]] ?? disc);
    pixels.fill(pack(ground));
    for (const above of selected ? [0, 1] : [1]) {
      const colour = above ? bright : faint;
      for (let k = 0; k < turn.length; k++) {
        const i = turn[k];
        if (selected && selected[i] !== above) continue;
        const px = Math.round(view.x + x[i] * view.scale), py = Math.round(view.y - y[i] * view.scale);
        if (px < radius || py < radius || px >= width - radius || py >= height - radius) continue;
        const at = py * width + px, value = colour[codes[i]], spots = marks[codes[i]];
        for (let s = 0; s < spots.length; s++) pixels[at + spots[s]] = value;
      }
    }
    this.pen.putImageData(this.image, 0, 0);
  }

  nearest(px, py, reach) {
    const { x, y, view } = this;
    let best = -1, least = reach * reach;
    for (let i = 0; i < x.length; i++) {
      const dx = view.x + x[i] * view.scale - px;
      if (dx > reach || dx < -reach) continue;
      const dy = view.y - y[i] * view.scale - py, far = dx * dx + dy * dy;
      if (far < least) { least = far; best = i; }
    }
    return best;
  }

  zoom(px, py, factor) {
    const view = this.view, scale = Math.min(this.home * 400, Math.max(this.home * 0.3, view.scale * factor));
    const part = scale / view.scale;
    view.x = px - (px - view.x) * part; view.y = py - (py - view.y) * part; view.scale = scale;
  }

  // which points lie inside a polygon of canvas pixels (even-odd rule), looked up line by line
  inside(path) {
    const { x, y, view } = this, inside = new Uint8Array(x.length);
    const low = Math.min(...path.map((p) => p[1])), high = Math.max(...path.map((p) => p[1]));
    const first = Math.floor(low), crossings = Array.from({ length: Math.ceil(high) - first + 1 }, () => []);
    path.forEach(([ax, ay], i) => {
      const [bx, by] = path[(i + 1) % path.length], [top, bottom] = ay < by ? [ay, by] : [by, ay];
      for (let line = Math.ceil(top - 0.5); line + 0.5 < bottom; line++) {
        crossings[line - first]?.push(ax + (line + 0.5 - ay) / (by - ay) * (bx - ax));
      }
    });
    crossings.forEach((line) => line.sort((a, b) => a - b));
    for (let i = 0; i < x.length; i++) {
      const py = view.y - y[i] * view.scale, line = crossings[Math.floor(py) - first];
      if (!line || !line.length) continue;
      const px = view.x + x[i] * view.scale;
      let n = 0;
      while (n < line.length && line[n] < px) n++;
      inside[i] = n & 1;
    }
    return inside;
  }
}
