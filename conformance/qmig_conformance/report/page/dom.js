// Elements out of names, attributes and children. Strings become text nodes, never markup.

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "class") node.className = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...there(children));
  return node;
}

// Children may be lists, and may be left out.
const there = (children) => children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== "");

const clear = (node, ...children) => { node.replaceChildren(...there(children)); return node; };

const badge = (verdict, ...more) =>
  el("span", { class: `badge v-${verdict}` }, el("span", { class: "glyph", "aria-hidden": "true" }, GLYPHS[verdict] ?? "?"),
    verdict, ...more);

function link(address, text, attributes = {}) {
  return address ? el("a", { href: address, ...attributes }, text) : el("span", {}, text);
}

// Requirements' text: `code` and ids stand out, the rest is as it is written.
function prose(text) {
  return text.split(/(`[^`]+`|\b(?:LEG|HS)-[A-Z]{3}-[0-9]{3}\b)/).map((part) => {
    if (part.startsWith("`")) return el("code", {}, part.slice(1, -1));
    if (REQUIREMENTS.has(part)) return link(`#/requirements/${part}`, part);
    return part;
  });
}

// file:// is no secure context in every browser, and has no clipboard there.
async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = el("textarea", { class: "offscreen", readonly: true }, text);
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) return say("the browser does not let this page copy");
  }
  return say(`${what} copied`);
}

let saying = 0;
function say(text) {
  const said = document.getElementById("said");
  said.textContent = text;
  clearTimeout(saying);
  saying = setTimeout(() => { said.textContent = ""; }, 2500);
}

const copyButton = (text, what) =>
  el("button", { type: "button", class: "copy", onclick: () => copy(text(), what), title: `Copy ${what}` }, "copy");

function select(label, values, chosen, changed) {
  const options = values.map(([value, text]) => el("option", { value, selected: value === chosen }, text));
  return el("label", { class: "select" }, el("span", {}, label),
    el("select", { onchange: (event) => changed(event.target.value) }, options));
}

function option(label, checked, changed) {
  return el("label", { class: "option" },
    el("input", { type: "checkbox", checked, onchange: (event) => changed(event.target.checked) }), label);
}

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

const counted = (items) => {
  const counts = new Map();
  for (const item of items) counts.set(item, (counts.get(item) ?? 0) + 1);
  return counts;
};
