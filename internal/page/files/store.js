// Conversations, kept in this browser's IndexedDB: no answer leaves the machine. Without it, as in
// some private windows, every function fails, and the page works without a history.

const name = "inferd";
const table = "chats";

let opened = null; // a promise of the database

function open() {
  opened ??= new Promise((resolve, reject) => {
    const req = indexedDB.open(name, 1);
    req.onupgradeneeded = () => req.result.createObjectStore(table, { keyPath: "id" });
    req.onsuccess = () => resolve(req.result);
    req.onerror = () => reject(req.error);
    req.onblocked = () => reject(new Error("another tab has an older history open"));
  });
  return opened;
}

// use runs one operation of the table in a transaction of its own.
async function use(mode, operation) {
  const db = await open();
  return new Promise((resolve, reject) => {
    const tx = db.transaction(table, mode);
    const req = operation(tx.objectStore(table));
    tx.oncomplete = () => resolve(req.result);
    tx.onabort = () => reject(tx.error);
    tx.onerror = () => reject(tx.error);
  });
}

// put keeps a conversation in the place of an earlier version.
export const put = (chat) => use("readwrite", (t) => t.put(chat));

// get returns a conversation, or undefined.
export const get = (id) => use("readonly", (t) => t.get(id));

export const remove = (id) => use("readwrite", (t) => t.delete(id));
export const clear = () => use("readwrite", (t) => t.clear());

// list returns id, title and time of all conversations, newest first.
export async function list() {
  const all = await use("readonly", (t) => t.getAll());
  return all.map(({ id, title, changed }) => ({ id, title, changed })).sort((a, b) => b.changed - a.changed);
}
