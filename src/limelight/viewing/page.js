"use strict";
/* The curves of report.html: values under the pointer, zoom, three axes, and updates while a run goes on. */
(() => {
const $ = (id) => document.getElementById(id);
let data = JSON.parse($("data").textContent);
const status = $("status");
const interval = Number(document.body.dataset.live || 0);
if (location.hash === "#feed") {                 // a hidden copy of the page, which passes on what is new
  if (parent !== window) parent.postMessage({ data, live: interval, status: status ? status.innerHTML : "" }, "*");
  return;
}
document.body.classList.add("scripted");
const NS = $("namespace").namespaceURI;
const figures = [...document.querySelectorAll("figure.chart")];
let mode = "steps", zoom = null, cursor = null;

const element = (name, attributes, parent) => {
  const node = document.createElementNS(NS, name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  if (parent) parent.appendChild(node);
  return node;
};
const short = (v) => {
  if (v === null || v === undefined) return "–";
  const a = Math.abs(v);
  if (a > 0 && a < 1e-3) return v.toExponential(2).replaceAll("-", "−");
  const [unit, letter] = a >= 1e9 ? [1e9, "G"] : a >= 1e6 ? [1e6, "M"] : a >= 1e4 ? [1e3, "k"] : [1, ""];
  return String(Number((v / unit).toPrecision(4))).replace("-", "−") + letter;
};
const clock = (s) => {
  s = Math.round(s);
  const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60, r = String(s % 60).padStart(2, "0");
  return h ? `${h}:${String(m).padStart(2, "0")}:${r}` : `${m}:${r}`;
};
const place = (x) => mode === "seconds" ? clock(x) : `${short(x)} ${mode}`;
const ticks = (low, high, count, steps) => {
  const span = high - low || 1, raw = span / count;
  let size = steps ? steps.find((s) => s >= raw) : undefined;
  if (!size) { const e = 10 ** Math.floor(Math.log10(raw)); size = [1, 2, 5, 10].map((k) => k * e).find((s) => s >= raw); }
  const found = [];
  for (let t = Math.ceil(low / size - 1e-9) * size; t <= high + size * 1e-9; t += size) found.push(Number(t.toPrecision(12)));
  return found;
};
const CLOCK = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400];
const xs = (series) => data.axes[series.axis][mode];
const whole = () => [0, Math.max(1, ...data.axes.map((axis) => axis[mode][axis[mode].length - 1] || 0))];
const range = () => zoom || whole();
const nearest = (array, x) => {
  let low = 0, high = array.length - 1;
  while (low < high) { const middle = (low + high) >> 1; if (array[middle] < x) low = middle + 1; else high = middle; }
  return low > 0 && x - array[low - 1] < array[low] - x ? low - 1 : low;
};

function heights(chart, x0, x1) {
  let low = Infinity, high = -Infinity;
  const see = (v) => { if (v !== null && v !== undefined) { if (v < low) low = v; if (v > high) high = v; } };
  for (const s of chart.series) xs(s).forEach((x, i) => {
    if (x >= x0 && x <= x1) { see(s.y[i]); if (s.low) { see(s.low[i]); see(s.high[i]); } }
  });
  if (chart.target !== null) see(chart.target);
  if (low > high) return [0, 1];
  if (chart.group === "workers" || chart.group === "time") low = Math.min(low, 0);
  const room = (high - low) * 0.05 || Math.abs(high) * 0.1 || 1;
  return [chart.group === "workers" || chart.group === "time" ? low : low - room, high + room];
}

function draw(figure) {
  const chart = data.charts[figure.dataset.chart], box = figure.querySelector(".plot");
  if (!chart) return;
  const width = Math.max(220, box.clientWidth), tall = chart.group === "returns";
  const height = tall ? Math.min(380, Math.max(240, width * 0.42)) : 170;
  const L = 54, R = 12, T = 8, B = 22, [x0, x1] = range(), [y0, y1] = heights(chart, x0, x1);
  const X = (v) => L + (v - x0) / (x1 - x0) * (width - L - R), Y = (v) => height - B - (v - y0) / (y1 - y0) * (height - T - B);
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
  const clip = `clip${figure.dataset.chart}`;
  element("rect", { x: L - 2, y: T - 6, width: width - L - R + 9, height: height - T - B + 10 }, element("clipPath", { id: clip }, element("defs", {}, svg)));
  for (const t of ticks(y0, y1, tall ? 6 : 3)) {
    element("line", { x1: L, x2: width - R, y1: Y(t), y2: Y(t), class: "grid" }, svg);
    element("text", { x: L - 6, y: Y(t) + 4, "text-anchor": "end" }, svg).textContent = short(t);
  }
  for (const t of ticks(x0, x1, Math.max(2, width / 110), mode === "seconds" ? CLOCK : null)) {
    element("line", { x1: X(t), x2: X(t), y1: T, y2: height - B, class: "grid" }, svg);
    const anchor = X(t) > width - 24 ? "end" : "middle";
    element("text", { x: Math.min(X(t), width - 2), y: height - 6, "text-anchor": anchor }, svg).textContent = mode === "seconds" ? clock(t) : short(t);
  }
  const body = element("g", { "clip-path": `url(#${clip})` }, svg);
  for (const s of chart.series) lines(body, s, X, Y);
  if (chart.target !== null) element("line", { x1: L, x2: width - R, y1: Y(chart.target), y2: Y(chart.target), class: "target" }, body);
  element("line", { y1: T, y2: height - B, class: "cursor", visibility: "hidden" }, svg);
  element("rect", { y: T, height: height - T - B, class: "brush", visibility: "hidden" }, svg);
  box.replaceChildren(svg);
  figure.scale = { X, x: (px) => x0 + (px - L) / (width - L - R) * (x1 - x0), L, right: width - R };
  read(figure);
}

function lines(body, s, X, Y) {
  const x = xs(s), color = `var(--c${s.color})`;
  if (s.low) s.y.forEach((v, i) => {
    const ends = [[s.low[i], s.high[i], "range"], [v - s.std[i], v + s.std[i], "spread"]];
    for (const [a, b, name] of ends) if (v !== null && a !== null && b !== null && s.std[i] !== null)
      element("line", { x1: X(x[i]), x2: X(x[i]), y1: Y(a), y2: Y(b), class: name, stroke: color }, body);
  });
  let path = "", pen = false, single = x.length === 1;
  s.y.forEach((v, i) => {
    if (v === null) { pen = false; return; }
    const point = `${X(x[i]).toFixed(1)} ${Y(v).toFixed(1)}`;
    path += s.style === "dot" || single ? `M${point}h0` : (pen ? "L" : "M") + point;
    pen = true;
  });
  element("path", { d: path || "M0 0", class: single ? "dot single" : s.style, stroke: color }, body);
  if (s.style === "mark") {
    let best = -1;
    s.y.forEach((v, i) => { if (v !== null && (best < 0 || v >= s.y[best])) best = i; });
    s.y.forEach((v, i) => { if (v !== null) element("circle", { cx: X(x[i]), cy: Y(v), r: i === best ? 5 : 2.5, fill: color, class: i === best ? "best" : "" }, body); });
  }
}

function read(figure) {                          // the values under the cursor; without one, the last ones
  const chart = data.charts[figure.dataset.chart], output = figure.querySelector("output");
  const line = figure.querySelector(".cursor"), [x0, x1] = range(), items = [];
  for (const s of chart.series) {
    const x = xs(s);
    if (!x.length) continue;
    const i = cursor === null ? x.length - 1 : nearest(x, cursor);
    const item = document.createElement("span"), key = document.createElement("i");
    key.className = `key ${s.style}`; key.style.color = `var(--c${s.color})`;
    let value = short(s.y[i]);
    if (s.std && s.std[i] !== null) value += ` ± ${short(s.std[i])}`;
    item.append(key, chart.series.length > 1 ? `${s.label} ${value}` : value);
    items.push(item);
    if (items.length === 12 && chart.series.length > 12) { items.push(`and ${chart.series.length - 12} more`); break; }
  }
  if (!items.length) items.push(chart.group === "returns" ? "no episode has finished yet" : "no value yet");
  const where = document.createElement("span"); where.className = "where";
  where.textContent = cursor === null ? "last" : `at ${place(cursor)}`;
  output.replaceChildren(where, ...items.flatMap((item) => [" ", item]));
  if (!line) return;
  const inside = cursor !== null && cursor >= x0 && cursor <= x1;
  line.setAttribute("visibility", inside ? "visible" : "hidden");
  if (inside) { line.setAttribute("x1", figure.scale.X(cursor)); line.setAttribute("x2", figure.scale.X(cursor)); }
}

const readAll = () => figures.forEach(read);
const drawAll = () => { figures.forEach(draw); $("reset").hidden = !zoom; };
const zoomTo = (a, b) => {
  const [low, high] = whole();
  zoom = a === null ? null : [Math.max(low, a), Math.min(high, b)];
  if (zoom && !(zoom[1] - zoom[0] > (high - low) * 1e-6)) zoom = null;
  drawAll();
};

for (const figure of figures) {
  const box = figure.querySelector(".plot"), output = figure.querySelector("output");
  let start = null;
  const at = (event) => {
    const px = event.clientX - box.getBoundingClientRect().left;
    return figure.scale.x(Math.min(figure.scale.right, Math.max(figure.scale.L, px)));
  };
  box.addEventListener("pointermove", (event) => {
    cursor = at(event); readAll();
    const brush = figure.querySelector(".brush");
    if (start === null) return;
    const a = figure.scale.X(Math.min(start, cursor)), b = figure.scale.X(Math.max(start, cursor));
    brush.setAttribute("x", a); brush.setAttribute("width", b - a); brush.setAttribute("visibility", "visible");
  });
  box.addEventListener("pointerdown", (event) => { if (event.button === 0) { start = cursor = at(event); box.setPointerCapture?.(event.pointerId); readAll(); } });
  box.addEventListener("pointerup", (event) => {
    const end = at(event), from = start;
    start = null;
    if (from !== null && Math.abs(figure.scale.X(end) - figure.scale.X(from)) > 8) zoomTo(Math.min(from, end), Math.max(from, end));
    else figure.querySelector(".brush").setAttribute("visibility", "hidden");
  });
  box.addEventListener("pointerleave", () => { if (start === null) { cursor = null; readAll(); } });
  box.addEventListener("pointercancel", () => { start = null; cursor = null; drawAll(); });
  box.addEventListener("dblclick", () => zoomTo(null));
  box.addEventListener("focus", () => output.setAttribute("aria-live", "polite"));
  box.addEventListener("blur", () => { output.removeAttribute("aria-live"); cursor = null; readAll(); });
  box.addEventListener("keydown", (event) => {
    const [x0, x1] = range(), span = x1 - x0, here = cursor === null ? x1 : cursor;
    if (event.key === "ArrowLeft") cursor = Math.max(x0, here - span / 50);
    else if (event.key === "ArrowRight") cursor = Math.min(x1, here + span / 50);
    else if (event.key === "Home") cursor = x0;
    else if (event.key === "End") cursor = x1;
    else if (event.key === "+" || event.key === "=") return zoomTo(here - span / 4, here + span / 4);
    else if (event.key === "-") return zoomTo(here - span, here + span);
    else if (event.key === "0" || event.key === "Escape") return zoomTo(null);
    else return;
    event.preventDefault(); readAll();
  });
}
for (const radio of document.querySelectorAll("input[name=axis]"))
  radio.addEventListener("change", () => { mode = radio.value; zoom = cursor = null; drawAll(); });
$("reset").addEventListener("click", () => zoomTo(null));
new ResizeObserver(() => figures.forEach((figure) => {
  const svg = figure.querySelector(".plot svg");
  if (!svg || Number(svg.getAttribute("width")) !== Math.max(220, figure.querySelector(".plot").clientWidth)) draw(figure);
})).observe(document.body);
drawAll();
if (!interval) return;

/* While the run goes on: read the newest page in a hidden frame, and redraw. */
const pause = $("pause");
let paused = false, frame = null;
pause.hidden = false;
pause.addEventListener("click", () => { paused = !paused; pause.textContent = paused ? "Continue updates" : "Pause updates"; pause.setAttribute("aria-pressed", paused); });
addEventListener("message", (event) => {
  if (!frame || event.source !== frame.contentWindow || !event.data || !event.data.data) return;
  frame.remove(); frame = null;
  const isOther = !event.data.live || event.data.data.charts.length !== data.charts.length;
  if (isOther) { location.reload(); return; }    // the finished report, or a new chart
  data = event.data.data; status.innerHTML = event.data.status;
  drawAll();
});
setInterval(() => {
  if (paused || document.hidden) return;
  if (frame) frame.remove();
  frame = document.createElement("iframe");
  frame.hidden = true; frame.title = "newest data";
  frame.src = `${location.pathname}?${Date.now()}#feed`;
  document.body.appendChild(frame);
}, interval * 1000);
})();
