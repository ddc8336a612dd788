// The page on which people look and decide. A key shows the next stamp at once; sending goes on behind.

import { Ahead } from "./ahead.js";
import { Outbox } from "./outbox.js";
import { el, find, get, KINDS, number, post } from "./page.js";
import { fillPanel } from "./panel.js";
import { View } from "./view.js";

const SELECTION = "gotorb-selection";
const query = new URLSearchParams(location.search);
let meta, ahead, outbox, view, labeller = "", blind;
let order = [], position = 0, shownRow = null, shownAt = null, drawnRow = null;
let sequence = "as_is", filters = {};
let past = [], oldest = null;  // decisions that can be taken back, oldest first; number of the oldest that was fetched
let recalling = null;
const mine = new Map();        // row -> own decisions on it, the last one holds
const fetched = new Set();     // rows among those decisions that the server told of
const touched = new Set();     // rows on which something was decided or taken back on this page
let total = 0;                 // rows that the server knows as decided

async function begin() {
  meta = await get("/api/meta");
  labeller = query.get("labeller") || meta.start.labeller || sessionStorage.getItem("labeller") || "";
  while (!labeller.trim()) labeller = await askName();
  labeller = labeller.trim().slice(0, 64);
  sessionStorage.setItem("labeller", labeller);
  blind = meta.start.blind;
  document.title = `${meta.name} – eyeball`;
  find("set").textContent = `${meta.name} · ${meta.n} rows`;
  find("labeller").textContent = labeller;
  find("explore").hidden = !meta.maps.length;
  ahead = new Ahead(meta, ready);
  outbox = new Outbox(meta.digest, labeller, tellStatus);
  view = new View(meta, find("tiles"), tellView);
  makeControls();
  await recall();
  if (query.has("selection")) filters.rows = JSON.parse(localStorage.getItem(`${SELECTION} ${meta.digest}`) || "[]");
  await reorder(query.get("order") || meta.start.order);
  outbox.send();
  await followLink();
  addEventListener("hashchange", followLink);
}

// a link from another page names an id: .../#id=f012_v3-17
async function followLink() {
  const text = new URLSearchParams(location.hash.slice(1)).get("id");
  if (!text) return;
  const { row } = await post("/api/find", { text });
  if (row === null) notice(`no ${text} in this data set`); else goTo(row);
}

// --- what was decided before -----------------------------------------------------------------------

async function recall(before) {
  const told = await post("/api/history", before ? { labeller, before } : { labeller });
  const known = told.events.reverse().map(({ uuid, id, row, label }) => ({ uuid, id, row, kind: label }));
  if (!before) total = told.n;
  known.forEach(({ row }) => fetched.add(row));
  oldest = told.events.length ? told.events[0].number : null;
  if (before) { past.unshift(...known); } else { past = [...known]; replay(); }
  mine.clear();
  for (const { row, kind } of past) remember(row, kind);
}

function replay() {
  for (const event of outbox.events) {
    if (event.kind === "undo") past = past.filter(({ uuid }) => uuid !== event.target);
    else if (!past.some(({ uuid }) => uuid === event.uuid)) past.push(event);
  }
}

function remember(row, kind) { mine.set(row, [...(mine.get(row) || []), kind]); }

function own(row) {
  const vote = ahead.row(row)?.votes.find(([who]) => who === labeller);
  return (mine.get(row) || []).at(-1) ?? (touched.has(row) ? undefined : vote?.[1]);
}

const decided = () => Math.max(0, total - fetched.size) + mine.size;

// --- showing ---------------------------------------------------------------------------------------

function show() {
  shownRow = order[position] ?? null;
  drawnRow = null;
  if (shownRow === null) return showEnd();
  ahead.look(order, position);
  draw();
}

function ready(rows) {
  if (drawnRow !== shownRow && rows.includes(shownRow)) draw();
  find("tiles").dataset.ahead = ahead.stamps.size;
}

