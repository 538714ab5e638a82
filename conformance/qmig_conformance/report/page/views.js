// The other views: requirements, expectations, pairs.

// -- requirements ------------------------------------------------------------------------------------

const asked = { text: "", bare: false, chapter: "" };

function buildRequirements(view) {
  const chapters = [...new Set(RAW.requirements.map((one) => one.chapter))];
  view.append(el("div", { class: "tools" },
    el("div", { class: "search" }, el("input", {
      type: "search", placeholder: "filter: id, text", "aria-label": "Filter requirements", autocomplete: "off", spellcheck: "false",
      oninput: (event) => { asked.text = event.target.value.trim().toLowerCase(); drawRequirements(); },
    }), el("span", { class: "dim", id: "required", role: "status" })),
    el("div", { class: "selects" },
      select("chapter", [["", "all"], ...chapters.map((file) => [file, chapterName(file)])], "", (value) => { asked.chapter = value; drawRequirements(); }),
      option("without a case", false, (value) => { asked.bare = value; drawRequirements(); }))),
  el("table", { class: "matrix requirements", id: "requirements" }));
  drawRequirements();
}

const chapterName = (file) => file.replace(/^.*\//, "").replace(/\.md$/, "");

function drawRequirements() {
  const found = RAW.requirements.filter((one) => (!asked.chapter || one.chapter === asked.chapter)
    && (!asked.bare || !CASES_OF.has(one.id))
    && asked.text.split(/\s+/).every((word) => `${one.id} ${one.text}`.toLowerCase().includes(word)));
  const covered = found.filter((one) => CASES_OF.has(one.id)).length;
  document.getElementById("required").textContent = `${plural(found.length, "statement")}, ${covered} with a case`;
  const bodies = new Map();
  for (const one of found) {
    if (!bodies.has(one.chapter)) bodies.set(one.chapter, el("tbody", {}, chapterLine(one.chapter, found)));
    bodies.get(one.chapter).append(requirementLine(one));
  }
  clear(document.getElementById("requirements"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "id"), el("th", { scope: "col" }, "statement"), el("th", { scope: "col", class: "side" }, "side"),
      el("th", { scope: "col", class: "number" }, "cases"), TARGETS.map((target) => el("th", { scope: "col", class: "target" }, target.short)))),
    ...bodies.values());
}

function chapterLine(file, found) {
  const all = found.filter((one) => one.chapter === file);
  const covered = all.filter((one) => CASES_OF.has(one.id)).length;
  return el("tr", { class: "group" }, el("th", { scope: "rowgroup", colspan: "2" }, chapterName(file), el("span", { class: "dim" }, ` ${covered} of ${all.length} with a case`)),
    el("td", { class: "side" }), el("td", { class: "number" }), TARGETS.map(() => el("td", { class: "target" })));
}

function requirementLine(one) {
  const cases = CASES_OF.get(one.id) ?? [];
  const worst = TARGETS.map((target) => worstOf(cases.flatMap((declared) => declared.rows[target.index])));
  return el("tr", { id: `requirement-${one.id}`, class: cases.length ? "" : "bare" },
    el("th", { scope: "row", class: "mono" }, link(`#/requirements/${one.id}`, one.id)),
    el("td", { class: "statement" }, el("details", { ontoggle: (event) => showCases(event.target, one, cases) },
      el("summary", {}, prose(one.text)))),
    el("td", { class: "side" }, one.side), el("td", { class: "number" }, cases.length || el("span", { class: "dim" }, "none")),
    worst.map((verdict) => el("td", { class: "target" },
      cases.length ? el("span", { class: `cell v-${verdict}` }, el("span", { class: "glyph", "aria-hidden": "true" }, GLYPHS[verdict]), el("span", { class: "label" }, labelOf(verdict))) : "")));
}

function showCases(details, one, cases) {
  if (!details.open || details.dataset.drawn) return;
  details.dataset.drawn = "yes";
  details.append(el("p", { class: "dim" }, `${one.side}; ${one.versions}; spec/${one.chapter}`),
    cases.length ? el("ul", { class: "cases" }, cases.map((declared) => el("li", {},
      declared.cells.flatMap((cell) => cell.rows.length ? [link(linkTo(cell.rows.find((row) => row.verdict === cell.worst)), GLYPHS[cell.worst],
        { class: `mini v-${cell.worst}`, title: `${cell.worst} on ${cell.rows[0].target.name}`, "aria-label": `${cell.worst} on ${cell.rows[0].target.name}` })] : []),
      ` ${declared.title || declared.id} `, el("span", { class: "dim mono" }, declared.id),
      declared.requirement === one.id ? null : el("span", { class: "dim" }, " (its input breaks this statement)"))))
      : el("p", { class: "dim" }, "No case."));
}

function showRequirement(id) {
  const line = document.getElementById(`requirement-${id}`);
  if (!line) {
    Object.assign(asked, { text: "", bare: false, chapter: "" });
    drawRequirements();
  }
  const found = document.getElementById(`requirement-${id}`);
  document.querySelector("#requirements tr.open")?.classList.remove("open");
  if (!found) return;
  found.classList.add("open");
  found.querySelector("details").open = true;
  found.scrollIntoView({ block: "center" });
}

