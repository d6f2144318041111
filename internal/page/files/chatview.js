// The conversation on the screen: its messages, the field for the next one, and its dialogs.

import { again, edit, forget, keepNow, numbers, send, show, stop } from "./chat.js";
import { choose } from "./daemon.js";
import * as images from "./images.js";
import { markdown } from "./markdown.js";
import { Area, Component, CopyButton, Dialog, html } from "./parts.js";
import { changed, state } from "./state.js";

const set = (name) => (value) => {
  state[name] = value;
  changed();
};

// A Message is drawn again only if it has changed.
class Message extends Component {
  shouldComponentUpdate(next) {
    return ["message", "rev", "busy", "editing", "index"].some((name) => next[name] !== this.props[name]);
  }

  render(props) {
    return props.message.role === "user" ? html`<${Question} ...${props} />` : html`<${Answer} ...${props} />`;
  }
}

function Question({ message, index, busy, editing }) {
  if (editing) return html`<${Editor} message=${message} index=${index} />`;
  return html`<article class="question" aria-label="You">
    ${message.images?.map((url, i) => html`<img src=${url} alt=${`Image ${i + 1} of the question`} />`)}
    ${message.text && html`<p class="plain">${message.text}</p>`}
    <footer>
      <button type="button" class="quiet" disabled=${busy} onClick=${() => set("editing")(index)}>Edit</button>
      <${CopyButton} text=${() => message.text} />
    </footer>
  </article>`;
}

class Editor extends Component {
  state = { text: this.props.message.text };

  cancel = () => {
    set("editing")(-1);
    document.getElementById("draft")?.focus();
  };
  save = () => {
    if (!this.state.text.trim()) return;
    edit(this.props.index, this.state.text.trim());
    document.getElementById("draft")?.focus();
  };

  render(_, { text }) {
    return html`<form class="question editor" onSubmit=${(e) => e.preventDefault()}>
      <${Area} id="editor" label="Edit the question" value=${text} focus onText=${(text) => this.setState({ text })} onEnter=${this.save} onEscape=${this.cancel} />
      <footer>
        <button type="button" class="main" onClick=${this.save}>Ask again</button>
        <button type="button" class="quiet" onClick=${this.cancel}>Cancel</button>
      </footer>
    </form>`;
  }
}

function Answer({ message, index, busy }) {
  const waiting = message.live && !message.text && !message.calls.length;
  return html`<article class="answer" aria-label=${message.model || "Answer"} aria-busy=${Boolean(message.live)}>
    ${message.thinking &&
    html`<details class="thinking">
      <summary>${waiting ? "Thinking…" : "Thoughts"}</summary>
      <div class="prose">${markdown(message.thinking, message.live)}</div>
    </details>`}
    ${message.text && html`<div class="prose">${markdown(message.text, message.live)}</div>`}
    ${message.calls.map((c) => html`<${Call} call=${c} />`)}
    ${waiting && html`<p class="waiting"><span class="pulse" aria-hidden="true"></span>${message.place || "Waiting for the answer"}</p>`}
    ${message.error && html`<p class="error">${message.error}</p>`}
    ${!message.live && html`<footer>
      <button type="button" class="quiet" disabled=${busy} onClick=${() => again(index)}>${message.error ? "Try again" : "Regenerate"}</button>
      ${message.text && html`<${CopyButton} text=${() => message.text} />`}
      <small>${remarks(message).join(" · ")}</small>
    </footer>`}
  </article>`;
}

function Call({ call }) {
  let text = call.arguments;
  try {
    text = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // it is still arriving, or is no JSON
  }
  return html`<details class="call" open>
    <summary>Calls <code>${call.name}</code></summary>
    <pre class="plain" tabindex="0">${text}</pre>
  </details>`;
}

const count = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

// remarks are the figures of an answer, and what was unusual.
function remarks({ facts, stopped, cut, ignored }) {
  const all = [];
  if (stopped) all.push("stopped");
  if (cut) all.push("cut off: the limit of tokens, or the end of the context");
  if (facts) {
    all.push(count(facts.tokens, "token"));
    if (facts.rate) all.push(`${facts.rate.toLocaleString("en", { maximumFractionDigits: facts.rate < 10 ? 1 : 0 })} tokens/s`);
    if (facts.first) all.push(`first after ${facts.first.toFixed(facts.first < 10 ? 2 : 0)} s`);
    all.push(`${facts.cached.toLocaleString("en")} of ${count(facts.prompt, "prompt token")} cached`);
  }
  if (ignored) all.push(`no effect: ${ignored}`);
  return all;
}

// attach adds images to the draft. An image that cannot be read causes a message.
async function attach(files) {
  for (const file of files) {
    try {
      const url = await images.read(file);
      state.images = [...state.images, url];
    } catch (err) {
      state.note = err.message;
    }
    changed();
  }
}

const paste = (e) => {
  const files = images.of(e.clipboardData);
  if (!files.length) return;
  e.preventDefault();
  state.note = "";
  attach(files);
};

// drop attaches the images that are dropped anywhere on the chat. Other files cause a message: the
// browser must not open them in place of the page.
export function drop(e) {
  e.preventDefault();
  if (state.view !== "chat") return;
  const [other] = images.others(e.dataTransfer);
  set("note")(other ? `${other.name} is not an image: only images can be attached` : "");
  attach(images.of(e.dataTransfer));
}

