"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const COLOURS = Array.from({ length: 10 }, (_, colour) => style(`--c${colour}`));
const isCalm = matchMedia("(prefers-reduced-motion: reduce)");

const bytesOf = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));

/* Whether a colour #rrggbb is seen better with something dark on it (ITU-R BT.601). */
function isLight(colour) {
  const [red, green, blue] = bytesOf(colour);
  return .299 * red + .587 * green + .114 * blue > 128;
}

function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

/* An element around others. */
function box(tag, className, ...inner) {
  const element = make(tag, undefined, className);
  element.append(...inner);
  return element;
}

const percent = (x, digits = 1) => `${(100 * x).toFixed(digits)} %`;
const count = (n, what) => `${n.toLocaleString("en", { maximumFractionDigits: 1 })} ${what}${n === 1 ? "" : "s"}`;

/* Rows and columns of a grid's text. */
function sizeOf(text) {
  const rows = text ? text.split("/") : [];
  return { rows: rows.length, columns: rows.length ? rows[0].length : 0 };
}

function sayGrid(text) {
  const { rows, columns } = sizeOf(text);
  return rows ? `grid of ${rows} rows and ${columns} columns` : "no grid";
}

/* How many cells differ; null if the shapes do. */
function differing(text, truth) {
  const [mine, theirs] = [sizeOf(text), sizeOf(truth)];
  if (!text || mine.rows !== theirs.rows || mine.columns !== theirs.columns) return null;
  let wrong = 0;
  for (let i = 0; i < text.length; i++) wrong += text[i] !== truth[i];
  return wrong;
}

const colourOf = (sign) => sign === "." ? style("--ground") : sign === "e" ? style("--line") : COLOURS[+sign];

function emptyGrid() {
  const empty = make("span", "no grid", "empty");
  empty.setAttribute("role", "img");
  return empty;
}

/* A small picture of a grid, a pixel per cell, which CSS enlarges to `side` pixels. */
function thumbnail(text, side) {
  const { rows, columns } = sizeOf(text);
  if (!rows) return emptyGrid();
  const canvas = make("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", sayGrid(text));
  canvas.width = columns; canvas.height = rows;
  const scale = Math.min(16, side / Math.max(rows, columns));
  canvas.style.width = `${columns * scale}px`; canvas.style.height = `${rows * scale}px`;
  const context = canvas.getContext("2d"), image = context.createImageData(columns, rows), known = {};
  [...text.replaceAll("/", "")].forEach((sign, i) => {
    known[sign] ||= [...bytesOf(colourOf(sign)), 255];
    image.data.set(known[sign], 4 * i);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

/* A grid with lines between its cells; those that differ from `truth` are marked where the shapes agree. */
function draw(text, truth, cell) {
  const { rows: height, columns: width } = sizeOf(text);
  if (!height) return emptyGrid();
  const canvas = make("canvas"), rows = text.split("/");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", sayGrid(text));
  const ratio = Math.max(1, Math.round(window.devicePixelRatio || 1));
  canvas.width = (width * cell + 1) * ratio; canvas.height = (height * cell + 1) * ratio;
  canvas.style.width = `${width * cell + 1}px`; canvas.style.height = `${height * cell + 1}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  const wanted = truth && differing(text, truth) !== null ? truth.split("/") : null;
  const [onDark, onLight] = [style("--mark-on-dark"), style("--mark-on-light")];
  const line = cell > 3 ? 1 : 0;
  context.fillStyle = style("--edge");
  context.fillRect(0, 0, width * cell + 1, height * cell + 1);
  for (let r = 0; r < height; r++) for (let c = 0; c < width; c++) {
    const sign = rows[r][c];
    context.fillStyle = colourOf(sign);
    context.fillRect(c * cell + line, r * cell + line, cell - line, cell - line);
    if (wanted && wanted[r][c] !== sign) {
      const side = Math.max(2, Math.round(.36 * (cell - 1))), inset = line + Math.round((cell - line - side) / 2);
      context.fillStyle = isLight(context.fillStyle) ? onLight : onDark;
      context.fillRect(c * cell + inset, r * cell + inset, side, side);
    }
  }
  return canvas;
}

const SMALL = 64, MOST = 72, LEAST = 9;

/* Pixels per cell of one grid where those of a row have `common`: small grids are not drawn smaller than SMALL. */
function cellOf(text, common) {
  const { rows, columns } = sizeOf(text), longest = Math.max(rows, columns, 1);
  return Math.max(common, Math.min(28, Math.floor(SMALL / longest)));
}

/* The largest common cell with which boxes fit in so many pixels, wrapped as words are.  Where even small cells do not
   fit the height, the page is scrolled: a cell has at least LEAST pixels, or as many as the width allows.
   boxes: lists of grids that stand side by side.
   extra: pixels around a box (across, between its grids, down), the gap between boxes, and the least width of a grid.
   rows: how many rows of boxes there may be. */
function fitCell(boxes, width, height, extra, rows = Infinity) {
  const dimensions = (grids, common) => {
    const drawn = grids.map((text) => ({ ...sizeOf(text), cell: cellOf(text, common) }));
    return [drawn.reduce((sum, g) => sum + Math.max(extra.least || 0, g.columns * g.cell + 1), extra.across + extra.between * (grids.length - 1)),
      Math.max(...drawn.map((g) => g.rows * g.cell)) + extra.down];
  };
  let widest = 1;
  for (let common = MOST; common >= 1; common--) {
    let x = 0, y = 0, tallest = 0, isInside = true, row = 1;
    for (const grids of boxes) {
      const [w, h] = dimensions(grids, common);
      isInside &&= w <= width;
      if (x && x + extra.gap + w > width) { y += tallest + extra.gap; x = 0; tallest = 0; row++; }
      x += (x ? extra.gap : 0) + w;
      tallest = Math.max(tallest, h);
    }
    isInside &&= row <= rows;
    if (isInside && widest === 1) widest = common;
    if (isInside && y + tallest <= height) return Math.max(common, Math.min(LEAST, widest));
  }
  return Math.min(LEAST, widest);
}

/* As `fitCell`, but in one row if that leaves at least `enough` pixels: side by side grids are compared more easily. */
function fitLine(boxes, width, height, extra, enough) {
  const cell = fitCell(boxes, width, height, extra, 1);
  return cell >= enough ? cell : fitCell(boxes, width, height, extra);
}
