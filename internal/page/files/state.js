// The state of the page is one object. Code changes it and calls changed(): the page is then drawn
// again, at most once per frame of the screen. This module knows no part of the page.

export const state = {
  view: "chat", // or "status"
  dialog: "", // "history" or "settings"; empty is none
  refused: "", // the daemon's words when it asks for a key
  lost: false, // the daemon does not answer
  daemon: {}, // its latest lifecycle frame
  entries: new Map(), // by name: the latest frame with its capabilities
  models: [], // entries of the daemon, as /v1/models lists them

  chat: blank(""), // the conversation on the screen
  chats: [], // the kept ones, newest first: id, title, changed
  keeps: true, // conversations are kept
  draft: "", // the message that is being written
  images: [], // of the draft, as data URLs
  editing: -1, // the index of the message that is being edited
  note: "", // a failure of the page itself
  running: null, // the AbortController of the answer that is arriving

  stats: null, // the latest answer of /inferd/stats
  rates: [], // tokens per second, of the latest answers
  log: [], // the newest records of the activity log
};

// blank returns a conversation without messages.
export function blank(model) {
  const id = Date.now().toString(36) + Math.random().toString(36).slice(2, 8);
  return { id, title: "", changed: Date.now(), model, system: "", options: {}, messages: [] };
}

let draw = () => {};
let due = false;

// onChange sets the function that draws the page.
export function onChange(fn) {
  draw = fn;
}

// changed has the page drawn with the next frame.
export function changed() {
  if (due) return;
  due = true;
  const now = () => {
    due = false;
    draw();
  };
  // A hidden page has no frames.
  if (document.visibilityState === "hidden") setTimeout(now, 250);
  else requestAnimationFrame(now);
}

// touch marks a message as changed: only such messages are drawn again.
export function touch(message) {
  message.rev = (message.rev || 0) + 1;
  changed();
}

// address names what is on the screen, so that a reload finds it again.
export function address(name) {
  history.replaceState(null, "", name ? "#" + name : location.pathname);
}