// -- expectations ------------------------------------------------------------------------------------

// what has to be looked at comes first
const STATES = ["fixed", "expired", "unmatched", "used"];

function buildExpectations(view) {
  if (!RAW.expectations.length) {
    view.append(el("p", { class: "empty" }, "No expectations were given to this run."));
    return;
  }
  const words = (one) => `${one.state} ${one.case} ${one.versions} ${one.message} ${one.reason} ${one.link}`.toLowerCase();
  const search = el("input", {
    type: "search", placeholder: "filter: case, reason, message, state", "aria-label": "Filter expectations", autocomplete: "off", spellcheck: "false",
    oninput: (event) => {
      const wanted = event.target.value.trim().toLowerCase().split(/\s+/);
      all.forEach((one, at) => { lines[at].hidden = !wanted.every((word) => words(one).includes(word)); });
    },
  });
  const states = [...counted(RAW.expectations.map((one) => one.state))].map(([state, count]) => `${count} ${state}`).join(", ");
  const all = [...RAW.expectations].sort((one, other) => STATES.indexOf(one.state) - STATES.indexOf(other.state));
  const lines = all.map((one) => {
    const rows = ROWS.filter((row) => row.waiver === one.number);
    return el("tr", { class: `state-${one.state}` },
      el("td", {}, el("span", { class: `badge state ${one.state}` }, one.state)),
      el("td", { class: "mono" }, one.case), el("td", {}, one.versions || "all"), el("td", { class: "mono" }, one.message),
      el("td", {}, one.reason, " ", link(webAddress(one.link) ?? specAddress(one.link), one.link)),
      el("td", {}, one.expires || el("span", { class: "dim" }, "never")),
      el("td", {}, rows.slice(0, 30).map((row) => [link(linkTo(row), `${row.target.short} ${GLYPHS[row.verdict]}`, { class: `mini v-${row.verdict}` }), " "])));
  });
  view.append(el("div", { class: "tools" }, el("div", { class: "search" }, search, el("span", { class: "dim" }, states))));
  view.append(el("div", { class: "scroll" }, el("table", { class: "plain", id: "expectations" },
    el("thead", {}, el("tr", {}, ["state", "case", "builds", "message", "reason", "expires", "rows"].map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, lines))));
}

// -- pairs -------------------------------------------------------------------------------------------

const pairs = { text: "", bad: false };
const pairRows = () => ROWS.filter((row) => row.declared.role === "pair");

function buildPairs(view) {
  view.append(el("div", { class: "tools" },
    el("div", { class: "search" }, el("input", {
      type: "search", placeholder: "filter: machine, device, state", "aria-label": "Filter pairs", autocomplete: "off", spellcheck: "false",
      oninput: (event) => { pairs.text = event.target.value.trim().toLowerCase(); drawPairs(); },
    }), el("span", { class: "dim", id: "paired", role: "status" })),
    el("div", { class: "selects" }, option("only what is no pass", false, (value) => { pairs.bad = value; drawPairs(); }))),
  el("table", { class: "matrix pairs", id: "pairs" }));
  drawPairs();
}

function drawPairs() {
  const rows = pairRows();
  const columns = [...new Set(rows.map((row) => row.target))];
  const lines = new Map(); // case and variant -> its rows by target
  for (const row of rows) {
    const name = row.variant || row.declared.title || row.declared.id;
    const key = `${row.declared.id}@${name}`;
    if (!lines.has(key)) lines.set(key, { name, parts: name.split("/"), cells: new Map() });
    lines.get(key).cells.set(row.target, row);
  }
  const found = [...lines.values()].filter((line) => pairs.text.split(/\s+/).every((word) => line.name.toLowerCase().includes(word))
    && (!pairs.bad || [...line.cells.values()].some((row) => row.verdict !== "pass")));
  document.getElementById("paired").textContent = `${plural(found.length, "line")}, ${plural(columns.length, "ordered pair")}`;
  const bodies = new Map();
  for (const line of found) {
    const [board] = line.parts;
    if (!bodies.has(board)) bodies.set(board, el("tbody", {}, el("tr", { class: "group" }, el("th", { scope: "rowgroup" }, board), columns.map(() => el("td", { class: "target" })))));
    bodies.get(board).append(el("tr", {}, el("th", { scope: "row", class: "case" }, line.parts.slice(1).join(" / ") || board),
      columns.map((target) => el("td", { class: "target" }, pairCell(line.cells.get(target))))));
  }
  clear(document.getElementById("pairs"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "device and state"), columns.map((target) => el("th", { scope: "col", class: "target" }, target.short)))),
    ...bodies.values());
}

function pairCell(row) {
  if (!row) return el("span", { class: "cell v-none", title: "not run" }, GLYPHS.none);
  return el("a", { href: linkTo(row), class: `cell v-${row.verdict}`, "aria-label": `${row.verdict}, ${row.target.name}, ${row.variant}`, title: row.actual || null },
    el("span", { class: "glyph", "aria-hidden": "true" }, GLYPHS[row.verdict]), el("span", { class: "label" }, labelOf(row.verdict)));
}