function draw() {
  const stamp = ahead.stamp(shownRow), told = ahead.row(shownRow), tiles = find("tiles");
  tiles.classList.toggle("missing", !stamp);
  tellPlace();
  if (!stamp || !told) return;
  view.show(stamp, told);
  drawnRow = shownRow;
  shownAt = performance.now();
  tiles.dataset.row = shownRow;
  notice("");
  const others = told.votes.filter(([who]) => who !== labeller);
  fillPanel(find("panel"), { ...told, votes: others }, { blind, model: meta.model, mine: own(shownRow) });
  for (const button of document.querySelectorAll(".decide")) {
    button.classList.toggle("given", own(shownRow) === button.dataset.kind);
  }
}

function tellPlace() {
  find("place").textContent = order.length ? `${position + 1} of ${order.length} · ${decided()} decided` : "no rows";
  find("progress").firstChild.style.width = `${100 * (position + 1) / Math.max(1, order.length)}%`;
  find("trail").replaceChildren(...past.slice(-24).map(({ kind, row }) =>
    el("button", { class: kind, type: "button", title: `${kind}, row ${row}`, onclick: () => goTo(row) })));
}

function tellStatus(message) {
  const pill = find("status"), n = outbox.waiting.size;
  pill.textContent = n === 0 ? "saved" : outbox.offline ? `offline, ${n} waiting` : `saving, ${n} waiting`;
  pill.className = `pill ${n === 0 ? "" : outbox.offline ? "offline" : "waiting"}`;
  if (message) notice(message);
}

function notice(text) {
  find("notice").textContent = text;
  find("notice").hidden = !text;
}

// --- deciding --------------------------------------------------------------------------------------

function press(kind, target) {
  const event = {
    uuid: crypto.randomUUID(), row: shownRow, id: ahead.row(shownRow)?.id, kind, target: target?.uuid ?? null, blind,
    sequence, shown_ms: target ? null : Math.round(performance.now() - shownAt), made_at: new Date().toISOString(),
  };
  if (target) Object.assign(event, { row: target.row, id: target.id });
  touched.add(event.row);
  outbox.add(event);
  return event;
}

function decide(kind) {
  if (shownRow === null) return;
  if (drawnRow !== shownRow) return notice("this stamp is not here yet; nothing was recorded");
  past.push(press(kind));
  remember(shownRow, kind);
  step(1);
}

async function undo() {
  if (!past.length && oldest) {
    recalling ??= recall(oldest).catch(() => notice("the server does not answer; take back again later"));
    await recalling;
    recalling = null;
  }
  const last = past.pop();
  if (!last) return notice("nothing left to take back");
  press("undo", last);
  const kinds = mine.get(last.row) || [];
  kinds.pop();
  if (kinds.length) mine.set(last.row, kinds); else mine.delete(last.row);
  goTo(last.row);
}

function step(by) {
  const end = position + by >= order.length;
  position = Math.min(Math.max(0, position + by), order.length - 1);
  if (end && by > 0) { draw(); return showEnd(); }
  show();
}

function goTo(row) {
  const at = order.indexOf(row, Math.max(0, position - 200));
  const found = at >= 0 ? at : order.indexOf(row);
  if (found >= 0) position = found; else order.splice(position, 0, row);
  show();
}

async function reorder(name) {
  if (!meta.orders[name]?.usable) name = "as_is";
  try {
    const told = await post("/api/order", { labeller, order: name, seed: meta.start.seed, ...filters });
    sequence = name;
    order = told.rows;
    position = 0;
    find("order").value = name;
    find("filter").setAttribute("aria-pressed", String(Object.values(filters).some((value) =>
      (Array.isArray(value) ? value.length : value !== null && value !== "all"))));
    show();
  } catch (error) { notice("the server does not answer; the order stays"); }
}

// --- controls and dialogs --------------------------------------------------------------------------

