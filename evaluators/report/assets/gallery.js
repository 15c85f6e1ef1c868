/* The gallery: every task as a tile, grouped by what became of it. */
let filter = "all", shown = [], chosen = null;

/* How the address names a task, so that a link opens it. */
const linkOf = (task) => task.id.slice(0, 100).replace(/[\ud800-\udfff]/g, "?");
const addressOf = (task) => {
  const link = linkOf(task), isPlain = link && data.tasks.find((other) => linkOf(other) === link) === task;
  return `#${encodeURIComponent(isPlain ? link : `@${data.tasks.indexOf(task)}`)}`;
};
function linked() {
  let name = "";
  try { name = decodeURIComponent(location.hash.slice(1)); } catch { return null; }
  return name ? data.tasks.find((task) => linkOf(task) === name) || data.tasks[/^@\d+$/.test(name) ? +name.slice(1) : -1] || null : null;
}

const byName = (a, b) => a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
const placeOf = (task) => STATES.findIndex((state) => state.key === stateOf(task));
const nearness = (task) => {
  if (isComparison || stateOf(task) !== "none") return isComparison ? 0 : rankOf(task) ?? 0;
  const test = decidingTest(task);
  return test.rank ?? 1e4 + Math.min(1e4, cellsOff(test, test.truth));
};

const SORTS = {
  "state": (a, b) => placeOf(a) - placeOf(b) || nearness(a) - nearness(b),
  "sureness": (a, b) => sureness(b) - sureness(a),
  "size": (a, b) => cellsOf(a) - cellsOf(b),
  "name": byName,
  "order": () => 0,
};

function tile(task) {
  const state = stateOf(task), link = make("a", undefined, `tile ${kindOf(state)}`);
  link.href = addressOf(task);
  link.dataset.task = data.tasks.indexOf(task);
  link.append(picture(task));
  const words = box("span", "words", make("span", task.id || "(no name)", "name"));
  if (state) words.append(make("span", tell(task), "tag"));
  link.append(words);
  link.title = [task.id.slice(0, 200), STATES.find((s) => s.key === state)?.name].filter(Boolean).join(": ");
  link.setAttribute("aria-label", [link.title, state && tell(task)].filter(Boolean).join(", "));
  return box("li", "", link);
}

function picture(task) {
  const thumbs = make("span", undefined, "thumbs");
  const arrow = () => make("i", "→");
  if (!task.test.length) {
    const pair = task.train[0];
    if (pair) thumbs.append(thumbnail(pair.input, 64), arrow(), thumbnail(pair.output, 64));
    return thumbs;
  }
  const test = decidingTest(task), answers = answersOf(test), side = answers.length === 1 ? 64 : innerWidth < 600 ? 38 : 46;
  thumbs.append(thumbnail(test.input, side), arrow(), ...answers.map((answer) => thumbnail(shownAttempt(answer), side)));
  return thumbs;
}

function listTasks() {
  const words = at("search").value.toLowerCase(), sort = at("sort").value || "state";
  const passing = data.tasks.filter((task) => (filter === "all" || stateOf(task) === filter) && task.id.toLowerCase().includes(words));
  shown = passing.map((task, i) => [task, i]).sort((a, b) => SORTS[sort](a[0], b[0]) || a[1] - b[1]).map(([task]) => task);
  const groups = sort === "state" && hasTests ? STATES.map((state) => [state, shown.filter((task) => stateOf(task) === state.key)]) : [[null, shown]];
  at("gallery").replaceChildren(...groups.filter(([, tasks]) => tasks.length).map(([state, tasks]) => {
    const section = make("section");
    if (state) section.append(box("h2", state.kind, make("span", state.name), make("span", String(tasks.length), "note")));
    section.append(box("ul", "tiles", ...tasks.map(tile)));
    return section;
  }));
  if (!shown.length) at("gallery").append(make("p", data.tasks.length ? "No task passes the filter." : "There is no task.", "note"));
}

