"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const COLOURS = Array.from({ length: 10 }, (_, colour) => style(`--c${colour}`));

/* Whether a colour #rrggbb is seen better with something dark on it (ITU-R BT.601). */
function isLight(colour) {
  const [red, green, blue] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  return .299 * red + .587 * green + .114 * blue > 128;
}

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

/* Pixels of the largest grids, so that two of them fit beside each other. */
const widest = () => Math.max(120, Math.min(200, (at("task").clientWidth - 130) / 2));

/* One grid as a canvas; cells that differ from `truth` are marked where the shapes agree. */
function draw(text, truth, scale = 1) {
  const rows = text ? text.split("/") : [];
  const height = rows.length, width = height ? rows[0].length : 0;
  const canvas = make("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", height ? `grid of ${height} rows and ${width} columns` : "no grid");
  if (!height) { canvas.width = 60; canvas.height = 24; const c = canvas.getContext("2d"); c.fillStyle = style("--faint");
    c.font = "12px system-ui"; c.fillText("no grid", 6, 16); return canvas; }
  const cell = Math.max(4, Math.min(18, Math.floor(scale * widest() / Math.max(height, width))));
  const ratio = Math.max(1, Math.round(window.devicePixelRatio || 1));
  canvas.width = (width * cell + 1) * ratio; canvas.height = (height * cell + 1) * ratio;
  canvas.style.width = `${width * cell + 1}px`; canvas.style.height = `${height * cell + 1}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const wanted = truth ? truth.split("/") : null;
  const [onDark, onLight] = [style("--mark-on-dark"), style("--mark-on-light")];
  const comparable = wanted && wanted.length === height && wanted[0].length === width;
  context.fillStyle = style("--edge");
  context.fillRect(0, 0, width * cell + 1, height * cell + 1);
  for (let r = 0; r < height; r++) for (let c = 0; c < width; c++) {
    const sign = rows[r][c];
    context.fillStyle = sign === "." ? style("--ground") : sign === "e" ? style("--line") : COLOURS[+sign];
    context.fillRect(c * cell + 1, r * cell + 1, cell - 1, cell - 1);
    if (comparable && wanted[r][c] !== sign) {
      const side = Math.max(2, Math.round(.36 * (cell - 1))), inset = 1 + Math.round((cell - 1 - side) / 2);
      context.fillStyle = isLight(context.fillStyle) ? onLight : onDark;
      context.fillRect(c * cell + inset, r * cell + inset, side, side);
    }
  }
  return canvas;
}

function figure(caption, text, truth, scale) {
  const box = make("figure");
  if (truth && text === truth) box.className = "right";
  box.append(make("figcaption", caption), draw(text, truth, scale));
  return box;
}

const KIND = { "solved": "solved", "wrong cells": "cells", "wrong shape": "shape", "unknown": "" };
const ORDER = ["wrong shape", "wrong cells", "unknown", "solved"];
/* A task is as good as its worst test input. */
const statusOf = (task) => task.test.length ? ORDER.find((s) => task.test.some((t) => t.status === s)) : "";

let filter = "all", shown = data.tasks, chosen = null;

/* How the address names a task, so that a link opens it. */
const linkOf = (task) => task.id.slice(0, 100).replace(/[\ud800-\udfff]/g, "?");
function linked() {
  try { return decodeURIComponent(location.hash.slice(1)); } catch { return ""; }
}

function listTasks() {
  const words = at("search").value.toLowerCase();
  shown = data.tasks.filter((t) => (filter === "all" || statusOf(t) === filter) && t.id.toLowerCase().includes(words));
  at("list").replaceChildren(...shown.map((task) => {
    const item = make("li");
    item.setAttribute("role", "option");
    item.id = `task-${data.tasks.indexOf(task)}`;
    item.append(make("span", task.id), make("span", statusOf(task), `tag ${KIND[statusOf(task)] || ""}`));
    item.title = task.id.slice(0, 200);
    item.addEventListener("click", () => show(task));
    return item;
  }));
  if (!shown.includes(chosen)) show(shown[0] || null); else mark();
}

function mark() {
  if (chosen) at("list").setAttribute("aria-activedescendant", `task-${data.tasks.indexOf(chosen)}`);
  else at("list").removeAttribute("aria-activedescendant");
  [...at("list").children].forEach((item, i) => {
    item.setAttribute("aria-selected", String(shown[i] === chosen));
    if (shown[i] === chosen) reveal(item);
  });
}

/* Scrolls the list alone; scrollIntoView would move the page as well. */
function reveal(item) {
  const list = at("list"), top = item.offsetTop - list.offsetTop;
  list.scrollTop = Math.max(top + item.offsetHeight - list.clientHeight, Math.min(list.scrollTop, top));
}

function show(task) {
  chosen = task;
  if (task && history.replaceState) history.replaceState(null, "", `#${encodeURIComponent(linkOf(task))}`);
  const main = at("task");
  main.replaceChildren();
  if (!task) { main.append(make("p", "No task passes the filter.", "note")); mark(); return; }
  main.append(make("h2", task.id));
  const pairs = make("div", undefined, "row");
  task.train.forEach((pair, i) => {
    const box = make("div", undefined, "pair");
    box.append(figure(`demonstration ${i + 1}`, pair.input), make("i", "→"), figure("output", pair.output));
    pairs.append(box);
  });
  main.append(pairs);
  task.test.forEach((test, i) => {
    const heading = make("h3", `Test input ${i + 1}`);
    heading.append(make("span", test.status, `tag ${KIND[test.status]}`));
    const row = make("div", undefined, "row");
    row.append(figure("input", test.input));
    if (test.truth !== null) row.append(figure("truth", test.truth));
    main.append(heading, row);
    main.append(make("h3", test.summary));
    if (test.truth !== null && test.attempts.length) main.append(make("p",
      "Framed: the truth. Squares mark the cells of an attempt of the right shape that are not the truth's.", "note"));
    const attempts = make("div", undefined, "row");
    test.attempts.forEach((a) => attempts.append(
      figure(a.caption, a.grid, test.truth, .75)));
    main.append(attempts);
    if (test.steps.length) {
      main.append(make("h3", "Un-augmented, after each ACT step"));
      const steps = make("div", undefined, "row");
      test.steps.forEach((grid, n) => steps.append(figure(`step ${n + 1}`, grid, test.truth, .6)));
      main.append(steps);
    }
  });
  mark();
}

