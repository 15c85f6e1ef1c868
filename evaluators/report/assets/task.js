/* One task, as large as the window allows: demonstrations, then for each test input the input, an answer and the truth.
   The answer shown is an attempt, or what the network had after one of its ACT steps. */
let viewers = [];

const FRAME_MS = 600;

function figure(caption, ...inner) {
  return box("figure", "", make("figcaption", caption), ...inner);
}

function sized(name, text) {
  const { rows, columns } = sizeOf(text);
  return rows ? `${name}, ${rows} × ${columns}` : name;
}

/* What is wrong with an answer, in words. */
function compare(text, truth) {
  if (truth === null) return ["", ""];
  if (text === truth) return ["right", "good"];
  if (!text) return ["no grid", "bad"];
  const off = differing(text, truth), [mine, theirs] = [sizeOf(text), sizeOf(truth)];
  if (off !== null) return [`${off} of ${count(mine.rows * mine.columns, "cell")} wrong`, "near"];
  return [`${mine.rows} × ${mine.columns} instead of ${theirs.rows} × ${theirs.columns}`, "bad"];
}

const votesOf = (n) => Number.isInteger(n) ? count(n, "vote") : `${n.toFixed(1)} votes`;

/* Shows one of the answers to a test input in its large frame, and which one it is.
   answer: of one run.  letter: of the run, where there are two. */
class Viewer {
  constructor(test, answer, letter) {
    Object.assign(this, { test, answer, letter, timer: null, shown: { kind: "attempt", n: 0 } });
    this.frame = box("figure", "answer", make("figcaption"), make("div", undefined, "frame"), make("p", undefined, "verdict"));
    this.frame.lastChild.setAttribute("aria-live", "polite");
  }

  get first() { return this.answer.attempts[0]?.grid || ""; }

  /* The pixels of the frame, which stay while other answers are shown in it. */
  fit(cell) {
    const [mine, truth] = [this.first, this.test.truth ?? ""].map(sizeOf), own = cellOf(this.test.truth || this.first, cell);
    this.across = Math.max(mine.columns, truth.columns, 1) * own;
    this.down = Math.max(mine.rows, truth.rows, 1) * own;
    this.cell = own;
    this.frame.querySelector(".frame").style.minHeight = `${this.down + 1}px`;
  }

  show(kind, n) {
    this.shown = { kind, n };
    const attempt = this.answer.attempts[n], text = kind === "step" ? this.answer.steps[n] : attempt?.grid || "";
    const { rows, columns } = sizeOf(text), [caption, frame, verdict] = this.frame.children;
    const cell = Math.max(2, Math.min(this.cell, Math.floor(this.across / Math.max(1, columns)), Math.floor(this.down / Math.max(1, rows))));
    const before = this.letter ? `${this.letter}: ` : "";
    caption.textContent = kind === "step" ? `${before}after ACT step ${n + 1} of ${this.answer.steps.length}`
      : attempt ? `${before}attempt ${n + 1}, ${votesOf(attempt.votes)}` : `${before}no answer`;
    frame.replaceChildren(draw(text, this.test.truth, cell));
    const [words, how] = compare(text, this.test.truth);
    verdict.textContent = words;
    verdict.className = `verdict ${how}`;
    frame.classList.toggle("right", how === "good");
    for (const [name, list] of [["attempt", this.cards], ["step", this.thumbs]]) list?.forEach((button, i) => {
      button.setAttribute("aria-pressed", String(kind === name && i === n));
      if (kind === "step" && name === "step" && i === n) this.reveal(button);
    });
  }

  /* Scrolls the strip alone; scrollIntoView would move the page as well. */
  reveal(button) {
    const strip = button.parentElement, left = button.offsetLeft - strip.offsetLeft;
    strip.scrollLeft = Math.max(left + button.offsetWidth - strip.clientWidth, Math.min(strip.scrollLeft, left));
  }

