// The live part of the looking glass: asks for what has changed, puts it in place, and draws what is kept.
// The server writes every word of the page; this only patches them in, so that both say the same.

const POLL_MS = 1000;
const LONGEST_MS = 30000;
const PATIENCE_MS = 6000;
const STALE_SECONDS = 5;
const KEPT = 600;
const GAP_SECONDS = 25;
const HUES = ["first", "second", "third", "fourth"];

const $ = (id) => document.getElementById(id);

// ---- what is known -------------------------------------------------------------------------------------------------

const known = { cursor: "", at: [], columns: new Map() };

function take(part) {
  if (part.whole) { known.at = []; known.columns.clear(); }
  const before = known.at.length;
  known.at.push(...part.at);
  for (const [name, values] of Object.entries(part.columns)) {
    if (!known.columns.has(name)) known.columns.set(name, new Array(before).fill(null));
    known.columns.get(name).push(...values);
  }
  const over = Math.max(0, known.at.length - KEPT);
  known.at.splice(0, over);
  for (const [name, values] of known.columns) {
    if (!(name in part.columns) && part.at.length) values.push(...part.at.map(() => null));
    values.splice(0, over);
    if (values.every((value) => value === null)) known.columns.delete(name);
  }
  known.cursor = part.cursor;
}

// ---- figures in words ----------------------------------------------------------------------------------------------

const PREFIXES = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "µ"]];

// Of seconds alone there are smaller ones than one: nobody counts thousandths of packets.
const prefixOf = (value, unit) => PREFIXES.find(([size]) => Math.abs(value) >= size && (size >= 1 || unit === "s"))
  ?? [1, ""];

function words(value, unit) {
  if (value === null || value === undefined) return "-";
  if (unit === "routes") return value.toLocaleString("en");
  const [size, letter] = prefixOf(value, unit);
  return `${Number((value / size).toPrecision(3))} ${letter}${unit}`;
}

function since(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 120) return `${whole} s`;
  return whole < 7200 ? `${Math.round(whole / 60)} min` : `${Math.round(whole / 3600)} h`;
}

const clock = (at) => new Date(at * 1000).toISOString().slice(11, 19);

// ---- plots ---------------------------------------------------------------------------------------------------------

const sum = (columns) => known.at.map((_, i) => columns.reduce(
  (total, column) => (column[i] === null ? total : (total ?? 0) + column[i]), null));

const named = (before, after = "") => [...known.columns]
  .filter(([name]) => name.startsWith(before) && name.endsWith(after))
  .map(([name, values]) => [name.slice(before.length, name.length - after.length), values]);

function ofPorts(what) {
  const port = $("port").value;
  return sum(named("port/", `/${what}`).filter(([name]) => !port || name === port).map(([, values]) => values));
}

const numbered = (rows) => rows.slice(0, HUES.length).map(([label, values], i) => ({ label, values, hue: HUES[i] }));

const PLOTS = {
  traffic: () => {
    const unit = $("unit").value;
    const curves = [
      { label: "received", values: ofPorts(`in/${unit}`), hue: "first" },
      { label: "sent", values: ofPorts(`out/${unit}`), hue: "second" },
    ];
    if (unit === "packets") curves.push({ label: "dropped", values: ofPorts("dropped"), hue: "lost" });
    return { title: `Rate of ${$("port").value || "all ports"}`, unit: unit === "bits" ? "bit/s" : "packets/s", curves };
  },
  routes: () => ({
    title: "Routes in the FIB", unit: "routes",
    curves: numbered(named("fib/").map(([name, values]) => [name.replace(/\/(?=[^/]*$)/, ", "), values])),
  }),
  wrong: () => ({ title: "Routes not as wanted", unit: "routes", curves: numbered(named("wrong/")) }),
  lag: () => ({ title: "Lag of changes, 99 %", unit: "s", curves: numbered(named("lag/")) }),
};

function svg(name, attributes, ...inside) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...inside);
  return made;
}

function html(name, className, ...inside) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...inside);
  return made;
}

function roundStep(least) {
  const scale = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 2.5, 5, 10].map((step) => step * scale).find((step) => step >= least * (1 - 1e-9));
}

const TIMES = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];

