// Latent explorer: points close together look alike to the model. Served, it asks for stamps and neighbours; as a file
// of its own it carries all its data.

import { colourOf, csvField, download, el, find, get, labelName, number, post, shape } from "./page.js";
import { colourBy, Plot } from "./points.js";
import { Stretch, unpackStamps } from "./stretch.js";

const REACH = 9, NEAR = 12, SHEET = "data:image/jpeg;base64,";
let meta, plot, columns = {}, maps = {}, colour = "label", hovered = -1, clicked = -1, near = [], chosen = null, turn = 0;
let sheet = null, sheetPlace = null, stretch = null;
const told = new Map(), stamps = new Map();

async function begin() {
  const embedded = find("embedded");
  meta = embedded ? JSON.parse(embedded.textContent) : await get("/api/meta");
  if (!meta.maps.length) {
    find("row").textContent = "No map: run `gotorb eyeball DIR --model MODEL`.";
    return;
  }
  unpack(embedded ? bytes(meta.points) : await (await fetch("/api/points.bin")).arrayBuffer());
  document.title = `${meta.name} – latent explorer`;
  find("set").textContent = `${meta.name} · ${meta.n} rows · ${meta.model}`;
  find("back").hidden = Boolean(embedded);
  stretch = new Stretch(meta.stretch, meta.layers);
  plot = new Plot(find("points"));
  fillSelect("map", meta.maps, { pca: "principal components", tsne: "t-SNE" });
  fillSelect("colour", Object.keys(columns), {});
  listen();
  if (embedded) await openSheet();
  resize();
  choose("map", meta.maps.includes("tsne") ? "tsne" : meta.maps[0]);
  document.body.dataset.ready = performance.now();
}

const bytes = (text) => Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)).buffer;

function unpack(buffer) {
  let at = 0;
  const next = () => new Float32Array(buffer, 4 * meta.n * at++, meta.n);
  for (const name of meta.maps) maps[name] = [next(), next()];
  for (const name of meta.columns) columns[name] = next();
}

async function openSheet() {
  sheet = new Image();
  sheet.src = SHEET + meta.sheet;
  await sheet.decode();
  sheetPlace = new Map(meta.pictured.map((row, i) => [row, i]));
}

function fillSelect(name, values, texts) {
  find(name).replaceChildren(...values.map((value) => el("option", { value }, texts[value] || value)));
  find(name).onchange = ({ target }) => { target.blur(); choose(name, target.value); };
}

function choose(name, value) {
  find(name).value = value;
  if (name === "map") plot.setPoints(...maps[value]); else colour = value;
  paint(true);
}

function paint(recolour) {
  const kinds = colour === "label" ? ["bogus", "real"] : meta.kinds[colour];
  const started = performance.now();
  if (recolour) {
    const colours = colourBy(columns[colour], colour, kinds, areReal(colour));
    plot.draw(colours);
    drawLegend(colours);
  } else plot.draw();
  find("points").dataset.ms = performance.now() - started;
  drawAbove();
}

// whether the rows of each kind are real: true, false, null for unlabelled ones; nothing where kinds do not tell
function areReal(name) {
  if (name === "label") return [false, true];
  if (name === "tag") return meta.kinds.tag.map((tag) => meta.sources.includes(tag));
  if (name !== "metalabel") return null;
  const counts = meta.kinds.metalabel.map(() => [0, 0]);
  columns.metalabel.forEach((kind, i) => { if (!Number.isNaN(columns.label[i])) counts[kind][columns.label[i]] += 1; });
  return counts.map(([bogus, real]) => (bogus + real ? real > bogus : null));
}

function drawLegend({ legend, ends, table }) {
  const bar = el("canvas", { width: 256, height: 1 });
  if (ends) table.slice(0, 256).forEach((c, i) => {
    const pen = bar.getContext("2d");
    pen.fillStyle = `rgb(${c.join(",")})`; pen.fillRect(i, 0, 1, 1);
  });
  const spot = ([name, fill, mark]) => {
    const dot = shape(mark);
    dot.style.setProperty("--kind", fill);
    return el("div", {}, dot, name || "(none)");
  };
  find("legend").replaceChildren(...(ends ? [el("div", {}, colour), bar,
    el("div", { class: "ends" }, el("span", {}, number(ends[0], 2)), el("span", {}, number(ends[1], 2)))] : legend.map(spot)));
}

// --- what lies above the points: lasso, hovered, clicked and its neighbours --------------------------

let path = null;

