// One row in full: what is asked, what was seen, what went over the wire, how to repeat it.

let opened = null; // the row
let compared = null; // key of the target that texts are compared with

const siblings = (row) => row.declared.all.filter((other) => other.variant === row.variant);

function openRow(row) {
  if (compared === row.target.key || !siblings(row).some((other) => other.target.key === compared)) compared = null;
  opened = row;
  drawDetail();
  const panel = document.getElementById("detail");
  panel.hidden = false;
  panel.scrollTop = 0;
  document.body.classList.add("with-detail");
  markOpen();
}

function closeDetail() {
  if (!opened) return;
  const row = opened;
  opened = null;
  document.getElementById("detail").hidden = true;
  document.body.classList.remove("with-detail");
  markOpen();
  const cell = cellOf(row);
  if (cell) focusCell(cell);
}

const cellOf = (row) => document.querySelector(
  `#matrix tr[data-case="${row.declared.index}"] a.cell[data-column="${row.target.index}"]`);

function markOpen() {
  document.querySelector("#matrix tr.open")?.classList.remove("open");
  document.querySelector("#matrix a.cell.open")?.classList.remove("open");
  const cell = opened && cellOf(opened);
  if (!cell) return;
  cell.classList.add("open");
  cell.closest("tr").classList.add("open");
  cell.closest("tr").scrollIntoView({ block: "nearest" });
}

// Texts next to those of the nearest build with another verdict, or no longer.
function compare() {
  if (!opened) return;
  const others = siblings(opened).filter((other) => other !== opened && other.verdict !== opened.verdict && !SILENT.has(other.verdict));
  const far = (other) => Math.abs(other.target.index - opened.target.index);
  const nearest = others.sort((one, other) => far(one) - far(other))[0] ?? siblings(opened).find((other) => other !== opened);
  if (!nearest) return say("no other build has this case");
  compared = compared ? null : nearest.target.key;
  drawDetail();
  say(compared ? `differences to ${nearest.target.name}` : "no differences shown");
}

// The next case, in the page's order, that has a row of the same target; `bad`: one that is no pass.
function step(by, bad) {
  if (!opened) return;
  const column = opened.target.index;
  for (let at = shown.indexOf(opened.declared) + by; at >= 0 && at < shown.length; at += by) {
    const cell = shown[at].cells[column];
    if (cell.rows.length && !(bad && cell.worst === "pass")) {
      location.hash = linkTo(cell.rows.find((row) => row.verdict === cell.worst));
      return;
    }
  }
  say("no further row");
}

function drawDetail() {
  const row = opened;
  const declared = row.declared;
  clear(document.getElementById("detail"),
    el("div", { class: "detail-bar" },
      badge(row.verdict), el("b", { class: "grow" }, row.target.name),
      el("button", { type: "button", class: "quiet", title: "Case before (k)", onclick: () => step(-1) }, "↑"),
      el("button", { type: "button", class: "quiet", title: "Next case (j)", onclick: () => step(1) }, "↓"),
      el("button", { type: "button", class: "quiet", title: "Close (Esc)", onclick: leaveDetail }, "✕")),
    el("h2", {}, declared.title || declared.id),
    el("p", { class: "mono id" }, link(linkTo(row), declared.id + (row.variant ? `@${row.variant}` : ""))),
    facts([row.level || declared.level, declared.role, declared.chapter, declared.profile !== "default" && `profile ${declared.profile}`,
      declared.since && `QEMU ${declared.since}${declared.until ? ` to ${declared.until}` : " and later"}`,
      `${row.seconds.toFixed(2)} s`]),
    targetsOf(row), variantsOf(row), seenOf(row), waiverOf(row), repeatOf(row),
    part("Requirement", declared.requirements.map(requirementOf)),
    transcriptsOf(row),
    row.stderr && texts("What QEMU said", row, "stderr"),
    row.detail && texts("Our error", row, "detail"),
    filesOf(row));
}

function leaveDetail() {
  history.replaceState(null, "", "#");
  closeDetail();
}

const facts = (all) => el("p", { class: "dim facts" }, all.filter(Boolean).map((text) => el("span", {}, text)));

const part = (title, ...children) => el("section", { class: "part" }, el("h3", {}, title), ...children);

