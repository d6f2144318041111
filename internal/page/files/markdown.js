// Answers as elements. marked splits a text into tokens, and each becomes an element of this page:
// no HTML is made, and none of an answer is ever read as such. Links lead to http, https and mailto
// only; anything else stays text.

import { lexer } from "./lib/marked.js";
import { CodeBlock, html } from "./parts.js";

// markdown returns the elements of a text. A live one may go on: its last block of code has no
// colours yet.
export function markdown(text, live) {
  let tokens;
  try {
    tokens = lexer(text);
    return blocks(tokens, live);
  } catch {
    return html`<pre class="plain">${text}</pre>`; // such as nesting beyond the stack
  }
}

function blocks(tokens, live) {
  return tokens.map((token, i) => block(token, live && i === tokens.length - 1));
}

function block(t, live) {
  switch (t.type) {
    case "space":
    case "def":
      return null;
    case "heading":
      return html`<${"h" + Math.min(6, t.depth + 2)}>${inline(t.tokens)}<//>`;
    case "paragraph":
      return html`<p>${inline(t.tokens)}</p>`;
    case "text":
      return t.tokens ? inline(t.tokens) : decode(t.text);
    case "code":
      return html`<${CodeBlock} text=${t.text} language=${(t.lang ?? "").split(/[\s,{]/)[0].toLowerCase()} live=${live} />`;
    case "blockquote":
      return html`<blockquote>${blocks(t.tokens, live)}</blockquote>`;
    case "list":
      return t.ordered
        ? html`<ol start=${t.start || 1}>${t.items.map((i) => item(i, live))}</ol>`
        : html`<ul>${t.items.map((i) => item(i, live))}</ul>`;
    case "table":
      return table(t);
    case "hr":
      return html`<hr />`;
    case "html":
      return html`<p>${t.raw.trim()}</p>`;
    default:
      return span(t);
  }
}

function item(t, live) {
  const box = t.task && !t.tokens.some((x) => x.type === "checkbox");
  return html`<li class=${t.task ? "task" : undefined}>${box && checkbox(t.checked)}${blocks(t.tokens, live)}</li>`;
}

const checkbox = (on) => html`<input type="checkbox" checked=${Boolean(on)} disabled aria-label=${on ? "done" : "open"} />${" "}`;

function table(t) {
  const cells = (row, tag) => row.map((cell, i) => html`<${tag} class=${t.align[i] ? "to-" + t.align[i] : undefined}>${inline(cell.tokens)}<//>`);
  return html`<div class="wide" tabindex="0" role="group" aria-label="Table">
    <table>
      <thead><tr>${cells(t.header, "th")}</tr></thead>
      <tbody>${t.rows.map((row) => html`<tr>${cells(row, "td")}</tr>`)}</tbody>
    </table>
  </div>`;
}

const inline = (tokens) => (tokens ?? []).map(span);

function span(t) {
  switch (t.type) {
    case "text":
      return t.tokens ? inline(t.tokens) : decode(t.text);
    case "escape":
      return decode(t.text);
    case "strong":
      return html`<strong>${inline(t.tokens)}</strong>`;
    case "em":
      return html`<em>${inline(t.tokens)}</em>`;
    case "del":
      return html`<del>${inline(t.tokens)}</del>`;
    case "codespan":
      return html`<code>${t.text}</code>`;
    case "br":
      return html`<br />`;
    case "checkbox":
      return checkbox(t.checked);
    case "link":
      return link(t.href, inline(t.tokens), t.raw);
    case "image":
      return link(t.href, `image: ${decode(t.text) || t.href}`, t.raw);
    default:
      return t.raw; // HTML among it
  }
}

// link returns a link; if it leads elsewhere than to a web page or a mail, its source as text.
function link(href, children, raw) {
  let to;
  try {
    to = new URL(href);
  } catch {
    return raw;
  }
  if (!["http:", "https:", "mailto:"].includes(to.protocol)) return raw;
  return html`<a href=${to.href} target="_blank" rel="noopener noreferrer">${children}</a>`;
}

const names = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };

// decode replaces the usual entities, which Markdown knows.
function decode(text) {
  return text.replace(/&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|(\w{2,5}));/gi, (raw, dec, hex, name) => {
    if (name) return names[name] ?? raw;
    const code = dec ? parseInt(dec, 10) : parseInt(hex, 16);
    return code > 0 && code <= 0x10ffff ? String.fromCodePoint(code) : raw;
  });
}
