/* What became of each task: the states by which the gallery is grouped. */
const isComparison = Boolean(data.runs);
const hasTests = data.tasks.some((task) => task.test.length);
let within = 2;

/* What one run, or each of two, made of a test input. */
const answersOf = (test) => test.runs || [test];

/* The place of the truth among the candidates of a task's worst test input; Infinity if it is not among them. */
function rankOf(task, run = 0) {
  const known = task.test.filter((test) => test.truth !== null);
  return known.length ? Math.max(...known.map((test) => answersOf(test)[run].rank ?? Infinity)) : null;
}

const LETTERS = ["A", "B"];

const STATES = isComparison ? [
  { key: "both", kind: "good", name: "solved by both", short: "both" },
  { key: "first", kind: "fair", name: "only A solves", short: "only A" },
  { key: "second", kind: "near", name: "only B solves", short: "only B" },
  { key: "neither", kind: "faint", name: "solved by neither", short: "neither" },
  { key: "unknown", kind: "open", name: "no known output" },
] : [
  { key: "first", kind: "good", name: "solved by attempt 1" },
  { key: "second", kind: "fair", name: "solved by attempt 2" },
  { key: "ten", kind: "near", name: "solved within 10" },
  { key: "none", kind: "faint", name: "not solved" },
  { key: "unknown", kind: "open", name: "no known output" },
];

/* The key of a task's state; a task is as good as its worst test input. */
function stateOf(task) {
  if (!task.test.length) return "";
  const rank = rankOf(task), isPartlyUnknown = task.test.some((test) => test.truth === null);
  if (isComparison) {
    if (isPartlyUnknown) return "unknown";
    const [a, b] = [rank <= within, rankOf(task, 1) <= within];
    return a && b ? "both" : a ? "first" : b ? "second" : "neither";
  }
  if (rank !== null && rank > 10) return "none";
  return isPartlyUnknown ? "unknown" : rank === 1 ? "first" : rank === 2 ? "second" : "ten";
}

const kindOf = (state) => STATES.find((s) => s.key === state)?.kind ?? "open";

/* The fraction of the votes that the first attempt has. */
const shareOf = (answer) => answer.attempts.length && answer.votes ? answer.attempts[0].votes / answer.votes : 0;
const sureness = (task) => task.test.length ? Math.min(...task.test.flatMap((test) => answersOf(test).map(shareOf))) : 0;
const cellsOf = (task) => Math.max(0, ...[...task.train.flatMap((pair) => [pair.input, pair.output]),
  ...task.test.flatMap((test) => [test.input, test.truth])].map((text) => { const s = sizeOf(text); return s.rows * s.columns; }));

/* The test input that decides a task's state: the worst one, and the first of equals. */
function decidingTest(task) {
  const worst = rankOf(task) ?? Infinity;
  return task.test.find((test) => test.truth !== null && (answersOf(test)[0].rank ?? Infinity) === worst) || task.test[0];
}

/* The attempt that stands for an answer: the right one if it comes early enough, or else the first. */
function shownAttempt(answer) {
  const isIn = answer.rank !== null && answer.rank <= Math.min(isComparison ? within : 10, answer.attempts.length);
  return answer.attempts[isIn ? answer.rank - 1 : 0]?.grid || "";
}

/* The fewest wrong cells of an attempt of the right shape; Infinity if there is none. */
function cellsOff(answer, truth) {
  const wrong = answer.attempts.map((attempt) => differing(attempt.grid, truth)).filter((n) => n !== null);
  return wrong.length ? Math.min(...wrong) : Infinity;
}

/* How a task went, in a few words for its tile. */
function tell(task) {
  const state = stateOf(task);
  if (isComparison || state === "") return state && isComparison ? tellBoth(task) : "";
  const test = decidingTest(task);
  if (state === "unknown") return `${percent(sureness(task), 0)} of votes`;
  if (state !== "none") return `${state === "ten" ? "" : "✓ "}attempt ${rankOf(task)}`;
  const solved = task.test.filter((t) => t.rank !== null && t.rank <= 2).length;
  if (solved) return `${solved} of ${task.test.length} inputs`;
  if (test.rank) return `candidate ${test.rank}`;
  if (!test.attempts.length) return "no answer";
  const off = cellsOff(test, test.truth);
  return off < Infinity ? `${count(off, "cell")} off` : "wrong size";
}

function tellBoth(task) {
  const place = (rank) => rank === null ? "?" : rank === Infinity ? "–" : String(rank);
  return LETTERS.map((letter, run) => `${letter} ${place(rankOf(task, run))}`).join("  ");
}

/* How many test inputs, and of how many with a known output, are solved within so many candidates. */
function solvedInputs(limit, run = 0) {
  const known = data.tasks.flatMap((task) => task.test).filter((test) => test.truth !== null);
  return [known.filter((test) => (answersOf(test)[run].rank ?? Infinity) <= limit).length, known.length];
}

/* How often two equally good runs would split the tasks that one alone solves at least so unevenly (sign test). */
function signTest(first, second) {
  const n = first + second, least = Math.min(first, second);
  let term = 1, sum = 0; // binomial coefficients over 2^n, divided at once so that none grows beyond a number
  for (let i = 0; i < n; i++) term /= 2;
  for (let k = 0; k <= least; k++) { sum += term; term *= (n - k) / (k + 1); }
  return Math.min(1, 2 * sum);
}
