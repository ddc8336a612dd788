// The layers of one row: painted from pixels that are here, so that contrast, scale, blink and cursor ask nothing.

import { el, find, number } from "./page.js";
import { NO_VIEW, Stretch, VALUES } from "./stretch.js";

const CONTRAST_STEP = 1.25, LEAST_CONTRAST = 0.2, MOST_CONTRAST = 12, BLINK_MS = 450, DRAG_PIXELS = 5, SWIPE_PIXELS = 50;
const PHONE = "(max-width: 700px)";
const BLINK = ["science", "template"];

export class View {
  constructor(meta, root, { told, swipe }) {
    Object.assign(this, { meta, root, ontold: told, swipe, view: { ...NO_VIEW }, stamp: null, row: null, chosen: null, blinking: null });
    this.stretch = new Stretch(meta.stretch, meta.layers);
    const n = meta.layers.length, columns = n <= 3 ? n : Math.ceil(n / 2);
    root.style.setProperty("--columns", columns);
    root.style.setProperty("--lines", Math.ceil(n / columns));
    root.style.setProperty("--others", Math.max(1, n - 1));
    root.style.setProperty("--pixels", meta.size);
    this.tiles = meta.layers.map((name, i) => this.makeTile(name, i));
    root.replaceChildren(...this.tiles.map(({ figure }) => figure));
    if (matchMedia(PHONE).matches) this.enlarge(Math.max(0, meta.layers.indexOf("difference")));
    this.images = this.tiles.map(({ canvas }) => canvas.getContext("2d").createImageData(meta.size, meta.size));
  }

  makeTile(name, i) {
    const canvas = el("canvas", { width: this.meta.size, height: this.meta.size, role: "img", "aria-label": `${name}, no row yet` });
    const caption = el("span", {}, name), cursor = el("i", { class: "cursor", hidden: true });
    const figure = el("figure", { class: "tile" }, el("div", { class: "frame" }, canvas, cursor),
      el("figcaption", {}, caption, el("kbd", {}, i + 1)));
    this.listen(canvas, i);
    return { figure, canvas, caption, cursor };
  }

  listen(canvas, i) {
    let from = null, moved = false, began = 0;
    canvas.onpointerdown = (event) => { began = event.clientX; from = [event.clientX, event.clientY]; moved = false; canvas.setPointerCapture(event.pointerId); };
    canvas.onpointermove = (event) => {
      this.point(canvas, event);
      if (!from) return;
      const [dx, dy] = [event.clientX - from[0], event.clientY - from[1]];
      if (!moved && Math.hypot(dx, dy) < DRAG_PIXELS) return;
      moved = true;
      if (event.pointerType === "touch") return;
      from = [event.clientX, event.clientY];
      this.change({ shift: this.view.shift + dx / 300, contrast: this.view.contrast * Math.exp(-dy / 150) });
    };
    canvas.onpointerup = (event) => {
      const by = event.clientX - began;
      if (from && !moved) this.enlarge(i);
      else if (from && event.pointerType === "touch" && Math.abs(by) > SWIPE_PIXELS) this.swipe(by < 0 ? 1 : -1);
      from = null;
    };
    canvas.onpointercancel = () => { from = null; };
    canvas.onpointerleave = () => { if (!from) this.hideCursor(); };
  }

  // --- what is shown ---

  show(stamp, told) {
    if (this.stamp !== stamp) this.stopBlinking();
    Object.assign(this, { stamp, row: told });
    this.paint();
  }

  paint() {
    if (!this.stamp) return;
    this.tiles.forEach(({ canvas }, i) => {
      this.stretch.paint(this.images[i], 0, 0, this.stamp, this.shownLayer(i), this.view);
      canvas.getContext("2d").putImageData(this.images[i], 0, 0);
      canvas.setAttribute("aria-label", `${this.meta.layers[i]} of row ${this.stamp.row}`);
    });
    if (this.at) this.tellCursor();
  }

  shownLayer(i) {
    const [first, second] = BLINK.map((name) => this.meta.layers.indexOf(name));
    return this.swapped && i === first && second >= 0 ? second : i;
  }

