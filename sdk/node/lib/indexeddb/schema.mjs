// What a connection knows of its object stores and indexes. The objects stand for them as long as the connection is
// open; `id` is the host's, undefined until createStore or createIndex was answered.
import { unescapeName } from './host.mjs';

export function storeOf({ id, name, keyPath = null, autoIncrement = false, indexes = [] }) {
  const store = { id, name: unescapeName(name), keyPath, autoIncrement, indexes: new Map(), deleted: false };
  for (const index of indexes.map(indexOf)) store.indexes.set(index.name, index);
  return store;
}

function indexOf({ id, name, keyPath, unique = false, multiEntry = false }) {
  return { id, name: unescapeName(name), keyPath, unique, multiEntry, deleted: false };
}

export function storesOf(database) {
  return new Map((database?.stores ?? []).map(storeOf).map((store) => [store.name, store]));
}

/** `execution` gives these changes back when it aborts. */
export function add(execution, map, entry) {
  map.set(entry.name, entry);
  execution.onAbort(() => {
    entry.deleted = true;
    map.delete(entry.name);
  });
}

export function remove(execution, map, entry) {
  map.delete(entry.name);
  entry.deleted = true;
  execution.onAbort(() => {
    entry.deleted = false;
    map.set(entry.name, entry);
  });
}

export function rename(execution, map, entry, name) {
  const before = entry.name;
  const change = (from, to) => {
    map.delete(from);
    entry.name = to;
    map.set(to, entry);
  };
  change(before, name);
  execution.onAbort(() => change(name, before));
}