function makeControls() {
  find("order").replaceChildren(...Object.entries(meta.orders).map(([name, { text, usable }]) =>
    el("option", { value: name, disabled: !usable }, usable ? text : `${text} (needs a model)`)));
  find("order").onchange = ({ target }) => { target.blur(); reorder(target.value); };
  const actions = { previous: () => step(-1), next: () => step(1), undo, filter: askFilter, help: showHelp, blind: toggleBlind,
    less: () => view.less(), more: () => view.more(), invert: () => view.toggle("invert"), lock: () => view.toggle("lock"),
    colour: () => view.toggle("colour"), blink: () => view.blink(), reset: () => view.reset() };
  for (const [name, act] of Object.entries(actions)) find(name).onclick = act;
  for (const button of document.querySelectorAll(".decide")) {
    button.onclick = () => decide(button.dataset.kind);
  }
  find("blind").setAttribute("aria-pressed", String(blind));
  document.addEventListener("keydown", onKey);
}

function tellView(state) {
  for (const name of ["invert", "lock", "colour"]) find(name).setAttribute("aria-pressed", String(state[name]));
}

function toggleBlind() {
  blind = !blind;
  find("blind").setAttribute("aria-pressed", String(blind));
  draw();
}

const KEYS = {
  r: () => decide("real"), b: () => decide("bogus"), u: () => decide("unsure"), f: () => decide("flag"),
  z: undo, Backspace: undo, ArrowRight: () => step(1), ArrowLeft: () => step(-1),
  ArrowDown: () => step(10), ArrowUp: () => step(-10), h: toggleBlind, g: askPlace, a: showAgreement, "/": askFilter,
  "?": showHelp, c: () => document.body.classList.toggle("plain"),
  "[": () => view.less(), "]": () => view.more(), i: () => view.toggle("invert"), l: () => view.toggle("lock"),
  o: () => view.toggle("colour"), s: () => view.reset(), " ": () => view.blink(),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || find("dialog").open) return;
  if (["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
  const layer = "123456789".indexOf(event.key);
  const act = layer >= 0 && layer < meta.layers.length ? () => view.enlarge(layer) : KEYS[event.key];
  if (!act || (event.key === " " && event.target.tagName === "BUTTON")) return;
  if (event.repeat && !event.key.startsWith("Arrow") && !"[]".includes(event.key)) return;  // a key held down is one decision
  event.preventDefault();
  act();
}

function openDialog(...content) {
  const dialog = find("dialog");
  dialog.replaceChildren(...content);
  if (!dialog.open) dialog.showModal();
  return dialog;
}

const closeButton = (text = "close") => el("button", { type: "button", onclick: () => find("dialog").close() }, text);

function askName() {
  return new Promise((resolve) => {
    const input = el("input", { id: "name", maxlength: 64, required: true, autocomplete: "off" });
    const form = el("form", { onsubmit: (event) => { event.preventDefault(); find("dialog").close(); } },
      el("h1", {}, "Who is looking?"), input, el("button", { class: "primary" }, "begin"));
    openDialog(form).addEventListener("close", () => resolve(input.value), { once: true });
    input.focus();
  });
}

function askPlace() {
  const input = el("input", { placeholder: "id, candidate id or row number", size: 44 });
  const form = el("form", {
    onsubmit: async (event) => {
      event.preventDefault();
      const { row } = await post("/api/find", { text: input.value });
      if (row === null) { input.setCustomValidity("no such row"); input.reportValidity(); return; }
      find("dialog").close();
      goTo(row);
    },
  }, el("h1", {}, "Go to"), input, el("button", { class: "primary" }, "go"));
  input.oninput = () => input.setCustomValidity("");
  openDialog(form);
  input.focus();
}

function askFilter() {
  const boxes = (name, values) => el("div", { class: "options" }, ...values.map((value) => el("label", {},
    el("input", { type: "checkbox", name, value, checked: filters[name]?.includes(value) }), ` ${value || "(none)"}`)));
  const mag = (name) => el("input", { name, type: "number", step: "any", size: 6, value: filters[name] ?? "" });
  const who = el("select", { name: "who" }, ...[["all", "all rows"], ["mine_left", "not yet decided by me"],
    ["second", "second opinions: decided by others only"], ["disputed", "disputed"], ["mine", "decided by me"]]
    .map(([value, text]) => el("option", { value, selected: (filters.who || "all") === value }, text)));
  const form = el("form", {
    onsubmit: (event) => {
      event.preventDefault();
      const data = new FormData(form), value = (name) => (data.get(name) === "" ? null : Number(data.get(name)));
      filters = { ...(filters.rows ? { rows: filters.rows } : {}), metalabels: data.getAll("metalabels"),
        telescopes: data.getAll("telescopes"), who: data.get("who"), min_mag: value("min_mag"), max_mag: value("max_mag") };
      find("dialog").close();
      reorder(sequence);
    },
  }, el("h1", {}, "Which rows"), el("div", { class: "fields" },
    el("span", {}, "metalabel"), boxes("metalabels", meta.metalabels),
    ...(meta.telescopes.length ? [el("span", {}, "telescope"), boxes("telescopes", meta.telescopes)] : []),
    ...(meta.mag ? [el("span", {}, "magnitude"), el("div", { class: "options" }, mag("min_mag"), "to", mag("max_mag"),
      el("span", { class: "dim" }, `${number(meta.mag[0], 1)} to ${number(meta.mag[1], 1)} known`))] : []),
    el("span", {}, "decided"), who),
  el("div", { class: "row" },
    el("button", { type: "button", onclick: () => { filters = {}; find("dialog").close(); reorder(sequence); } }, "all rows"),
    el("button", { class: "primary" }, "show")));
  openDialog(form);
}

function showHelp() {
  const keys = [["r", "real"], ["b", "bogus"], ["u", "unsure"], ["f", "flag: something is wrong with the row"],
    ["z", "take back, as far as you like"], ["← →", "previous, next"], ["↑ ↓", "ten back, ten on"],
    [`1–${meta.layers.length}`, "enlarge a layer"], ["[ ]", "less, more contrast (or drag)"], ["i", "invert"],
    ["l", "one flux scale for all layers"], ["o", "difference in blue and orange"], ["space", "blink science and template"],
    ["s", "contrast as it was"], ["c", "cross on or off"],
    ["h", "blind: hide label and scores"], ["g", "go to an id"], ["/", "which rows"], ["a", "agreement"],
    ["Esc", "close"], ["?", "this help"]];
  openDialog(el("h1", {}, "Keys"), el("div", { class: "keys" }, ...keys.flatMap(([key, text]) =>
    [el("kbd", {}, key), el("span", {}, text)])),
  el("p", { class: "dim" }, "Each decision is kept in this browser until the server has written it to disk."),
  el("div", { class: "row" }, closeButton()));
}

const agreementTable = (pairs) => el("table", {}, el("tr", {}, ...["", "", "rows", "agree", "95 %", "kappa", "95 %"]
  .map((text) => el("th", {}, text))), ...pairs.map((pair) => el("tr", {}, ...[pair.first, pair.second, pair.n,
  pair.n ? `${number(pair.percent, 1)} %` : "–", `${number(pair.percent_low, 1)}–${number(pair.percent_high, 1)}`,
  number(pair.kappa, 2), `${number(pair.kappa_low, 2)} to ${number(pair.kappa_high, 2)}`]
  .map((text) => el("td", {}, String(text))))));

async function showAgreement(title = "Agreement") {
  try {
    const { pairs, counts } = await post("/api/agreement", { rows: [] });
    const own = KINDS.map((kind) => [kind, counts.find(([who, what]) => who === labeller && what === kind)?.[2] ?? 0]);
    openDialog(el("h1", {}, title), el("div", { class: "chips" },
      ...own.map(([kind, n]) => el("span", { class: `chip ${kind}` }, `${n} ${kind}`))),
    el("p", { class: "dim" }, "Rows that both call real or bogus; kappa is 0 for chance and 1 for perfect."),
    agreementTable(pairs), el("div", { class: "row" }, closeButton()));
  } catch (error) { notice("the server does not answer"); }
}

function showEnd() {
  if (!order.length) return notice("no row is left with this filter; press / for others");
  return showAgreement(`All ${order.length} rows were shown`);
}

begin().catch((error) => notice(`the page could not begin: ${error.message}`));
