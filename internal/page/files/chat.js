// The course of a conversation: what is sent, and how its answer arrives. This module changes the
// state, and draws nothing.

import { call, data, Refusal } from "./api.js";
import { address, blank, changed, state, touch } from "./state.js";
import * as store from "./store.js";
import { hush, Reader, say } from "./voice.js";

// The settings of a conversation that are numbers; empty means not said.
export const numbers = ["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens", "seed"];

// request returns the body of a request for the next message.
export function request(chat) {
  const body = { messages: [], stream: true, stream_options: { include_usage: true } };
  if (chat.model) body.model = chat.model;
  if (chat.system.trim()) body.messages.push({ role: "system", content: chat.system });
  for (const message of chat.messages) body.messages.push(...spell(message));
  for (const name of numbers) {
    const value = chat.options[name];
    if (value !== undefined && value !== "") body[name] = Number(value);
  }
  if (chat.options.thinking) body.chat_template_kwargs = { enable_thinking: chat.options.thinking === "on" };
  return body;
}

// spell returns a message as the daemon reads it. A call of a tool gets a result that says that the
// page runs none: a call without a result is no conversation.
function spell(m) {
  if (m.role === "user") {
    if (!m.images?.length) return [{ role: "user", content: m.text }];
    const parts = m.images.map((url) => ({ type: "image_url", image_url: { url } }));
    if (m.text) parts.push({ type: "text", text: m.text });
    return [{ role: "user", content: parts }];
  }
  if (!m.calls.length) return m.text ? [{ role: "assistant", content: m.text }] : [];
  const calls = m.calls.map((c) => ({ id: c.id, type: "function", function: { name: c.name, arguments: c.arguments } }));
  const results = m.calls.map((c) => ({ role: "tool", tool_call_id: c.id, content: "not run: this page runs no tools" }));
  return [{ role: "assistant", content: m.text || null, tool_calls: calls }, ...results];
}

// send sends the draft.
export function send() {
  const { chat } = state;
  const text = state.draft.trim();
  if (state.running || (!text && !state.images.length)) return;
  chat.messages.push({ role: "user", text, images: state.images });
  chat.title ||= text.slice(0, 80) || "An image";
  state.draft = "";
  state.images = [];
  answer();
}

// again replaces the message at an index, and those after it, by a new answer.
export function again(index) {
  if (state.running) return;
  state.chat.messages.length = index;
  answer();
}

// edit changes a message of the user, and asks for a new answer to it.
export function edit(index, text) {
  state.editing = -1;
  if (state.running) return;
  const { messages } = state.chat;
  messages[index] = { ...messages[index], text, rev: (messages[index].rev || 0) + 1 };
  again(index + 1);
}

// stop ends the answer that is arriving: the connection is closed, and the daemon frees its slot.
export function stop() {
  state.running?.abort();
}

// answer asks for the next message of the conversation on the screen.
async function answer() {
  const { chat } = state;
  const body = request(chat);
  const message = { role: "assistant", model: chat.model, text: "", thinking: "", calls: [], live: true };
  chat.messages.push(message);
  address(chat.id);
  const running = (state.running = new AbortController());
  const reader = new Reader();
  say("The model is answering.");
  keep(chat);
  const watch = setInterval(() => place(message), 1000);
  try {
    await receive(body, message, reader, running.signal);
    reader.read(message.text, true);
    say(message.calls.length ? "The model calls a tool." : "The answer is complete.");
  } catch (err) {
    hush();
    if (running.signal.aborted) {
      message.stopped = true;
      say("The answer was stopped.");
    } else {
      fail(message, err);
    }
  } finally {
    clearInterval(watch);
    message.live = false;
    message.place = "";
    if (state.running === running) state.running = null;
    touch(message);
    keep(chat);
  }
}

function fail(message, err) {
  message.error = err.message;
  say(`The request failed: ${err.message}`);
  if (err.needsKey) state.refused = err.message;
}