function targetsOf(row) {
  if (TARGETS.length < 2) return null;
  const others = siblings(row);
  return el("table", { class: "others" }, el("tbody", {}, TARGETS.map((target) => {
    const other = others.find((one) => one.target === target);
    return el("tr", { class: target === row.target ? "open" : "" },
      el("th", { scope: "row" }, other ? link(linkTo(other), target.name, { "aria-current": target === row.target && "true" }) : target.name),
      el("td", {}, other ? badge(other.verdict) : el("span", { class: "dim" }, "not run")),
      el("td", { class: "mono actual" }, other ? other.actual || other.outcome : ""));
  })));
}

function variantsOf(row) {
  const rows = row.declared.rows[row.target.index];
  if (rows.length < 2) return null;
  return el("p", { class: "variants", "aria-label": "Variants" }, rows.map((other) =>
    el("a", { href: linkTo(other), class: `variant v-${other.verdict}`, "aria-current": other === row && "true" },
      el("span", { class: "glyph", "aria-hidden": "true" }, GLYPHS[other.verdict]), other.variant, el("span", { class: "offscreen" }, ` ${other.verdict}`))));
}

function seenOf(row) {
  const lines = [["expected", row.expected], ["actual", row.actual], ["outcome", row.outcome]];
  const cells = lines.filter(([, text]) => text).map(([name, text]) =>
    el("tr", {}, el("th", { scope: "row" }, name), el("td", { class: name }, text)));
  return cells.length ? el("table", { class: "seen" }, el("tbody", {}, cells)) : null;
}

function waiverOf(row) {
  const waiver = RAW.expectations.find((one) => one.number === row.waiver);
  if (!waiver) return null;
  return el("div", { class: `box v-${row.verdict}` },
    el("b", {}, row.verdict === "unexpected-pass" ? "Expected to fail, and passes: " : "Waived: "), waiver.reason,
    el("p", { class: "dim" }, link(webAddress(waiver.link) ?? specAddress(waiver.link), waiver.link),
      waiver.expires && `, until ${waiver.expires}`, `, builds ${waiver.versions || "all"}`,
      waiver.message && [", message ", el("code", {}, waiver.message)]));
}

const specAddress = (text) => (REQUIREMENTS.has(text) ? `#/requirements/${text}` : null);

function repeatOf(row) {
  if (!row.repeat) return null;
  return part("Repeat", el("div", { class: "command" }, el("code", {}, row.repeat), copyButton(() => row.repeat, "command")));
}

function requirementOf(id, position) {
  const requirement = REQUIREMENTS.get(id);
  const what = position ? "the input breaks " : "";
  if (!requirement) return el("p", { class: "requirement" }, what, el("b", { class: "mono" }, id));
  return el("p", { class: "requirement" }, what, el("b", { class: "mono" }, link(`#/requirements/${id}`, id)),
    el("span", { class: "dim" }, ` ${requirement.side}, ${requirement.versions} `), prose(requirement.text));
}

function transcriptsOf(row) {
  if (!row.sent && !row.received) return null;
  return [texts("Sent to the destination", row, "sent"), texts("Sent back to the source", row, "received")];
}

// A text of the row, next to that of another target where one is chosen.
function texts(title, row, name) {
  const others = siblings(row).filter((other) => other !== row && (other[name] || row[name]));
  const other = others.find((one) => one.target.key === compared);
  const choice = others.length ? select("differences to", [["", "none"], ...others.map((one) =>
    [one.target.key, `${one.target.short} ${GLYPHS[one.verdict]}`])], compared ?? "", (key) => { compared = key || null; drawDetail(); }) : null;
  const text = row[name];
  let shown;
  const lines = other ? difference(other[name], text) : [];
  const same = lines.every(([mark]) => mark === " ");
  if (!same) shown = marked(lines);
  else shown = text ? block(text) : el("p", { class: "dim" }, "nothing");
  return el("section", { class: "part" },
    el("div", { class: "part-bar" }, el("h3", { class: "grow" }, title),
      other && same && el("span", { class: "dim" }, "no difference"), choice, text && copyButton(() => text, "text")),
    shown);
}

function filesOf(row) {
  const folder = row.artefacts && beside(row.artefacts);
  if (!folder) return null;
  return part("Artefacts", el("p", { class: "files" }, link(`${folder}/`, row.artefacts),
    row.files.map(([name, size]) => [" ", link(beside(row.artefacts, name), name), el("span", { class: "dim" }, ` ${bytes(size)}`)])));
}

const bytes = (size) => (size < 10000 ? `${size} B` : size < 1e7 ? `${Math.round(size / 1024)} KiB` : `${Math.round(size / 1048576)} MiB`);