function scores() {
  const percent = (x) => `${(100 * x).toFixed(1)} %`;
  const found = Object.fromEntries(Object.entries(data.scores || {}).map(([k, v]) => [k.replace("ARC/", ""), v]));
  const passed = Object.keys(found).filter((k) => /^pass@\d+_inputs$/.test(k));
  at("scores").replaceChildren(...passed.map((name) => {
    const box = make("div"), between = found[`${name}_95`];
    box.append(make("b", percent(found[name])), make("span", name.replace("_inputs", "")));
    if (between) box.append(make("span", `${(100 * between[0]).toFixed(0)} to ${(100 * between[1]).toFixed(0)} %`));
    return box;
  }));
  const count = (name, what) => `${found[name].toLocaleString("en", { maximumFractionDigits: 1 })} ${what}${found[name] === 1 ? "" : "s"}`;
  const behind = [["tasks", "task"], ["test_inputs", "test input"], ["predictions", "prediction"], ["checkpoints", "checkpoint"]]
    .filter(([name]) => name in found).map(([name, what]) => count(name, what));
  if ("votes_per_input" in found) behind.push(`${count("votes_per_input", "vote")} per input`);
  if ("steps_per_prediction" in found) behind.push(`${count("steps_per_prediction", "ACT step")} per prediction`);
  if (found.unanswered_inputs) behind.push(`${count("unanswered_inputs", "input")} without an answer`);
  const explained = passed.length ? ". Percentages are of test inputs, with their 95 % intervals." : "";
  at("behind").textContent = behind.length ? `Behind it: ${behind.join(", ")}${explained}` : "";
  const all = (name, digits) => found[`all/${name}`].toFixed(digits), share = (name) => percent(found[`all/${name}`]);
  at("all").textContent = "all/accuracy" in found
    ? `All augmented test inputs with a known output: ${share("accuracy")} of cells right, ${share("exact_accuracy")} completely right, `
      + ("all/lm_loss" in found ? `loss ${all("lm_loss", 3)} per cell; ` : "")
      + `halting agrees with being right in ${share("q_halt_accuracy")} (loss ${all("q_halt_loss", 3)}), after ${all("steps", 1)} steps.`
    : "";
  const conditions = Object.entries(data.conditions || {}).filter(([, v]) => v !== null && v.length !== 0);
  at("conditions").replaceChildren(...conditions.flatMap(([k, v]) => [make("dt", k), make("dd", typeof v === "string" ? v : JSON.stringify(v))]));
  at("curves").replaceChildren(...Object.entries(data.curves || {}).map(([name, points]) => curve(name, points)));
  if (!conditions.length && !Object.keys(data.curves || {}).length) at("about").remove();
}

