// Lines of two texts side by side in one: what both have, what only one has.

function difference(old, now) {
  const a = old ? old.split("\n") : [], b = now ? now.split("\n") : [];
  // longest common subsequence; texts here have some dozens of lines, and a longer one is cut
  const [n, m] = [Math.min(a.length, 400), Math.min(b.length, 400)];
  const length = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1));
  for (let i = n - 1; i >= 0; i--) {
    for (let j = m - 1; j >= 0; j--) {
      length[i][j] = a[i] === b[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
    }
  }
  const lines = [];
  let i = 0, j = 0;
  while (i < n && j < m) {
    if (a[i] === b[j]) lines.push([" ", a[i++], j++]);
    else if (length[i + 1][j] >= length[i][j + 1]) lines.push(["-", a[i++]]);
    else lines.push(["+", b[j++]]);
  }
  while (i < n) lines.push(["-", a[i++]]);
  while (j < m) lines.push(["+", b[j++]]);
  return lines;
}

const MARKS = { "-": "gone", "+": "new", " ": "" };

// Where reading ended, and what was changed about a good stream: what one looks for first.
function kindOf(line) {
  if (line.startsWith("steps: ")) return "steps";
  if (/^!! |  !! /.test(line)) return "bad";
  return /^[^ ]+: (differs from|cut at|nothing was sent|not connected|\d+ bytes (more|put in|left out))/.test(line) ? "said" : "";
}

// A text as lines; with `old`, those that differ are marked.
function block(text, old = null) {
  if (old === null || old === text) {
    const lines = text.split("\n").map((line) => [kindOf(line), line]);
    return el("pre", { tabindex: "0" }, lines.map(([kind, line]) => el("span", { class: `line ${kind}` }, `${line}\n`)));
  }
  return el("pre", { tabindex: "0", class: "diff" }, difference(old, text).map(([mark, line]) =>
    el("span", { class: `line ${MARKS[mark]}` }, `${mark} ${line}\n`)));
}
