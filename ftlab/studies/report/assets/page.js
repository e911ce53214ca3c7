// Tables, choices, and what the address remembers of them.
const data = JSON.parse(document.getElementById("data").textContent);
const state = { on: [], metric: "", cost: "", pair: "", key: "" };
const tables = {};
const figures = new Map();
const byId = (id) => document.getElementById(id);
const visibleVariants = () => tables.variants.rows.filter((row) => !row.hidden).map((row) => Number(row.dataset.variant));

// ── state in the address, so that a reload and a copied link show the same ──────────────────────────────────────────────
function remember() {
  const words = new URLSearchParams();
  for (const [name, table] of Object.entries(tables)) {
    if (table.sort) words.set(`${name}.sort`, `${table.sort}.${table.down ? "down" : "up"}`);
    for (const box of table.filters) if (box.value) words.set(box.id, box.value);
  }
  for (const select of document.querySelectorAll("select[data-state]")) if (select.value) words.set(select.dataset.state, select.value);
  words.set("on", state.on.map((v) => v ?? "").join("."));
  history.replaceState(null, "", `#${words}`);
}
function recalled() {
  const text = location.hash.slice(1);
  return new URLSearchParams(text.includes("=") ? text : "");
}

// ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────────
function value(row, column) {
  const text = row.cells[column].dataset.v ?? row.cells[column].textContent;
  return text === "" ? null : Number.isNaN(Number(text)) ? text.toLowerCase() : Number(text);
}
function compare(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  return typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
}
function order(table, column, down) {
  const keyed = table.rows.map((row) => [value(row, column), row]);
  // What has no value stands last either way.
  keyed.sort((a, b) => (a[0] === null || b[0] === null ? compare(a[0], b[0]) : compare(a[0], b[0]) * (down ? -1 : 1)));
  table.rows = keyed.map((pair) => pair[1]);
  table.node.tBodies[0].append(...table.rows);
  const heads = [...table.node.tHead.rows[0].cells];
  heads.forEach((head, i) => head.hasAttribute("data-key") && head.setAttribute("aria-sort", i === column ? (down ? "descending" : "ascending") : "none"));
  Object.assign(table, { sort: heads[column].dataset.key, down });
}
function sift(table) {
  const words = table.filters.filter((f) => f.type === "search").flatMap((f) => f.value.toLowerCase().split(/\s+/).filter(Boolean));
  const exact = table.filters.filter((f) => f.tagName === "SELECT" && f.value);
  for (const row of table.rows) {
    row.text ??= row.textContent.toLowerCase();
    row.hidden = !words.every((word) => row.text.includes(word)) || !exact.every((f) => row.getAttribute(`data-${f.dataset.filter}`) === f.value);
  }
  const shown = table.rows.filter((row) => !row.hidden);
  table.rows.forEach((row) => { row.tabIndex = -1; });
  if (shown.length) shown[0].tabIndex = 0;
  table.count.textContent = `${shown.length} of ${table.rows.length}`;
}
function setUp(name) {
  const node = byId(`${name}-table`);
  const table = { node, rows: [...node.tBodies[0].rows], filters: [...document.querySelectorAll(`[data-table=${name}]`)], count: byId(`${name}-count`) };
  tables[name] = table;
  [...node.tHead.rows[0].cells].forEach((head, column) => {
    const button = head.querySelector("button");
    if (button) button.addEventListener("click", () => { order(table, column, head.getAttribute("aria-sort") === "ascending"); changed(name); });
  });
  for (const box of table.filters) box.addEventListener("input", () => { sift(table); changed(name); });
  node.tBodies[0].addEventListener("keydown", (event) => walk(table, event));
  const words = recalled();
  for (const box of table.filters) if (words.has(box.id)) box.value = words.get(box.id);
  const [key, way] = (words.get(`${name}.sort`) || "").split(/\.(?=[^.]*$)/);
  const column = [...node.tHead.rows[0].cells].findIndex((head) => key && head.dataset.key === key);
  if (column >= 0) order(table, column, way === "down");
  sift(table);
}
function walk(table, event) {
  const row = event.target;
  if (row.tagName !== "TR") return;
  const shown = table.rows.filter((r) => !r.hidden), at = shown.indexOf(row);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: shown.length - 1 }[event.key];
  if (to !== undefined && shown[to]) {
    row.tabIndex = -1; shown[to].tabIndex = 0; shown[to].focus(); event.preventDefault();
  } else if (event.key === "Enter" || event.key === " ") {
    const box = row.querySelector("input[type=checkbox], summary");
    if (box) box.click();
    event.preventDefault();
  }
}
function changed(name) {
  if (name === "variants") redraw("forest");
  remember();
}

