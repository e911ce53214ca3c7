// Drawing: scales, axes, marks. Text reaches the page only as text nodes and attributes, never as markup.
const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "7 4", "2 4"];
const SLOTS = 18;
const PLAIN = -1;

function make(namespace, tag, attributes, children) {
  const node = namespace ? document.createElementNS(namespace, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) if (value !== null && value !== undefined) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
const svg = (tag, attributes, ...children) => make(SVG, tag, attributes, children);
const el = (tag, attributes, ...children) => make(null, tag, attributes, children);
const seriesClass = (slot) => "s" + (slot < 0 ? 6 : slot % 6);

// ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────
function number(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e").replace(/-/g, "−");
  return String(Number(value.toPrecision(4))).replace("-", "−");
}
// Decimal places that show two digits of the typical interval.
function places(rows) {
  const widths = rows.filter((r) => typeof r.low === "number" && r.high > r.low).map((r) => (r.high - r.low) / 2).sort((a, b) => a - b);
  const width = widths[Math.floor(widths.length / 2)];
  return width ? Math.min(8, Math.max(0, 1 - Math.floor(Math.log10(width)))) : null;
}
const rounded = (value, digits) => (digits === null || Math.abs(value) >= 1e6 ? number(value) : value.toFixed(digits).replace("-", "−"));
function short(value) {
  const size = Math.abs(value);
  for (const [unit, name] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (size >= unit) return Number((value / unit).toPrecision(3)) + name;
  return number(value);
}
const bytes = (value) => short(value).replace(/([kMG])$/, " $1") + "B";
function seconds(value) {
  if (value < 90) return number(Number(value.toPrecision(3))) + " s";
  if (value < 5400) return Number((value / 60).toPrecision(3)) + " min";
  return Number((value / 3600).toPrecision(3)) + " h";
}
const UNITS = { trainable_params: short, seed_cpu_seconds: seconds, wall_seconds: seconds, peak_memory: bytes };

// ── scales ───────────────────────────────────────────────────────────────────────────────────────────────────────────
function linear(low, high, from, to, room = 0.04) {
  if (low === high) { const around = Math.abs(low) * 0.1 || 1; low -= around; high += around; }
  const pad = (high - low) * room;
  const [a, b] = [low - pad, high + pad];
  const scale = (value) => from + (value - a) / (b - a) * (to - from);
  scale.ticks = (count) => {
    const raw = (b - a) / Math.max(1, count), power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
    const found = [];
    for (let i = Math.ceil(a / step); i * step <= b * (1 + 1e-12) + 1e-300; i++) found.push(Number((i * step).toPrecision(12)));
    return found;
  };
  return scale;
}
function logarithmic(low, high, from, to) {
  const inner = linear(Math.log10(low), Math.log10(high), from, to, 0.06);
  const scale = (value) => inner(Math.log10(value));
  scale.ticks = (count) => {
    const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
    const parts = last - first > 2 ? [1] : [1, 2, 5];
    const all = [];
    for (let e = first; e <= last; e++) for (const p of parts) all.push(p * 10 ** e);
    const [a, b] = [Math.min(from, to) - 1, Math.max(from, to) + 1];
    const inside = all.filter((t) => scale(t) >= a && scale(t) <= b);
    const every = Math.ceil(inside.length / Math.max(2, count + 1));
    return inside.length ? inside.filter((_, i) => i % every === 0) : [low];
  };
  return scale;
}
// The same scale with ticks at whole numbers only.
function whole(scale, least) {
  const found = (value) => scale(value);
  found.ticks = (count) => scale.ticks(count).filter((t) => Number.isInteger(t) && t >= least);
  return found;
}
const spread = (values) => [Math.min(...values), Math.max(...values)];
function fitting(values, from, to) {
  const [low, high] = spread(values);
  return low > 0 && high / low > 20 ? logarithmic(low, high, from, to) : linear(low, high, from, to);
}

// ── marks ────────────────────────────────────────────────────────────────────────────────────────────────────────────
function marker(slot, x, y, size, style, title) {
  const shapes = [
    () => svg("circle", { cx: x, cy: y, r: size }),
    () => svg("rect", { x: x - size * 0.9, y: y - size * 0.9, width: size * 1.8, height: size * 1.8 }),
    () => svg("path", { d: `M${x} ${y - size * 1.2}L${x + size * 1.15} ${y + size * 0.85}H${x - size * 1.15}Z` }),
    () => svg("path", { d: `M${x} ${y - size * 1.3}L${x + size * 1.3} ${y}L${x} ${y + size * 1.3}L${x - size * 1.3} ${y}Z` }),
    () => svg("path", { d: `M${x} ${y + size * 1.2}L${x + size * 1.15} ${y - size * 0.85}H${x - size * 1.15}Z` }),
    () => svg("path", { d: `M${x - size * 0.5} ${y - size * 1.3}h${size}v${size * 0.8}h${size * 0.8}v${size}h${-size * 0.8}v${size * 0.8}h${-size}v${-size * 0.8}h${-size * 0.8}v${-size}h${size * 0.8}Z` }),
  ];
  const node = shapes[slot < 0 ? 0 : slot % 6]();
  node.setAttribute("class", `${style} ${seriesClass(slot)}`);
  if (title) node.append(svg("title", {}, title));
  return node;
}
const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
function line(slot, points, title) {
  const node = svg("path", { class: `mark ${seriesClass(slot)}`, d: path(points), "stroke-dasharray": slot < 0 ? null : DASHES[Math.floor(slot / 6) % 3] || null });
  if (title) node.append(svg("title", {}, title));
  return node;
}
const area = (slot, upper, lower) => svg("path", { class: `band ${seriesClass(slot)}`, d: path([...upper, ...lower.slice().reverse()]) + "Z" });
function clipped(text, pixels) {
  const most = Math.max(4, Math.floor(pixels / 6.6));
  const letters = [...text];
  return letters.length <= most ? text : letters.slice(0, most - 1).join("") + "…";
}
function swatch(slot) {
  return svg("svg", { viewBox: "0 0 30 14", "aria-hidden": "true" }, line(slot, [[1, 7], [29, 7]]), marker(slot, 15, 7, 4, "dot"));
}

// ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────
let drawn = 0;
function picture(width, height, title, description) {
  const id = `picture-${drawn++}`;
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": `${id}-t ${id}-d` },
    svg("title", { id: `${id}-t` }, title), svg("desc", { id: `${id}-d` }, description));
}
function axes(node, box, x, y, names, formats = {}) {
  const { left, right, top, bottom } = box;
  for (const t of y.ticks(5)) {
    node.append(svg("path", { class: "grid", d: `M${left} ${y(t).toFixed(1)}H${right}` }));
    node.append(svg("text", { class: "tick", x: left - 6, y: y(t) + 4, "text-anchor": "end" }, (formats.y || number)(t)));
  }
  for (const t of x.ticks(Math.max(2, Math.round((right - left) / 110)))) {
    node.append(svg("path", { class: "axis", d: `M${x(t).toFixed(1)} ${bottom}v4` }));
    node.append(svg("text", { class: "tick", x: x(t), y: bottom + 17, "text-anchor": "middle" }, (formats.x || short)(t)));
  }
  node.append(svg("path", { class: "axis", d: `M${left} ${bottom}H${right}` }));
  node.append(svg("text", { class: "quiet", x: (left + right) / 2, y: bottom + 34, "text-anchor": "middle" }, names.x));
  node.append(svg("text", { class: "quiet", x: 2, y: 11 }, names.y));
}
const frame = (width, height) => ({ left: 56, right: width - 12, top: 30, bottom: height - 40 });

// Rows with a value and an interval each, under headings where there are some.
function forest(width, rows, options) {
  const narrow = width < 560;
  const labels = narrow ? 0 : Math.min(300, Math.max(120, ...rows.map((r) => 7 * [...(r.name || "")].length + 18)));
  const tall = narrow ? 40 : 26;
  const height = 12 + rows.length * tall + 40;
  const node = picture(width, height, options.title, options.description);
  const numbers = rows.filter((r) => !r.heading).flatMap((r) => [r.mean, r.low, r.high, ...(r.values || [])]).filter((v) => typeof v === "number");
  if (options.zero) numbers.push(0);
  const digits = places(rows);
  if (!numbers.length) return null;
  const box = { left: labels + 10, right: width - (narrow ? 12 : 170), top: 8, bottom: height - 40 };
  const x = linear(...spread(numbers), box.left, box.right);
  for (const t of x.ticks(Math.max(2, Math.round((box.right - box.left) / 90)))) {
    node.append(svg("path", { class: "grid", d: `M${x(t).toFixed(1)} ${box.top}V${box.bottom}` }));
    node.append(svg("text", { class: "tick", x: x(t), y: box.bottom + 17, "text-anchor": "middle" }, number(t)));
  }
  const at = options.zero ? 0 : options.reference;
  if (typeof at === "number") node.append(svg("path", { class: "zero", d: `M${x(at).toFixed(1)} ${box.top}V${box.bottom}` }));
  node.append(svg("path", { class: "axis", d: `M${box.left} ${box.bottom}H${box.right}` }));
  node.append(svg("text", { class: "quiet", x: (box.left + box.right) / 2, y: box.bottom + 34, "text-anchor": "middle" }, options.axis));
  rows.forEach((row, i) => {
    const y = box.top + i * tall + (narrow && !row.heading ? 26 : tall / 2);
    if (row.heading) { node.append(svg("text", { class: "strong", x: 2, y: y + 4 }, clipped(row.heading, width))); return; }
    const [mean, low, high] = [row.mean, row.low, row.high].map((v) => (typeof v === "number" ? rounded(v, digits) : "–"));
    const told = typeof row.low === "number" ? `${mean} [${low}, ${high}]` : `${mean}, no interval`;
    const whole = svg("title", {}, `${row.name}: ${told}${row.note ? "; " + row.note : ""}`);
    const group = svg("g", {}, whole);
    const slot = row.slot ?? PLAIN;
    group.append(svg("text", { class: row.best ? "strong" : "", x: narrow ? box.left : labels, y: narrow ? y - 10 : y + 4, "text-anchor": narrow ? "start" : "end" }, clipped(row.name, narrow ? width - 150 : labels)));
    group.append(svg("text", { class: "tick", x: narrow ? width - 12 : box.right + 10, y: narrow ? y - 10 : y + 4, "text-anchor": narrow ? "end" : "start" }, told));
    for (const value of row.values || []) group.append(svg("circle", { class: `seed ${seriesClass(slot)}`, cx: x(value), cy: y, r: 2.5 }));
    if (typeof row.low === "number") group.append(svg("path", { class: `mark ${seriesClass(slot)}`, d: `M${x(row.low).toFixed(1)} ${y}H${x(row.high).toFixed(1)}m0 -4v8M${x(row.low).toFixed(1)} ${y - 4}v8` }));
    if (typeof row.mean === "number") group.append(marker(slot, x(row.mean), y, 5, "dot"));
    node.append(group);
  });
  return node;
}
