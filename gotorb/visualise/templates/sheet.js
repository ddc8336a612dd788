// The contact sheet: many rows, each with science, template and difference, labelled together by one key.

import { el, KINDS, labelName, number, shape } from "./page.js";

export const FEW = 12;
const COUNTS = [FEW, 20, 30, 42, 56, 80], GAP = 6, TEXT = 40, COMPACT_TEXT = 20, NARROW = 190, COMPACT = 150, LEAST = 92, PHONE = 165, BORDER = 4, PADDING = [20, 14];
const LAYERS = ["science", "template", "difference"], DIGITS = "1234567890";

export class Sheet {
  constructor(meta, root, page) {
    Object.assign(this, { meta, root, page, rows: [], start: 0, focus: 0, anchor: null, title: "", cells: [], back: null });
    const known = LAYERS.map((name) => meta.layers.indexOf(name)).filter((i) => i >= 0);
    this.layers = known.length ? known : meta.layers.map((_, i) => i).slice(0, LAYERS.length);
    this.image = new ImageData(this.layers.length * (meta.size + 1) - 1, meta.size);
    this.selected = new Set();
    this.count = COUNTS[1];
    this.painted = new Set();
    root.onclick = (event) => this.click(event);
    root.ondblclick = (event) => this.openRow(event);
    new ResizeObserver(() => { if (this.isOpen) this.arrange(); }).observe(root);
  }

  get isOpen() { return !this.root.hidden; }

  get shown() { return this.rows.slice(this.start, this.start + this.count); }

  open(rows, at, title) {
    Object.assign(this, { rows, title, start: at, focus: 0, anchor: null });
    this.root.hidden = false;
    this.turnTo(at);
    this.root.focus({ preventScroll: true });
  }

  close() {
    this.root.hidden = true;
    this.count = this.back?.count ?? this.count;
    this.back = null;
  }

  turnTo(start) {
    const last = Math.max(0, this.rows.length - 1);
    this.start = Math.min(Math.max(0, start), last);
    this.selected.clear();
    Object.assign(this, { anchor: null, focus: 0 });
    this.root.scrollTop = 0;
    this.page.look(this.rows, this.start, this.count);
    this.draw();
  }

  // --- painting ---

  draw() {
    const { shown } = this, { size } = this.meta, wide = this.layers.length * (size + 1) - 1;
    this.painted.clear();
    delete this.root.dataset.painted;
    while (this.cells.length < shown.length) this.cells.push(this.makeCell(wide, size));
    if (this.root.childElementCount !== shown.length) this.root.replaceChildren(...this.cells.slice(0, shown.length).map(({ cell }) => cell));
    shown.forEach((row, i) => this.drawCell(i, row));
    this.arrange();
    this.tell();
  }

  makeCell(width, height) {
    const canvas = el("canvas", { width, height }), text = el("div", { class: "celltext" });
    return { canvas, text, cell: el("div", { class: "cell", role: "option" }, canvas, text) };
  }

  paint(canvas, stamp) {
    this.layers.forEach((layer, at) => this.page.stretch.paint(this.image, at * (stamp.size + 1), 0, stamp, layer, this.page.view()));
    canvas.getContext("2d").putImageData(this.image, 0, 0);
  }

  // science, template and difference of a stamp outside the sheet
  picture(stamp) {
    const canvas = el("canvas", { width: this.image.width, height: this.image.height, role: "img", "aria-label": `row ${this.page.ahead.name(stamp.row)}` });
    this.paint(canvas, stamp);
    return canvas;
  }

  drawCell(i, row) {
    const { canvas, cell } = this.cells[i], stamp = this.page.ahead.stamp(row);
    cell.id = `cell-${i}`;
    cell.dataset.i = i;
    cell.dataset.row = row;
    cell.classList.toggle("missing", !stamp);
    if (stamp) {
      this.paint(canvas, stamp);
      this.painted.add(row);
    }
    this.write(i, row);
    const { shown } = this;
    if (shown.every((one) => this.painted.has(one) && this.page.ahead.row(one))) this.root.dataset.painted = `${this.start}/${shown.length}`;
  }