/* The states' parts of all tasks as one bar, and each state as a filter. */
function summarise() {
  const present = STATES.map((state) => ({ ...state, count: data.tasks.filter((task) => stateOf(task) === state.key).length }))
    .filter((state) => state.count);
  at("proportions").hidden = present.length < 2;
  at("proportions").setAttribute("aria-label", present.map((state) => `${state.name}: ${state.count}`).join(", "));
  at("proportions").replaceChildren(...present.map((state) => {
    const part = make("span", undefined, state.kind);
    part.style.flexGrow = state.count;
    part.title = `${state.name}: ${state.count}`;
    return part;
  }));
  if (!present.some((state) => state.key === filter)) filter = "all";
  const all = { key: "all", kind: "", name: "all tasks", count: data.tasks.length };
  at("filters").replaceChildren(...(present.length > 1 ? [all, ...present] : []).map((state) => {
    const button = box("button", state.kind, make("span", state.short ?? state.name), make("b", String(state.count)));
    button.type = "button";
    button.dataset.filter = state.key;
    button.addEventListener("click", () => { filter = state.key; press("filters", "filter", filter); listTasks(); });
    return button;
  }));
  at("filter-key").hidden = present.length < 2;
  press("filters", "filter", filter);
  at("verdict").textContent = isComparison ? judgement(present) : "";
}

/* The buttons stay, so that the one that has the focus keeps it. */
function press(group, name, value) {
  for (const button of at(group).querySelectorAll("button")) button.setAttribute("aria-pressed", String(button.dataset[name] === String(value)));
}

function judgement(present) {
  const of = (key) => present.find((state) => state.key === key)?.count || 0, [first, second] = [of("first"), of("second")];
  if (of("unknown") === data.tasks.length) return "No output is known, so neither run is scored.";
  const said = `Within ${count(within, "attempt")}, A alone solves ${count(first, "task")}, B alone ${second}, and both ${of("both")}.`;
  if (!(first + second)) return said;
  const chance = signTest(first, second).toFixed(2);
  return `${said} If both were equally good, a split at least this uneven would have probability ${chance} (sign test).`;
}

function tools() {
  const sorts = hasTests ? ["state", "sureness", "size", "name", "order"] : ["order", "size", "name"];
  const names = { state: isComparison ? "who solves it" : "state", sureness: "share of votes", size: "size", name: "name", order: "place in the data" };
  at("sort").replaceChildren(...sorts.map((sort) => {
    const option = make("option", names[sort]);
    option.value = sort;
    return option;
  }));
  at("sort").addEventListener("change", listTasks);
  at("search").addEventListener("input", listTasks);
  if (!isComparison) { at("within").remove(); return; }
  at("within").replaceChildren(make("span", "solved within", "note"), ...[1, 2, 10].map((limit) => {
    const button = make("button", String(limit));
    button.type = "button";
    button.dataset.within = limit;
    button.setAttribute("aria-label", `solved within ${count(limit, "attempt")}`);
    button.addEventListener("click", () => { within = limit; press("within", "within", within); summarise(); listTasks(); });
    return button;
  }));
  press("within", "within", within);
}

/* Moves the focus among the tiles as they lie on the screen. */
function moveFocus(key) {
  const tiles = [...at("gallery").querySelectorAll(".tile")], now = tiles.indexOf(document.activeElement);
  if (!tiles.length) return;
  let next = now < 0 ? 0 : now;
  if (now >= 0 && (key === "ArrowLeft" || key === "ArrowRight")) next = now + (key === "ArrowRight" ? 1 : -1);
  else if (now >= 0) {
    const here = tiles[now].getBoundingClientRect(), way = key === "ArrowDown" ? 1 : -1;
    const rows = tiles.map((tile, i) => [i, tile.getBoundingClientRect()]).filter(([, rect]) => way * (rect.top - here.top) > 4);
    const nearest = Math.min(...rows.map(([, rect]) => way * rect.top));
    const row = rows.filter(([, rect]) => Math.abs(way * rect.top - nearest) < 4);
    row.sort((a, b) => Math.abs(a[1].left - here.left) - Math.abs(b[1].left - here.left));
    next = row.length ? row[0][0] : now;
  }
  tiles[Math.max(0, Math.min(tiles.length - 1, next))].focus();
}

function nextFilter() {
  const buttons = [...at("filters").children];
  const now = buttons.findIndex((button) => button.dataset.filter === filter);
  if (buttons.length) buttons[(now + 1) % buttons.length].click();
}