  /* The attempts with their votes, each a button. */
  attempts() {
    this.cards = this.answer.attempts.map((attempt, n) => {
      const how = compare(attempt.grid, this.test.truth)[1], { rows, columns } = sizeOf(attempt.grid), off = differing(attempt.grid, this.test.truth);
      const words = how === "good" ? "✓ right" : how === "near" ? `${count(off, "cell")} off` : `${rows} × ${columns}`;
      const share = this.answer.votes ? attempt.votes / this.answer.votes : 0, bar = box("span", "votes", make("span"));
      bar.firstChild.style.width = percent(share, 2).replace(" ", "");
      const cell = Math.max(3, Math.min(20, Math.floor(92 / Math.max(rows, columns, 1))));
      const button = box("button", `attempt ${how}`, box("span", "place", make("b", String(n + 1)), make("span", words, how)),
        draw(attempt.grid, this.test.truth, cell), bar, make("span", `${votesOf(attempt.votes)}, ${percent(share, 0)}`),
        make("span", `halting ${percent(attempt.halt, 0)}`, "note"));
      button.type = "button";
      button.addEventListener("click", () => { this.stop(); this.show("attempt", n); });
      return button;
    });
    return box("div", "attempts", ...this.cards);
  }

  /* The answers after each ACT step as a strip that can be played. */
  strip() {
    if (!this.answer.steps.length) return "";
    this.play = make("button", undefined, "play");
    this.play.type = "button";
    this.play.addEventListener("click", () => this.toggle());
    this.thumbs = this.answer.steps.map((text, n) => {
      const button = box("button", text && text === this.test.truth ? "step good" : "step", thumbnail(text, 56), make("span", String(n + 1)));
      button.type = "button";
      button.setAttribute("aria-label", `ACT step ${n + 1}`);
      button.addEventListener("click", () => { this.stop(); this.show("step", n); });
      return button;
    });
    this.label();
    return box("div", "player", this.play, box("div", "strip", ...this.thumbs));
  }

  label() {
    if (this.play) this.play.textContent = isCalm.matches ? "next step" : this.timer === null ? "▶ play" : "❚❚ pause";
  }

  get next() { return this.shown.kind === "step" ? this.shown.n + 1 : 0; }

  step(by) {
    const last = this.answer.steps.length - 1;
    if (last < 0) return;
    this.stop();
    this.show("step", this.shown.kind === "step" ? Math.max(0, Math.min(last, this.shown.n + by)) : by > 0 ? 0 : last);
  }

  /* Plays the strip from its beginning or from the step shown; a reader who wants less motion sees one step each time. */
  toggle() {
    const { length } = this.answer.steps;
    if (!length) return;
    if (this.timer !== null) { this.stop(); return; }
    this.show("step", this.next % length);
    if (isCalm.matches) return;
    this.timer = setInterval(() => {
      if (this.next < length) this.show("step", this.next);
      if (this.next >= length) this.stop();
    }, FRAME_MS);
    this.label();
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    this.label();
  }
}

function bar(task) {
  const back = make("a", "← all tasks", "button"), state = stateOf(task), place = shown.indexOf(task);
  back.href = "#";
  const [before, after] = [["‹", -1, "previous task"], ["›", 1, "next task"]].map(([sign, by, name]) => {
    const button = make("button", sign);
    button.type = "button";
    button.setAttribute("aria-label", name);
    button.disabled = place + by < 0 || place + by >= shown.length;
    button.addEventListener("click", () => move(by));
    return button;
  });
  const name = make("h1", task.id || "(no name)");
  const words = STATES.find((s) => s.key === state)?.name || "";
  return box("div", "taskbar", back, name, make("span", words, `tag ${kindOf(state)}`),
    box("span", "turn", before, make("span", place < 0 ? "" : `${place + 1} of ${shown.length}`, "note"), after));
}

function demonstrations(task, width, height) {
  const boxes = task.train.map((pair) => [pair.input, pair.output]), extra = { across: 28, between: 34, down: 46, gap: 12 };
  const cell = fitLine(boxes, width, height, extra, 28);
  return box("div", "row", ...task.train.map((pair, i) => {
    const drawn = [pair.input, pair.output].map((text) => draw(text, null, cellOf(text, cell)));
    return box("div", "pair", figure(`demonstration ${i + 1}`, drawn[0]), make("i", "→"), figure("output", drawn[1]));
  }));
}

