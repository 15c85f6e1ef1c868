/* Starts the page: what the address, keys and the window do. */
let returnTo = 0;

/* Opens a task, or with null the overview; the address follows. */
function open(task, isNew = false) {
  if (task && !chosen) returnTo = scrollY;
  const last = chosen;
  viewers.forEach((viewer) => viewer.stop());
  viewers = [];
  chosen = task;
  if (history.replaceState) history[isNew ? "pushState" : "replaceState"](null, "", task ? addressOf(task) : "#");
  route(last);
}

function route(last) {
  at("overview").hidden = Boolean(chosen);
  at("task").hidden = !chosen;
  if (chosen) {
    drawTask();
    if (chosen !== last) scrollTo(0, 0);
    return;
  }
  at("task").replaceChildren();
  scrollTo(0, returnTo);
  if (last) at("gallery").querySelector(`[data-task="${data.tasks.indexOf(last)}"]`)?.focus({ preventScroll: true });
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a.tile, a.button");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  open(link.dataset.task === undefined ? null : data.tasks[+link.dataset.task], true);
});

addEventListener("popstate", () => {
  const last = chosen;
  if (!last) returnTo = scrollY;
  chosen = linked();
  if (chosen !== last) { viewers.forEach((viewer) => viewer.stop()); viewers = []; route(last); }
});

const ARROWS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"];

function keyOfOverview(event) {
  if (event.target === at("search")) {
    if (event.key === "Enter" || event.key === "Escape") moveFocus("first");
    return;
  }
  if (event.target === at("sort")) return;
  if (ARROWS.includes(event.key)) { event.preventDefault(); moveFocus(event.key); }
  if (event.key === "f") nextFilter();
  if (event.key === "/") { event.preventDefault(); at("search").focus(); }
}

function keyOfTask(event) {
  if (event.key === "Escape") open(null, true);
  if (event.key === "j" || event.key === "k") move(event.key === "j" ? 1 : -1);
  for (const viewer of activeViewers()) {
    const isStep = (event.key === "ArrowLeft" || event.key === "ArrowRight") && viewer.answer.steps.length;
    if (isStep) { event.preventDefault(); viewer.step(event.key === "ArrowRight" ? 1 : -1); }
    if (event.key === "p") viewer.toggle();
    if (/^[1-9]$/.test(event.key) && +event.key <= viewer.answer.attempts.length) { viewer.stop(); viewer.show("attempt", +event.key - 1); }
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  (chosen ? keyOfTask : keyOfOverview)(event);
});

let across = innerWidth, down = innerHeight;
addEventListener("resize", () => {
  // The bars of a phone's browser come and go while its page is scrolled.
  if (innerWidth === across && Math.abs(innerHeight - down) < 120) return;
  [across, down] = [innerWidth, innerHeight];
  if (chosen) drawTask();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { listTasks(); if (chosen) drawTask(); });
isCalm.addEventListener("change", () => viewers.forEach((viewer) => { viewer.stop(); viewer.label(); }));

document.title = data.title;
at("title").textContent = data.title;
(isComparison ? headlineOfTwo : headline)();
tools();
summarise();
listTasks();
chosen = linked();
route(null);
