// Decisions that the server has not acknowledged yet. They lie in the browser's storage, each under a key of its own,
// and are sent again until their ids come back: a reload, a killed server or a closed page loses none.

import { post } from "./page.js";

const MOST = 200;
const LONGEST_WAIT = 2000;

export class Outbox {
  constructor(digest, labeller, onchange) {
    this.labeller = labeller;
    this.prefix = `gotorb-eyeball ${digest.slice(0, 16)} ${labeller} `;
    this.onchange = onchange;
    this.counter = 0;
    this.failures = 0;
    this.sending = false;
    const keys = Object.keys(localStorage).filter((key) => key.startsWith(this.prefix)).sort();
    this.waiting = new Map(keys.map((key) => [key, JSON.parse(localStorage.getItem(key))]));
    window.addEventListener("online", () => this.send());
    window.addEventListener("beforeunload", () => this.send());
  }

  get events() { return [...this.waiting.values()]; }

  get offline() { return this.failures > 0; }

  add(event) {
    const when = String(Date.now()).padStart(15, "0");
    const key = `${this.prefix}${when}-${String(this.counter++).padStart(8, "0")}-${event.uuid}`;
    this.waiting.set(key, event);
    localStorage.setItem(key, JSON.stringify(event));
    this.onchange();
    queueMicrotask(() => this.send());
  }

  async send() {
    if (this.sending || !this.waiting.size) return this.onchange();
    this.sending = true;
    const batch = [...this.waiting].slice(0, MOST);
    try {
      const answer = await post("/api/events", { labeller: this.labeller, events: batch.map(([, event]) => event) },
        AbortSignal.timeout(10000));
      const done = new Set([...answer.acknowledged, ...answer.refused]);
      for (const [key, event] of batch) {
        if (done.has(event.uuid)) { this.waiting.delete(key); localStorage.removeItem(key); }
      }
      this.failures = 0;
      if (answer.refused.length) this.onchange(`${answer.refused.length} decisions are of rows that are not in this data set`);
    } catch (error) {
      this.failures += 1;
    }
    this.sending = false;
    this.onchange();
    if (this.waiting.size) setTimeout(() => this.send(), this.failures ? Math.min(LONGEST_WAIT, 100 * 2 ** this.failures) : 0);
  }
}
