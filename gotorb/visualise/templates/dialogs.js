// Dialogs of the labelling page: name, place, filter, note, help, agreement.

import { el, find, KINDS, number, post, shape } from "./page.js";

export function openDialog(...content) {
  const dialog = find("dialog");
  dialog.replaceChildren(...content);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0; // the focus on its last button has scrolled a long one
  return dialog;
}

// a field that kept the focus until the next frame would swallow the next key
export function closeDialog() {
  find("dialog").close();
  if (find("dialog").contains(document.activeElement)) document.activeElement.blur();
}

const closeButton = (text = "close") => el("button", { type: "button", onclick: closeDialog }, text);

const submit = (act) => (event) => { event.preventDefault(); act(); };

export function askName() {
  return new Promise((resolve) => {
    const input = el("input", { id: "name", maxlength: 64, required: true, autocomplete: "off", "aria-label": "your name" });
    const form = el("form", { onsubmit: submit(closeDialog) }, el("h1", {}, "Who is looking?"), input, el("button", { class: "primary" }, "begin"));
    openDialog(form).addEventListener("close", () => resolve(input.value), { once: true });
    input.focus();
  });
}

export function askPlace(goTo) {
  const input = el("input", { placeholder: "id, candidate id or row number", size: 44, "aria-label": "id, candidate id or row number" });
  const go = async () => {
    const { row } = await post("/api/find", { text: input.value });
    if (row === null) { input.setCustomValidity("no such row"); input.reportValidity(); return; }
    closeDialog();
    goTo(row);
  };
  input.oninput = () => input.setCustomValidity("");
  openDialog(el("form", { onsubmit: submit(go) }, el("h1", {}, "Go to"), input, el("button", { class: "primary" }, "go")));
  input.focus();
}

export function askNote(text, title, keep) {
  const area = el("textarea", { rows: 5, cols: 46, maxlength: 2000, "aria-label": title });
  area.value = text;
  const save = () => { closeDialog(); keep(area.value.trim()); };
  area.onkeydown = (event) => { if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); save(); } };
  openDialog(el("form", { onsubmit: submit(save) }, el("h1", {}, title), area,
    el("div", { class: "row" }, el("span", { class: "dim" }, "shift-enter begins a new line"), closeButton("cancel"), el("button", { class: "primary" }, "keep"))));
  area.focus();
}

const WHO = [["all", "all rows"], ["mine_left", "not yet decided by me"], ["second", "second opinions: decided by others only"],
  ["disputed", "disputed"], ["mine", "decided by me"]];

export function askFilter(meta, filters, show) {
  const boxes = (name, values) => el("div", { class: "options" }, ...values.map((value) => el("label", {},
    el("input", { type: "checkbox", name, value, checked: filters[name]?.includes(value) }), ` ${value || "(none)"}`)));
  const mag = (name) => el("input", { name, type: "number", step: "any", size: 6, value: filters[name] ?? "", "aria-label": name.replace("_", " ") });
  const who = el("select", { name: "who", "aria-label": "decided" }, ...WHO.map(([value, text]) => el("option", { value, selected: (filters.who || "all") === value }, text)));
  const form = el("form", { onsubmit: submit(() => {
    const data = new FormData(form), value = (name) => (data.has(name) && data.get(name) !== "" ? Number(data.get(name)) : null);
    closeDialog();
    show({ ...(filters.rows ? { rows: filters.rows } : {}), metalabels: data.getAll("metalabels"),
      telescopes: data.getAll("telescopes"), who: data.get("who"), min_mag: value("min_mag"), max_mag: value("max_mag") });
  }) }, el("h1", {}, "Which rows"), el("div", { class: "fields" },
    el("span", {}, "metalabel"), boxes("metalabels", meta.metalabels),
    ...(meta.telescopes.length ? [el("span", {}, "telescope"), boxes("telescopes", meta.telescopes)] : []),
    ...(meta.mag ? [el("span", {}, "magnitude"), el("div", { class: "options" }, mag("min_mag"), "to", mag("max_mag"),
      el("span", { class: "dim" }, `${number(meta.mag[0], 1)} to ${number(meta.mag[1], 1)} known`))] : []),
    el("span", {}, "decided"), who),
  el("div", { class: "row" }, el("button", { type: "button", onclick: () => { closeDialog(); show({}); } }, "all rows"),
    el("button", { class: "primary" }, "show")));
  openDialog(form);
}

