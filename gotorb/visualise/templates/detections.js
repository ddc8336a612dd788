"use strict";
(() => {
  const list = document.getElementById("rows");
  if (!list) return;
  const rows = [...list.children];
  const get = (id) => document.getElementById(id);
  const count = get("count");
  const read = (row, key) => {
    const text = row.getAttribute(`data-${key}`);
    return text === null || text === "" ? NaN : Number(text);
  };
  const names = new Intl.Collator("en", { numeric: true });
  const compare = (key, sign) => (a, b) => {
    if (key === "name") return sign * names.compare(a.dataset.name, b.dataset.name);
    const x = read(a, key), y = read(b, key);
    if (Number.isNaN(x)) return Number.isNaN(y) ? 0 : 1;
    return Number.isNaN(y) ? -1 : sign * (x - y);
  };
  const sort = () => {
    const [key, way] = get("sort").value.split(" ");
    const sign = (way === "down" ? -1 : 1) * (get("turn").getAttribute("aria-pressed") === "true" ? -1 : 1);
    const fragment = document.createDocumentFragment();
    fragment.append(...rows.sort(compare(key, sign)));
    list.append(fragment);
  };
  const filter = () => {
    const call = get("call").value, flag = get("flag").value, words = get("words").value.toLowerCase();
    const bright = parseFloat(get("bright").value), faint = parseFloat(get("faint").value);
    let shown = 0;
    for (const row of rows) {
      const mag = read(row, "mag");
      const keep =
        (call === "" || row.classList.contains(call)) &&
        (flag === "" || (flag === "-" ? row.dataset.flags === "" : row.dataset.flags.split("|").includes(flag))) &&
        (words === "" || row.dataset.words.toLowerCase().includes(words)) &&
        !(mag < bright) && !(mag > faint);
      row.hidden = !keep;
      shown += keep;
    }
    count.textContent = `${shown} of ${rows.length}`;
  };
  get("sort").addEventListener("change", sort);
  get("turn").addEventListener("click", (event) => {
    const pressed = event.target.getAttribute("aria-pressed") === "true";
    event.target.setAttribute("aria-pressed", String(!pressed));
    sort();
  });
  for (const id of ["call", "flag", "words", "bright", "faint"]) get(id).addEventListener("input", filter);
  list.addEventListener("click", (event) => {
    if (event.target.tagName === "IMG" && event.target.closest(".strip")) event.target.closest(".row").classList.toggle("big");
  });
  sort();
  filter();
})();
