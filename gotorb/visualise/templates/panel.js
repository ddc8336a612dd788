// The panel beside the stamps: what is known of a row, and what models say of it.

import { el, labelName, meter, number, scoreColour } from "./page.js";

const FACTS = [
  ["mag", "mag", 2], ["fwhm", "fwhm", 2], ["snr", "S/N", 1], ["ra", "ra", 5], ["dec", "dec", 5],
  ["n_seen", "exposures", 0], ["missing_fraction", "missing", 3],
];
const TEXTS = [["ut", "telescope"], ["image_name", "image"], ["object_id", "object"], ["host_id", "host"],
  ["candidate_id", "candidate"], ["split", "split"], ["rule", "rule"]];

export function fillPanel(panel, row, { blind, model, mine }) {
  panel.replaceChildren(
    el("h2", {}, `row ${row.row}`), el("div", { class: "id" }, row.id),
    el("div", { class: "chips" }, ...(blind ? [] : [
      el("span", { class: `chip ${labelName(row.label)}` }, labelName(row.label)),
      row.metalabel ? el("span", { class: "chip" }, row.metalabel) : null]),
    mine ? el("span", { class: `chip ${mine}` }, `you: ${mine}`) : null),
    ...(blind ? [el("h2", {}, "blind"), el("div", { class: "hidden-text" }, "label and scores are hidden; h shows them")]
      : [...scores(row, model), ...votes(row)]),
    el("h2", {}, "detection"),
    el("dl", {}, ...FACTS.filter(([name]) => row[name] !== null && row[name] !== undefined)
      .flatMap(([name, text, digits]) => [el("dt", {}, text), el("dd", {}, number(row[name], digits))]),
    ...TEXTS.filter(([name]) => row[name] && !(blind && ["rule", "object_id", "host_id"].includes(name)))
      .flatMap(([name, text]) => [el("dt", {}, text), el("dd", {}, row[name])])),
  );
}

function scores(row, model) {
  const parts = [];
  if (row.score !== undefined && row.score !== null) {
    parts.push(el("h2", {}, model || "model"), posterior(row), meter("score", row.score));
    const more = [["p_real", "p(real)"], ["confidence", "confidence"]].filter(([name]) => row[name] !== undefined);
    parts.push(...more.map(([name, text]) => meter(text, row[name], name === "confidence" ? "#58a6ff" : undefined)));
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
  if (!row.votes.length) return [];
  return [el("h2", {}, "decisions"), el("div", { class: "chips" }, ...row.votes.map(([who, kind]) =>
    el("span", { class: `chip ${kind}` }, `${who}: ${kind}`)))];
}

function posterior(row) {
  const canvas = el("canvas", { class: "posterior", width: 616, height: 184 });
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
  pen.fillStyle = "#8b96a5";
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
  pen.strokeStyle = "#58a6ff"; pen.lineWidth = 3; pen.stroke();
  pen.fillStyle = "#9ecbff";
  for (const sample of samples) pen.fillRect(at(sample) - 1, low - 12, 2, 12);
}
