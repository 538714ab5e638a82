// The matrix: one line per case, one cell per target; filters, groups, order.

const NO_FILTER = { text: "", chapter: "", level: "", role: "", profile: "", verdicts: new Set(), target: null, differs: false };
const filter = { ...NO_FILTER, verdicts: new Set() };
const order = { by: "", down: false, group: "chapter" };
const closed = new Set(); // groups that are folded
let drawing = 0; // a newer drawing ends an older one
let shown = []; // cases in the order of the page

const GROUPS = [["chapter", "chapter"], ["requirement", "requirement"], ["role", "role"], ["", "nothing"]];

function fits(declared) {
  if (filter.chapter && declared.chapter !== filter.chapter) return false;
  if (filter.level && declared.level !== filter.level) return false;
  if (filter.role && declared.role !== filter.role) return false;
  if (filter.profile && declared.profile !== filter.profile) return false;
  if (filter.differs && !declared.differs) return false;
  if (filter.verdicts.size || filter.target !== null) {
    const rows = filter.target === null ? declared.all : declared.rows[filter.target];
    if (!rows.some((row) => !filter.verdicts.size || filter.verdicts.has(row.verdict))) return false;
  }
  return filter.text.toLowerCase().split(/\s+/).every((word) => declared.words.includes(word));
}

const KEYS = {
  "": (declared) => declared.index,
  case: (declared) => declared.id,
  requirement: (declared) => declared.requirement,
  level: (declared) => declared.level,
  role: (declared) => declared.role,
};

function sorted(cases) {
  const target = order.by.startsWith("target-") ? Number(order.by.slice(7)) : -1;
  const key = target >= 0 ? (declared) => severity(declared.cells[target].worst) : KEYS[order.by];
  const keyed = cases.map((declared) => [key(declared), declared]);
  keyed.sort(([a, one], [b, other]) => (a < b ? -1 : a > b ? 1 : one.index - other.index));
  if (order.down) keyed.reverse();
  return keyed.map(([, declared]) => declared);
}

function grouped(cases) {
  const groups = new Map();
  for (const declared of cases) {
    const name = order.group ? declared[order.group] : "";
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(declared);
  }
  if (order.group !== "chapter") return groups;
  return new Map([...groups].sort(([one], [other]) => chapterPlace(one) - chapterPlace(other)));
}

// -- controls ----------------------------------------------------------------------------------------

function changeFilter(change) {
  Object.assign(filter, change);
  drawMatrix();
}

function clearFilter() {
  Object.assign(filter, NO_FILTER, { verdicts: new Set() });
  document.getElementById("search").value = "";
  drawControls();
  drawMatrix();
}

function toggleVerdict(verdict, target = null) {
  const only = filter.target !== target || filter.verdicts.size !== 1 || !filter.verdicts.has(verdict);
  if (target === null) {
    if (!filter.verdicts.delete(verdict)) filter.verdicts.add(verdict);
    filter.target = null;
  } else {
    filter.verdicts = new Set(only ? [verdict] : []);
    filter.target = only ? target : null;
  }
  drawControls();
  drawMatrix();
}

const values = (name) => [...new Set(CASES.map((declared) => declared[name]))].filter(Boolean);

function drawControls() {
  const choose = (name, label) => {
    const all = values(name);
    if (all.length < 2) return null;
    return select(label, [["", "all"], ...all.map((value) => [value, value])], filter[name],
      (value) => changeFilter({ [name]: value }));
  };
  const counts = counted(ROWS.map((row) => row.verdict));
  const chips = RAW.verdicts.filter((verdict) => counts.has(verdict)).map((verdict) =>
    el("button", {
      type: "button", class: `chip v-${verdict}`, "aria-pressed": String(filter.verdicts.has(verdict)),
      onclick: () => toggleVerdict(verdict),
    }, el("span", { class: "glyph", "aria-hidden": "true" }, GLYPHS[verdict]), el("span", { class: "label" }, `${verdict} `), el("b", {}, counts.get(verdict))));
  clear(document.getElementById("controls"),
    el("div", { class: "chips", role: "group", "aria-label": "Verdicts" }, chips),
    el("div", { class: "selects" },
      choose("chapter", "chapter"), choose("level", "level"), choose("role", "role"), choose("profile", "profile"),
      select("group by", GROUPS, order.group, (value) => { order.group = value; drawMatrix(); }),
      TARGETS.length > 1 && option("builds differ", filter.differs, (value) => changeFilter({ differs: value })),
      el("button", { type: "button", class: "quiet", onclick: clearFilter }, "clear")));
}

