// Colours of code, by highlight.js. This module and the languages are fetched when the first block
// of code is complete. Its result is a tree, from which the page makes elements: never HTML.

import hljs from "./lib/highlight/core.js";
import bash from "./lib/highlight/bash.js";
import go from "./lib/highlight/go.js";
import javascript from "./lib/highlight/javascript.js";
import json from "./lib/highlight/json.js";
import python from "./lib/highlight/python.js";
import { html } from "./parts.js";

for (const [name, language] of Object.entries({ bash, go, javascript, json, python })) {
  hljs.registerLanguage(name, language);
}

// A Tree takes the place of the writer of HTML in highlight.js. The methods are those that it calls.
class Tree {
  root = { scope: "", children: [] };
  #open = [this.root];

  addText(text) {
    if (text !== "") this.#open.at(-1).children.push(text);
  }
  startScope(scope) {
    const node = { scope, children: [] };
    this.#open.at(-1).children.push(node);
    this.#open.push(node);
  }
  endScope() {
    if (this.#open.length > 1) this.#open.pop();
  }
  openNode(scope) {
    this.startScope(scope);
  }
  closeNode() {
    this.endScope();
  }
  __addSublanguage(other, name) {
    this.#open.at(-1).children.push({ scope: name ? `language:${name}` : "", children: other.root.children });
  }
  finalize() {}
  toHTML() {
    return "";
  }
}

hljs.configure({ __emitter: Tree });

// colour returns the elements of a code block; null if its language is none of ours.
export function colour(text, language) {
  if (!hljs.getLanguage(language)) return null;
  return hljs.highlight(text, { language, ignoreIllegals: true })._emitter.root.children.map(element);
}

function element(node) {
  if (typeof node === "string") return node;
  const scope = node.scope.split(".")[0].replace(/[^a-z-]/g, "-");
  return html`<span class=${scope && "c-" + scope}>${node.children.map(element)}</span>`;
}
