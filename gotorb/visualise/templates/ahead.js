// Strips and rows fetched before they are shown. What is near the present row comes first; a server that is away is
// asked again.

import { post } from "./page.js";

const AHEAD = 120, BEHIND = 20, AT_ONCE = 6, MOST_KEPT = 600, ROWS_AT_ONCE = 64;

export class Ahead {
  constructor(digest, onready) {
    this.version = digest.slice(0, 16);
    this.onready = onready;
    this.strips = new Map();
    this.rows = new Map();
    this.loading = new Set();
    this.asking = false;
    this.wanted = [];
    this.stretch = "percentile";
  }

  key(row) { return `${this.stretch}/${row}`; }

  strip(row) { return this.strips.get(this.key(row)); }

  row(row) { return this.rows.get(row); }

  look(order, position) {
    this.wanted = [...order.slice(position, position + AHEAD), ...order.slice(Math.max(0, position - BEHIND), position).reverse()];
    this.pump();
  }

  pump() {
    for (const row of this.wanted) {
      if (this.loading.size >= AT_ONCE) break;
      const key = this.key(row);
      if (!this.strips.has(key) && !this.loading.has(key)) this.load(key, row);
    }
    this.ask();
  }

  async load(key, row) {
    this.loading.add(key);
    const image = new Image();
    image.src = `/strip/${key}.png?v=${this.version}`;
    let wait = 0;
    try {
      await image.decode();
      this.strips.set(key, image);
      for (const old of this.strips.keys()) {
        if (this.strips.size <= MOST_KEPT) break;
        this.strips.delete(old);
      }
      this.onready(row);
    } catch (error) { wait = 400; }
    setTimeout(() => { this.loading.delete(key); this.pump(); }, wait);
  }

  async ask() {
    const [current] = this.wanted;
    const missing = this.wanted.filter((row) => !this.rows.has(row));
    if (this.asking || !missing.length) return;
    if (missing.length < ROWS_AT_ONCE / 2 && missing[0] !== current && this.wanted.length > missing.length * 3) return;
    this.asking = true;
    let wait = 0;
    try {
      const answer = await post("/api/rows", { rows: missing.slice(0, ROWS_AT_ONCE) });
      for (const told of answer.rows) { this.rows.set(told.row, told); this.onready(told.row); }
      for (const old of this.rows.keys()) {
        if (this.rows.size <= MOST_KEPT) break;
        if (!this.wanted.includes(old)) this.rows.delete(old);
      }
    } catch (error) { wait = 400; }
    setTimeout(() => { this.asking = false; this.ask(); }, wait);
  }
}
