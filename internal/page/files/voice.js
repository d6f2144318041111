// What a screen reader hears: one polite live region, which gets whole sentences. An answer is read
// sentence by sentence while it arrives. This module knows no part of the page but the region.

const pause = 1000; // milliseconds between two changes of the region

let region = null;
let queue = [];
let timer = 0;

// setRegion sets the element whose text is read.
export function setRegion(element) {
  region = element;
}

// say has a sentence read after those before it.
export function say(sentence) {
  queue.push(sentence);
  if (!timer) flush();
}

function flush() {
  timer = 0;
  if (queue.length === 0) return;
  if (region) region.textContent = queue.join(" ");
  queue = [];
  timer = setTimeout(flush, pause);
}

// hush drops what was not read yet.
export function hush() {
  queue = [];
}

const sentence = /[.!?…:][)"'»\]]*\s+|[。！？]|\n\s*\n/g;

// A Reader reads a text that grows.
export class Reader {
  #at = 0; // the text before it was read

  // read takes the text so far, and has its complete sentences read; with the end, the rest, too.
  read(text, end) {
    let upTo = this.#at;
    sentence.lastIndex = this.#at;
    while (sentence.exec(text)) upTo = sentence.lastIndex;
    if (end) upTo = text.length;
    const part = plain(text.slice(this.#at, upTo));
    this.#at = upTo;
    if (part) say(part);
  }
}

// plain removes the marks of Markdown.
function plain(text) {
  return text.replace(/[*_`#>|]+/g, "").replace(/\s+/g, " ").trim();
}
