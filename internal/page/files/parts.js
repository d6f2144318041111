// Elements that several parts of the page use.

import { Component, h } from "./lib/preact.js";
import htm from "./lib/htm.js";

export { Component, render } from "./lib/preact.js";
export const html = htm.bind(h);

// copy puts a text on the clipboard. Pages of other machines over plain HTTP have none.
export const canCopy = Boolean(navigator.clipboard);

// A CopyButton says for a moment that it has copied.
export class CopyButton extends Component {
  state = { done: false };

  copy = async () => {
    try {
      await navigator.clipboard.writeText(this.props.text());
      this.setState({ done: true });
      setTimeout(() => this.setState({ done: false }), 1500);
    } catch {
      // the browser has refused, and says so itself
    }
  };

  render({ label = "Copy" }, { done }) {
    if (!canCopy) return null;
    return html`<button type="button" class="quiet" onClick=${this.copy}>${done ? "Copied" : label}</button>`;
  }
}

let colours = null; // a promise of the module with the colours

// A CodeBlock gets its colours once its text is complete.
export class CodeBlock extends Component {
  state = { of: null, elements: null };

  componentDidMount() {
    this.colour();
  }

  componentDidUpdate() {
    this.colour();
  }

  componentWillUnmount() {
    this.gone = true;
  }

  async colour() {
    const { text, language, live } = this.props;
    if (live || !language || this.asked === text) return;
    this.asked = text;
    colours ??= import("./code.js");
    let elements = null;
    try {
      elements = (await colours).colour(text, language);
    } catch {
      colours = null; // the next block tries again
    }
    if (!this.gone && this.asked === text) this.setState({ of: text, elements });
  }

  render({ text, language }, { of, elements }) {
    return html`<figure class="code">
      <figcaption><span>${language || "text"}</span><${CopyButton} text=${() => text} /></figcaption>
      <pre tabindex="0" role="group" aria-label=${language ? `Code, ${language}` : "Code"}><code>${of === text && elements ? elements : text}</code></pre>
    </figure>`;
  }
}

// A Dialog is modal. It closes with Escape, as every dialog of the browser does.
export class Dialog extends Component {
  hold = (element) => {
    if (element) this.element = element;
  };

  componentDidMount() {
    this.before = document.activeElement;
    this.element.showModal();
    (this.element.querySelector("textarea, .open") ?? this.element).focus();
  }

  componentWillUnmount() {
    this.element.close();
    if (this.before?.isConnected) this.before.focus();
  }

  render({ title, children, onClose }) {
    return html`<dialog ref=${this.hold} aria-labelledby="dialog-title" onClose=${onClose} onClick=${(e) => e.target === this.element && onClose()}>
      <div class="inside">
        <header><h2 id="dialog-title">${title}</h2><button type="button" class="quiet" onClick=${onClose}>Close</button></header>
        ${children}
      </div>
    </dialog>`;
  }
}

// An Area is a field for text of several lines that grows with it. Enter calls onEnter.
export class Area extends Component {
  hold = (element) => {
    if (element) this.element = element;
  };

  componentDidMount() {
    this.fit();
    if (this.props.focus) this.element.focus();
  }

  componentDidUpdate() {
    this.fit();
  }

  // Browsers without field-sizing need a height.
  fit() {
    if (CSS.supports("field-sizing", "content")) return;
    this.element.style.height = "auto";
    this.element.style.height = `${this.element.scrollHeight}px`;
  }

  key = (e) => {
    if (e.key === "Enter" && !e.shiftKey && !e.isComposing) {
      e.preventDefault();
      this.props.onEnter();
    } else if (e.key === "Escape") {
      this.props.onEscape?.();
    }
  };

  render({ id, label, value, onText, placeholder, onPaste }) {
    return html`<textarea ref=${this.hold} id=${id} rows="1" aria-label=${label} value=${value} placeholder=${placeholder}
      onInput=${(e) => onText(e.target.value)} onKeyDown=${this.key} onPaste=${onPaste}></textarea>`;
  }
}
