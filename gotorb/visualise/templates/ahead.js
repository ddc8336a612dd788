// Pixels and rows fetched before they are shown. What is near the present row comes first; a server that is away is
// asked again.

import { post } from "./page.js";
import { unpackStamps } from "./stretch.js";

const AHEAD = 120, BEHIND = 20, AT_ONCE = 3, PIXELS_AT_ONCE = 24, MOST_KEPT = 600, ROWS_AT_ONCE = 64, LONGEST_WAIT = 1600;

export class Ahead {
  constructor(meta, onready) {
    Object.assign(this, { meta, onready });
    this.stamps = new Map();
    this.rows = new Map();
    this.loading = new Set();
    this.asking = false;
    this.wanted = [];
    this.requests = this.failures = 0;
    this.shown = 1;
  }

  stamp(row) { return this.stamps.get(row); }

  row(row) { return this.rows.get(row); }

  // number on the page: a repeat has that of its row
  name(row) { return this.rows.get(row)?.name ?? row; }

  async pixels(rows) {
    const answer = await fetch(`/pixels/${rows.join(",")}.bin?v=${this.meta.digest.slice(0, 16)}`);
    if (!answer.ok) throw new Error(String(answer.status));
    return unpackStamps(await answer.arrayBuffer(), rows, this.meta.layers.length, this.meta.size);
  }

  look(order, position, { ahead = AHEAD, behind = BEHIND, shown = 1 } = {}) {
    this.shown = shown;
    this.wanted = [...order.slice(position, position + ahead), ...order.slice(Math.max(0, position - behind), position).reverse()];
    this.pump();
  }

  pump() {
    while (this.requests < (this.failures ? 1 : AT_ONCE)) {
      const missing = this.wanted.filter((row) => !this.stamps.has(row) && !this.loading.has(row));
      if (!missing.length) break;
      this.load(missing.slice(0, this.failures ? 1 : PIXELS_AT_ONCE));
    }
    this.ask();
  }

  // after a failure rows are asked for one by one, the failed ones last, so that one bad row holds up none
  async load(rows) {
    this.requests += 1;
    rows.forEach((row) => this.loading.add(row));
    let wait = 0;
    try {
      this.keep(await this.pixels(rows));
      this.failures = Math.max(0, this.failures - 1);
    } catch (error) {
      this.failures += 1;
      wait = Math.min(LONGEST_WAIT, 100 * 2 ** this.failures);
      this.wanted = [...this.wanted.filter((row) => !rows.includes(row)), ...this.wanted.filter((row) => rows.includes(row))];
    }
    setTimeout(() => { rows.forEach((row) => this.loading.delete(row)); this.requests -= 1; this.pump(); }, wait);
  }

  keep(stamps) {
    for (const stamp of stamps) this.stamps.set(stamp.row, stamp);
    for (const old of this.stamps.keys()) {
      if (this.stamps.size <= MOST_KEPT) break;
      if (!this.wanted.includes(old)) this.stamps.delete(old);
    }
    this.onready(stamps.map(({ row }) => row));
  }

  async ask() {
    const missing = this.wanted.filter((row) => !this.rows.has(row));
    if (this.asking || !missing.length) return;
    const urgent = this.wanted.slice(0, this.shown).some((row) => !this.rows.has(row));
    if (missing.length < ROWS_AT_ONCE / 2 && !urgent && this.wanted.length > missing.length * 3) return;
    this.asking = true;
    let wait = 0;
    try {
      const answer = await post("/api/rows", { rows: missing.slice(0, ROWS_AT_ONCE) });
      for (const told of answer.rows) this.rows.set(told.row, told);
      for (const old of this.rows.keys()) {
        if (this.rows.size <= MOST_KEPT) break;
        if (!this.wanted.includes(old)) this.rows.delete(old);
      }
      this.onready(answer.rows.map(({ row }) => row));
    } catch (error) { wait = 400; }
    setTimeout(() => { this.asking = false; this.ask(); }, wait);
  }
}