// receive reads the stream of an answer into a message.
async function receive(body, message, reader, signal) {
  const begin = performance.now();
  const res = await call("/v1/chat/completions", { body, signal });
  message.ignored = res.headers.get("Inferd-Ignored") || "";
  let finished = false;
  for await (const text of data(res)) {
    if (text === "[DONE]") break;
    const chunk = JSON.parse(text);
    if (chunk.error) throw new Refusal(chunk.error.message, 0);
    message.model = chunk.model || message.model;
    if (chunk.usage) message.facts = facts(chunk, message.first - begin);
    const [choice] = chunk.choices;
    if (choice) {
      take(message, choice.delta);
      finished ||= Boolean(choice.finish_reason);
      if (choice.finish_reason === "length") message.cut = true;
    }
    if (!message.first && (message.text || message.thinking || message.calls.length)) message.first = performance.now();
    reader.read(message.text, false);
    touch(message);
  }
  if (!finished) throw new Refusal("The connection ended before the end of the answer.", 0);
}

// take adds a piece to a message.
function take(message, delta) {
  message.text += delta.content ?? "";
  message.thinking += delta.reasoning_content ?? "";
  for (const piece of delta.tool_calls ?? []) {
    const call = (message.calls[piece.index] ??= { id: "", name: "", arguments: "" });
    call.id ||= piece.id ?? "";
    call.name ||= piece.function?.name ?? "";
    call.arguments += piece.function?.arguments ?? "";
  }
}

// facts are the figures of an answer.
function facts({ usage, timings }, first) {
  const tokens = usage.completion_tokens;
  const seconds = (timings?.decode_ms ?? 0) / 1000;
  return {
    tokens,
    rate: seconds > 0 ? tokens / seconds : 0,
    prompt: usage.prompt_tokens,
    cached: usage.prompt_tokens_details?.cached_tokens ?? 0,
    first: Number.isFinite(first) ? first / 1000 : 0,
  };
}

// place reports the place in the queue, while an answer has not begun.
async function place(message) {
  if (message.first || !message.live || state.daemon.status !== "ready") return;
  try {
    const stats = await (await call("/inferd/stats")).json();
    if (message.first || !message.live) return;
    message.place = waiting(stats);
    touch(message);
  } catch {
    // the answer itself says what is wrong
  }
}

// waiting describes the queue to a client: its own place, as far as the daemon knows the client. The
// text is empty if no request waits, or none of the client.
function waiting({ own, running, waiting }) {
  if (!waiting || (own && !own.place)) return "";
  const queue = `${running} running, ${waiting} waiting for a slot`;
  if (!own) return queue;
  const first = own.waiting > 1 ? `, for the first of your ${own.waiting} questions` : "";
  return `Place ${own.place} in the queue${first}: ${queue}`;
}

// keep keeps a conversation, and reads the list of conversations.
async function keep(chat) {
  chat.changed = Date.now();
  if (!state.keeps) return;
  try {
    await store.put(structuredClone({ ...chat, messages: chat.messages.map((m) => ({ ...m, live: false })) }));
    state.chats = await store.list();
  } catch {
    state.keeps = false;
  }
  changed();
}

// keepNow keeps the conversation on the screen, if it has a message.
export function keepNow() {
  if (state.chat.messages.length) keep(state.chat);
}

// fresh begins a new conversation.
export function fresh() {
  stop();
  state.chat = blank(state.chat.model);
  state.view = "chat";
  state.editing = -1;
  address("");
  changed();
}

// show brings a kept conversation to the screen.
export async function show(id) {
  const chat = await store.get(id).catch(() => undefined);
  if (!chat) return;
  stop();
  Object.assign(state, { chat, view: "chat", dialog: "", editing: -1 });
  address(id);
  changed();
}

// forget removes a kept conversation; without an id, all of them.
export async function forget(id) {
  await (id ? store.remove(id) : store.clear()).catch(() => {});
  state.chats = await store.list().catch(() => []);
  if (!id || state.chat.id === id) fresh();
  changed();
}
