// Views, addresses, keys, colours.

const VIEWS = {
  matrix: { title: "Matrix", build: buildMatrix, count: CASES.length },
  requirements: { title: "Requirements", build: buildRequirements, count: RAW.requirements.length },
  expectations: { title: "Expectations", build: buildExpectations, count: RAW.expectations.length },
  pairs: { title: "Pairs", build: buildPairs, count: pairRows().length },
};
// A report of pairs only begins with them.
const FIRST = pairRows().length && pairRows().length === ROWS.length ? "pairs" : "matrix";
let view = "";

function show(name) {
  view = name;
  for (const [other, { build }] of Object.entries(VIEWS)) {
    const section = document.getElementById(`view-${other}`);
    section.hidden = other !== name;
    if (other === name && !section.hasChildNodes()) {
      build(section);
      watchTools(section);
    }
    document.getElementById(`tab-${other}`)?.setAttribute("aria-current", other === name ? "page" : "false");
  }
}

// `#/requirements/LEG-HDR-001` is a view, anything else a row.
function route() {
  const hash = location.hash;
  if (hash.startsWith("#/")) {
    const [name, id] = hash.slice(2).split("/");
    closeDetail();
    show(name in VIEWS ? name : "matrix");
    if (name === "requirements" && id) showRequirement(decoded(id));
    return;
  }
  const row = hash.length > 1 ? rowOf(hash) : null;
  if (!view || (row && view !== "matrix" && view !== "pairs")) show(row && row.declared.role === "pair" ? "pairs" : FIRST);
  if (row) openRow(row);
  else {
    closeDetail();
    if (hash.length > 1) say("this report has no such row");
  }
}

function buildTabs() {
  const tabs = Object.entries(VIEWS).filter(([name, { count }]) => name === "matrix" || count).map(([name, { title, count }]) =>
    el("a", { href: `#/${name}`, id: `tab-${name}` }, title, el("span", { class: "dim" }, ` ${count}`)));
  document.getElementById("tabs").append(...tabs);
  document.querySelector(".bar h1").after(el("span", { class: "dim run" }, RAW.run.started.replace("T", " ").replace(/\+00:00$|Z$/, " UTC"),
    " ", el("span", { class: "command-line mono", title: RAW.run.command }, RAW.run.command)));
}

// -- keys --------------------------------------------------------------------------------------------

const KEYS_HELP = [
  ["/", "filter"], ["arrows", "from cell to cell"], ["Enter", "open a cell"], ["j k", "next case, case before, in the open build"],
  ["n p", "the same, passes left out"], ["[ ]", "the same case on the build before, on the next build"],
  ["d", "differences to the nearest build with another verdict"], ["c", "copy the command that repeats the open row"], ["Esc", "close"], ["?", "this list"],
];

function otherTarget(by) {
  if (!opened) return;
  const rows = siblings(opened).sort((a, b) => a.target.index - b.target.index);
  const next = rows[rows.indexOf(opened) + by];
  if (next) location.hash = linkTo(next);
}

const ACTIONS = {
  "/": () => { show("matrix"); document.getElementById("search").focus(); },
  j: () => step(1), k: () => step(-1), n: () => step(1, true), p: () => step(-1, true),
  "[": () => otherTarget(-1), "]": () => otherTarget(1),
  d: compare,
  c: () => opened?.repeat && copy(opened.repeat, "command"),
  "?": () => document.getElementById("help").showModal(),
  Escape: () => opened && leaveDetail(),
};

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.getElementById("help").open) return;
  const typing = event.target.matches?.("input, select, textarea");
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const action = ACTIONS[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function buildHelp() {
  const help = document.getElementById("help");
  help.append(el("h2", {}, "Keys"), el("dl", {}, KEYS_HELP.map(([keys, what]) => [el("dt", {}, el("kbd", {}, keys)), el("dd", {}, what)])),
    el("h2", {}, "Verdicts"), el("dl", {}, RAW.verdicts.map((verdict) => [el("dt", {}, badge(verdict)), el("dd", {}, RAW.meanings[verdict])])),
    el("form", { method: "dialog" }, el("button", {}, "close")));
  document.getElementById("help-button").addEventListener("click", () => help.showModal());
}

// -- colours -----------------------------------------------------------------------------------------

// A page from a file may be refused storage; then the choice lasts as long as the page.
function stored(change) {
  try { return change(window.localStorage); } catch { return null; }
}

function colours() {
  const all = ["", "light", "dark"];
  const root = document.documentElement;
  const set = (value) => { if (value) root.dataset.theme = value; else delete root.dataset.theme; };
  const known = stored((storage) => storage.getItem("qmig-theme"));
  set(all.includes(known) ? known : "");
  document.getElementById("theme").addEventListener("click", () => {
    const next = all[(all.indexOf(root.dataset.theme ?? "") + 1) % all.length];
    set(next);
    stored((storage) => storage.setItem("qmig-theme", next));
    say(next ? `colours: ${next}` : "colours: as the system");
  });
}

// Headings stay below the tools, however many lines these take.
function keepHeadings() {
  const watch = new ResizeObserver((entries) => {
    for (const { target } of entries) target.parentElement.style.setProperty("--tools", `${target.offsetHeight}px`);
  });
  return (section) => { const tools = section.querySelector(".tools"); if (tools) watch.observe(tools); };
}
const watchTools = keepHeadings();

colours();
buildTabs();
buildHelp();
document.addEventListener("keydown", key);
window.addEventListener("hashchange", route);
route();
