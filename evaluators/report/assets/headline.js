/* The top of the page: the scores as plain numbers, what is behind them, and the recipe. */
const found = Object.fromEntries(Object.entries(data.scores || {}).map(([name, value]) => [name.replace("ARC/", ""), value]));

function card(number, ...lines) {
  return box("div", "card", make("b", number), ...lines.map((line) => make("span", line)));
}

function duration(seconds) {
  const minutes = Math.round(seconds / 60);
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const WITHIN = { 1: "by the first attempt", 2: "within two attempts", 10: "within ten" };

function headline() {
  const [, known] = solvedInputs(1), cards = [];
  for (const limit of [1, 2, 10]) {
    const name = `pass@${limit}_inputs`, between = found[`${name}_95`];
    const inputs = found.test_inputs ?? known;
    const [solved, of] = name in found ? [Math.round(found[name] * inputs), inputs] : solvedInputs(limit);
    if (!of) continue;
    const lines = [`pass@${limit}: ${WITHIN[limit]}`, `${solved} of ${count(of, "test input")}`];
    if (between) lines.push(`95 %: ${(100 * between[0]).toFixed(0)} to ${(100 * between[1]).toFixed(0)} %`);
    cards.push(card(percent(found[name] ?? solved / of), ...lines));
  }
  if (!cards.length && hasTests) {
    const answers = data.tasks.flatMap((task) => task.test).map((test) => answersOf(test)[0]);
    const answered = answers.filter((answer) => answer.attempts.length);
    const shares = answered.map(shareOf).sort((a, b) => a - b);
    cards.push(card(`${answered.length}`, `of ${count(answers.length, "test input")} answered`, "no output is known, so nothing is scored"));
    const median = shares[Math.floor(shares.length / 2)];
    if (shares.length) cards.push(card(percent(median, 0), "of the votes are for the first attempt", "median over test inputs"));
  }
  if (!hasTests) cards.push(card(`${data.tasks.length}`, data.tasks.length === 1 ? "puzzle" : "puzzles"));
  if (hasTests && data.recipe?.seconds !== undefined) cards.push(card(duration(data.recipe.seconds), "of training steps"));
  at("headline").replaceChildren(...cards);
  behind();
  recipe();
  about();
}

function behind() {
  const parts = [["tasks", "task"], ["test_inputs", "test input"], ["predictions", "prediction"], ["checkpoints", "checkpoint"]]
    .filter(([name]) => name in found).map(([name, what]) => count(found[name], what));
  if ("votes_per_input" in found) parts.push(`${count(found.votes_per_input, "vote")} per input`);
  if ("steps_per_prediction" in found) parts.push(`${count(found.steps_per_prediction, "ACT step")} per prediction`);
  if (found.unanswered_inputs) parts.push(`${count(found.unanswered_inputs, "input")} without an answer`);
  at("behind").textContent = parts.join(" · ");
}

const terms = (pairs) => pairs.flatMap(([term, value]) => [make("dt", term), make("dd", value)]);

function recipe() {
  const { network, training } = data.recipe || {};
  at("recipe").replaceChildren(...terms([["network", network], ["training", training]].filter(([, value]) => value)));
}

function about() {
  const all = (name, digits) => found[`all/${name}`].toFixed(digits), share = (name) => percent(found[`all/${name}`]);
  at("all").textContent = "all/accuracy" in found
    ? `All augmented test inputs with a known output: ${share("accuracy")} of cells right, ${share("exact_accuracy")} completely right, `
      + ("all/lm_loss" in found ? `loss ${all("lm_loss", 3)} per cell; ` : "")
      + `halting agrees with being right in ${share("q_halt_accuracy")} (loss ${all("q_halt_loss", 3)}), after ${all("steps", 1)} steps.`
    : "";
  const passed = Object.keys(found).filter((name) => /^pass@\d+(_inputs)?$/.test(name)).map((name) =>
    [name.replace("_inputs", ", of test inputs").replace(/^(pass@\d+)$/, "$1, of tasks"), percent(found[name])]);
  const command = data.recipe?.command ? [["command", data.recipe.command]] : [];
  const conditions = Object.entries(data.conditions || {}).filter(([, v]) => v !== null && v.length !== 0)
    .map(([k, v]) => [k, typeof v === "string" ? v : JSON.stringify(v)]);
  at("conditions").replaceChildren(...terms([...command, ...passed, ...conditions]));
  at("curves").replaceChildren(...Object.entries(data.curves || {}).map(([name, points]) => curve(name, points)));
  at("about").firstChild.textContent = "Command, curves, every score and its conditions";
  if (!at("conditions").children.length && !at("curves").children.length) at("about").remove();
}

function headlineOfTwo() {
  const table = make("table"), first = make("tr");
  first.append(make("th", ""), ...[1, 2, 10].map((limit) => make("th", `pass@${limit}`)), make("th", "training"));
  table.append(first);
  data.runs.forEach((run, n) => {
    const row = make("tr"), name = make("th");
    name.append(make("span", LETTERS[n], "letter"), make("span", run.name));
    row.append(name, ...[1, 2, 10].map((limit) => {
      const [solved, of] = solvedInputs(limit, n);
      return of ? box("td", "", make("b", percent(solved / of)), make("span", `${solved} of ${of}`)) : make("td", "–");
    }), make("td", run.recipe.seconds === undefined ? "–" : duration(run.recipe.seconds)));
    table.append(row);
  });
  at("headline").replaceChildren(box("div", "scroll", table));
  const left = data.runs.map((run, n) => run.left_out ? `${count(run.left_out, "task")} of ${LETTERS[n]} alone` : "").filter(Boolean);
  const inputs = data.tasks.flatMap((task) => task.test).length;
  at("behind").textContent = `${count(data.tasks.length, "task")} with ${count(inputs, "test input")}, the same for both${left.length ? `; left out: ${left.join(", ")}` : ""}`;
  const rows = data.differences.map(([name, a, b]) => box("tr", "", make("th", name), make("td", a), make("td", b)));
  const settings = make("table", undefined, "settings"), names = make("tr");
  names.append(...["", ...LETTERS].map((letter) => make("th", letter)));
  settings.append(names, ...rows);
  const differ = `${count(rows.length, "setting")} differ${rows.length === 1 ? "s" : ""}, and the commands`;
  at("about").firstChild.textContent = rows.length ? differ : "The commands";
  at("curves").replaceChildren(...(rows.length ? [box("div", "scroll", settings)] : []));
  at("conditions").replaceChildren(...terms(data.runs.flatMap((run, n) => [["", run.title], ["network", run.recipe.network],
    ["training", run.recipe.training], ["command", run.recipe.command]].filter(([, value]) => value)
    .map(([name, value]) => [`${LETTERS[n]} ${name}`.trim(), value]))));
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
  const figure = make("figure");
  figure.append(make("figcaption", name.replaceAll("_", " ")), svg);
  return figure;
}