function targetsTable() {
  const used = RAW.verdicts.filter((verdict) => ROWS.some((row) => row.verdict === verdict));
  const lines = TARGETS.map((target) => {
    const rows = ROWS.filter((row) => row.target === target);
    const counts = counted(rows.map((row) => row.verdict));
    return el("tr", {},
      el("th", { scope: "row" }, target.name),
      used.map((verdict) => el("td", { class: "number" }, counts.has(verdict)
        ? el("button", {
          type: "button", class: `count v-${verdict}`, onclick: () => toggleVerdict(verdict, target.index),
          title: `Only cases with ${verdict} on ${target.name}`,
        }, counts.get(verdict))
        : el("span", { class: "zero" }, "0"))),
      el("td", { class: "number" }, rows.length),
      el("td", { class: "dim wide mono" }, [target.package, target.binary].filter(Boolean).join("  ")));
  });
  return el("div", { class: "scroll" }, el("table", { class: "targets" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, plural(TARGETS.length, "target")),
      used.map((verdict) => el("th", { scope: "col", class: "number" },
        el("span", { class: `glyph v-${verdict}`, "aria-hidden": "true" }, GLYPHS[verdict]), el("span", { class: "label" }, verdict))),
      el("th", { scope: "col", class: "number" }, "rows"), el("th", { class: "wide" }))),
    el("tbody", {}, lines)));
}

function head(key, text, more = "") {
  const down = order.by === key && order.down;
  const sort = order.by === key ? (down ? "descending" : "ascending") : "none";
  return el("th", { scope: "col", class: more, "aria-sort": sort },
    el("button", { type: "button", class: "sort", onclick: () => {
      if (order.by !== key) Object.assign(order, { by: key, down: false });
      else if (!order.down) order.down = true;
      else Object.assign(order, { by: "", down: false });
      drawMatrix();
    } }, text, el("span", { "aria-hidden": "true" }, sort === "none" ? "" : down ? " ▾" : " ▴")));
}

// -- the table ---------------------------------------------------------------------------------------

function drawMatrix() {
  const mine = ++drawing;
  const groups = grouped(sorted(CASES.filter(fits)));
  shown = [...groups.values()].flat();
  const table = document.getElementById("matrix");
  clear(table, el("thead", {}, el("tr", {}, head("case", "case", "case"), head("requirement", "requirement", "side"),
    head("level", "level", "side"), head("role", "role", "side"),
    TARGETS.map((target) => head(`target-${target.index}`, target.short, "target")))));
  document.getElementById("found").textContent =
    shown.length === CASES.length ? plural(CASES.length, "case") : `${shown.length} of ${plural(CASES.length, "case")}`;
  document.getElementById("none").hidden = shown.length > 0;
  const queue = [...groups];
  // A few hundred lines at once, the rest when the browser has drawn them.
  const step = () => {
    if (mine !== drawing) return;
    for (let lines = 0; queue.length && lines < 250;) {
      const [name, cases] = queue.shift();
      const part = cases.slice(0, 250);
      if (cases.length > part.length) queue.unshift([name, cases.slice(250)]);
      table.append(drawGroup(name, part, groups.get(name), part[0] === groups.get(name)[0]));
      lines += part.length;
    }
    if (queue.length) setTimeout(step);
    else table.dataset.drawn = String(shown.length);
  };
  delete table.dataset.drawn;
  step();
  markOpen();
}

function drawGroup(name, part, all, first) {
  const body = el("tbody", { "data-group": name, class: closed.has(name) ? "closed" : "" });
  if (first && order.group) body.append(groupLine(name, all));
  body.append(...part.map(caseLine));
  return body;
}