function Composer() {
  const { chat, models, running } = state;
  const picker = (e) => {
    state.note = "";
    attach([...e.target.files]);
    e.target.value = "";
  };
  return html`<form class="composer" aria-label="Message" onSubmit=${(e) => e.preventDefault()}>
    ${state.images.length > 0 && html`<ul class="images">${state.images.map((url, i) => html`<li>
      <img src=${url} alt=${`Image ${i + 1} of the message`} />
      <button type="button" class="quiet" onClick=${() => set("images")(state.images.filter((_, j) => j !== i))}>Remove</button>
    </li>`)}</ul>`}
    <${Area} id="draft" label="Message" placeholder="Ask something" value=${state.draft} focus
      onText=${set("draft")} onEnter=${send} onEscape=${stop} onPaste=${paste} />
    <div class="row">
      <select aria-label="Model" value=${chat.model} onChange=${(e) => choose(e.target.value)} disabled=${!models.length}>
        ${models.length ? models.map((m) => html`<option value=${m.id} selected=${m.id === chat.model}>${m.id}</option>`) : html`<option value="">no model yet</option>`}
      </select>
      <label class="file quiet">Add image<input type="file" accept="image/*" multiple onChange=${picker} /></label>
      <button type="button" class="quiet" onClick=${() => set("dialog")("settings")}>Settings</button>
      <span class="space"></span>
      ${running
        ? html`<button type="button" class="main" id="stop" onClick=${stop}>Stop</button>`
        : html`<button type="button" class="main" id="send" onClick=${send} disabled=${!state.draft.trim() && !state.images.length}>Send</button>`}
    </div>
  </form>`;
}

const labels = {
  temperature: "Temperature", top_p: "Top p", top_k: "Top k", min_p: "Min p",
  repeat_penalty: "Repeat penalty", max_tokens: "Most tokens of an answer", seed: "Seed",
};
const steps = { temperature: 0.1, top_p: 0.05, top_k: 1, min_p: 0.01, repeat_penalty: 0.05, max_tokens: 1, seed: 1 };

function Settings() {
  const { chat } = state;
  const option = (name, value) => {
    chat.options = { ...chat.options, [name]: value };
    changed();
  };
  const close = () => {
    keepNow();
    leave("settings");
  };
  return html`<${Dialog} title="Settings of this conversation" onClose=${close}>
    <label class="field">System message
      <textarea id="system" rows="4" value=${chat.system} onInput=${(e) => ((chat.system = e.target.value), changed())}></textarea>
    </label>
    <label class="field">Thinking
      <select id="thinking" value=${chat.options.thinking ?? ""} onChange=${(e) => option("thinking", e.target.value)}>
        <option value="">as the model does by itself</option><option value="on">on</option><option value="off">off</option>
      </select>
    </label>
    <fieldset>
      <legend>Sampling: an empty field leaves the choice to inferd</legend>
      ${numbers.map((name) => html`<label class="field">${labels[name]}
        <input type="number" id=${name} min="0" step=${steps[name]} inputmode="decimal" value=${chat.options[name] ?? ""} onInput=${(e) => option(name, e.target.value)} />
      </label>`)}
    </fieldset>
  <//>`;
}

// leave closes a dialog, unless another one has taken its place.
function leave(name) {
  if (state.dialog === name) set("dialog")("");
}

const day = (ms) => new Date(ms).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

function History() {
  const { chats, keeps } = state;
  return html`<${Dialog} title="Conversations" onClose=${() => leave("history")}>
    ${!keeps && html`<p>This browser window keeps no conversations.</p>`}
    ${keeps && !chats.length && html`<p>There is none yet. Conversations are kept in this browser only.</p>`}
    <ul class="chats">${chats.map((c) => html`<li key=${c.id}>
      <button type="button" class="open" onClick=${() => show(c.id)} aria-current=${c.id === state.chat.id ? "true" : undefined}>
        <span>${c.title || "Untitled"}</span><time datetime=${new Date(c.changed).toISOString()}>${day(c.changed)}</time>
      </button>
      <button type="button" class="quiet" onClick=${() => forget(c.id)} aria-label=${`Delete ${c.title || "Untitled"}`}>Delete</button>
    </li>`)}</ul>
    ${chats.length > 1 && html`<footer><button type="button" class="quiet" onClick=${() => forget("")}>Delete all</button></footer>`}
  <//>`;
}

// about describes the chosen model.
function about() {
  const { chat, entries, models } = state;
  if (!chat.model) return "The field below is ready; the answer comes when a model is.";
  const facts = entries.get(chat.model) ?? {};
  const meta = models.find((m) => m.id === chat.model)?.meta ?? {};
  const size = facts.n_ctx || meta.n_ctx;
  return [facts.model || chat.model, size && `${size.toLocaleString("en")} tokens of context`, "computed on this machine"].filter(Boolean).join(" · ");
}

export function ChatView() {
  const { chat, running, editing, dialog } = state;
  return html`<main class="chat">
    <h1 class="hidden">Chat</h1>
    ${!chat.messages.length && html`<section class="empty"><h2>What would you like to know?</h2><p>${about()}</p></section>`}
    <section class="messages" aria-label="Conversation">
      ${chat.messages.map((message, i) => html`<${Message} key=${chat.id + i} message=${message} rev=${message.rev} index=${i} busy=${Boolean(running)} editing=${editing === i} />`)}
    </section>
    ${state.note && html`<p class="error note">${state.note} <button type="button" class="quiet" onClick=${() => set("note")("")}>Dismiss</button></p>`}
    <${Composer} />
    ${dialog === "settings" && html`<${Settings} />`}
    ${dialog === "history" && html`<${History} />`}
  </main>`;
}