  write(i, row) {
    const told = this.page.ahead.row(row), { cell, text } = this.cells[i], own = this.page.choices.label(row), blind = this.page.blind();
    const kind = own ?? (blind || !told ? null : labelName(told.label)), tags = this.page.choices.tags(row);
    const votes = blind || !told ? [] : told.votes.filter(([who]) => who !== this.page.labeller());
    const split = new Set(votes.map(([, said]) => said)).size > 1;
    const facts = [`row ${this.page.ahead.name(row)}`, ...(!told ? [] : [blind || told.score == null ? null : number(told.score, 3),
      told.mag == null ? null : `mag ${number(told.mag, 1)}`])].filter(Boolean);
    text.replaceChildren(el("div", { class: "facts" }, el("b", {}, facts[0]), ` ${facts.slice(1).join(" · ")}`),
      el("div", { class: `verdict ${own ? "own" : ""}` }, ...(split ? (own ? [["you", own], ...votes] : votes).flatMap(([who, said]) => [shape(said), who, el("span", { class: "said" }, `: ${said}`), " "])
        : kind ? [shape(kind), own ? `you: ${kind}` : kind] : ["not decided"]),
        ...(own || split || blind || !told ? [] : [el("span", { class: "meta" }, ` ${told.metalabel || ""}`)]),
        ...(split || !told ? [] : [el("span", { class: "brief" }, [blind || told.score == null ? null : ` ${number(told.score, 2)}`,
          told.mag == null ? null : number(told.mag, 1)].filter(Boolean).join(" · "))]), ...(tags.length ? [` · ${tags.join(", ")}`] : [])));
    cell.classList.remove(...KINDS);
    if (own) cell.classList.add(own);
    cell.classList.toggle("selected", this.selected.has(row));
    cell.classList.toggle("focused", i === this.focus);
    cell.setAttribute("aria-selected", String(this.selected.has(row)));
    cell.setAttribute("aria-label", `${facts.join(", ")}, ${own ? `you: ${own}` : kind ?? "not decided"}${split ? votes.map(([who, said]) => `, ${who}: ${said}`).join("") : ""}${tags.length ? `, ${tags.join(", ")}` : ""}`);
  }

  rewrite() { this.shown.forEach((row, i) => this.write(i, row)); this.tell(); }

  ready(rows) {
    if (!this.isOpen) return;
    const { shown } = this, fresh = new Set(rows);
    shown.forEach((row, i) => { if (fresh.has(row)) this.drawCell(i, row); });
  }

  // as few columns as show every cell; on a small screen cells that can be read, and a page that scrolls
  arrange() {
    const width = this.root.clientWidth - PADDING[0], height = this.root.clientHeight - PADDING[1], n = this.shown.length || 1;
    if (width <= 0) return;
    const share = this.meta.size / (this.layers.length * (this.meta.size + 1));
    const side = (columns) => (width - GAP * (columns - 1)) / columns;
    const high = (columns) => Math.ceil(n / columns) * ((side(columns) - BORDER) * share + BORDER + GAP + (side(columns) < COMPACT ? COMPACT_TEXT : TEXT));
    let columns = 1;
    while (columns < n && high(columns) > height) columns += 1;
    if (side(columns) < LEAST || width < 3 * PHONE) columns = Math.max(1, Math.floor(width / PHONE));
    this.columns = columns;
    this.root.style.setProperty("--columns", columns);
    this.root.classList.toggle("compact", side(columns) < COMPACT);
    this.root.classList.toggle("narrow", side(columns) < NARROW);
  }

  tell() {
    const pages = Math.ceil(this.rows.length / this.count) || 1, page = Math.floor(this.start / this.count) + 1, n = this.selected.size;
    this.root.setAttribute("aria-activedescendant", `cell-${this.focus}`);
    this.page.tell(`${this.title} · sheet ${page} of ${pages} · ${this.rows.length} rows`,
      n ? [`${n} selected`, el("span", { class: "word" }, ": r b u f label them, z takes all back")] : []);
  }

  // --- keys and mouse ---