// ── charts ───────────────────────────────────────────────────────────────────────────────────────────────────────────
function redraw(...names) {
  for (const [name, figure] of figures) if (!names.length || names.includes(name)) { figure.stale = true; if (figure.near) draw(name); }
}
function draw(name) {
  const figure = figures.get(name), canvas = figure.node.querySelector(".canvas");
  const width = Math.max(280, Math.round(canvas.clientWidth));
  if (!figure.stale && figure.width === width) return;
  Object.assign(figure, { stale: false, width });
  const [picture, columns, rows, series] = plots[name](width, state);
  canvas.replaceChildren(picture || el("p", {}, figure.node.dataset.empty));
  const legend = figure.node.querySelector(".legend");
  if (legend) legend.replaceChildren(...series.map((s) => el("li", {}, swatch(s.slot), el("span", {}, s.variant.name))));
  const alternative = figure.node.querySelector(".alternative");
  alternative.hidden = !picture;
  alternative.fill = () => alternative.querySelector(".scroll").replaceChildren(sheet(columns, rows));
  if (alternative.open) alternative.fill();
}
function sheet(columns, rows) {
  const cell = (v) => el("td", { class: typeof v === "string" ? "" : "number" }, typeof v === "string" ? v : number(v));
  return el("table", {}, el("thead", {}, el("tr", {}, ...columns.map((c) => el("th", { scope: "col" }, c)))), el("tbody", {}, ...rows.map((r) => el("tr", {}, ...r.map(cell)))));
}
function watchFigures() {
  const seen = new IntersectionObserver((entries) => entries.forEach((e) => {
    const figure = figures.get(e.target.dataset.chart);
    figure.near = e.isIntersecting;
    if (figure.near) draw(e.target.dataset.chart);
  }), { rootMargin: "400px" });
  for (const node of document.querySelectorAll("figure[data-chart]")) {
    figures.set(node.dataset.chart, { node, stale: true, near: false });
    node.querySelector(".alternative").addEventListener("toggle", (event) => { if (event.target.open && event.target.fill) event.target.fill(); });
    seen.observe(node);
  }
  let waiting;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => redraw(), 120); });
  window.addEventListener("beforeprint", () => { for (const name of figures.keys()) draw(name); });
}

// ── choices ──────────────────────────────────────────────────────────────────────────────────────────────────────────
function setUpChoices() {
  const words = recalled();
  const wanted = words.has("on") ? words.get("on").split(".").slice(0, SLOTS).map((v) => (v !== "" && data.variants[Number(v)] ? Number(v) : null)) : data.first;
  state.on = [...wanted];
  for (const box of document.querySelectorAll("input[data-draw]")) {
    const v = Number(box.dataset.draw);
    box.checked = slotOf(v) >= 0;
    box.addEventListener("change", () => { toggle(v, box); redraw(); remember(); });
  }
  for (const select of document.querySelectorAll("select[data-state]")) {
    const key = select.dataset.state;
    if (words.has(key) && [...select.options].some((o) => o.value === words.get(key))) select.value = words.get(key);
    state[key] = select.value;
    select.addEventListener("change", () => { state[key] = select.value; redraw(select.closest("figure").dataset.chart); remember(); });
  }
}
function toggle(v, box) {
  const slot = slotOf(v), free = state.on.indexOf(null);
  if (slot >= 0) state.on[slot] = null;
  else if (free >= 0) state.on[free] = v;
  else if (state.on.length < SLOTS) state.on.push(v);
  else { box.checked = false; byId("drawn-full").textContent = `The charts hold ${SLOTS} variants; take one out first.`; }
}

// ── a study that still runs ──────────────────────────────────────────────────────────────────────────────────────────
function follow() {
  const every = Number(document.documentElement.dataset.refresh || 0);
  const pause = byId("pause");
  if (!every || !pause) return;
  const kept = store("ftlab-report");
  pause.checked = kept.pause === true;
  if (kept.focus && byId(kept.focus)) byId(kept.focus).focus({ preventScroll: true });
  setInterval(() => {
    if (pause.checked || document.querySelector("#trials-table details[open]")) return;
    store("ftlab-report", { focus: document.activeElement && document.activeElement.id, pause: false });
    location.reload();
  }, every * 1000);
}
// A browser may forbid a page on disk to keep anything; the address still has sorting and filters.
function store(name, content) {
  try {
    if (content) sessionStorage.setItem(name, JSON.stringify(content));
    return JSON.parse(sessionStorage.getItem(name) || "{}");
  } catch { return {}; }
}

setUpChoices();
setUp("variants");
setUp("trials");
watchFigures();
follow();
for (const link of document.querySelectorAll("nav a, .skip")) {
  link.addEventListener("click", (event) => {
    const target = byId(link.getAttribute("href").slice(1));
    target.focus({ preventScroll: true });
    target.scrollIntoView();
    event.preventDefault();
  });
}
document.documentElement.dataset.ready = "yes";
