// The report's data, as objects that know each other. Nothing in it is trusted: all of it reaches the page as
// text nodes only, and addresses are checked before they become links.

const RAW = JSON.parse(document.getElementById("data").textContent);

const GLYPHS = {
  pass: "✓", fail: "✗", error: "!", "unexpected-pass": "‼", "non-strict": "~", waived: "w",
  unsupported: "–", informational: "i", none: "·",
};

// in a cell, where the name is too long for it
const LABELS = { "unexpected-pass": "unexpected", informational: "not shown" };
const labelOf = (verdict) => LABELS[verdict] ?? verdict;

// verdicts that say nothing of what a build does
const SILENT = new Set(["none", "unsupported", "informational"]);

// verdict -> how bad; 0 is the worst
const SEVERITY = new Map(RAW.verdicts.map((verdict, index) => [verdict, index]));
const severity = (verdict) => SEVERITY.get(verdict) ?? SEVERITY.size;
const worstOf = (rows) => rows.reduce(
  (worst, row) => (severity(row.verdict) < severity(worst) ? row.verdict : worst), "none");

// A text is the numbers of its lines: most transcripts share most of theirs.
const textOf = (index) => RAW.texts[index].map((line) => RAW.lines[line]).join("\n");

const TARGETS = RAW.targets;
const REQUIREMENTS = new Map(RAW.requirements.map((requirement) => [requirement.id, requirement]));
const CASES = RAW.cases.map((declared, index) => ({ ...declared, index, rows: TARGETS.map(() => []) }));
const ROWS = RAW.rows.map((values, index) => {
  const row = Object.fromEntries(RAW.columns.map((name, at) => [name, values[at]]));
  for (const name of RAW.textColumns) row[name] = textOf(row[name]);
  row.index = index;
  row.target = TARGETS[row.target];
  row.declared = CASES[row.case];
  row.declared.rows[row.target.index].push(row);
  return row;
});
for (const declared of CASES) {
  declared.cells = declared.rows.map((rows) => ({
    rows, worst: worstOf(rows), passed: rows.filter((row) => row.verdict === "pass").length,
  }));
  declared.all = declared.rows.flat();
  declared.differs = new Set(declared.cells.map((cell) => cell.worst).filter((verdict) => !SILENT.has(verdict))).size > 1;
  declared.words = [declared.id, declared.title, ...declared.requirements, declared.chapter,
    ...new Set(declared.all.map((row) => `${row.variant} ${row.outcome} ${row.actual}`))].join("\n").toLowerCase();
}
const BY_ID = new Map(CASES.map((declared) => [declared.id, declared]));

// requirement -> cases that are about it, or whose input breaks it
const CASES_OF = new Map();
for (const declared of CASES) {
  for (const id of declared.requirements) {
    if (!CASES_OF.has(id)) CASES_OF.set(id, []);
    CASES_OF.get(id).push(declared);
  }
}

// Chapters in the order of the specification.
const CHAPTERS = [...new Set(RAW.requirements.map((one) => one.chapter.replace(/^.*\/(\d+-)?/, "").replace(/\.md$/, "")))];
const chapterPlace = (name) => (CHAPTERS.includes(name) ? CHAPTERS.indexOf(name) : CHAPTERS.length);

// `#case/target`, `#case@variant/target`
const linkTo = (row) =>
  `#${encodeURIComponent(row.declared.id + (row.variant ? `@${row.variant}` : ""))}/${encodeURIComponent(row.target.key)}`;

function rowOf(hash) {
  const [name, key] = hash.replace(/^#/, "").split("/").map(decoded);
  const at = name.indexOf("@");
  const declared = BY_ID.get(at < 0 ? name : name.slice(0, at));
  if (!declared) return null;
  const rows = declared.all.filter((row) => (at < 0 || row.variant === name.slice(at + 1))
    && (!key || row.target.key === key));
  return rows.reduce((worst, row) => (worst && severity(worst.verdict) <= severity(row.verdict) ? worst : row), null);
}

function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

// A folder or file beside the page; anything that could leave it is no link.
function beside(...parts) {
  const steps = parts.join("/").split("/").filter((step) => step && step !== ".");
  if (steps.includes("..")) return null;
  return `./${steps.map(encodeURIComponent).join("/")}`;
}

const webAddress = (text) => (/^https?:\/\//i.test(text) ? text : null);