function groupLine(name, cases) {
  const toggle = () => {
    if (!closed.delete(name)) closed.add(name);
    for (const body of document.querySelectorAll("#matrix tbody")) {
      if (body.dataset.group === name) body.classList.toggle("closed", closed.has(name));
    }
    button.setAttribute("aria-expanded", String(!closed.has(name)));
  };
  const button = el("button", { type: "button", class: "fold", "aria-expanded": String(!closed.has(name)), onclick: toggle },
    name || "none", el("span", { class: "dim" }, ` ${cases.length}`));
  return el("tr", { class: "group" }, el("th", { scope: "rowgroup" }, button),
    el("td", { class: "side", colspan: "3" }),
    TARGETS.map((target) => {
      const cells = cases.map((declared) => declared.cells[target.index]).filter((cell) => cell.rows.length);
      const passed = cells.filter((cell) => cell.worst === "pass").length;
      return el("td", { class: "target sum" }, cells.length ? `${passed}/${cells.length}` : "");
    }));
}

function caseLine(declared) {
  return el("tr", { "data-case": declared.index },
    el("th", { scope: "row", class: "case" },
      el("span", { class: "title" }, declared.title || declared.id), el("span", { class: "id mono" }, declared.id)),
    el("td", { class: "side mono" }, declared.requirement && link(`#/requirements/${declared.requirement}`, declared.requirement)),
    el("td", { class: "side" }, declared.level),
    el("td", { class: "side" }, declared.role),
    declared.cells.map((cell, target) => el("td", { class: "target" }, cellButton(declared, cell, target))));
}

function cellButton(declared, cell, target) {
  if (!cell.rows.length) return el("span", { class: "cell v-none", title: "not run" }, GLYPHS.none);
  const row = cell.rows.find((one) => one.verdict === cell.worst);
  const many = cell.rows.length > 1 ? ` ${cell.passed}/${cell.rows.length}` : "";
  return el("a", {
    href: linkTo(row), class: `cell v-${cell.worst}`, tabindex: "-1",
    "data-row": row.index, "data-column": target,
    "aria-label": `${cell.worst}${many}, ${TARGETS[target].name}, ${declared.title || declared.id}`,
  }, el("span", { class: "glyph", "aria-hidden": "true" }, GLYPHS[cell.worst]),
  el("span", { class: "label" }, labelOf(cell.worst)), many && el("span", { class: "many" }, many));
}

// One cell is reached by Tab, the others by arrows.
function moveInMatrix(event) {
  const cell = event.target.closest?.("a.cell");
  if (!cell || event.altKey || event.ctrlKey || event.metaKey) return;
  const lines = [...document.querySelectorAll("#matrix tbody:not(.closed) tr[data-case]")];
  const line = lines.indexOf(cell.closest("tr"));
  const cells = [...lines[line].querySelectorAll("a.cell")];
  const at = cells.indexOf(cell);
  const column = cell.dataset.column;
  const inLine = (number) => lines[number]?.querySelector(`a.cell[data-column="${column}"]`);
  const vertically = (by) => {
    for (let number = line + by; number >= 0 && number < lines.length; number += by) {
      if (inLine(number)) return inLine(number);
    }
    return null;
  };
  const moves = {
    ArrowLeft: () => cells[at - 1], ArrowRight: () => cells[at + 1], ArrowUp: () => vertically(-1),
    ArrowDown: () => vertically(1), Home: () => inLine(0), End: () => inLine(lines.length - 1),
  };
  const next = moves[event.key]?.();
  if (!next) return;
  event.preventDefault();
  focusCell(next);
}

function focusCell(cell) {
  document.querySelector('#matrix a.cell[tabindex="0"]')?.setAttribute("tabindex", "-1");
  cell.setAttribute("tabindex", "0");
  cell.focus();
}

function buildMatrix(view) {
  let typing = 0;
  const search = el("input", {
    type: "search", id: "search", placeholder: "filter: id, title, requirement, outcome, text", "aria-label": "Filter",
    autocomplete: "off", spellcheck: "false",
    oninput: (event) => {
      clearTimeout(typing);
      typing = setTimeout(() => changeFilter({ text: event.target.value.trim() }), 60);
    },
  });
  const table = el("table", { id: "matrix", class: "matrix", onkeydown: moveInMatrix });
  view.append(targetsTable(),
    el("div", { class: "tools" }, el("div", { class: "search" }, search, el("span", { id: "found", class: "dim", role: "status" })),
      el("div", { id: "controls" })),
    table, el("p", { id: "none", class: "empty", hidden: true }, "No case fits."));
  drawControls();
  drawMatrix();
}
