// The charts of a study. Each takes (width, state) and returns [picture, columns of its table, rows of its table, series of its legend].
const better = (a, b) => (data.study.direction === "minimize" ? a < b : a > b);
const chosen = () => state.on.flatMap((v, slot) => (v === null ? [] : [{ v, slot, variant: data.variants[v] }]));
const slotOf = (v) => state.on.indexOf(v);
const known = (value) => typeof value === "number";

const plots = {
  forest(width) {
    const shown = visibleVariants().map((v) => data.variants[v]).filter((variant) => known(variant.mean));
    const best = data.variants.filter((variant) => variant.best);
    const rows = shown.map((r) => ({ ...r, values: r.values.map((pair) => pair[1]), slot: slotOf(r.index) }));
    const picture = rows.length && forest(width, rows, { title: `${data.study.metric} of each variant`, axis: data.study.metric, reference: best.length === 1 ? best[0].mean : null,
      description: `A dot is the mean over seeds, the line its ${data.study.interval}, a ring one seed. The table below has the same numbers.` });
    return [picture, ["Variant", "Mean", "Interval from", "to", "Seeds"], shown.map((r) => [r.name, r.mean, r.low, r.high, r.n]), []];
  },

  curves(width) {
    const found = data.curves[state.metric];
    if (!found) return [null, [], [], []];
    const series = chosen().map((s) => ({ ...s, curve: found[s.v] })).filter((s) => s.curve);
    const height = Math.min(420, Math.max(260, width * 0.55));
    const node = picture(width, height, `${state.metric} during training`, "Lines are means over seeds, bands reach from the smallest to the largest seed.");
    if (!series.length) return [null, [], [], []];
    const box = frame(width, height);
    const x = linear(...spread(series.flatMap((s) => s.curve.steps)), box.left, box.right, 0.01);
    const y = linear(...spread(series.flatMap((s) => [...s.curve.low, ...s.curve.high])), box.bottom, box.top);
    axes(node, box, whole(x, 0), y, { x: "optimiser step", y: state.metric });
    const points = (curve, key) => curve.steps.map((step, i) => [x(step), y(curve[key][i])]);
    for (const s of series) if (s.curve.seeds > 1) node.append(area(s.slot, points(s.curve, "high"), points(s.curve, "low")));
    for (const s of series) {
      const all = points(s.curve, "mean");
      node.append(line(s.slot, all, `${s.variant.name}, mean of ${s.curve.seeds} seeds`), marker(s.slot, ...all[all.length - 1], 4, "dot"));
    }
    const rows = series.map((s) => [s.variant.name, s.curve.seeds, s.curve.mean[0], s.curve.mean.at(-1), s.curve.low.at(-1), s.curve.high.at(-1)]);
    return [node, ["Variant", "Seeds", "First", "Last", "Smallest last", "Largest last"], rows, series];
  },

  costs(width) {
    const points = data.variants.filter((v) => known(v.mean) && known(v.costs[state.cost]));
    if (!points.length) return [null, [], [], []];
    const height = Math.min(440, Math.max(280, width * 0.55)), unit = UNITS[state.cost] || short;
    const name = data.costs[state.cost];
    const fronts = data.fronts[state.cost], front = new Set(fronts.flat());
    const node = picture(width, height, `${data.study.metric} against ${name}`, "Each mark is a variant. The dashed line joins those that no other beats in both.");
    const box = frame(width, height);
    const x = fitting(points.map((p) => p.costs[state.cost]), box.left + 6, box.right - 6);
    const y = linear(...spread(points.flatMap((p) => [p.mean, p.low ?? p.mean, p.high ?? p.mean])), box.bottom, box.top);
    axes(node, box, x, y, { x: name, y: data.study.metric }, { x: unit });
    const place = (p) => [x(p.costs[state.cost]), y(p.mean)];
    const joined = fronts.map((ends) => ends.map((v) => data.variants[v]).filter((p) => points.includes(p)));
    for (const ends of joined) if (ends.length) node.append(svg("path", { class: "front", d: path(ends.map(place)) }));
    for (const p of [...points].sort((a, b) => slotOf(a.index) - slotOf(b.index))) {
      const slot = slotOf(p.index), [px, py] = place(p);
      if (slot >= 0 && known(p.low)) node.append(svg("path", { class: `mark ${seriesClass(slot)}`, d: `M${px.toFixed(1)} ${y(p.low).toFixed(1)}V${y(p.high).toFixed(1)}` }));
      node.append(marker(slot, px, py, 5.5, slot < 0 && !front.has(p.index) ? "ring" : "dot", `${p.name}: ${number(p.mean)}, ${unit(p.costs[state.cost])}${front.has(p.index) ? ", on the front" : ""}`));
    }
    labelled(node, box, joined.flat().map((p) => [p.name, ...place(p)]));
    const rows = points.map((p) => [p.name, p.costs[state.cost], p.mean, front.has(p.index) ? "on the front" : ""]);
    return [node, ["Variant", name, data.study.metric, "Front"], rows, chosen().filter((s) => points.includes(s.variant))];
  },

  effects(width) {
    const rows = data.effects.flatMap((e) => [{ heading: e.factor }, ...e.levels.map((l) => ({ ...l, slot: PLAIN }))]);
    const node = rows.length && forest(width, rows, { title: "Main effects of the factors", axis: data.study.metric, description: "The mean at each level of each factor, over everything else." });
    return [node, ["Factor", "Level", "Mean", "from", "to"], data.effects.flatMap((e) => e.levels.map((l) => [e.factor, l.name, l.mean, l.low, l.high])), []];
  },

  interactions(width) {
    const found = data.interactions[state.pair];
    if (!found || !found.cells.some((c) => known(c.mean))) return [null, [], [], []];
    const height = Math.min(400, Math.max(260, width * 0.5)), box = frame(width, height);
    const cells = found.cells.filter((c) => known(c.mean));
    const node = picture(width, height, `${found.first} and ${found.second}`, "A line for each level of the second factor. Parallel lines: the factors do not interact.");
    const step = (box.right - box.left) / found.columns.length;
    const x = (name) => box.left + step * (found.columns.indexOf(name) + 0.5);
    const y = linear(...spread(cells.flatMap((c) => [c.mean, c.low ?? c.mean, c.high ?? c.mean])), box.bottom, box.top);
    const blank = (value) => value; blank.ticks = () => [];
    axes(node, box, blank, y, { x: found.first, y: data.study.metric });
    for (const name of found.columns) node.append(svg("text", { class: "tick", x: x(name), y: box.bottom + 17, "text-anchor": "middle" }, clipped(name, step - 6)));
    const series = found.rows.map((name, slot) => ({ name, slot, cells: cells.filter((c) => c.row === name).sort((a, b) => x(a.column) - x(b.column)) }));
    for (const s of series) {
      const shift = (s.slot - (series.length - 1) / 2) * Math.min(8, step / (series.length + 2));
      node.append(line(s.slot, s.cells.map((c) => [x(c.column) + shift, y(c.mean)]), s.name));
      for (const c of s.cells) {
        if (known(c.low)) node.append(svg("path", { class: `mark ${seriesClass(s.slot)}`, d: `M${(x(c.column) + shift).toFixed(1)} ${y(c.low).toFixed(1)}V${y(c.high).toFixed(1)}` }));
        node.append(marker(s.slot, x(c.column) + shift, y(c.mean), 4.5, "dot", `${c.column}, ${s.name}: ${number(c.mean)}`));
      }
    }
    return [node, [found.first, found.second, "Mean", "from", "to"], cells.map((c) => [c.column, c.row, c.mean, c.low, c.high]), series.map((s) => ({ slot: s.slot, variant: { name: s.name } }))];
  },

  tuning(width) {
    const series = chosen().map((s) => ({ ...s, best: data.tuning[s.v] ? data.tuning[s.v].best : [] })).filter((s) => s.best.some(known));
    if (!series.length) return [null, [], [], []];
    const height = Math.min(380, Math.max(250, width * 0.5)), box = frame(width, height);
    const node = picture(width, height, "Best value after each tuning trial", "Lines that still fall or rise at the end tell that more tuning might change the order.");
    const longest = Math.max(...series.map((s) => s.best.length));
    const x = linear(1, Math.max(2, longest), box.left, box.right, 0.02), y = linear(...spread(series.flatMap((s) => s.best.filter(known))), box.bottom, box.top);
    axes(node, box, whole(x, 1), y, { x: "tuning trials", y: `best ${data.study.metric} so far` });
    for (const s of series) {
      const points = s.best.flatMap((value, i) => (known(value) ? [[x(i + 1), y(value)]] : []));
      const steps = points.flatMap((p, i) => (i ? [[p[0], points[i - 1][1]], p] : [p]));
      node.append(line(s.slot, steps, s.variant.name), ...points.map((p) => marker(s.slot, ...p, 3.5, "dot")));
    }
    return [node, ["Variant", "Trials", "Best of the first", "Best of all"], series.map((s) => [s.variant.name, s.best.length, s.best.find(known), s.best.at(-1)]), series];
  },

  space(width) {
    const series = chosen().map((s) => ({ ...s, points: ((data.tuning[s.v] || { keys: {} }).keys[state.key] || []).filter((p) => known(p[0]) && known(p[1])) })).filter((s) => s.points.length);
    if (!series.length) return [null, [], [], []];
    const height = Math.min(380, Math.max(250, width * 0.5)), box = frame(width, height);
    const node = picture(width, height, `${data.study.metric} against ${state.key}`, "Each mark is a tuning trial. A best value at the edge tells that the search space was too small.");
    const all = series.flatMap((s) => s.points);
    const x = fitting(all.map((p) => p[0]), box.left + 6, box.right - 6), y = linear(...spread(all.map((p) => p[1])), box.bottom, box.top);
    axes(node, box, x, y, { x: state.key, y: data.study.metric });
    for (const s of series) node.append(...s.points.map((p) => marker(s.slot, x(p[0]), y(p[1]), 4.5, "dot", `${s.variant.name}: ${number(p[0])} gives ${number(p[1])}`)));
    return [node, ["Variant", state.key, data.study.metric], series.flatMap((s) => s.points.map((p) => [s.variant.name, ...p])), series];
  },

  parts(width) {
    const rows = data.parts.flatMap((p) => [{ heading: p.part }, ...p.rows.map((r) => ({ ...r, slot: PLAIN }))]);
    const node = rows.length && forest(width, rows, { zero: true, title: "What each part contributes", axis: `gain in ${data.study.metric} (right of 0: better)`,
      description: "The gain by adding a part to all the others, and by the part alone." });
    return [node, ["Part", "How", "Gain", "from", "to"], data.parts.flatMap((p) => p.rows.map((r) => [p.part, r.name, r.mean, r.low, r.high])), []];
  },
};

function labelled(node, box, labels) {
  const taken = [];
  for (const [name, x, y] of labels) {
    const text = clipped(name, 170), wide = text.length * 6.4;
    const left = x + 9 + wide > box.right;
    const from = left ? x - 9 - wide : x + 9;
    const free = [-8, 16, 4, -24, 32].map((d) => y + d).find((at) => at > box.top && at < box.bottom && !taken.some((t) => Math.abs(t.at - at) < 13 && t.from < from + wide && from < t.to));
    if (free === undefined) continue;
    taken.push({ at: free, from, to: from + wide });
    node.append(svg("text", { class: "quiet", x: left ? x - 9 : x + 9, y: free, "text-anchor": left ? "end" : "start" }, text));
  }
}