  enlarge(i) {
    this.chosen = this.chosen === i && !matchMedia(PHONE).matches ? null : i;
    this.root.classList.toggle("enlarged", this.chosen !== null);
    this.tiles.forEach(({ figure }, j) => figure.classList.toggle("chosen", j === this.chosen));
  }

  change(values) {
    Object.assign(this.view, values);
    this.view.contrast = Math.min(MOST_CONTRAST, Math.max(LEAST_CONTRAST, this.view.contrast));
    this.view.shift = Math.min(1, Math.max(-1, this.view.shift));
    this.paint();
    this.ontold(this.view);
  }

  more() { this.change({ contrast: this.view.contrast * CONTRAST_STEP }); }
  less() { this.change({ contrast: this.view.contrast / CONTRAST_STEP }); }
  reset() { this.change({ ...NO_VIEW }); }
  toggle(name) { this.change({ [name]: !this.view[name] }); }

  blink() {
    if (this.blinking) return this.stopBlinking();
    if (!BLINK.every((name) => this.meta.layers.includes(name))) return;
    const turn = () => {
      this.swapped = !this.swapped;
      this.tiles[this.meta.layers.indexOf(BLINK[0])].caption.textContent = BLINK[this.swapped ? 1 : 0];
      this.paint();
    };
    this.blinking = setInterval(turn, BLINK_MS);
    turn();
  }

  stopBlinking() {
    clearInterval(this.blinking);
    Object.assign(this, { blinking: null, swapped: false });
    const at = this.meta.layers.indexOf(BLINK[0]);
    if (at >= 0) this.tiles[at].caption.textContent = BLINK[0];
    this.paint();
  }

  // --- the cursor, the same pixel in all layers ---

  point(canvas, event) {
    const { left, top, width, height } = canvas.getBoundingClientRect(), { size } = this.meta;
    const x = Math.floor((event.clientX - left) / width * size), y = size - 1 - Math.floor((event.clientY - top) / height * size);
    if (x < 0 || y < 0 || x >= size || y >= size) return this.hideCursor();
    this.moveTo(x, y);
  }

  moveTo(x, y) {
    this.at = [x, y];
    const { size } = this.meta;
    for (const { cursor } of this.tiles) {
      cursor.hidden = false;
      cursor.style.left = `${100 * x / size}%`;
      cursor.style.top = `${100 * (size - 1 - y) / size}%`;
    }
    this.tellCursor();
  }

  hideCursor() {
    this.at = null;
    this.tiles.forEach(({ cursor }) => { cursor.hidden = true; });
    find("cursor").replaceChildren();
  }

  tellCursor() {
    if (!this.stamp || !this.at) return;
    const [x, y] = this.at, place = y * this.meta.size + x;
    const parts = this.meta.layers.map((name, i) => {
      const z = VALUES[this.stretch.plane(this.stamp, i)[place]];
      return `${name} ${Number.isNaN(z) ? "missing" : `${number(z, 1)} σ`}`;
    });
    find("cursor").replaceChildren(...[...parts, ...this.placeOf(x, y)].map((text) => el("span", {}, text)));
  }

  placeOf(x, y) {
    const { row: told, meta } = this, middle = (meta.size - 1) / 2;
    if (!told || told.x === null || told.x === undefined) return [`x ${x - middle} y ${y - middle} px from the middle`];
    const px = Math.ceil(told.x - meta.size / 2) + x, py = Math.ceil(told.y - meta.size / 2) + y;
    const found = [`x ${px} y ${py}`];
    if (told.plate && told.ra !== null && told.ra !== undefined) {
      const [dx, dy] = [px - told.x, py - told.y], [[ex, nx], [ey, ny]] = told.plate;
      const dec = told.dec + (nx * dx + ny * dy) / 3600;
      const ra = told.ra + (ex * dx + ey * dy) / 3600 / Math.cos(told.dec * Math.PI / 180);
      found.push(`ra ${number((ra + 360) % 360, 5)} dec ${number(dec, 5)}`);
    }
    return found;
  }
}
