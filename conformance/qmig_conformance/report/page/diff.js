// Lines of two texts side by side in one: what both have, what only one has.

// What differs between builds in any stream: places, sizes, and the version in a machine's name.
const PLACES = /0x[0-9a-f]{8}(?=  )|(?<=up to |read to |^steps: .*)0x[0-9a-f]+|\d+(?= bytes, (all )?read)/g;
const sameBut = (line) => line.replace(PLACES, "#").replace(/-\d+\.\d+\b/g, "");

function difference(old, now) {
  const a = old ? old.split("\n") : [], b = now ? now.split("\n") : [];
  // longest common subsequence; texts here have some dozens of lines, and a longer one is cut
  const [n, m] = [Math.min(a.length, 400), Math.min(b.length, 400)];
  const [plainA, plainB] = [a.map(sameBut), b.map(sameBut)];
  const length = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1));
  for (let i = n - 1; i >= 0; i--) {
    for (let j = m - 1; j >= 0; j--) {
      length[i][j] = plainA[i] === plainB[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
    }
  }
  const lines = [];
  let i = 0, j = 0;
  while (i < n && j < m) {
    if (plainA[i] === plainB[j]) { lines.push([" ", b[j++]]); i++; }
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

// A text as lines, of which some stand out.
const block = (text) => el("pre", { tabindex: "0" },
  text.split("\n").map((line) => el("span", { class: `line ${kindOf(line)}` }, `${line}\n`)));

// Lines of `difference`.
const marked = (lines) => el("pre", { tabindex: "0", class: "diff" },
  lines.map(([mark, line]) => el("span", { class: `line ${MARKS[mark]}` }, `${mark} ${line}\n`)));