class Plot {
  constructor(figure) {
    this.figure = figure;
    this.make = PLOTS[figure.dataset.plot];
    this.chosen = null;
    this.caption = html("figcaption");
    this.drawn = svg("g", {});
    this.slider = svg("rect", { class: "slider", tabindex: 0, role: "slider", "aria-orientation": "horizontal" });
    this.svg = svg("svg", { class: "plot", role: "group" }, this.drawn, this.slider);
    this.summary = html("p", "summary");
    figure.append(this.caption, this.svg, this.summary);
    this.slider.addEventListener("pointermove", (event) => this.point(event));
    this.slider.addEventListener("pointerdown", (event) => this.point(event));
    this.slider.addEventListener("pointerleave", () => this.choose(null));
    this.slider.addEventListener("blur", () => this.choose(null));
    this.slider.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(figure);
  }

  draw() {
    const width = this.svg.clientWidth, height = this.svg.clientHeight;
    if (!width) return;
    this.content = this.make();
    const { title, unit, curves } = this.content;
    const end = known.at.at(-1) ?? 0, span = this.span(end);
    this.first = Math.max(0, known.at.findIndex((at) => at >= end - span - 1e-6));
    const shown = curves.flatMap((c) => c.values.slice(this.first)).filter((value) => value !== null);
    this.frame = { left: 52, right: width - 12, top: 24, bottom: height - 26, end, span };
    const highest = Math.max(0, ...shown), least = unit === "routes" ? 1 : 0;
    const step = Math.max(least, roundStep((highest || (unit === "s" ? 1e-3 : 1)) / 4));
    this.frame.highest = step * Math.max(1, Math.ceil(highest / step - 1e-9));
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("aria-label", title);
    const parts = [...this.rows(unit, step), ...this.columns(width)];
    for (const curve of curves) parts.push(svg("path", { class: `curve ${curve.hue}`, d: this.way(curve.values) }));
    this.moment = svg("g", {});
    this.drawn.replaceChildren(...parts, this.moment);
    const { left, right, top, bottom } = this.frame;
    for (const [key, value] of Object.entries({ x: left, y: top, width: right - left, height: bottom - top }))
      this.slider.setAttribute(key, value);
    this.tell();
  }

  span(end) {
    const wanted = Number($("span").value);
    return wanted || Math.max(60, end - (known.at[0] ?? end));
  }

  x(at) {
    const { left, right, end, span } = this.frame;
    return right - (right - left) * (end - at) / span;
  }

  y(value) {
    const { top, bottom, highest } = this.frame;
    return bottom - (bottom - top) * value / highest;
  }

  rows(unit, step) {
    const { left, right, highest } = this.frame, parts = [];
    const [size, letter] = prefixOf(highest, unit);
    const label = unit === "routes" ? (letter ? `${letter} routes` : "routes") : `${letter}${unit}`;
    parts.push(svg("text", { x: 4, y: 13 }, label));
    for (let i = 0; i * step <= highest * (1 + 1e-9); i += 1) {
      const y = this.y(i * step).toFixed(1);
      parts.push(svg("path", { class: "grid", d: `M${left} ${y}H${right}` }));
      parts.push(svg("text", { class: "end", x: left - 6, y: Number(y) + 4 }, `${Number((i * step / size).toPrecision(6))}`));
    }
    return parts;
  }

  columns(width) {
    const { end, span, bottom, left, right } = this.frame, parts = [];
    const step = TIMES.find((seconds) => span / seconds <= (width < 500 ? 4 : 7)) ?? Math.ceil(span / 6);
    for (let back = 0; back <= span; back += step) {
      const text = back ? `${since(back)} ago` : "now";
      const half = text.length * 3.6, x = this.x(end - back);
      if (x - half < left - 20) break;
      parts.push(svg("text", { class: "mid", x: Math.min(x, right + 10 - half).toFixed(1), y: bottom + 17 }, text));
    }
    return parts;
  }

  way(values) {
    let path = "", last = null;
    for (let i = this.first; i < known.at.length; i += 1) {
      if (values[i] === null) { last = null; continue; }
      const joined = last !== null && known.at[i] - last < GAP_SECONDS;
      path += `${joined ? "L" : "M"}${this.x(known.at[i]).toFixed(1)} ${this.y(values[i]).toFixed(1)}`;
      last = known.at[i];
    }
    return path;
  }