function drawAbove() {
  const canvas = find("above"), pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.lineWidth = 1.6 * plot.dense;
  const ring = (i, style, radius) => {
    pen.strokeStyle = style; pen.beginPath(); pen.arc(...plot.place(i), radius * plot.dense, 0, 7); pen.stroke();
  };
  near.forEach((i) => ring(i, colourOf("text"), 5));
  if (clicked >= 0) ring(clicked, colourOf("text"), 9);
  if (hovered >= 0) ring(hovered, colourOf("accent"), 7);
  if (path) {
    pen.beginPath(); path.forEach((point) => pen.lineTo(...point)); pen.closePath();
    pen.fillStyle = "#58a6ff22"; pen.fill(); pen.strokeStyle = "#58a6ff"; pen.stroke();
  }
}

function resize() {
  plot.resize();
  Object.assign(find("above"), { width: plot.canvas.width, height: plot.canvas.height });
  if (plot.x) { plot.fit(); paint(false); }
}

function listen() {
  const canvas = find("above"), at = (event) => [event.offsetX * plot.dense, event.offsetY * plot.dense];
  let start = null, moved = false;
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    start = at(event); moved = false;
    if (event.shiftKey || find("lasso").getAttribute("aria-pressed") === "true") path = [start];
  };
  canvas.onpointermove = (event) => {
    const [x, y] = at(event);
    if (path) { path.push([x, y]); drawAbove(); return; }
    if (!start) { hover(plot.nearest(x, y, REACH * plot.dense)); return; }
    if (!moved && Math.hypot(x - start[0], y - start[1]) < 4) return;
    moved = true; plot.view.x += x - start[0]; plot.view.y += y - start[1]; start = [x, y];
    later();
  };
  canvas.onpointerup = (event) => {
    if (path) { const drawn = path; path = null; if (drawn.length > 2) select(plot.inside(drawn)); else drawAbove(); }
    else if (!moved) click(plot.nearest(...at(event), REACH * plot.dense));
    start = null;
  };
  canvas.onpointerleave = () => hover(-1);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault(); plot.zoom(...at(event), Math.exp(-event.deltaY / 400)); later();
  }, { passive: false });
  const toggle = () => find("lasso").setAttribute("aria-pressed", String(find("lasso").getAttribute("aria-pressed") !== "true"));
  find("lasso").onclick = toggle;
  find("reset").onclick = () => { plot.fit(); paint(false); };
  addEventListener("keydown", ({ key, target }) => {
    if (target.tagName === "SELECT") return;
    if (key === "l") toggle();
    if (key === "0") find("reset").click();
    if (key === "Escape") { select(null); click(-1); }
  });
  addEventListener("resize", resize);
}

let planned = false;
function later() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => { planned = false; paint(false); });
}

// --- one row -----------------------------------------------------------------------------------------

async function hover(row) {
  if (row === hovered) return;
  hovered = row;
  drawAbove();
  find("above").dataset.hovered = row;
  if (row >= 0) showRow(row);
}

async function showRow(row) {
  const mark = ++turn;
  const info = await describe(row), pictures = await picture(row);
  if (mark !== turn) return;
  const facts = [["label", labelName(info.label)], ["metalabel", info.metalabel], ["score", number(info.score)],
    ["std", number(info.std)], ["mag", Number.isFinite(info.mag) ? number(info.mag, 2) : null], ["split", info.split]];
  find("row").className = "";
  find("row").replaceChildren(el("div", { class: "id" }, info.id), el("div", { class: "stamps" }, ...pictures),
    el("dl", {}, ...facts.filter(([, text]) => text).flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)])));
}

async function describe(row) {
  if (!sheet) {
    if (!told.has(row)) told.set(row, (await post("/api/rows", { rows: [row] })).rows[0]);
    return told.get(row);
  }
  const value = (name) => (columns[name] ? columns[name][row] : undefined);
  const kind = (name) => meta.kinds[name]?.[value(name)];
  const label = Number.isNaN(value("label")) ? -1 : value("label");
  return { id: meta.ids[row], label, metalabel: kind("metalabel"), split: kind("split"), score: value("score"), std: value("std") };
}

function paintLayer(stamp, name, i) {
  const canvas = el("canvas", { width: meta.size, height: meta.size, role: "img", "aria-label": name });
  const pen = canvas.getContext("2d"), image = pen.createImageData(meta.size, meta.size);
  stretch.paint(image, 0, 0, stamp, i);
  pen.putImageData(image, 0, 0);
  return el("figure", { title: name }, canvas, el("figcaption", {}, name));
}

function cut(image, x, y, size, title) {
  const canvas = el("canvas", { width: size, height: size });
  canvas.getContext("2d").drawImage(image, x, y, size, size, 0, 0, size, size);
  return el("figure", { title }, canvas, el("figcaption", {}, title));
}

