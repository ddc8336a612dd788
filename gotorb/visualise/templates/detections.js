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
  // --- threshold: words and counts of all rows follow the slider; 0 asks for nothing ---
  const original = Number(get("threshold").value);
  const cutAt = (threshold) => {
    let real = 0;
    for (const row of rows) {
      const isReal = read(row, "best") >= threshold, kind = isReal ? "real" : "bogus";
      real += isReal;
      if (row.classList.contains(kind)) continue;
      row.classList.remove("real", "bogus");
      row.classList.add(kind);
      row.querySelector(".word").textContent = kind;
      row.querySelector(".call").className = `call ${isReal ? "ok" : "no"}`;
      row.querySelector(".call > .shape").className = `shape ${kind}`;
    }
    get("nreal").textContent = real;
    get("nbogus").textContent = rows.length - real;
    get("cut").textContent = threshold.toFixed(3);
    filter();
  };
  get("threshold").addEventListener("input", ({ target }) => cutAt(Number(target.value)));
  get("original").addEventListener("click", () => { get("threshold").value = original; cutAt(original); });

  // --- marks: kept on the page until they are saved as a csv for gotorb relabel ---
  const marks = new Map();
  const mark = (row, kind) => {
    row.classList.remove("markreal", "markbogus");
    if (kind) { marks.set(row.dataset.name, kind); row.classList.add(`mark${kind}`); } else marks.delete(row.dataset.name);
    row.querySelector(".mark").textContent = kind ? `you: ${kind}` : "";
    get("save").textContent = `save ${marks.size} mark${marks.size === 1 ? "" : "s"}`;
    get("save").disabled = !marks.size;
    get("told").textContent = `${row.dataset.name} ${kind ? `marked ${kind}` : "not marked"}`;
  };
  const field = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  get("save").addEventListener("click", () => {
    const lines = [...marks].map(([id, kind]) => `${field(id)},${kind === "real" ? 1 : 0}`);
    const address = URL.createObjectURL(new Blob([["photometry_id,label", ...lines].join("\n") + "\n"], { type: "text/csv" }));
    const link = document.createElement("a");
    link.href = address;
    link.download = "marks.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  });
  addEventListener("beforeunload", (event) => { if (marks.size && get("save").dataset.saved !== String(marks.size)) event.preventDefault(); });
  get("save").addEventListener("click", ({ currentTarget }) => { currentTarget.dataset.saved = marks.size; });

  // --- keys ---
  const present = () => document.activeElement?.closest?.("#rows > .row");
  const move = (by) => {
    const shown = [...list.children].filter((row) => !row.hidden), at = shown.indexOf(present());
    const next = shown[at < 0 ? 0 : Math.min(Math.max(at + by, 0), shown.length - 1)];
    if (!next) return;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest" });
  };
  const enlarge = (row) => row.classList.toggle("big");
  const keys = { j: () => move(1), k: () => move(-1), r: (row) => { mark(row, "real"); move(1); }, b: (row) => { mark(row, "bogus"); move(1); },
    u: (row) => mark(row, null), " ": enlarge };
  addEventListener("keydown", (event) => {
    const { key, target } = event, row = present();
    if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT", "TEXTAREA", "BUTTON"].includes(target.tagName)) return;
    if (!keys[key] || (!row && !"jk".includes(key)) || (event.repeat && !"jk".includes(key))) return;
    event.preventDefault();
    keys[key](row);
  });
  list.addEventListener("click", (event) => {
    if (event.target.tagName === "IMG" && event.target.closest(".strip")) enlarge(event.target.closest(".row"));
  });

  // --- the difference, large: cut from the strip when its row comes into view ---
  const draw = (strip) => {
    const image = strip.querySelector("img"), canvas = document.createElement("canvas");
    const side = image.naturalHeight, at = Number(strip.dataset.large) * (side + 1);
    Object.assign(canvas, { width: side, height: side, className: "large" });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `difference of ${strip.closest(".row").dataset.name}`);
    canvas.getContext("2d").drawImage(image, at, 0, side, side, 0, 0, side, side);
    strip.closest(".row").firstElementChild.after(canvas);
    strip.closest(".row").classList.add("haslarge");
  };
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      const image = target.querySelector("img");
      image.decode().then(() => draw(target), () => {});
    }
  }, { rootMargin: "400px" });
  list.querySelectorAll(".strip[data-large]").forEach((strip) => seen.observe(strip));
  sort();
  filter();
})();