function testInput(task, i, width, height) {
  const test = task.test[i], answers = answersOf(test), mine = viewers.filter((viewer) => viewer.test === test);
  const heading = make("h2", task.test.length > 1 ? `Test input ${i + 1}` : "Test input");
  answers.forEach((answer, run) => heading.append(...verdictOf(test, answer, isComparison ? LETTERS[run] : "")));
  const grids = [test.input, ...mine.map((viewer) => viewer.first || test.truth || test.input), ...(test.truth === null ? [] : [test.truth])];
  const extra = { across: 4, between: 0, down: 56, gap: 24, least: 112 }, boxes = grids.map((text) => [text]);
  const cell = fitLine(boxes, width, height, extra, LEAST);
  const row = box("div", "row", figure(sized("input", test.input), draw(test.input, null, cellOf(test.input, cell))),
    ...mine.map((viewer) => { viewer.fit(cell); return viewer.frame; }));
  if (test.truth !== null) row.append(figure(sized("truth", test.truth), draw(test.truth, null, cellOf(test.truth, cell))));
  const parts = [heading, row];
  for (const viewer of mine) {
    const strip = viewer.strip();
    if (strip) parts.push(make("h3", "The un-augmented answer after each ACT step"), strip);
    parts.push(make("h3", `${viewer.letter ? `${viewer.letter}: ` : ""}${viewer.answer.summary}`));
    if (viewer.answer.attempts.length) parts.push(viewer.attempts());
  }
  return box("section", "test", ...parts);
}

function verdictOf(test, answer, letter) {
  if (test.truth === null) return letter ? [] : [make("span", "no known output", "tag faint")];
  const place = answer.rank > answer.attempts.length ? `candidate ${answer.rank}` : `right by attempt ${answer.rank}`;
  const words = answer.rank === null ? "not among the candidates" : place;
  const kind = answer.rank === null ? "bad" : answer.rank === 1 ? "good" : answer.rank === 2 ? "fair" : "near";
  return [make("span", letter ? `${letter}: ${words}` : words, `tag ${kind}`)];
}

/* Draws the chosen task anew, for example in a window of another size; what is shown of it stays. */
function drawTask() {
  const task = chosen, main = at("task"), before = viewers.map((viewer) => viewer.shown);
  viewers.forEach((viewer) => viewer.stop());
  const letterOf = (run) => isComparison ? LETTERS[run] : "";
  viewers = task.test.flatMap((test) => answersOf(test).map((answer, run) => new Viewer(test, answer, letterOf(run))));
  main.replaceChildren(bar(task));
  const inner = getComputedStyle(main), width = main.clientWidth - parseFloat(inner.paddingLeft) - parseFloat(inner.paddingRight);
  const height = innerHeight - main.firstChild.offsetHeight;
  const isNarrow = width < 600;
  if (task.train.length) main.append(demonstrations(task, width, (isNarrow ? 1.6 : task.test.length ? .55 : .94) * height));
  task.test.forEach((_, i) => main.append(testInput(task, i, width, (isNarrow ? 1.6 : .6) * height)));
  const marks = "Squares mark the cells of an answer of the right size that differ from the truth.";
  if (task.test.some((test) => test.truth !== null)) main.append(make("p", marks, "note"));
  main.append(keys(task));
  viewers.forEach((viewer, i) => viewer.show(before[i]?.kind ?? "attempt", before[i]?.n ?? 0));
}

function keys(task) {
  const line = make("p", undefined, "note keys");
  const add = (words, ...names) => line.append(...names.flatMap((name) => [make("kbd", name), " "]), words);
  add("next and previous task", "j", "k");
  if (task.test.some((test) => answersOf(test).some((answer) => answer.steps.length))) { add("ACT step", "←", "→"); add("play", "p"); }
  if (task.test.length) add("attempt", "1", "…", "9");
  add("all tasks", "Esc");
  return line;
}

function move(by) {
  const place = shown.indexOf(chosen) + by;
  if (place >= 0 && place < shown.length) open(shown[place]);
}

/* The viewers that keys act on: those of the test input that has the focus, or else of the first. */
function activeViewers() {
  const focused = viewers.find((viewer) => viewer.frame.closest("section")?.contains(document.activeElement)) || viewers[0];
  return viewers.filter((viewer) => viewer.test === focused?.test);
}
