"use strict";
(() => {
  // Figures are plain values; each panel is drawn as SVG to the width it has, and again when that changes. Colours are
  // CSS variables, so that a change of theme draws nothing anew. A place of a figure is told in all its panels at once.
  const NS = "http://www.w3.org/2000/svg";
  const LETTER = 6.9;  // pixels of a letter, about

  function svg(name, attributes, parent, text) {
    const element = document.createElementNS(NS, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text !== undefined) element.textContent = text;
    parent?.append(element);
    return element;
  }

  const finite = (values) => values.filter((value) => Number.isFinite(value));
  const ink = (number) => `var(--c${number})`;
  const wide = (text) => [...text].reduce((sum, letter) => sum + (letter > "\u2e80" ? 2 : 1), 0) * LETTER;

  // Round numbers that divide a range: 1, 2 or 5 times a power of ten.
  function ticks(low, high, most, whole) {
    const span = high - low || 1;
    let step = 10 ** Math.floor(Math.log10(span / most));
    for (const factor of [1, 2, 5, 10]) if (span / (step * factor) <= most) { step *= factor; break; }
    if (whole) step = Math.max(1, Math.round(step));
    const found = [];
    for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) found.push(value);
    const digits = Math.min(8, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
    return found.map((value) => ({ value, text: (Math.abs(value) < step * 1e-9 ? 0 : value).toFixed(digits) }));
  }

  function bounds(values) {
    const all = finite(values);
    if (!all.length) return [0, 1];
    const [low, high] = [all.reduce((a, b) => Math.min(a, b)), all.reduce((a, b) => Math.max(a, b))];
    const margin = 0.06 * (high - low) || Math.abs(high) * 0.05 || 0.5;
    return [low - margin, high + margin];
  }

  function path(xs, ys, across, down, stairs) {
    let [text, pen, before] = ["", false, 0];
    xs.forEach((x, index) => {
      const y = ys[index];
      if (!Number.isFinite(y)) { pen = false; return; }
      const [px, py] = [across(x).toFixed(1), down(y).toFixed(1)];
      text += !pen ? `M${px} ${py}` : stairs ? `L${px} ${before}L${px} ${py}` : `L${px} ${py}`;
      [pen, before] = [true, py];
    });
    return text;
  }

  function plane(plot, height, xs, ys, left, right, bottom) {
    const width = Math.max(plot.clientWidth, 200);
    plot.replaceChildren();
    const box = { left, right: width - right, top: 8, bottom: height - bottom };
    return {
      box, width, height, xs, ys,
      across: (x) => box.left + ((x - xs[0]) / (xs[1] - xs[0] || 1)) * (box.right - box.left),
      down: (y) => box.bottom - ((y - ys[0]) / (ys[1] - ys[0] || 1)) * (box.bottom - box.top),
      drawing: svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", focusable: "false" }, plot),
    };
  }

  function scaleDown(on, marks) {
    for (const mark of marks) {
      const y = on.down(mark.value);
      svg("path", { class: "gridline", d: `M${on.box.left} ${y}H${on.box.right}` }, on.drawing);
      svg("text", { x: on.box.left - 7, y: y + 4, "text-anchor": "end" }, on.drawing, mark.text);
    }
  }

  function scaleAcross(on, marks, zero) {
    for (const mark of marks) {
      const x = on.across(mark.value);
      svg("path", { class: zero && mark.value === 0 ? "zero" : "gridline", d: `M${x} ${on.box.top}V${on.box.bottom}` }, on.drawing);
      svg("text", { x, y: on.box.bottom + 16, "text-anchor": "middle" }, on.drawing, mark.text);
    }
  }

  const united = (spec, marks) => (spec.unit ? marks.map((mark) => ({ ...mark, text: `${mark.text} ${spec.unit}` })) : marks);
  const value = (spec, y) => `${y.toFixed(spec.digits)}${spec.unit ? ` ${spec.unit}` : ""}`;
  const span = (spec, low, high) => (Number.isFinite(low) ? ` (${low.toFixed(spec.digits)} … ${high.toFixed(spec.digits)})` : "");
  const signed = (spec, x) => `${x > 0 ? "+" : ""}${x.toFixed(spec.digits)}`;
  const most = (texts) => Math.max(...texts.map(wide), 0);

  // Names at the ends of lines, pushed apart where they would lie upon each other.
  function endNames(on, ends) {
    const [top, bottom] = [on.box.top + 4, on.box.bottom + 2];
    const placed = ends.map((end) => ({ ...end, at: Math.min(bottom, Math.max(top, on.down(end.y) + 4)) })).sort((a, b) => a.at - b.at);
    for (let n = 1; n < placed.length; n += 1) placed[n].at = Math.max(placed[n].at, placed[n - 1].at + 13);
    for (let n = placed.length - 1, limit = bottom; n >= 0; n -= 1, limit = placed[n + 1].at - 13) placed[n].at = Math.min(placed[n].at, limit);
    for (const end of placed) {
      const text = svg("text", { class: end.behind ? "" : "name", x: on.box.right + 7, y: end.at }, on.drawing, end.name);
      fitted(text, on.width - on.box.right - 7);
    }
  }

  // A name that is too long loses its middle: kinds stand at its start, places at its end.
  function fitted(element, room) {
    const whole = element.textContent;
    for (let kept = whole.length - 1; kept > 4 && element.getComputedTextLength() > room; kept -= 1) {
      element.textContent = `${whole.slice(0, Math.ceil(kept / 2))}…${whole.slice(whole.length - Math.floor(kept / 2))}`;
    }
    if (element.textContent !== whole) svg("title", {}, element, whole);
  }

  const last = (ys) => ys.findLast((y) => Number.isFinite(y));

  const kinds = {
    // Curves: the panels share a scale, and the epoch that is told.
    lines(spec, panel, plot) {
      const all = spec.panels.flatMap((one) => one.lines);
      const alone = spec.panels.length === 1;
      const ys = spec.range ?? bounds(all.flatMap((line) => line.y));
      const marks = united(spec, ticks(ys[0], ys[1], 4));
      const xs = [Math.min(...spec.x), Math.max(...spec.x)];
      if (xs[0] === xs[1]) { xs[0] -= 0.5; xs[1] += 0.5; }
      const names = most([...all.map((line) => line.name), `${spec.axis}.`]);
      const on = plane(plot, alone ? 260 : 170, xs, ys, 12 + most(marks.map((mark) => mark.text)), Math.min(names + 12, plot.clientWidth / 3), 24);
      scaleDown(on, marks);
      scaleAcross(on, ticks(xs[0], xs[1], Math.max(2, Math.floor((on.box.right - on.box.left) / 48)), true));
      svg("text", { x: on.box.right + 13, y: on.box.bottom + 16 }, on.drawing, spec.axis);
      const id = `clip-${plot.dataset.id}`;
      const clip = svg("clipPath", { id }, svg("defs", {}, on.drawing));
      svg("rect", { x: on.box.left - 4, y: on.box.top - 3, width: on.box.right - on.box.left + 8, height: on.box.bottom - on.box.top + 6 }, clip);
      const inside = svg("g", { "clip-path": `url(#${id})` }, on.drawing);
      for (const line of panel.lines) {
        if (line.low) {
          const xsBand = [...spec.x, ...spec.x.toReversed()];
          svg("path", { class: "band", style: `fill:${ink(line.colour)}`, d: `${path(xsBand, [...line.high, ...line.low.toReversed()], on.across, on.down)}Z` }, inside);
        }
      }
      for (const line of panel.lines.toSorted((a, b) => Boolean(b.behind) - Boolean(a.behind))) {
        const style = `stroke:${ink(line.colour)};stroke-width:${line.behind || line.dotted ? 1.4 : 2.2};${line.dotted ? "stroke-dasharray:1.5 4" : ""}`;
        if (spec.x.length > 1) svg("path", { class: "line", style, d: path(spec.x, line.y, on.across, on.down, line.stairs) }, inside);
        else if (Number.isFinite(line.y[0])) svg("circle", { cx: on.across(spec.x[0]), cy: on.down(line.y[0]), r: 4, style: `fill:${ink(line.colour)}` }, inside);
      }
      endNames(on, panel.lines.filter((line) => Number.isFinite(last(line.y))).map((line) => ({ name: line.name, y: last(line.y), behind: line.behind })));
      svg("path", { class: "cursor", d: "" }, on.drawing);
      return on;
    },

    // Differences: a row each, around zero.
    rows(spec, panel, plot) {
      const all = spec.rows.flatMap((row) => [row.mean, row.low, row.high, ...row.seeds, 0]);
      const names = Math.min(most(spec.rows.map((row) => row.name)) + 14, plot.clientWidth * 0.42);
      const words = plot.clientWidth > 640 ? most(spec.rows.map((row) => row.words)) + 16 : 14;
      const on = plane(plot, 62 + 36 * spec.rows.length, bounds(all), [spec.rows.length - 0.4, -0.5], names, words, 46);
      scaleAcross(on, ticks(on.xs[0], on.xs[1], Math.max(2, Math.floor((on.box.right - on.box.left) / 80))), true);
      svg("text", { x: (on.box.left + on.box.right) / 2, y: on.height - 8, "text-anchor": "middle" }, on.drawing, spec.axis);
      spec.rows.forEach((row, n) => {
        const y = on.down(n);
        const style = `stroke:${ink(row.colour)};stroke-width:2.5`;
        fitted(svg("text", { class: "name", x: on.box.left - 9, y: y + 4, "text-anchor": "end" }, on.drawing, row.name), on.box.left - 10);
        if (words > 14) svg("text", { class: "name", x: on.width, y: y + 4, "text-anchor": "end" }, on.drawing, row.words);
        if (row.low !== null) svg("path", { class: "line", style, d: `M${on.across(row.low)} ${y}H${on.across(row.high)}M${on.across(row.low)} ${y - 5}v10M${on.across(row.high)} ${y - 5}v10` }, on.drawing);
        svg("circle", { cx: on.across(row.mean), cy: y, r: 5.5, style: `fill:${ink(row.colour)}` }, on.drawing);
        for (const seed of row.seeds) svg("circle", { class: "seed", cx: on.across(seed), cy: y + 13, r: 2.6, style: `fill:${ink(row.colour)};opacity:.65` }, on.drawing);
      });
      svg("path", { class: "cursor", d: "" }, on.drawing);
      return on;
    },

    // Figures over rates: a line for each kind.
    points(spec, panel, plot) {
      const ends = spec.series.map((one) => ({ name: one.name, y: last(one.y) }));
      if (spec.level) ends.push({ name: spec.level.name, y: spec.level.y, behind: true });
      const ys = bounds([...spec.series.flatMap((one) => [...one.y, ...one.low, ...one.high]), spec.level?.y]);
      const marks = united(spec, ticks(ys[0], ys[1], 5));
      const rates = spec.series.flatMap((one) => one.x);
      const [low, high] = [Math.min(0, ...rates), Math.max(...rates)];
      const right = Math.min(most(ends.map((end) => end.name)) + 14, plot.clientWidth / 3);
      const on = plane(plot, 300, [low, high + 0.03 * (high - low)], ys, 12 + most(marks.map((mark) => mark.text)), right, 42);
      scaleDown(on, marks);
      scaleAcross(on, ticks(low, high, Math.max(2, Math.floor((on.box.right - on.box.left) / 70))));
      svg("text", { x: (on.box.left + on.box.right) / 2, y: on.height - 6, "text-anchor": "middle" }, on.drawing, spec.axis);
      if (Number.isFinite(spec.level?.y)) svg("path", { class: "line", style: `stroke:${ink(0)};stroke-width:1.4;stroke-dasharray:5 4`, d: `M${on.box.left} ${on.down(spec.level.y)}H${on.box.right}` }, on.drawing);
      spec.series.forEach((one, n) => {
        const aside = (n - (spec.series.length - 1) / 2) * 5;  // kinds at one rate stand side by side
        const across = (x) => on.across(x) + aside;
        svg("path", { class: "line", style: `stroke:${ink(one.colour)};stroke-width:2`, d: path(one.x, one.y, across, on.down) }, on.drawing);
        one.x.forEach((x, index) => {
          const [px, bars] = [across(x), one.low[index] !== null];
          if (!Number.isFinite(one.y[index])) return;
          if (bars) svg("path", { class: "line", style: `stroke:${ink(one.colour)};stroke-width:1.6`, d: `M${px} ${on.down(one.low[index])}V${on.down(one.high[index])}M${px - 4} ${on.down(one.low[index])}h8M${px - 4} ${on.down(one.high[index])}h8` }, on.drawing);
          svg("circle", { cx: px, cy: on.down(one.y[index]), r: 4.5, style: `fill:${ink(one.colour)}` }, on.drawing);
        });
      });
      endNames(on, ends.filter((end) => Number.isFinite(end.y)));
      svg("path", { class: "cursor", d: "" }, on.drawing);
      return on;
    },
  };

  // The places of a figure: where each is, and what is told there in each panel.
  function places(spec) {
    if (spec.kind === "lines") {
      const one = (line, n) => `${line.name} ${line.y[n].toFixed(spec.digits)}`;
      const unit = spec.unit ? ` ${spec.unit}` : "";
      return spec.x.map((x, n) => ({ x, told: spec.panels.map((panel) => `${spec.axis} ${x}: ${panel.lines
        .filter((line) => Number.isFinite(line.y[n])).map((line) => one(line, n)).join(" · ")}${unit}`) }));
    }
    if (spec.kind === "rows") {
      return spec.rows.map((row, n) => ({ y: n, told: [`${row.name}: ${row.words || signed(spec, row.mean)}${
        row.seeds.length > 1 ? ` · ${row.seeds.map((seed) => signed(spec, seed)).join(", ")}` : ""}`] }));
    }
    return spec.series.flatMap((one) => one.x.map((x, n) => ({ x, y: one.y[n], told: [`${one.name} ${x}: ${Number.isFinite(one.y[n]) ? value(spec, one.y[n]) : "–"}${span(spec, one.low[n], one.high[n])}`] })));
  }

  function build(figure, order) {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    const group = figure.querySelector(".panels");
    const panels = [...figure.querySelectorAll(".panel")].map((element, number) => ({
      element, number, plot: element.querySelector(".plot"), read: element.querySelector(".read"), on: null, width: 0,
    }));
    const found = places(spec);
    const rest = spec.kind === "lines" ? found.length - 1 : -1;  // what is told when nothing is pointed at
    let at = -1;

    function draw(panel) {
      panel.plot.dataset.id = `${order}-${panel.number}`;
      panel.on = kinds[spec.kind](spec, spec.panels?.[panel.number], panel.plot);
      const title = figure.querySelector("h3").textContent;
      panel.on.drawing.setAttribute("aria-label", spec.panels?.length > 1 ? `${title}: ${spec.panels[panel.number].name}` : title);
      tell();
    }

    function tell() {
      for (const panel of panels) {
        const place = found[at < 0 ? rest : at];
        panel.read.textContent = place ? place.told[panel.number] : "";
        const cursor = panel.plot.querySelector(".cursor");
        if (!cursor || !panel.on) continue;
        const { box, across, down } = panel.on;
        if (at < 0) cursor.setAttribute("d", "");
        else if (spec.kind === "rows") cursor.setAttribute("d", `M0 ${down(place.y) + 18}H${panel.on.width}`);
        else cursor.setAttribute("d", `M${across(place.x)} ${box.top}V${box.bottom}`);
      }
    }

    function move(index, aloud) {
      at = index;
      tell();
      const names = spec.panels?.length > 1 ? spec.panels.map((panel) => `${panel.name}, `) : [""];
      if (aloud) document.getElementById("told").textContent = found[at].told.map((text, n) => names[n] + text).join("; ");
    }

    function nearest(panel, event) {
      const frame = panel.plot.getBoundingClientRect();
      const [px, py] = [event.clientX - frame.left, event.clientY - frame.top];
      const { across, down } = panel.on;
      const far = (place) => Math.hypot(place.x === undefined ? 0 : across(place.x) - px, spec.kind === "lines" ? 0 : down(place.y) - py);
      return found.reduce((best, place, index) => (far(place) < far(found[best]) ? index : best), 0);
    }

    const leave = () => { at = -1; tell(); };
    for (const panel of panels) {
      const point = (event) => { if (found.length && panel.on) move(nearest(panel, event)); };
      panel.plot.addEventListener("pointermove", point);
      panel.plot.addEventListener("pointerdown", point);
      panel.plot.addEventListener("pointerleave", leave);
      new ResizeObserver(() => { if (panel.plot.clientWidth !== panel.width) { panel.width = panel.plot.clientWidth; draw(panel); } }).observe(panel.plot);
      panel.width = panel.plot.clientWidth;
      draw(panel);
    }
    group.addEventListener("blur", leave);
    group.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const end = { Home: 0, End: found.length - 1 }[event.key];
      if (event.key === "Escape") leave();
      if ((step === undefined && end === undefined) || !found.length) return;
      move(end ?? Math.max(0, Math.min(found.length - 1, at < 0 ? (step > 0 ? 0 : found.length - 1) : at + step)), true);
      event.preventDefault();
    });
  }

  [...document.querySelectorAll("figure.chart")].forEach(build);
  // On paper nothing can be unfolded.
  const folded = [...document.querySelectorAll("details")];
  let open = [];
  window.addEventListener("beforeprint", () => { open = folded.map((one) => one.open); folded.forEach((one) => { one.open = true; }); });
  window.addEventListener("afterprint", () => folded.forEach((one, n) => { one.open = open[n]; }));
})();
