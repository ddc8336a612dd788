// Shared by both pages: making elements (text is always text), asking the server, writing numbers.

export const KINDS = ["real", "bogus", "unsure", "flag"];

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// sign of a decision or label, next to which its word stands
export const shape = (kind) => el("i", { class: `shape ${kind}`, "aria-hidden": "true" });

export const find = (name) => document.getElementById(name);

export async function post(path, body, signal) {
  const answer = await fetch(path, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal,
  });
  if (!answer.ok) throw Object.assign(new Error(`${path}: ${answer.status}`), { status: answer.status });
  return answer.json();
}

export async function get(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

export function number(value, digits = 3) {
  return value === null || value === undefined || Number.isNaN(value) ? "–" : Number(value).toFixed(digits);
}

export const labelName = (label) => (label === 1 ? "real" : label === 0 ? "bogus" : "unknown");

// value of a colour of the style sheet, which differs in light and dark
export const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// orange for bogus, grey between, blue for real
export function scoreColour(score) {
  const to = score < 0.5 ? [222, 130, 0] : [30, 136, 207];
  const part = Math.min(1, Math.abs(score - 0.5) * 2) ** 0.7;
  return `rgb(${to.map((c) => Math.round(139 + (c - 139) * part)).join(",")})`;
}

export function meter(name, score, colour = scoreColour(score ?? 0.5)) {
  const bar = el("i");
  bar.style.width = `${100 * Math.min(1, Math.max(0, score ?? 0))}%`;
  bar.style.background = colour;
  return el("div", { class: "meter" }, el("span", { class: "dim" }, name), el("div", { class: "bar" }, bar),
    el("b", {}, number(score)));
}

export function download(name, text, type = "text/csv") {
  const address = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

export function csvField(given) {
  const text = /^[=+\-@\t\r]/.test(given) && Number.isNaN(Number(given)) ? `'${given}` : given; // no spreadsheet's formula
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