function curve(name, points) {
  const W = 300, H = 130, left = 44, bottom = 18, space = "http://www.w3.org/2000/svg";
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(0, ...ys), Math.max(...ys) || 1];
  const X = (x) => left + (W - left - 6) * (x - x0) / (x1 - x0 || 1), Y = (y) => 6 + (H - bottom - 6) * (1 - (y - y0) / (y1 - y0 || 1));
  const svg = document.createElementNS(space, "svg");
  const add = (tag, attributes, text) => { const e = document.createElementNS(space, tag);
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v); if (text !== undefined) e.textContent = text; svg.append(e); };
  svg.setAttribute("width", W); svg.setAttribute("height", H); svg.setAttribute("role", "img"); svg.setAttribute("aria-label", `${name} over steps`);
  const short = (v) => Math.abs(v) >= 1000 ? v.toLocaleString("en") : String(+v.toPrecision(3));
  for (const y of [y0, (y0 + y1) / 2, y1]) { add("line", { class: "axis", x1: left, x2: W - 6, y1: Y(y), y2: Y(y) });
    add("text", { x: left - 4, y: Y(y) + 3, "text-anchor": "end" }, short(y)); }
  add("text", { x: left, y: H - 4 }, short(x0)); add("text", { x: W - 6, y: H - 4, "text-anchor": "end" }, `step ${short(x1)}`);
  add("polyline", { class: "curve", points: points.map((p) => `${X(p[0])},${Y(p[1])}`).join(" ") });
  const box = make("figure");
  box.append(make("figcaption", name.replaceAll("_", " ")), svg);
  return box;
}

function filters() {
  const present = ["solved", "wrong shape", "wrong cells", "unknown"].filter((s) => data.tasks.some((t) => statusOf(t) === s));
  if (!present.length) return;
  at("filters").replaceChildren(...["all", ...present].map((name) => {
    const count = name === "all" ? data.tasks.length : data.tasks.filter((t) => statusOf(t) === name).length;
    const button = make("button", `${name} ${count}`);
    button.type = "button";
    if (name === "solved") button.title = "tasks with the truth among the attempts shown for each test input";
    button.dataset.filter = name;
    button.addEventListener("click", () => { filter = name; pressed(); listTasks(); });
    return button;
  }));
  pressed();
}

/* The buttons stay, so that the one that has the focus keeps it. */
function pressed() {
  for (const button of at("filters").children) button.setAttribute("aria-pressed", String(button.dataset.filter === filter));
}

function move(by) {
  if (shown.length) show(shown[Math.max(0, Math.min(shown.length - 1, shown.indexOf(chosen) + by))]);
}

function nextFilter() {
  const buttons = [...at("filters").children];
  const now = buttons.findIndex((button) => button.dataset.filter === filter);
  if (buttons.length) buttons[(now + 1) % buttons.length].click();
}

document.addEventListener("keydown", (event) => {
  if (event.target === at("search")) {
    if (event.key === "Enter" || event.key === "Escape") at("list").focus();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const steps = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, Home: -Infinity, End: Infinity };
  if (event.key in steps) { event.preventDefault(); move(steps[event.key]); }
  if (event.key === "f") nextFilter();
  if (event.key === "/") { event.preventDefault(); at("search").focus(); }
});
at("search").addEventListener("input", listTasks);
let across = at("task").clientWidth;
window.addEventListener("resize", () => {
  if (at("task").clientWidth !== across) { across = at("task").clientWidth; show(chosen); }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show(chosen));
document.title = data.title;
at("title").textContent = data.title;
const first = data.tasks.find((task) => linkOf(task) === linked());
scores(); filters(); listTasks();
if (first) show(first);