const KEYS = [["r", "real"], ["b", "bogus"], ["u", "unsure"], ["f", "flag: something is wrong with the row"],
  ["R B", "the same, then tags (digits)"], ["e", "tags"], ["t", "note"], ["z", "take back, as far as you like"],
  ["← →", "previous, next"], ["↑ ↓", "ten back, ten forward"], ["1–9", "enlarge a layer"], ["w", "contact sheet"], ["n", "nearest rows as a sheet"],
  ["x", "disputed rows side by side"], ["v", "examples of each tag"],
  ["[ ]", "less, more contrast (or drag)"], ["i", "invert"], ["l", "one flux scale for all layers"],
  ["o", "difference in blue and orange"], ["space", "blink science and template"], ["s", "default contrast"],
  ["c", "cross on or off"], ["h", "blind: hide label and scores"], ["g", "go to an id"], ["/", "which rows"],
  ["a", "agreement"], ["Esc", "close"], ["?", "this help"]];
const SHEET_KEYS = [["← → ↑ ↓", "move"], ["space", "select"], ["shift ←", "select a range"], ["ctrl A", "select all, none"],
  ["r b u f", "label the selection"], ["1–9 0", "artefact tag"], ["n", "nearest rows"], ["enter", "open one"],
  ["PgDn PgUp", "next, previous sheet"], ["+ −", "more, fewer"], ["z", "take all back"], ["Esc", "clear, leave"]];

export function showHelp() {
  const table = (keys) => el("div", { class: "keys" }, ...keys.flatMap(([key, text]) => [el("kbd", {}, key), el("span", {}, text)]));
  openDialog(el("h1", {}, "Keys"), table(KEYS), el("h2", {}, "On the contact sheet"), table(SHEET_KEYS),
    el("p", { class: "dim" }, "Each decision is kept in this browser until the server has written it to disk."),
    el("div", { class: "row" }, closeButton()));
}

const agreementTable = (pairs) => el("table", {}, el("tr", {}, ...["", "", "rows", "agree", "95 %", "kappa", "95 %"]
  .map((text) => el("th", {}, text))), ...pairs.map((pair) => el("tr", {}, ...[pair.first, pair.second, pair.n,
  pair.n ? `${number(pair.percent, 1)} %` : "–", `${number(pair.percent_low, 1)}–${number(pair.percent_high, 1)}`,
  number(pair.kappa, 2), `${number(pair.kappa_low, 2)} to ${number(pair.kappa_high, 2)}`]
  .map((text) => el("td", {}, String(text))))));

export async function showAgreement(labeller, title) {
  const { pairs, counts } = await post("/api/agreement", { rows: [] });
  const own = KINDS.map((kind) => [kind, counts.find(([who, what]) => who === labeller && what === kind)?.[2] ?? 0]);
  openDialog(el("h1", {}, title), el("div", { class: "chips" },
    ...own.map(([kind, n]) => el("span", { class: `chip ${kind}` }, shape(kind), `${n} ${kind}`))),
  el("p", { class: "dim" }, "Rows that both call real or bogus; kappa is 0 for chance and 1 for perfect."),
  agreementTable(pairs), el("div", { class: "row" }, closeButton()));
}

export function showExamples(examples, picture, goTo) {
  openDialog(el("h1", {}, "Examples of each tag"), el("div", { class: "examples" }, ...Object.entries(examples).flatMap(([name, rows]) => [
    el("b", {}, name), el("div", {}, ...rows.map((row) => el("button", { type: "button", "aria-label": `${name}: open the row`,
      onclick: () => { closeDialog(); goTo(row); } }, picture(row))))])), el("div", { class: "row" }, closeButton()));
}

export function showCounts(counts, title) {
  openDialog(el("h1", {}, title), el("div", { class: "chips" },
    ...KINDS.map((kind) => el("span", { class: `chip ${kind}` }, shape(kind), `${counts.get(kind) || 0} ${kind}`))),
  el("div", { class: "row" }, closeButton()));
}
