"use strict";
(() => {
  // Boxes are numbered as they are drawn, each before what stands in it: so a pass over the numbers goes down the tree,
  // and one backwards goes up.
  const data = JSON.parse(document.getElementById("data").textContent);
  const drawing = document.getElementById("drawing");
  const lines = document.getElementById("lines");
  const panel = document.getElementById("panel");
  const count = data.parents.length;
  // Words in the page's language; the form that a number takes repeats by the hundred.
  const words = data.words;
  function said(name, n = 0) {
    const forms = words[name];
    return forms[Math.min(words.form[n < 200 ? n : 100 + (n % 100)], forms.length - 1)];
  }
  const boxes = data.parents.map((_, number) => {
    const element = document.getElementById(`box-${number}`);
    const head = element.querySelector(":scope > .head");
    return {
      element, head, cell: document.getElementById(`cell-${number}`), name: element.querySelector(".name"), badges: head.querySelector(".badges"),
      fold: head.querySelector(".fold"), list: element.querySelector(":scope > ol"), inside: head.querySelector(".inside"),
      marks: element.dataset.marks.split(" ").filter(Boolean), text: `${element.dataset.layer ?? ""} ${head.querySelector(".title").textContent}`.toLowerCase(),
    };
  });
  const overall = boxes.map((box) => box.marks);
  const signs = {};
  for (const badge of document.querySelectorAll("#key .badge")) signs[badge.dataset.mark] = badge;
  const TINTS = ["here", "zeroed", "changed"];
  const MOST_LANES = 14;
  let shown = -1;

  const sites = data.sites.map((site) => ({
    ...site, zeroedSet: new Set(site.zeroed), changedSet: new Set(site.changed), gradientSet: new Set(site.gradients), fromSet: new Set(site.from),
  }));
  const everywhere = { fromSet: new Set(), changedSet: new Set() };
  for (const site of data.sites) {
    for (const number of site.from) everywhere.fromSet.add(number);
    for (const number of site.changed) everywhere.changedSet.add(number);
  }

  // Marks: what each box shows, for all dropouts or for the one that is chosen.
  function marksOf(number) {
    if (shown < 0) return overall[number];
    const site = sites[shown];
    const marks = [];
    if (site.box === number) marks.push("here");
    if (site.zeroedSet.has(number)) marks.push("zeroed");
    if (site.changedSet.has(number)) marks.push("changed");
    if (site.gradientSet.has(number)) marks.push("gradient-changed");
    return marks;
  }

  function paint() {
    const inside = Array.from({ length: count }, () => ({ here: 0, zeroed: 0, changed: 0, "gradient-changed": 0 }));
    const marks = boxes.map((_, number) => marksOf(number));
    for (let number = count - 1; number > 0; number -= 1) {
      const above = inside[data.parents[number]];
      for (const mark in above) above[mark] += inside[number][mark] + (marks[number].includes(mark) ? 1 : 0);
    }
    boxes.forEach((box, number) => paintBox(box, marks[number], inside[number]));
    drawing.toggleAttribute("data-shown", shown >= 0);
    redraw();
  }

  function paintBox(box, marks, inside) {
    const closed = box.list?.hidden ?? false;
    const has = (mark) => marks.includes(mark) || (closed && inside[mark] > 0);
    if (marks.join() !== box.marks.join()) box.badges.replaceChildren(...marks.map((mark) => signs[mark].cloneNode(true)));
    box.marks = marks;
    box.element.dataset.marks = marks.join(" ");
    box.tint = TINTS.find(has) ?? "untouched";
    box.element.dataset.tint = box.tint;
    if (box.cell) box.cell.dataset.tint = box.tint;
    box.element.toggleAttribute("data-back", has("gradient-changed"));
    box.element.toggleAttribute("data-dim", shown >= 0 && box.tint === "untouched" && !has("gradient-changed"));
    if (box.inside === null) return;
    box.inside.hidden = !closed;
    if (closed) box.inside.replaceChildren(...insideWords(Number(box.inside.dataset.layers), inside));
  }

  // "13 layers inside: 3 drop, 4 outputs zeroed", the numbers bold.
  function insideWords(layers, inside) {
    const parts = [];
    for (const mark of ["here", "zeroed", "changed", "gradient-changed"]) {
      if (!inside[mark]) continue;
      const number = document.createElement("b");
      number.textContent = inside[mark];
      parts.push(...(parts.length ? put(said("comma"), { before: "", item: "" }) : []), ...put(said(mark, inside[mark]), { n: number }));
    }
    if (!parts.length) parts.push(said(shown < 0 ? "untouched" : "unreached"));
    return put(said("inside", layers), { n: [layers], what: parts });
  }

  // A template with something, or several things, in each of its places.
  function put(text, places) {
    return text.split(/\{(\w+)(?::,)?\}/).flatMap((part, index) => (index % 2 ? places[part] : part)).filter((part) => part !== "");
  }

  // Choosing a dropout; the same again shows all.
  function choose(number) {
    shown = number === shown ? -1 : number;
    for (const button of document.querySelectorAll("[data-site]")) button.setAttribute("aria-pressed", String(Number(button.dataset.site) === shown));
    const site = data.sites[shown];
    panel.classList.toggle("chosen", Boolean(site));
    document.getElementById("panel-title").textContent = site?.name ?? said("all");
    document.getElementById("panel-sentence").textContent = site?.sentence ?? data.overview;
    const facts = document.getElementById("panel-facts");
    facts.hidden = !site;
    facts.replaceChildren(...(site?.facts ?? []).flatMap(([name, value]) => {
      const [term, description] = [document.createElement("dt"), document.createElement("dd")];
      [term.textContent, description.textContent] = [name, value];
      return [term, description];
    }));
    panel.querySelector(".actions").hidden = !site;
    paint();
    if (!site) return;
    showChoice();
    // On a narrow screen the panel may now cover what was pressed.
    const pressed = document.activeElement;
    if (pressed?.matches(".site")) pressed.scrollIntoView({ block: "nearest" });
  }

  // Scrolls the list of dropouts alone, not the page.
  function showChoice() {
    const list = panel.querySelector(".choices");
    const { offsetTop: top, offsetHeight: height } = list.querySelector(`[data-site="${shown}"]`).parentElement;
    if (top < list.scrollTop || top + height > list.scrollTop + list.clientHeight) list.scrollTop = top - list.clientHeight / 2;
  }

  function clear() {
    if (shown < 0) return;
    const last = document.querySelector(`.choice[data-site="${shown}"]`);
    const lost = document.activeElement?.closest("#panel");
    choose(shown);
    if (lost) last.focus({ preventScroll: true });
  }

  // Folding.
  function setOpen(number, open) {
    const box = boxes[number];
    if (!box.fold) return;
    box.list.hidden = !open;
    box.fold.setAttribute("aria-expanded", String(open));
  }

  function reveal(number) {
    for (let at = data.parents[number]; at > 0; at = data.parents[at]) setOpen(at, true);
    paint();
    boxes[number].element.scrollIntoView({ block: "center", behavior: still() ? "auto" : "smooth" });
  }

  const still = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

  function focusOn(number) {
    reveal(number);
    const { element } = boxes[number];
    element.tabIndex = -1;
    element.focus({ preventScroll: true });
  }

  // Lines. What stands in a closed box is represented by that box.
  function stations() {
    const ofBox = new Int32Array(count);
    const order = [];
    const ends = new Set(data.edges.flatMap(([from, to]) => [from, to]));
    for (let number = 0; number < count; number += 1) {
      const above = ofBox[data.parents[number]];
      const hidden = number > 0 && boxes[above].list?.hidden;
      ofBox[number] = hidden ? above : number;
      const open = boxes[number].list && !boxes[number].list.hidden;
      if (!hidden && (!open || ends.has(number))) order.push(number);
    }
    return { ofBox, order };
  }

  // Lines by their ends. A line "through" its first box is of what that box takes: the residual stream passes by.
  function connections(ofBox) {
    const found = new Map();
    const { fromSet, changedSet } = shown < 0 ? everywhere : sites[shown];
    const carried = new Uint8Array(count);
    for (const [from, to, through] of data.edges) {
      const carries = through ? carried[from] === 1 : fromSet.has(from) || changedSet.has(from);
      if (carries) carried[to] = 1;
      const [start, end] = [ofBox[from], ofBox[to]];
      if (start === end) continue;
      const passes = through && start === from;
      const key = 2 * (start * count + end) + (passes ? 1 : 0);
      const edge = found.get(key) ?? { start, end, passes, lit: false };
      edge.lit ||= carries && changedSet.has(to);
      found.set(key, edge);
    }
    return [...found.values()];
  }

  // Connections past a box run beside the boxes, all of one source in one lane, the shortest innermost.
  function lanes(edges, place) {
    const buses = new Map();
    for (const edge of edges) {
      const [start, end] = [place.get(edge.start), place.get(edge.end)];
      edge.straight = end === start + 1 && !edge.passes;
      if (edge.straight) continue;
      const source = edge.passes ? -edge.start - 1 : edge.start;
      const bus = buses.get(source) ?? { low: start, high: start, edges: [] };
      bus.low = Math.min(bus.low, end);
      bus.high = Math.max(bus.high, end);
      bus.edges.push(edge);
      buses.set(source, bus);
    }
    const taken = [];
    for (const bus of [...buses.values()].sort((one, two) => one.high - one.low - (two.high - two.low))) {
      let lane = 0;
      while (taken[lane] && !fits(taken[lane], bus)) lane += 1;
      taken[lane] ??= [];
      taken[lane].splice(after(taken[lane], bus.low), 0, bus);
      for (const edge of bus.edges) edge.lane = lane;
    }
    return taken.length;
  }

  // The first of the intervals, which are in order and apart, that starts at or after a place.
  function after(intervals, low) {
    let [from, to] = [0, intervals.length];
    while (from < to) {
      const middle = (from + to) >> 1;
      if (intervals[middle].low < low) from = middle + 1; else to = middle;
    }
    return from;
  }

  function fits(intervals, bus) {
    const next = after(intervals, bus.low);
    return (next === 0 || intervals[next - 1].high <= bus.low) && (next === intervals.length || intervals[next].low >= bus.high);
  }

  function svg(name, attributes) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    return element;
  }

  function path(edge, at, rail, pitch) {
    const [from, to] = [at.get(edge.start).y, at.get(edge.end).y];
    if (edge.straight) return `M${rail} ${from + 9}V${to - 11}m-3.5 -4l3.5 4l3.5 -4`;
    const lane = rail - 16 - edge.lane * pitch;
    const bend = Math.min(7, rail - lane - 2);
    const [leave, arrive, turn] = to > from ? [from + 4, to - 4, bend] : [from - 4, to + 4, -bend];
    const begin = edge.passes ? from - 4 : leave;
    return `M${rail - (edge.passes ? 10 : 8)} ${begin}H${lane + bend}Q${lane} ${begin} ${lane} ${begin + turn}V${arrive - turn}Q${lane} ${arrive} ${lane + bend} ${arrive}`
      + `H${rail - 10}m-4 -3.5l4 3.5l-4 3.5`;
  }

  function drawLines() {
    const { ofBox, order } = stations();
    const edges = connections(ofBox);
    const number = lanes(edges, new Map(order.map((box, index) => [box, index])));
    const narrow = drawing.clientWidth < 520;
    const pitch = Math.min(narrow ? 6 : 11, ((narrow ? 5 : MOST_LANES) * (narrow ? 6 : 11)) / Math.max(number, 1));
    const gutter = Math.round(28 + number * pitch);
    const rail = gutter - 16;
    drawing.style.setProperty("--gutter", `${gutter}px`);
    // Reading places after the one write above costs a single layout.
    const frame = drawing.getBoundingClientRect();
    const at = new Map(order.map((box) => {
      const name = boxes[box].name.getBoundingClientRect();
      return [box, { y: name.top + Math.min(name.height, 24) / 2 - frame.top, x: boxes[box].element.getBoundingClientRect().left - frame.left }];
    }));
    const drawn = [];
    for (const box of order) drawn.push(svg("path", { class: "tick", d: `M${rail} ${at.get(box).y}H${at.get(box).x}` }));
    for (const edge of edges.sort((one, two) => one.lit - two.lit)) {
      drawn.push(svg("path", { class: edge.lit ? "edge lit" : "edge", "data-from": edge.start, "data-to": edge.end, d: path(edge, at, rail, pitch) }));
    }
    for (const box of order) {
      const { y } = at.get(box);
      drawn.push(svg("circle", { cx: rail, cy: y, r: 9 }));
      drawn.push(svg("use", { href: `#sign-${boxes[box].tint}`, "data-tint": boxes[box].tint, x: rail - 8, y: y - 8, width: 16, height: 16 }));
    }
    lines.replaceChildren(...drawn);
  }

  let waiting = 0;
  function redraw() {
    if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; drawLines(); });
  }

  // Finding a layer: matches are outlined, Enter goes to the next, Shift and Enter back.
  const find = document.getElementById("find");
  let matches = [];
  let current = -1;
  function search() {
    const text = find.value.trim().toLowerCase();
    matches = text ? boxes.flatMap((box, number) => (number && box.text.includes(text) ? [number] : [])) : [];
    current = -1;
    mark();
  }

  function mark() {
    boxes.forEach((box, number) => box.element.classList.toggle("match", number === matches[current]));
    const found = document.getElementById("found");
    found.textContent = find.value.trim() ? (current < 0 ? put(said("found"), { n: matches.length }) : put(said("place"), { current: current + 1, n: matches.length })).join("") : "";
  }

  find.addEventListener("input", search);
  find.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !matches.length) return;
    current = (current + (event.shiftKey ? -1 : 1) + matches.length + (current < 0 && event.shiftKey ? 1 : 0)) % matches.length;
    mark();
    reveal(matches[current]);
  });

  // Arrows move among what can be pressed in the drawing; right and left open and close.
  function arrow(event) {
    const controls = [...drawing.querySelectorAll("button")].filter((button) => button.getClientRects().length);
    const index = controls.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1, Home: -index, End: controls.length - 1 - index }[event.key];
    if (index < 0) return;
    if (step !== undefined) {
      controls[Math.max(0, Math.min(controls.length - 1, index + step))].focus();
      event.preventDefault();
    } else if ((event.key === "ArrowRight" || event.key === "ArrowLeft") && controls[index].classList.contains("fold")) {
      setOpen(Number(controls[index].closest(".box").id.slice(4)), event.key === "ArrowRight");
      paint();
      event.preventDefault();
    }
  }

  // The theme follows the system until it is chosen here.
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const theme = document.getElementById("theme");
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const showTheme = () => { theme.textContent = said(isDark() ? "light" : "dark"); };
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
  });
  dark.addEventListener("change", showTheme);

  document.addEventListener("click", (event) => {
    const site = event.target.closest("[data-site]");
    const fold = event.target.closest(".fold");
    const link = event.target.closest('a[href^="#box-"]');
    if (site) choose(Number(site.dataset.site));
    if (fold) {
      setOpen(Number(fold.closest(".box").id.slice(4)), fold.getAttribute("aria-expanded") === "false");
      paint();
    }
    if (link) {
      event.preventDefault();
      focusOn(Number(link.hash.slice(5)));
    }
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") clear(); });
  drawing.addEventListener("keydown", arrow);
  for (const [id, open] of [["open", true], ["close", false]]) {
    document.getElementById(id).addEventListener("click", () => {
      boxes.forEach((_, number) => setOpen(number, open));
      paint();
    });
  }
  document.getElementById("clear").addEventListener("click", clear);
  document.getElementById("go").addEventListener("click", () => {
    const { box } = data.sites[shown];
    reveal(box);
    drawing.querySelector(`.site[data-site="${shown}"]`).focus({ preventScroll: true });
  });
  new ResizeObserver(redraw).observe(drawing);
  document.fonts?.ready.then(redraw);
  showTheme();
  paint();
})();
