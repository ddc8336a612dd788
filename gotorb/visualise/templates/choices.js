// Own decisions, tags and notes: what was pressed, what it adds up to, and how it is taken back. Each is an event in the
// outbox; those of one key press on several rows share a batch, which one undo takes back.

import { KINDS, post } from "./page.js";

const RECENT = 60, LONGEST_PAUSE = 60000;

export class Choices {
  constructor({ labeller, outbox, ahead, state }) {
    Object.assign(this, { labeller, outbox, ahead, state });
    this.past = [];            // what can be taken back, oldest first
    this.oldest = null;        // number of the oldest event that was fetched
    this.stacks = new Map();   // "row kind" -> values, the last one holds
    this.labelled = new Map(); // row -> number of own labels that hold
    this.fetched = new Set();  // labelled rows that the server told of
    this.touched = new Set();  // "row kind" that changed on this page
    this.total = 0;            // rows that the server knows as decided
    this.times = [];
  }

  async recall(before) {
    const told = await post("/api/history", before ? { labeller: this.labeller, before } : { labeller: this.labeller });
    const known = told.events.reverse().map(({ uuid, id, row, label, value, batch }) => ({ uuid, id, row, kind: label, value, batch }));
    if (!before) this.total = told.n;
    known.filter(({ kind }) => KINDS.includes(kind)).forEach(({ row }) => this.fetched.add(row));
    this.oldest = told.events.length ? told.events[0].number : null;
    if (before) { this.past.unshift(...known); } else { this.past = known; this.replay(); }
    this.stacks.clear();
    this.labelled.clear();
    this.past.forEach((event) => this.remember(event));
  }

  replay() {
    for (const event of this.outbox.events) {
      if (event.kind === "undo") this.past = this.past.filter(({ uuid }) => uuid !== event.target);
      else if (!this.past.some(({ uuid }) => uuid === event.uuid)) this.past.push(event);
    }
  }

  remember({ row, kind, value }) {
    const isLabel = KINDS.includes(kind), key = `${row} ${isLabel ? "label" : kind}`;
    this.stacks.set(key, [...(this.stacks.get(key) || []), isLabel ? kind : value]);
    if (isLabel) this.labelled.set(row, (this.labelled.get(row) || 0) + 1);
  }

  forget({ row, kind }) {
    const isLabel = KINDS.includes(kind), key = `${row} ${isLabel ? "label" : kind}`, stack = this.stacks.get(key) || [];
    stack.pop();
    if (!stack.length) this.stacks.delete(key);
    if (!isLabel) return;
    const left = this.labelled.get(row) - 1;
    if (left > 0) this.labelled.set(row, left); else this.labelled.delete(row);
  }

  last(row, kind, told) {
    const key = `${row} ${kind}`, known = this.stacks.get(key)?.at(-1);
    return known ?? (this.touched.has(key) ? undefined : told);
  }

  label(row) { return this.last(row, "label", this.ahead.row(row)?.votes.find(([who]) => who === this.labeller)?.[1]); }

  mark(row, kind) {
    return this.last(row, kind, this.ahead.row(row)?.marks.find(([who, what]) => who === this.labeller && what === kind)?.[2]) ?? "";
  }

  tags(row) { return this.mark(row, "tags").split(",").filter(Boolean); }

  get decided() { return Math.max(0, this.total - this.fetched.size) + this.labelled.size; }

  // one event for each row; entries are { row, value, shown }
  add(kind, entries) {
    const batch = entries.length > 1 ? crypto.randomUUID() : "";
    for (const { row, value = "", shown = null } of entries) {
      const event = this.event(kind, row, this.ahead.row(row).id, { value, batch, shown_ms: shown });
      this.past.push(event);
      this.remember(event);
      if (KINDS.includes(kind)) this.times.push(Date.now());
    }
  }

  event(kind, row, id, more) {
    const event = { uuid: crypto.randomUUID(), row, id, kind, target: null, value: "", batch: "", shown_ms: null,
      made_at: new Date().toISOString(), ...this.state(), ...more };
    this.touched.add(`${row} label`).add(`${row} tags`).add(`${row} note`);
    this.outbox.add(event);
    return event;
  }

  // rows of what was taken back; null when nothing is left
  async undo() {
    const short = () => this.oldest && (!this.past.length || (this.past[0].batch && this.past[0].batch === this.past.at(-1).batch));
    while (short()) {
      this.recalling ??= this.recall(this.oldest);
      try { await this.recalling; } finally { this.recalling = null; }
    }
    const last = this.past.at(-1);
    if (!last) return null;
    const rows = [];
    do {
      const event = this.past.pop();
      this.forget(event);
      this.event("undo", event.row, event.id, { target: event.uuid });
      rows.push(event.row);
    } while (last.batch && this.past.at(-1)?.batch === last.batch);
    return rows.reverse();
  }

  // rows a minute over the recent decisions on this page, pauses left out; null before the third
  pace() {
    const times = this.times.slice(-RECENT);
    let spent = 0;
    for (let i = 1; i < times.length; i++) spent += Math.min(times[i] - times[i - 1], LONGEST_PAUSE);
    return times.length > 2 && spent > 0 ? (times.length - 1) / spent * 60000 : null;
  }

  counts() {
    const found = new Map();
    for (const row of this.labelled.keys()) {
      const kind = this.stacks.get(`${row} label`).at(-1);
      found.set(kind, (found.get(kind) || 0) + 1);
    }
    return found;
  }
}