async function picture(row) {
  if (sheet) {
    const place = sheetPlace.get(row), side = meta.thumbnail, n = meta.sheet_layers.length;
    if (place === undefined) return [el("span", { class: "dim" }, "no picture of this row in the file")];
    const x = place % meta.sheet_columns * side * n, y = Math.floor(place / meta.sheet_columns) * side;
    return meta.sheet_layers.map((name, i) => cut(sheet, x + i * side, y, side, name));
  }
  const stamp = await load(row);
  return meta.layers.map((name, i) => paintLayer(stamp, name, i));
}

async function load(row) {
  if (!stamps.has(row)) {
    const answer = await fetch(`/pixels/${row}.bin?v=${meta.digest.slice(0, 16)}`);
    if (!answer.ok) throw new Error(`pixels of row ${row}: ${answer.status}`);
    stamps.set(row, unpackStamps(await answer.arrayBuffer(), [row], meta.layers.length, meta.size)[0]);
    if (stamps.size > 500) stamps.delete(stamps.keys().next().value);
  }
  return stamps.get(row);
}

async function click(row) {
  clicked = row;
  near = [];
  drawAbove();
  if (row < 0) return find("neighbours").replaceChildren(el("span", { class: "dim" }, "click a point"));
  showRow(row);
  near = sheet ? nearby(row) : (await post("/api/neighbours", { rows: [row], n: NEAR })).rows;
  drawAbove();
  const last = Math.max(0, (sheet ? meta.sheet_layers : meta.layers).indexOf("difference"));
  const made = await Promise.all(near.map(async (other) => {
    const parts = await picture(other), info = await describe(other), kind = labelName(info.label);
    const text = el("figcaption", { class: kind }, shape(kind), `${kind} ${number(info.score, 2)}`);
    return el("figure", { title: info.id, onclick: () => click(other) }, (parts[last] ?? parts[0]).firstChild ?? "", text);
  }));
  find("neighbours").replaceChildren(el("div", { class: "near" }, ...made));
}

// without a server: nearest on the map among the rows that have a picture
function nearby(row) {
  const far = (i) => (plot.x[i] - plot.x[row]) ** 2 + (plot.y[i] - plot.y[row]) ** 2;
  return meta.pictured.filter((i) => i !== row).sort((a, b) => far(a) - far(b)).slice(0, NEAR);
}

// --- a selection -------------------------------------------------------------------------------------

function select(inside) {
  const started = performance.now();
  plot.selected = inside;
  chosen = inside ? Array.from(inside.keys()).filter((i) => inside[i]) : null;
  paint(false);
  showSelection();
  find("selection").dataset.ms = performance.now() - started;
  find("selection").dataset.n = chosen ? chosen.length : "";
}

function count(name, texts) {
  const counts = new Map();
  for (const i of chosen) {
    const value = columns[name][i], text = Number.isNaN(value) ? "unknown" : texts[value];
    counts.set(text, (counts.get(text) || 0) + 1);
  }
  return [...counts].sort((a, b) => b[1] - a[1]).flatMap(([text, n]) => [el("dt", {}, text || "(none)"), el("dd", {}, String(n))]);
}

function showSelection() {
  if (!chosen) return find("selection").replaceChildren(el("span", { class: "dim" }, "draw a lasso"));
  find("where").textContent = "";
  find("selection").className = "";
  find("selection").replaceChildren(
    el("p", {}, el("b", {}, String(chosen.length)), ` of ${meta.n} rows`),
    el("dl", {}, ...count("label", ["bogus", "real"]), ...(meta.kinds.metalabel ? count("metalabel", meta.kinds.metalabel) : [])),
    el("div", { class: "row" },
      sheet ? null : el("button", { class: "primary", type: "button", disabled: !chosen.length, onclick: () => toEyeball(false) }, "look at them"),
      sheet ? null : el("button", { class: "primary", type: "button", disabled: !chosen.length, onclick: () => toEyeball(true) }, "as a sheet"),
      el("button", { type: "button", disabled: !chosen.length, onclick: exportIds }, "export ids")));
}

function toEyeball(asSheet) {
  localStorage.setItem(`gotorb-selection ${meta.digest}`, JSON.stringify(chosen));
  location.href = `/?selection=1${asSheet ? "&sheet=1" : ""}`;
}

async function exportIds() {
  const ids = sheet ? chosen.map((row) => meta.ids[row]) : (await post("/api/ids", { rows: chosen })).ids;
  download("selected_ids.csv", ["id", ...ids.map(csvField)].join("\n") + "\n");
}

begin();