  // The moment that is looked at: the one chosen, or the newest.
  index() {
    if (this.chosen === null) return known.at.length - 1;
    let best = this.first;
    for (let i = this.first; i < known.at.length; i += 1)
      if (Math.abs(known.at[i] - this.chosen) < Math.abs(known.at[best] - this.chosen)) best = i;
    return best;
  }

  tell() {
    const { title, unit, curves } = this.content, i = this.index(), at = known.at[i];
    const keys = html("span", "keys", ...curves.map((curve) => {
      const sample = svg("svg", { class: "key", viewBox: "0 0 24 12", "aria-hidden": "true" },
        svg("path", { class: `curve ${curve.hue}`, d: "M0 6H24" }));
      return html("span", "", sample, `${curve.label} `, html("b", "", words(curve.values[i], unit)));
    }));
    this.caption.replaceChildren(title, keys);
    const marks = [];
    if (this.chosen !== null && at !== undefined) {
      const x = this.x(at).toFixed(1), { top, bottom } = this.frame;
      marks.push(svg("path", { class: "moment", d: `M${x} ${top}V${bottom}` }));
      for (const curve of curves)
        if (curve.values[i] !== null) marks.push(svg("circle", { class: `dot ${curve.hue}`, cx: x, cy: this.y(curve.values[i]).toFixed(1), r: 3.5 }));
    }
    this.moment.replaceChildren(...marks);
    const texts = curves.map((curve) => this.extent(curve, unit)).filter(Boolean);
    this.summary.textContent = this.chosen !== null && at !== undefined
      ? `At ${clock(at)} UTC, ${since(known.at.at(-1) - at)} before now.`
      : texts.join("; ") || (known.at.length ? "The same all the time." : "Nothing was seen yet.");
    this.slider.setAttribute("aria-label", `${title}: moment looked at`);
    this.slider.setAttribute("aria-valuemin", this.first);
    this.slider.setAttribute("aria-valuemax", Math.max(this.first, known.at.length - 1));
    this.slider.setAttribute("aria-valuenow", Math.max(this.first, i));
    const values = curves.map((curve) => `${curve.label} ${words(curve.values[i], unit)}`).join(", ");
    this.slider.setAttribute("aria-valuetext", at === undefined ? "nothing yet" : `${clock(at)} UTC: ${values}`);
  }

  extent(curve, unit) {
    const shown = curve.values.slice(this.first).filter((value) => value !== null);
    if (!shown.length) return "";
    const least = Math.min(...shown), most = Math.max(...shown);
    return least === most ? "" : `${curve.label} from ${words(least, unit)} to ${words(most, unit)}`;
  }

  choose(at) {
    this.chosen = at;
    if (this.content) this.tell();
  }

  point(event) {
    const box = this.svg.getBoundingClientRect(), { left, right, end, span } = this.frame;
    this.choose(end - span * (right - (event.clientX - box.left)) / (right - left));
  }

  key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageUp: 10, PageDown: -10 };
    const last = known.at.length - 1;
    if (event.key === "Escape") this.choose(null);
    else if (event.key === "Home") this.choose(known.at[this.first] ?? null);
    else if (event.key === "End") this.choose(known.at[last] ?? null);
    else if (event.key in steps)
      this.choose(known.at[Math.min(last, Math.max(this.first, this.index() + steps[event.key]))] ?? null);
    else return;
    event.preventDefault();
  }
}

const plots = [...document.querySelectorAll("figure[data-plot]")].map((figure) => new Plot(figure));

function offerPorts() {
  const names = named("port/", "/in/bits").map(([name]) => name);
  const have = [...$("port").options].slice(1).map((option) => option.value);
  if (names.join("\n") === have.join("\n")) return;
  const chosen = $("port").value;
  $("port").replaceChildren($("port").options[0], ...names.map((name) => new Option(name, name)));
  $("port").value = names.includes(chosen) ? chosen : "";
}

function drawAll() {
  offerPorts();
  for (const plot of plots) plot.draw();
}

for (const id of ["port", "unit", "span"]) $(id).addEventListener("change", drawAll);

// ---- words of the page ---------------------------------------------------------------------------------------------

// Makes `old` what `fresh` is and keeps what is the same, so that focus, selection and scrolling stay.
function patch(old, fresh) {
  if (old.nodeName !== fresh.nodeName) { old.replaceWith(fresh); return; }
  if (old.nodeType !== Node.ELEMENT_NODE) { if (old.data !== fresh.data) old.data = fresh.data; return; }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  patchInside(old, fresh);
}

