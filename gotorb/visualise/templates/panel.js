// Panel next to the stamps: facts of a row, and the scores of models.

import { colourOf, el, labelName, meter, number, scoreColour, shape } from "./page.js";

const FACTS = [
  ["mag", "mag", 2], ["fwhm", "fwhm", 2], ["snr", "S/N", 1], ["ra", "ra", 5], ["dec", "dec", 5], ["x", "x", 1], ["y", "y", 1],
  ["n_seen", "exposures", 0], ["missing_fraction", "missing", 3],
];
const TEXTS = [["ut", "telescope"], ["image_name", "image"], ["object_id", "object"], ["host_id", "host"],
  ["candidate_id", "candidate"], ["split", "split"], ["rule", "rule"]];

export function fillPanel(panel, row, { blind, locked, meta, mine, tags, note, goTo }) {
  const parts = [
    el("h2", {}, `row ${row.name}`), el("div", { class: "id" }, row.shown_id),
    el("div", { class: "chips" }, ...(blind ? [] : [kindChip(labelName(row.label)), row.metalabel ? el("span", { class: "chip" }, row.metalabel) : null]),
      mine ? kindChip(mine, "you: ") : null, ...tags.map((tag) => el("span", { class: "chip" }, tag)),
      ...(row.flags || []).map((flag) => el("span", { class: "chip auto", title: "automatic flag" }, flag))),
    note ? el("p", { class: "note" }, note) : null,
    ...(blind ? [el("h2", {}, "blind"), el("div", { class: "hidden-text" }, locked ? "label and scores are hidden" : "label and scores are hidden; h shows them")]
      : [...scores(row, meta), ...votes(row)]),
    el("h2", {}, "detection"),
    el("dl", {}, ...(row.night ? [el("dt", {}, "date"), el("dd", {}, `${row.night} UTC`)] : []),
      ...FACTS.filter(([name]) => row[name] !== null && row[name] !== undefined)
        .flatMap(([name, text, digits]) => [el("dt", {}, text), el("dd", {}, number(row[name], digits))]),
      ...TEXTS.filter(([name]) => row[name] && !(blind && ["rule", "object_id", "host_id", "split"].includes(name)))
        .flatMap(([name, text]) => [el("dt", {}, text), el("dd", {}, row[name])])),
    ...earlier(row, blind, goTo), ...links(row),
  ];
  panel.replaceChildren(...parts.filter((part) => part !== null));
}

const kindChip = (kind, before = "", after = "") => el("span", { class: `chip ${kind}` }, shape(kind), `${before}${kind}${after}`);

function earlier(row, blind, goTo) {
  if (!row.others?.length) return [];
  return [el("h2", {}, `same source: ${row.others.length} more`), el("div", { class: "earlier" }, ...row.others.map((one) =>
    el("button", { type: "button", onclick: () => goTo(one.row) }, ...(blind ? [] : [shape(labelName(one.label))]),
      [one.night || `row ${one.row}`, one.mag == null ? null : `mag ${number(one.mag, 1)}`,
        blind || one.score == null ? null : number(one.score, 3), blind ? null : labelName(one.label)].filter(Boolean).join(" · "))))];
}

function links(row) {
  if (!row.links?.length) return [];
  return [el("h2", {}, "look up"), el("div", { class: "links" }, ...row.links.filter(([, address]) => /^https?:\/\//.test(address))
    .map(([name, address]) => el("a", { href: address, target: "_blank", rel: "noreferrer noopener" }, name)))];
}

function scores(row, { model, threshold, calibrated }) {
  const parts = [];
  if (row.score !== undefined && row.score !== null) {
    const call = threshold === null ? null : row.score >= threshold ? "real" : "bogus";
    parts.push(el("h2", {}, model || "model"), posterior(row, threshold), meter("score", row.score));
    if (row.confidence !== undefined && row.confidence !== null) parts.push(meter("confidence", row.confidence, colourOf("accent")));
    if (call) parts.push(el("p", { class: "dim" }, `calls it ${call}: threshold ${number(threshold)}`,
      calibrated && row.confidence != null ? `, right in ${Math.round(100 * row.confidence)} of 100 such rows` : ""));
    parts.push(el("dl", {}, ...[["std", "std"], ["bald", "BALD"], ["doubt", "label doubt"]]
      .filter(([name]) => row[name] !== undefined && row[name] !== null)
      .flatMap(([name, text]) => [el("dt", {}, text), el("dd", {}, number(row[name]))])));
  }
  const old = [["realbogus", "random forest"], ["cnn_realbogus", "CNN"]]
    .filter(([name]) => row[name] !== undefined && row[name] !== null);
  if (old.length) parts.push(el("h2", {}, "old scores"), ...old.map(([name, text]) => meter(text, row[name])));
  return parts;
}

function votes(row) {
  if (!row.votes.length && !row.marks.length) return [];
  return [el("h2", {}, "decisions of others"), el("div", { class: "chips" }, ...row.votes.map(([who, kind]) => kindChip(kind, `${who}: `))),
    ...row.marks.filter(([, , value]) => value).map(([who, , value]) => el("p", { class: "note" }, `${who}: ${value.replaceAll(",", ", ")}`))];
}

function posterior(row, threshold) {
  const told = threshold === null ? "" : `, threshold ${number(threshold)}`;
  const canvas = el("canvas", { class: "posterior", width: 616, height: 184, role: "img", "aria-label": `posterior of the score, ${number(row.score)}${told}` });
  const pen = canvas.getContext("2d"), left = 8, right = 608, low = 152;
  const at = (x) => left + (right - left) * x;
  const samples = row.samples && row.samples.length ? row.samples : null;
  if (samples) drawDensity(pen, samples, row.density, at, low);
  else if (row.std) {
    pen.fillStyle = "#58a6ff44";
    pen.fillRect(at(Math.max(0, row.score - row.std)), 30, at(Math.min(1, 2 * row.std)) - left, low - 30);
  }
  pen.fillStyle = scoreColour(row.score);
  pen.fillRect(at(row.score) - 2, 20, 4, low - 20);
  pen.fillStyle = colourOf("dim");
  if (threshold !== null) for (let y = 8; y < low; y += 12) pen.fillRect(at(threshold) - 1, y, 2, 7);
  pen.fillRect(left, low, right - left, 2);
  pen.font = "22px system-ui, sans-serif";
  for (const [x, text, align] of [[0, "bogus 0", "left"], [0.5, "0.5", "center"], [1, "1 real", "right"]]) {
    pen.textAlign = align;
    pen.fillText(text, at(x), 180);
    pen.fillRect(at(x) - 1, low, 2, 8);
  }
  return canvas;
}

function drawDensity(pen, samples, curve, at, low) {
  const last = curve.length - 1;
  const top = Math.max(...curve);
  pen.beginPath();
  pen.moveTo(at(0), low);
  curve.forEach((value, i) => pen.lineTo(at(i / last), low - 120 * value / top));
  pen.lineTo(at(1), low);
  pen.fillStyle = "#58a6ff33"; pen.fill();
  pen.strokeStyle = colourOf("accent"); pen.lineWidth = 3; pen.stroke();
  pen.fillStyle = colourOf("accent");
  for (const sample of samples) pen.fillRect(at(sample) - 1, low - 12, 2, 12);
}
