// The page on which annotators look and decide. A key shows the next stamp immediately; decisions are sent in the background.

import { Ahead } from "./ahead.js";
import { Choices } from "./choices.js";
import { askFilter, askName, askNote, askPlace, showAgreement, showCounts, showExamples, showHelp } from "./dialogs.js";
import { Outbox } from "./outbox.js";
import { el, find, get, KINDS, post, shape } from "./page.js";
import { fillPanel } from "./panel.js";
import { FEW, Sheet } from "./sheet.js";
import { View } from "./view.js";

const SELECTION = "gotorb-selection", N_NEAR = 240, DIGITS = "1234567890", TRAIL = 24;
const query = new URLSearchParams(location.search);
let meta, ahead, outbox, view, sheet, choices, labeller = "", blind;
let order = [], position = 0, shownRow = null, shownAt = null, drawnRow = null;
let sequence = "as_is", filters = {}, tagging = null;

async function begin() {
  meta = await get("/api/meta");
  labeller = query.get("labeller") || meta.start.labeller || sessionStorage.getItem("labeller") || "";
  while (!labeller.trim()) labeller = await askName();
  labeller = labeller.trim().slice(0, 64);
  sessionStorage.setItem("labeller", labeller);
  blind = meta.start.blind || sessionStorage.getItem("gotorb-blind") === "true";
  document.title = `${meta.name} – eyeball`;
  find("set").textContent = `${meta.name} · ${meta.n} rows`;
  find("labeller").textContent = labeller;
  find("explore").hidden = !meta.maps.length;
  ahead = new Ahead(meta, ready);
  outbox = new Outbox(meta.digest, labeller, tellStatus);
  choices = new Choices({ labeller, outbox, ahead, state: () => ({ blind, sequence }) });
  view = new View(meta, find("tiles"), { told: tellView, swipe: step });
  sheet = new Sheet(meta, find("sheet"), { ahead, choices, stretch: view.stretch, view: () => view.view, blind: () => blind, labeller: () => labeller,
    look: lookAtSheet, tell: tellSheet, notice, decide: decideRows, tag: toggleTag, note: takeNote, neighbours, open: openRow, leave: closeSheet });
  makeControls();
  await choices.recall();
  if (query.has("selection")) filters.rows = JSON.parse(localStorage.getItem(`${SELECTION} ${meta.digest}`) || "[]");
  await reorder(query.get("order") || meta.start.order, !query.has("selection"));
  outbox.send();
  await followLink();
  addEventListener("hashchange", followLink);
  if (query.has("sheet")) openSheet();
}

// a link from another page names an id: .../#id=f012_v3-17
async function followLink() {
  const text = new URLSearchParams(location.hash.slice(1)).get("id");
  if (!text) return;
  const { row } = await post("/api/find", { text });
  if (row === null) notice(`no ${text} in this data set`); else goTo(row);
}

const placeKey = () => `gotorb-place ${meta.digest.slice(0, 16)} ${labeller}`;

// --- showing ---------------------------------------------------------------------------------------

function show() {
  shownRow = order[position] ?? null;
  drawnRow = null;
  closeTags();
  if (shownRow === null) return showEnd();
  ahead.look(order, position);
  draw();
}

function ready(rows) {
  if (!sheet.isOpen && drawnRow !== shownRow && rows.includes(shownRow)) draw();
  sheet.ready(rows);
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
  localStorage.setItem(placeKey(), shownRow);
  drawPanel();
}

function drawPanel() {
  const told = ahead.row(shownRow), own = choices.label(shownRow);
  if (!told) return;
  const others = (list) => list.filter(([who]) => who !== labeller);
  fillPanel(find("panel"), { ...told, votes: others(told.votes), marks: others(told.marks) },
    { blind, locked: meta.start.blind, meta, mine: own, tags: choices.tags(shownRow), note: choices.mark(shownRow, "note"), goTo });
  for (const button of document.querySelectorAll(".decide")) {
    const given = own === button.dataset.kind;
    button.classList.toggle("given", given);
    button.setAttribute("aria-pressed", String(given));
  }
}

