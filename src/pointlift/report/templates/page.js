"use strict";
// Sorting, reading values and copying. Everything the page says is there without this script.
const pageData = JSON.parse(document.getElementById("page-data").textContent);

// --- tables: a header button sorts by its column, first the more telling way round for its kind ---
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    const numeric = button.dataset.kind === "number";
    button.addEventListener("click", () => {
      const was = head.getAttribute("aria-sort");
      const down = was === "none" ? numeric : was === "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.v;
      const compare = numeric
        ? (a, b) => Number(value(a)) - Number(value(b))
        : (a, b) => value(a).localeCompare(value(b), undefined, { numeric: true });
      const rows = [...body.rows].sort((a, b) => (down ? compare(b, a) : compare(a, b)));
      body.append(...rows);
    });
  });
}

// --- what is wider than its box fades out on the side where there is more ---
for (const box of document.querySelectorAll(".scroll")) {
  const mark = () => {
    const hidden = box.scrollWidth - box.clientWidth - box.scrollLeft;
    box.classList.toggle("more-right", hidden > 2);
    box.classList.toggle("more-left", box.scrollLeft > 2);
  };
  box.addEventListener("scroll", mark, { passive: true });
  new ResizeObserver(mark).observe(box);
  mark();
}

// --- curves: all panels read the same epoch ---
const figures = [...document.querySelectorAll("[data-panel]")];
let epochAt = figures.length ? pageData.panels[figures[0].dataset.panel].shown : 0;

function readEpoch(position) {
  epochAt = Math.max(0, Math.min(pageData.epochs.length - 1, position));
  for (const figure of figures) {
    const panel = pageData.panels[figure.dataset.panel];
    const x = panel.xs[epochAt];
    const cursor = figure.querySelector(".cursor");
    cursor.setAttribute("d", cursor.getAttribute("d").replace(/^M[\d.-]+/, "M" + x));
    figure.querySelector("[data-epoch]").textContent = pageData.epochs[epochAt];
    panel.series.forEach((line, i) => {
      const dot = figure.querySelector(`[data-dot="${i}"]`);
      const y = line.ys[epochAt];
      dot.setAttribute("visibility", y === null ? "hidden" : "visible");
      dot.setAttribute("cx", x);
      if (y !== null) dot.setAttribute("cy", y);
      figure.querySelector(`[data-value="${i}"]`).textContent = line.texts[epochAt] ?? "–";
    });
  }
}

for (const figure of figures) {
  const chart = figure.querySelector(".chart");
  const panel = pageData.panels[figure.dataset.panel];
  const activate = (on) => figures.forEach((f) => f.classList.toggle("active", on));
  chart.addEventListener("pointermove", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse()).x;
    let nearest = 0;
    panel.xs.forEach((x, i) => { if (Math.abs(x - at) < Math.abs(panel.xs[nearest] - at)) nearest = i; });
    activate(true);
    readEpoch(nearest);
  });
  chart.addEventListener("pointerleave", () => { activate(false); readEpoch(panel.shown); });
  figure.addEventListener("focus", () => activate(true));
  figure.addEventListener("blur", () => { activate(false); readEpoch(panel.shown); });
  figure.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: epochAt - 1, ArrowRight: epochAt + 1, Home: 0, End: pageData.epochs.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    activate(true);
    readEpoch(to);
  });
}

// --- confusion matrix: cells are placed by an order of the classes and read by pointer or keys ---
if (pageData.matrix) {
  const { classes, cell, support, cells, orders } = pageData.matrix;
  const box = document.getElementById("matrix");
  const svg = document.getElementById("matrix-cells");
  const output = document.getElementById("matrix-reading");
  const select = document.getElementById("matrix-order");
  const top = Number(svg.dataset.top);
  const counts = new Map(cells.map(([r, c, n]) => [r * classes.length + c, n]));
  let order = orders.given;
  let at = null; // [row, column] as positions in the current order

  const shift = (element, x, y) => {
    const [, x0, y0] = element.getAttribute("transform").match(/translate\(([\d.-]+) ([\d.-]+)\)/);
    element.setAttribute("transform", `translate(${x ?? x0} ${y ?? y0})`);
  };
  const rowNames = [...box.querySelectorAll("[data-row]")];
  const columnNames = [...svg.querySelectorAll("[data-column]")];
  const offset = (element, axis) => Number(element.getAttribute("transform").match(/[\d.-]+/g)[axis]);
  const rowStart = offset(rowNames[0], 1);
  const columnStart = offset(columnNames[0], 0);

  const part = (text, strong) => {
    const node = document.createElement(strong ? "b" : "span");
    node.textContent = text;
    return node;
  };

  function place() {
    const position = [];
    order.forEach((klass, i) => { position[klass] = i; });
    for (const g of svg.querySelectorAll(".cell")) shift(g, position[g.dataset.c] * cell, position[g.dataset.r] * cell);
    rowNames.forEach((name, klass) => shift(name, null, rowStart + position[klass] * cell));
    columnNames.forEach((name, klass) => shift(name, columnStart + position[klass] * cell, null));
  }

  function read(row, column) {
    at = [row, column];
    const [t, p] = [order[row], order[column]];
    const n = counts.get(t * classes.length + p) ?? 0;
    const share = support[t] ? ` (${((100 * n) / support[t]).toFixed(1)} %)` : "";
    output.replaceChildren(part(classes[t], true), part(t === p ? " recognised: " : " taken for "));
    if (t !== p) output.append(part(classes[p], true), part(": "));
    output.append(part(`${n} of ${support[t]}`, true), part(share));
    const mark = (id, x, y) => document.getElementById(id).setAttribute("transform", `translate(${x} ${y})`);
    mark("band-row", 0, row * cell);
    mark("band-column", column * cell, 0);
    mark("band-cell", column * cell, row * cell);
    document.getElementById("matrix-cursor").setAttribute("visibility", "visible");
    rowNames.forEach((name, klass) => name.classList.toggle("on", klass === t));
    columnNames.forEach((name, klass) => name.classList.toggle("on", klass === p));
  }

  const point = (event) => {
    const bounds = svg.getBoundingClientRect();
    const column = Math.floor((event.clientX - bounds.left) / cell);
    const row = Math.floor((event.clientY - bounds.top - top) / cell);
    if (row >= 0 && column >= 0 && row < classes.length && column < classes.length) read(row, column);
  };
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point); // a tap
  box.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const clamp = (v) => Math.max(0, Math.min(classes.length - 1, v));
    read(...(at ? [clamp(at[0] + step[0]), clamp(at[1] + step[1])] : [0, 0]));
    const names = box.querySelector(".row-names").getBoundingClientRect().width;
    const x = at[1] * cell;
    if (x < box.scrollLeft) box.scrollLeft = x;
    if (x + cell + names > box.scrollLeft + box.clientWidth) box.scrollLeft = x + cell + names - box.clientWidth;
  });
  select.parentElement.hidden = classes.length < 3;
  select.addEventListener("change", () => {
    order = orders[select.value];
    place();
    document.getElementById("matrix-cursor").setAttribute("visibility", "hidden");
    at = null;
  });
}

// --- copy ---
for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
