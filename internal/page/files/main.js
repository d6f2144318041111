// The page: a header, and the conversation or the status.

import { setKey } from "./api.js";
import { fresh, show } from "./chat.js";
import { ChatView, drop } from "./chatview.js";
import { ask, retry, watch } from "./daemon.js";
import { Component, html, render } from "./parts.js";
import { address, changed, onChange, state } from "./state.js";
import { Banner, StatusView } from "./statusview.js";
import * as store from "./store.js";
import { setRegion } from "./voice.js";

function go(view) {
  state.view = view;
  address(view === "status" ? view : state.chat.messages.length ? state.chat.id : "");
  changed();
}

function Header() {
  const { view } = state;
  const tab = (name, label) => html`<button type="button" class="quiet" aria-current=${view === name ? "page" : undefined} onClick=${() => go(name)}>${label}</button>`;
  const history = () => {
    state.dialog = "history";
    go("chat");
  };
  return html`<header class="top">
    <span class="name">inferd</span>
    <nav aria-label="Page">
      ${tab("chat", "Chat")}
      <button type="button" class="quiet" onClick=${fresh}>New</button>
      <button type="button" class="quiet" onClick=${history}>History</button>
      ${tab("status", "Status")}
    </nav>
  </header>`;
}

// KeyForm is shown when the daemon refuses the page.
class KeyForm extends Component {
  state = { key: "" };

  use = (e) => {
    e.preventDefault();
    setKey(this.state.key);
    this.setState({ key: "" });
    state.refused = "";
    changed();
    retry();
  };

  render(_, { key }) {
    return html`<form class="banner bad" onSubmit=${this.use}>
      <p>${state.refused}</p>
      <label class="field">Key <input type="password" id="key" autocomplete="off" value=${key} onInput=${(e) => this.setState({ key: e.target.value })} /></label>
      <button type="submit" class="main">Use the key</button>
      <p class="faint">It is kept until this tab is closed.</p>
    </form>`;
  }
}

function Page() {
  return html`
    <a class="skip" href="#draft" onClick=${skip}>Skip to the message</a>
    <${Header} />
    ${state.refused ? html`<${KeyForm} />` : html`<${Banner} />`}
    ${state.view === "status" ? html`<${StatusView} />` : html`<${ChatView} />`}`;
}

function skip(e) {
  e.preventDefault();
  state.view = "chat";
  changed();
  requestAnimationFrame(() => document.getElementById("draft")?.focus());
}

// A screen whose end was in sight follows an answer that grows.
let count = 0;
function draw() {
  const root = document.documentElement;
  const atEnd = root.scrollHeight - root.scrollTop - root.clientHeight < 80;
  render(html`<${Page} />`, place);
  const grown = state.chat.messages.length;
  if (state.view === "chat" && grown && (atEnd || grown > count)) root.scrollTop = root.scrollHeight;
  count = grown;
}

const place = document.createElement("div");
const region = document.createElement("p");
region.className = "hidden";
region.setAttribute("role", "status");
region.setAttribute("aria-live", "polite");
document.body.append(place, region);
setRegion(region);
document.addEventListener("dragover", (e) => e.preventDefault());
document.addEventListener("drop", drop);

// begin opens the conversation or the view of the address.
async function begin() {
  const name = location.hash.slice(1);
  if (name === "status") state.view = name;
  onChange(draw);
  draw();
  watch();
  ask();
  try {
    state.chats = await store.list();
    if (name && name !== "status") await show(name);
  } catch {
    state.keeps = false;
  }
  changed();
}

begin();
