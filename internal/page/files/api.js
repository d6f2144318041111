// Requests to the daemon, and the streams of its answers. A key that was typed is kept by the
// browser until the tab is closed, and sent as a bearer token. This module knows neither the page
// nor the meaning of answers.

const keyName = "inferd.key";

// A Refusal is the daemon's answer if it does not do what was asked. Its message is the daemon's.
export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }

  // needsKey reports whether a key may help.
  get needsKey() {
    return this.status === 401 || this.status === 403;
  }
}

export function setKey(key) {
  if (key) sessionStorage.setItem(keyName, key);
  else sessionStorage.removeItem(keyName);
}

// call sends a request and returns the response. body, if there is one, is sent as JSON.
export async function call(path, { body, signal } = {}) {
  const headers = {};
  const key = sessionStorage.getItem(keyName);
  if (key) headers.Authorization = "Bearer " + key;
  const init = { headers, signal, credentials: "omit", cache: "no-store" };
  if (body !== undefined) {
    init.method = "POST";
    init.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  let res;
  try {
    res = await fetch(path, init);
  } catch (err) {
    if (signal?.aborted) throw err;
    throw new Refusal("inferd does not answer.", 0);
  }
  if (!res.ok) throw await refusalOf(res);
  return res;
}

// refusalOf reads the daemon's words from a response.
async function refusalOf(res) {
  const text = await res.text();
  try {
    return new Refusal(JSON.parse(text).error.message, res.status);
  } catch {
    return new Refusal(text || `HTTP ${res.status}`, res.status);
  }
}

// data yields the data of each event of a stream. Comments, which keep it alive, are dropped.
export async function* data(res) {
  const reader = res.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let rest = ""; ; ) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) yield line.slice(5).trim();
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // the stream may have failed already
  }
}