function patchInside(old, fresh) {
  const has = [...old.childNodes], wants = [...fresh.childNodes];
  wants.forEach((child, i) => (i < has.length ? patch(has[i], child) : old.append(child)));
  has.slice(wants.length).forEach((child) => child.remove());
}

function place(id, text) {
  const template = document.createElement("template");
  template.innerHTML = text;
  patchInside($(id), template.content);
}

// ---- asking --------------------------------------------------------------------------------------------------------

const live = {
  heard: performance.now() - 1000 * Number(document.body.dataset.age), failures: 0, next: 0, timer: 0,
  paused: false, said: "live", problem: "",
};

async function ask(path) {
  const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!answer.ok) {
    const error = new Error(`${answer.status} ${answer.statusText}`);
    error.wait = 1000 * Number(answer.headers.get("Retry-After") ?? 0);
    throw error;
  }
  return answer;
}

async function look() {
  let wait = POLL_MS;
  try {
    const answer = await ask(`live?after=${encodeURIComponent(known.cursor)}`);
    if (!answer.headers.get("Content-Type")?.startsWith("application/json"))
      throw new Error("what came is no looking glass: log in again?");
    show(await answer.json());
    live.failures = 0;
  } catch (error) {
    live.failures += 1;
    live.problem = error.name === "TimeoutError" ? `no answer within ${PATIENCE_MS / 1000} s` : error.message;
    wait = Math.max(error.wait ?? 0, Math.min(LONGEST_MS, POLL_MS * 2 ** live.failures)) * (0.8 + 0.4 * Math.random());
  }
  if (!live.paused && !document.hidden) plan(wait);
  tellFreshness();
}

function show(found) {
  if (found.build !== document.body.dataset.build) { location.reload(); return; }
  take(found.history);
  for (const [id, text] of Object.entries(found.parts)) place(id, text);
  document.title = found.title;
  live.heard = performance.now() - 1000 * found.age_seconds;
  drawAll();
}

function plan(wait) {
  clearTimeout(live.timer);
  live.next = performance.now() + wait;
  live.timer = setTimeout(look, wait);
}

function tellFreshness() {
  const age = (performance.now() - live.heard) / 1000, left = (live.next - performance.now()) / 1000;
  const stale = live.failures > 0 || (age > STALE_SECONDS && !live.paused);
  const again = left > 0.5 ? `, trying again in ${since(left)}` : ", trying again";
  let text = `Live, ${since(age)} ago.`;
  if (live.paused) text = `Paused: as it was ${since(age)} ago.`;
  else if (live.failures) text = `Last heard ${since(age)} ago (${live.problem})${again}.`;
  else if (stale) text = `Last heard ${since(age)} ago.`;
  document.body.classList.toggle("stale", stale);
  $("freshness").textContent = text;
  const said = live.paused ? "paused" : stale ? "stale" : "live";
  if (said === live.said) return;
  live.said = said;
  $("announce").textContent = { live: "The page is live again.", paused: "The page is paused.", stale: text }[said];
}

$("pause").hidden = false;
$("pause").addEventListener("click", () => {
  live.paused = !live.paused;
  $("pause").textContent = live.paused ? "Go on" : "Pause";
  clearTimeout(live.timer);
  if (!live.paused) look();
  tellFreshness();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(live.timer);
  else if (!live.paused) plan(0);
});
setInterval(tellFreshness, 1000);

// ---- explaining ----------------------------------------------------------------------------------------------------

// The server's own page of the answer is asked for, and its part of it taken over: plots go on meanwhile.
$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const path = `explain?${new URLSearchParams({ prefix: $("prefix").value })}`;
  $("explanation").replaceChildren(html("p", "soft", "Asking…"));
  try {
    const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(5 * PATIENCE_MS) });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const found = page.getElementById("explanation");
    if (!found) throw new Error(`${answer.status} ${answer.statusText}`);
    $("explanation").replaceChildren(...found.childNodes);
  } catch (error) {
    $("explanation").replaceChildren(html("p", "warn", `No answer: ${error.message}. Ask again.`));
  }
});

for (const shown of document.querySelectorAll(".plots")) shown.hidden = false;
look();
