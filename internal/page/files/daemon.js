// The daemon's state: its events as they happen, its models, its statistics and its log. This module
// changes the state of the page, and draws nothing.

import { call, data } from "./api.js";
import { changed, state } from "./state.js";
import { say } from "./voice.js";

const modelName = "inferd.model"; // of the model that was chosen last
const lifecycle = ["starting", "loading_model", "ready", "restarting", "draining"];
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let wake = () => {}; // ends the pause before the next attempt

// watch follows the daemon's events for ever. It needs a new attempt after a key was typed: retry.
export async function watch() {
  for (let pause = 500; ; pause = Math.min(2 * pause, 8000)) {
    try {
      const res = await call("/inferd/events");
      pause = 500;
      state.refused = "";
      state.lost = false;
      for await (const text of data(res)) take(JSON.parse(text));
    } catch (err) {
      if (err.needsKey) state.refused = err.message;
      else state.lost = true;
      changed();
    }
    await Promise.race([sleep(pause), new Promise((resolve) => (wake = resolve))]);
  }
}

export const retry = () => wake();

// take acts on an event.
function take(frame) {
  if (frame.status === "capabilities") state.entries.set(frame.backend, frame);
  if (lifecycle.includes(frame.status)) {
    const before = sentence(state.daemon);
    state.daemon = frame;
    const now = sentence(frame);
    if (now !== before && !("progress" in frame)) say(now);
    if (frame.status === "ready") readModels();
  }
  changed();
}

// readModels reads the models, and chooses one.
async function readModels() {
  try {
    const { data: all } = await (await call("/v1/models")).json();
    state.models = all.filter((m) => state.entries.get(m.id)?.v2 ?? true);
  } catch (err) {
    state.note = err.message;
  }
  const names = state.models.map((m) => m.id);
  const wanted = state.chat.model || localStorage.getItem(modelName) || "";
  state.chat.model = names.includes(wanted) ? wanted : (names[0] ?? "");
  changed();
}

// choose chooses the model of the conversation, and of later ones.
export function choose(name) {
  state.chat.model = name;
  localStorage.setItem(modelName, name);
  changed();
}

const phases = {
  checking_local: (f) => `looking for the model of ${f.backend}`,
  download: (f) => `downloading ${f.name || "the model of " + f.backend}${share(f.downloaded_bytes, f.total_bytes)}`,
  verify: (f) => `checking the model of ${f.backend}`,
  quarantine: (f) => `the file of ${f.backend} has another SHA-256 than it must, and was put aside`,
  mmap: (f) => `loading ${f.backend}${f.progress ? `, ${Math.round(100 * f.progress)} %` : ""}`,
  kv_cache: (f) => `making room for ${f.n_ctx} tokens of ${f.backend}`,
  waiting: (f) => `${f.backend} waits: ${f.reason || "the machine is short of resources"}`,
  engine_exited: (f) => `the engine of ${f.backend} ended${f.reason ? `: ${f.reason}` : ""}`,
  gave_up: (f) => `the engine of ${f.backend} was given up${f.reason ? `: ${f.reason}` : ""}`,
};

const share = (part, whole) => (whole ? `, ${Math.floor((100 * part) / whole)} % of ${bytes(whole)}` : part ? `, ${bytes(part)}` : "");

export function bytes(n) {
  const unit = ["B", "kB", "MB", "GB", "TB"];
  let i = 0;
  for (; n >= 1000 && i < unit.length - 1; i++) n /= 1000;
  return `${n.toFixed(i && n < 10 ? 1 : 0)} ${unit[i]}`;
}

// sentence describes a lifecycle frame.
export function sentence(frame) {
  const phase = phases[frame.phase]?.(frame);
  switch (frame.status) {
    case "ready":
      return "inferd is ready.";
    case "draining":
      return "inferd is shutting down.";
    case "loading_model":
    case "restarting":
      return phase ? phase[0].toUpperCase() + phase.slice(1) + "." : "A model is being loaded.";
    case "starting":
      return "inferd is starting.";
    default:
      return "Connecting to inferd.";
  }
}

// progress is the progress of a frame, 0 to 1; undefined if it has none.
export function progress(frame) {
  if (frame.phase === "download" && frame.total_bytes) return frame.downloaded_bytes / frame.total_bytes;
  return frame.progress;
}

const history = 120; // answers of /inferd/stats in the curve

// ask reads the statistics and the log once a second, while they are on the screen.
export async function ask() {
  for (; ; await sleep(1000)) {
    if (state.view !== "status" || document.visibilityState === "hidden") continue;
    try {
      const stats = await (await call("/inferd/stats")).json();
      state.stats = stats;
      state.rates.push(stats.backends.reduce((sum, b) => sum + b.tokens_per_s, 0));
      if (state.rates.length > history) state.rates.shift();
      if (stats.owner) state.log = await (await call("/inferd/log")).json();
    } catch (err) {
      state.stats = null;
      if (err.needsKey) state.refused = err.message;
    }
    changed();
  }
}