function tellPlace() {
  const pace = choices.pace(), left = Math.max(0, order.length - position), hours = pace ? left / pace / 60 : 0;
  const time = pace ? ` · ${Math.round(pace)}/min, ${hours < 1 ? `${Math.max(1, Math.round(hours * 60))} min` : `${hours.toFixed(1)} h`} left` : "";
  find("place").textContent = order.length ? `${position + 1} of ${order.length} · ${choices.decided} decided${time}` : "no rows";
  const counts = choices.counts();
  find("tally").replaceChildren(...KINDS.filter((kind) => counts.get(kind)).map((kind) =>
    el("span", { class: kind, title: `${counts.get(kind)} ${kind}` }, shape(kind), String(counts.get(kind)))));
  find("progress").firstChild.style.width = `${100 * (position + 1) / Math.max(1, order.length)}%`;
  find("trail").replaceChildren(...choices.past.filter(({ kind }) => KINDS.includes(kind)).slice(-TRAIL).map(({ kind, row }) =>
    el("button", { class: kind, type: "button", title: `${kind}, row ${ahead.name(row)}`, "aria-label": `${kind}, row ${ahead.name(row)}`, onclick: () => goTo(row) }, shape(kind))));
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

function announce(text) { find("announce").textContent = text; }

// --- deciding --------------------------------------------------------------------------------------

function decide(kind, { stay = false } = {}) {
  if (shownRow === null) return false;
  if (drawnRow !== shownRow) { notice("this stamp is not here yet; nothing was recorded"); return false; }
  choices.add(kind, [{ row: shownRow, shown: Math.round(performance.now() - shownAt) }]);
  announce(`row ${ahead.name(shownRow)}: ${kind}`);
  if (stay) { drawPanel(); tellPlace(); } else step(1);
  return true;
}

function decideRows(kind, rows) {
  choices.add(kind, rows.map((row) => ({ row })));
  announce(`${rows.length} rows: ${kind}`);
  notice("");
  tellPlace();
}

function toggleTag(name, rows) {
  if (!rows.length) return;
  const all = rows.every((row) => choices.tags(row).includes(name));
  choices.add("tags", rows.map((row) => {
    const others = choices.tags(row).filter((tag) => tag !== name);
    return { row, value: (all ? others : [...others, name]).join(",") };
  }));
  announce(`${rows.length === 1 ? `row ${ahead.name(rows[0])}` : `${rows.length} rows`}: ${name}${all ? " taken off" : ""}`);
  tellPlace();
}

function takeNote(rows) {
  if (!rows.length) return;
  const title = rows.length === 1 ? `Note on row ${ahead.name(rows[0])}` : `Note on ${rows.length} rows`;
  askNote(rows.length === 1 ? choices.mark(rows[0], "note") : "", title, (value) => {
    choices.add("note", rows.map((row) => ({ row, value })));
    announce("note kept");
    redraw();
  });
}

function redraw() { if (sheet.isOpen) sheet.rewrite(); else drawPanel(); tellPlace(); }

async function undo() {
  let rows;
  try { rows = await choices.undo(); } catch (error) { return notice("the server does not answer; take back again later"); }
  if (!rows) return notice("nothing left to take back");
  announce(`taken back: ${rows.length === 1 ? `row ${ahead.name(rows[0])}` : `${rows.length} rows`}`);
  if (sheet.isOpen) return redraw();
  return goTo(rows[0]);
}

// --- tags of the row that is shown -------------------------------------------------------------------

function openTags(names, after) {
  if (drawnRow !== shownRow || shownRow === null) return;
  tagging = { names, after };
  drawTags();
}

function drawTags() {
  const given = choices.tags(shownRow);
  find("tagbar").hidden = false;
  find("tagbar").replaceChildren(...tagging.names.map((name, i) => el("button", { type: "button", "aria-pressed": String(given.includes(name)),
    onclick: () => chooseTag(i) }, el("kbd", {}, DIGITS[i] ?? ""), ` ${name}`)),
  el("button", { type: "button", class: "primary", onclick: finishTags }, el("kbd", {}, "enter"), " done"));
}

function chooseTag(i) {
  toggleTag(tagging.names[i], [shownRow]);
  drawTags();
  drawPanel();
}

function closeTags() { tagging = null; find("tagbar").hidden = true; }

function finishTags() { const after = tagging?.after; closeTags(); if (after) step(1); }

const tagNames = () => ({ real: meta.sources, bogus: meta.artefacts }[choices.label(shownRow)] ?? [...meta.artefacts]);

function tagKey(key) {
  const digit = DIGITS.indexOf(key);
  if (digit >= 0 && digit < tagging.names.length) chooseTag(digit);
  else if (key === "Enter") finishTags();
  else if (key === "Escape") closeTags();
  else { closeTags(); return false; }
  return true;
}

// --- moving ----------------------------------------------------------------------------------------

function step(by) {
  const end = position + by >= order.length;
  position = Math.min(Math.max(0, position + by), order.length - 1);
  if (end && by > 0) { draw(); return showEnd(); }
  return show();
}

function goTo(row) {
  if (sheet.isOpen) sheet.close();
  document.body.dataset.mode = "one";
  const at = order.indexOf(row, Math.max(0, position - 200));
  const found = at >= 0 ? at : order.indexOf(row);
  if (found >= 0) position = found; else order.splice(position, 0, row);
  show();
}

async function reorder(name, resume = false) {
  if (!meta.orders[name]?.usable) name = "as_is";
  try {
    const place = resume ? localStorage.getItem(placeKey()) : null, after = place === null ? null : Number(place);
    const told = await post("/api/order", { labeller, order: name, seed: meta.start.seed, after, ...filters });
    sequence = name;
    order = told.rows;
    position = resume ? told.at : 0;
    while (resume && position + 1 < order.length && choices.labelled.has(order[position])) position += 1;
    find("order").value = name;
    find("filter").setAttribute("aria-pressed", String(Object.values(filters).some((value) =>
      (Array.isArray(value) ? value.length : value !== null && value !== "all"))));
    if (sheet.isOpen) { shownRow = order[position] ?? null; openSheet(); } else show();
  } catch (error) { notice("the server does not answer; the order stays"); }
}

// --- the contact sheet -----------------------------------------------------------------------------

function openSheet() {
  if (!order.length) return;
  document.body.dataset.mode = "sheet";
  closeTags();
  for (const button of document.querySelectorAll(".decide")) {  // they act on a selection, which has no label of its own
    button.classList.remove("given");
    button.setAttribute("aria-pressed", "false");
  }
  notice("");
  sheet.open(order, position, find("order").selectedOptions[0]?.textContent ?? sequence);
}

function closeSheet(row) {
  sheet.close();
  document.body.dataset.mode = "one";
  if (row !== undefined) goTo(row); else show();
}

function openRow(row) { if (row !== undefined) goTo(row); }

function toggleSheet() { if (sheet.isOpen) closeSheet(sheet.shown[sheet.focus]); else openSheet(); }

function lookAtSheet(rows, start, count) { ahead.look(rows, start, { ahead: 3 * count, behind: count, shown: count }); }

function tellSheet(title, hint) {
  find("sheetname").textContent = title;
  find("sheethint").replaceChildren(...hint);
}

async function neighbours(row) {
  try { return (await post("/api/neighbours", { rows: [row], n: N_NEAR })).rows; } catch (error) { notice("the server does not answer"); return null; }
}

async function showNear() {
  if (shownRow === null) return;
  const row = shownRow, found = await neighbours(row);
  if (!found) return;
  openSheet();
  sheet.visit([row, ...found], `nearest to row ${ahead.name(row)}`);
}

// rows on which others differ, side by side, for a third vote
async function showDisputed() {
  try {
    const { rows } = await post("/api/order", { labeller, order: sequence, seed: meta.start.seed, who: "disputed" });
    if (!rows.length) return notice("no row is disputed");
    rows.forEach((row) => ahead.rows.delete(row));  // votes may be new
    if (!sheet.isOpen) openSheet();
    const mine = (row) => Number(choices.labelled.has(row));
    return sheet.visit(rows.sort((a, b) => mine(a) - mine(b)), "disputed rows, for a third vote", FEW);
  } catch (error) { return notice("the server does not answer"); }
}

async function showTags() {
  try {
    const { examples } = await post("/api/examples", { labeller }), rows = [...new Set(Object.values(examples).flat())];
    if (!rows.length) return notice("no row has a tag yet: e gives tags");
    const stamps = new Map((await ahead.pixels(rows)).map((stamp) => [stamp.row, stamp]));
    return showExamples(examples, (row) => sheet.picture(stamps.get(row)), goTo);
  } catch (error) { return notice("the server does not answer"); }
}

// --- controls --------------------------------------------------------------------------------------

function makeControls() {
  find("order").replaceChildren(...Object.entries(meta.orders).map(([name, { text, usable }]) =>
    el("option", { value: name, disabled: !usable }, usable ? text : `${text} (needs a model)`)));
  find("order").onchange = ({ target }) => { target.blur(); reorder(target.value); };
  const actions = { previous: () => step(-1), next: () => step(1), undo, filter, help: showHelp, blind: toggleBlind, sheetbutton: toggleSheet,
    less: () => view.less(), more: () => view.more(), invert: () => view.toggle("invert"), lock: () => view.toggle("lock"),
    colour: () => view.toggle("colour"), blink: () => view.blink(), reset: () => view.reset(), sheetprevious: () => sheet.turn(-1),
    sheetnext: () => sheet.turn(1), sheetall: () => sheet.selectAll(), sheetnear: () => sheet.near(), sheetmore: () => sheet.resize(1), sheetless: () => sheet.resize(-1) };
  for (const [name, act] of Object.entries(actions)) find(name).onclick = () => act();
  for (const button of document.querySelectorAll(".decide")) {
    button.onclick = () => (sheet.isOpen ? sheet.label(button.dataset.kind) : decide(button.dataset.kind));
  }
  find("blind").setAttribute("aria-pressed", String(blind));
  find("blind").disabled = meta.start.blind;
  document.addEventListener("keydown", onKey);
}

function filter() { askFilter(meta, filters, (chosen) => { filters = chosen; reorder(sequence); }); }

function tellView(state) {
  for (const name of ["invert", "lock", "colour"]) find(name).setAttribute("aria-pressed", String(state[name]));
  if (sheet?.isOpen) sheet.draw();
}

function toggleBlind() {
  if (meta.start.blind) return notice("this server was started with --blind; labels and scores are not here");
  blind = !blind;
  sessionStorage.setItem("gotorb-blind", String(blind));
  find("blind").setAttribute("aria-pressed", String(blind));
  return redraw();
}

async function tellAgreement(title = "Agreement") {
  if (blind) return showCounts(choices.counts(), title === "Agreement" ? "Blind: agreement is hidden" : title);
  try { return await showAgreement(labeller, title); } catch (error) { return notice("the server does not answer"); }
}

function showEnd() {
  if (!order.length) return notice("no row is left with this filter; press / for others");
  return tellAgreement(`All ${order.length} rows were shown`);
}

const BOTH = {
  z: undo, Backspace: undo, h: toggleBlind, g: () => askPlace(goTo), a: () => tellAgreement(), "/": filter, "?": showHelp, w: toggleSheet, x: showDisputed, v: showTags,
  "[": () => view.less(), "]": () => view.more(), i: () => view.toggle("invert"), o: () => view.toggle("colour"), s: () => view.reset(),
  l: () => view.toggle("lock"), c: () => document.body.classList.toggle("plain"),
};
const ONE = {
  r: () => decide("real"), b: () => decide("bogus"), u: () => decide("unsure"), f: () => decide("flag"),
  R: () => decide("real", { stay: true }) && openTags(meta.sources, true), B: () => decide("bogus", { stay: true }) && openTags(meta.artefacts, true),
  e: () => openTags(tagNames(), false), t: () => drawnRow === shownRow && takeNote([shownRow]), n: showNear, " ": () => view.blink(),
  ArrowRight: () => step(1), ArrowLeft: () => step(-1), ArrowDown: () => step(10), ArrowUp: () => step(-10),
};

function onKey(event) {
  if (find("dialog").open || event.isComposing || ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
  const { key } = event, onControl = ["BUTTON", "A"].includes(event.target.tagName) && [" ", "Enter"].includes(key);
  if (onControl) return;
  if (sheet.isOpen && sheet.key(event)) { event.preventDefault(); return; }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (tagging && !event.repeat && tagKey(key)) { event.preventDefault(); return; }
  const layer = "123456789".indexOf(key);
  const act = BOTH[key] ?? (sheet.isOpen ? undefined : layer >= 0 && layer < meta.layers.length ? () => view.enlarge(layer) : ONE[key]);
  if (!act || (event.repeat && !key.startsWith("Arrow") && !"[]".includes(key))) return;  // a key held down is one decision
  event.preventDefault();
  act();
}

begin().catch((error) => notice(`the page could not begin: ${error.message}`));
