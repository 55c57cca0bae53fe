"use strict";
(() => {
  // Figures are data and layout; each is drawn as SVG to the width it has, and again when that changes. Colours of the
  // page are CSS variables, so that a change of theme draws nothing anew.
  const NS = "http://www.w3.org/2000/svg";
  const hidden = new Set();  // groups that the legend has switched off

  function svg(name, attributes, parent, text) {
    const element = document.createElementNS(NS, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text !== undefined) element.textContent = text;
    parent?.append(element);
    return element;
  }

  const finite = (values) => values.filter((value) => Number.isFinite(value));
  const groupOf = (trace) => trace.group ?? "";
  const shown = (trace) => !hidden.has(groupOf(trace));

  // Round numbers that divide a range: 1, 2 or 5 times a power of ten.
  function ticks(low, high, most, whole) {
    const span = high - low || 1;
    let step = 10 ** Math.floor(Math.log10(span / most));
    for (const factor of [1, 2, 5, 10]) if (span / (step * factor) <= most) { step *= factor; break; }
    if (whole) step = Math.max(1, Math.round(step));
    const found = [];
    for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) found.push(value);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    return found.map((value) => ({ value, text: (Math.abs(value) < step * 1e-9 ? 0 : value).toFixed(Math.min(digits, 8)) }));
  }

  function bounds(values, given, zero) {
    if (given) return given;
    const all = finite(zero ? [...values, 0] : values);
    if (!all.length) return [0, 1];
    const [low, high] = [all.reduce((a, b) => Math.min(a, b)), all.reduce((a, b) => Math.max(a, b))];
    const margin = 0.05 * (high - low) || Math.abs(high) * 0.05 || 0.5;
    return [low - margin, high + margin];
  }

  function path(xs, ys, across, down, shape) {
    let text = "";
    let pen = false;
    let before = 0;
    xs.forEach((x, index) => {
      const y = ys[index];
      if (!Number.isFinite(y)) { pen = false; return; }
      const [px, py] = [across(x).toFixed(1), down(y).toFixed(1)];
      text += !pen ? `M${px} ${py}` : shape === "hv" ? `L${px} ${before}L${px} ${py}` : `L${px} ${py}`;
      pen = true;
      before = py;
    });
    return text;
  }

  function build(figure) {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    const plot = figure.querySelector(".plot");
    const { xaxis, yaxis } = spec.layout;
    const rows = Boolean(yaxis.tickvals);
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    let geometry = null;
    let at = -1;

    function draw() {
      const width = Math.max(plot.clientWidth, 220);
      const height = spec.layout.height ?? 310;
      const traces = spec.data.filter(shown);
      // Bars of errors take room as well.
      const reach = (trace) => (trace.error_x ? trace.x.flatMap((x, n) => [x - trace.error_x.array[n], x + trace.error_x.array[n]]) : []);
      const xs = bounds(traces.flatMap((trace) => [...trace.x, ...reach(trace)]), null, rows);
      if (!rows) [xs[0], xs[1]] = [Math.min(...finite(spec.data.flatMap((t) => t.x))), Math.max(...finite(spec.data.flatMap((t) => t.x)))];
      if (xs[0] === xs[1]) { xs[0] -= 0.5; xs[1] += 0.5; }
      const ys = bounds(traces.flatMap((trace) => trace.y), yaxis.range, false);
      const marks = rows ? yaxis.tickvals.map((value, n) => ({ value, text: yaxis.ticktext[n] })) : ticks(ys[0], ys[1], 5);
      const left = Math.min(width * 0.42, 26 + 7.2 * Math.max(...marks.map((mark) => mark.text.length), 1));
      const box = { left, right: width - 14, top: 10, bottom: height - 44 };
      const across = (x) => box.left + ((x - xs[0]) / (xs[1] - xs[0])) * (box.right - box.left);
      const down = (y) => box.bottom - ((y - ys[0]) / (ys[1] - ys[0])) * (box.bottom - box.top);
      geometry = { across, down, box, traces, width };
      const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true", focusable: "false" });
      const clip = `clip-${[...document.querySelectorAll("figure")].indexOf(figure)}`;
      const room = rows ? 0 : 3;
      const clipped = svg("clipPath", { id: clip }, svg("defs", {}, drawing));
      svg("rect", { x: box.left - 6, y: box.top - room, width: box.right - box.left + 12, height: box.bottom - box.top + 2 * room }, clipped);
      for (const mark of marks) {
        const y = down(mark.value);
        svg("path", { class: "grid", d: `M${box.left} ${y}H${box.right}` }, drawing);
        svg("text", { x: box.left - 8, y: y + 4, "text-anchor": "end" }, drawing, mark.text);
      }
      for (const mark of ticks(xs[0], xs[1], Math.max(2, Math.floor(width / 90)), !rows)) {
        const x = across(mark.value);
        svg("path", { class: rows && Math.abs(mark.value) < 1e-12 ? "zero" : "grid", d: `M${x} ${box.top}V${box.bottom}` }, drawing);
        svg("text", { x, y: box.bottom + 17, "text-anchor": "middle" }, drawing, mark.text);
      }
      svg("text", { class: "title", x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, drawing, xaxis.title.text);
      if (yaxis.title) svg("text", { class: "title", transform: `translate(11 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, drawing, yaxis.title.text);
      const inside = svg("g", { "clip-path": `url(#${clip})` }, drawing);
      for (const trace of traces) one(trace, inside, across, down);
      svg("path", { class: "cursor", d: "" }, drawing);
      plot.replaceChildren(drawing, tip);
      if (at >= 0) point(at);
    }

    function one(trace, inside, across, down) {
      if (trace.fill) {
        svg("path", { d: `${path(trace.x, trace.y, across, down)}Z`, fill: trace.fillcolor }, inside);
      } else if (trace.mode === "lines") {
        const dash = trace.line.dash === "dot" ? { "stroke-dasharray": "2 4" } : {};
        svg("path", { class: "line", d: path(trace.x, trace.y, across, down, trace.line.shape), stroke: trace.line.color, "stroke-width": trace.line.width, ...dash }, inside);
      } else {
        trace.x.forEach((x, index) => {
          const y = trace.y[index];
          if (!Number.isFinite(x) || !Number.isFinite(y)) return;
          const error = trace.error_x?.array[index] ?? 0;
          if (error) {
            const [from, to] = [across(x - error), across(x + error)];
            svg("path", { class: "line", stroke: trace.error_x.color, "stroke-width": 2.5, d: `M${from} ${down(y)}H${to}M${from} ${down(y) - 5}v10M${to} ${down(y) - 5}v10` }, inside);
          }
          const open = trace.marker.symbol === "circle-open";
          svg("circle", { cx: across(x), cy: down(y), r: trace.marker.size / 2, fill: open ? "none" : trace.marker.color, stroke: trace.marker.color, "stroke-width": open ? 2 : 0, opacity: trace.marker.opacity ?? 1 }, inside);
        });
      }
    }

    // What a place shows: of curves all values there, of dots the nearest.
    const places = rows ? [] : [...new Set(spec.data.filter((trace) => !trace.fill).flatMap((trace) => trace.x))].sort((a, b) => a - b);
    const dots = rows ? spec.data.flatMap((trace) => trace.x.map((x, n) => ({ trace, x, y: trace.y[n] }))) : [];
    const count = () => (rows ? dots.length : places.length);

    function point(index) {
      at = index;
      const { across, down, box, traces, width } = geometry;
      const cursor = plot.querySelector(".cursor");
      let [x, y, head, rowsOf] = [0, box.top, "", []];
      if (rows) {
        const dot = dots[index];
        if (!shown(dot.trace)) return leave();
        [x, y] = [across(dot.x), down(dot.y)];
        head = "";
        rowsOf = [[dot.trace.marker.color, dot.trace.name, `${dot.x > 0 ? "+" : ""}${dot.x.toFixed(4)}`]];
        cursor.setAttribute("d", "");
      } else {
        x = across(places[index]);
        head = `${xaxis.title.text} ${places[index]}`;
        for (const trace of traces) {
          const value = trace.fill ? null : trace.y[trace.x.indexOf(places[index])];
          if (Number.isFinite(value)) rowsOf.push([trace.line.color, trace.name, value.toFixed(4)]);
        }
        cursor.setAttribute("d", `M${x} ${box.top}V${box.bottom}`);
      }
      tip.replaceChildren(...(head ? [line("b", head)] : []), ...rowsOf.map(([colour, name, value]) => {
        const row = line("span", `${name}: ${value}`);
        const swatch = document.createElement("i");
        swatch.style.background = colour;
        row.prepend(swatch);
        return row;
      }));
      tip.hidden = false;
      const room = tip.offsetWidth;
      tip.style.left = `${Math.max(0, x + 14 + room > width ? x - 14 - room : x + 14)}px`;
      tip.style.top = `${Math.max(0, rows ? y - tip.offsetHeight - 10 : y)}px`;
      return undefined;
    }

    function line(name, text) {
      const element = document.createElement(name);
      element.textContent = text;
      return element;
    }

    function leave() {
      at = -1;
      tip.hidden = true;
      plot.querySelector(".cursor")?.setAttribute("d", "");
    }

    function nearest(event) {
      const frame = plot.getBoundingClientRect();
      const [px, py] = [event.clientX - frame.left, event.clientY - frame.top];
      const far = (index) => (rows
        ? (shown(dots[index].trace) ? Math.hypot(geometry.across(dots[index].x) - px, geometry.down(dots[index].y) - py) : Infinity)
        : Math.abs(geometry.across(places[index]) - px));
      let best = 0;
      for (let index = 1; index < count(); index += 1) if (far(index) < far(best)) best = index;
      return best;
    }

    plot.addEventListener("pointermove", (event) => { if (count()) point(nearest(event)); });
    plot.addEventListener("pointerdown", (event) => { if (count()) point(nearest(event)); });
    plot.addEventListener("pointerleave", leave);
    plot.addEventListener("blur", leave);
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") leave();
      if (step === undefined || !count()) return;
      point(Math.max(0, Math.min(count() - 1, at < 0 ? (step > 0 ? 0 : count() - 1) : at + step)));
      event.preventDefault();
    });
    let width = 0;
    new ResizeObserver(() => { if (plot.clientWidth !== width) { width = plot.clientWidth; draw(); } }).observe(plot);
    draw();
    return draw;
  }

  const drawn = [...document.querySelectorAll("figure:not(.picture)")].map(build);
  for (const button of document.querySelectorAll(".key button")) {
    button.addEventListener("click", () => {
      const { group } = button.dataset;
      hidden[hidden.has(group) ? "delete" : "add"](group);
      button.setAttribute("aria-pressed", String(!hidden.has(group)));
      drawn.forEach((draw) => draw());
    });
  }
  window.addEventListener("beforeprint", () => drawn.forEach((draw) => draw()));
})();