  key(event) {
    const { key, shiftKey } = event, n = this.shown.length;
    if ((event.ctrlKey || event.metaKey) && key.toLowerCase() === "a") { this.selectAll(); return true; }
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, Home: -n, End: n };
    if (key in steps) { this.move(steps[key], shiftKey); return true; }
    if (event.repeat && !["PageDown", "PageUp"].includes(key)) return false;
    const digit = DIGITS.indexOf(key), artefact = digit >= 0 ? this.meta.artefacts[digit] : null;
    const actions = { " ": () => this.toggle(this.focus), Enter: () => this.page.open(this.shown[this.focus]), n: () => this.near(),
      PageDown: () => this.turn(1), PageUp: () => this.turn(-1), "+": () => this.resize(1), "=": () => this.resize(1),
      "-": () => this.resize(-1), Escape: () => this.escape(), r: () => this.label("real"), b: () => this.label("bogus"),
      u: () => this.label("unsure"), f: () => this.label("flag"), t: () => this.page.note(this.chosen()) };
    const act = artefact ? () => this.tag(artefact) : actions[key];
    if (!act) return false;
    act();
    return true;
  }

  move(by, extend) {
    const n = this.shown.length;
    if (!n) return;
    if (extend) this.anchor ??= this.focus; else this.anchor = null;
    const to = this.focus + by;
    if (!extend && (to >= n || to < 0) && Math.abs(by) < n) { this.turn(Math.sign(by)); return; }
    this.focus = Math.min(Math.max(0, to), n - 1);
    if (extend) this.range();
    this.rewrite();
    this.cells[this.focus].cell.scrollIntoView({ block: "nearest" });
  }

  range() {
    const [low, high] = [Math.min(this.anchor, this.focus), Math.max(this.anchor, this.focus)];
    this.selected = new Set(this.shown.slice(low, high + 1));
  }

  toggle(i) {
    const row = this.shown[i];
    if (this.selected.has(row)) this.selected.delete(row); else this.selected.add(row);
    this.rewrite();
  }

  selectAll() {
    this.selected = this.selected.size === this.shown.length ? new Set() : new Set(this.shown);
    this.rewrite();
  }

  click(event) {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    const i = Number(cell.dataset.i);
    if (event.shiftKey) { this.anchor ??= this.focus; this.focus = i; this.range(); this.rewrite(); return; }
    Object.assign(this, { focus: i, anchor: i });
    this.toggle(i);
  }

  openRow(event) {
    const cell = event.target.closest(".cell");
    if (cell) this.page.open(Number(cell.dataset.row));
  }

  turn(by) {
    if (by > 0 && this.start + this.count >= this.rows.length) return this.page.notice("this is the last sheet");
    if (by < 0 && this.start === 0) return this.page.notice("this is the first sheet");
    return this.turnTo(this.start + by * this.count);
  }

  resize(by) {
    const at = Math.min(Math.max(0, COUNTS.indexOf(this.count) + by), COUNTS.length - 1);
    this.count = COUNTS[at];
    this.turnTo(this.start);
  }

  escape() {
    if (this.selected.size) { this.selected.clear(); this.anchor = null; return this.rewrite(); }
    if (!this.back) return this.page.leave(this.shown[this.focus]);
    const { rows, start, title, count } = this.back;
    Object.assign(this, { back: null, count });
    return this.open(rows, start, title);
  }

  // other rows for a while; escape leads back
  visit(rows, title, count = this.count) {
    this.back ??= { rows: this.rows, start: this.start, title: this.title, count: this.count };
    this.count = count;
    this.open(rows, 0, title);
  }

  async near() {
    const row = this.shown[this.focus];
    const found = await this.page.neighbours(row);
    if (!found) return;
    this.visit([row, ...found], `nearest to row ${this.page.ahead.name(row)}`);
  }

  // rows that a key acts on: the selection, else the one in focus; only those that are on the screen
  chosen() {
    const wanted = this.selected.size ? this.shown.filter((row) => this.selected.has(row)) : this.shown.slice(this.focus, this.focus + 1);
    return wanted.filter((row) => this.painted.has(row) && this.page.ahead.row(row));
  }

  label(kind) {
    const rows = this.chosen(), several = this.selected.size > 0;
    if (rows.length < Math.max(1, this.selected.size)) return this.page.notice("some of these stamps are not here yet; nothing was recorded");
    this.page.decide(kind, rows);
    this.selected.clear();
    this.anchor = null;
    if (!several && this.focus + 1 < this.shown.length) this.focus += 1;
    this.rewrite();
    return this.root.setAttribute("data-labelled", `${kind} ${rows.length} ${this.page.choices.past.length}`);
  }

  tag(name) {
    this.page.tag(name, this.chosen());
    this.rewrite();
  }
}
