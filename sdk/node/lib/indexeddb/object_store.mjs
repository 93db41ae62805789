// IDBObjectStore: the handle of an object store in one transaction.
import { openCursor } from './cursor.mjs';
import { dataError, domException, invalidState, readOnly, transactionInactive } from './errors.mjs';
import { escapeName } from './host.mjs';
import { isValidKeyPath, keyPathOf } from './key_path.mjs';
import { toSpan } from './key_range.mjs';
import { decodeKey, encodeKey } from './keys.mjs';
import { fillIndex, newIndex } from './store_index.mjs';
import { cloneInactive, keyWithin, placePut } from './put.mjs';
import * as records from './records.mjs';
import { newRequest } from './request.mjs';
import { add, remove, rename } from './schema.mjs';
import { activeExecution } from './transaction.mjs';
import {
  checkArguments,
  checkConstructor,
  defineInterface,
  dictionary,
  internal,
  slots,
  stringList,
} from './web_idl.mjs';

export class IDBObjectStore {
  constructor(token, transaction, store) {
    checkConstructor(token);
    Object.defineProperty(this, slots, { value: { transaction, store, handles: new Map() } });
  }

  get name() {
    return this[slots].store.name;
  }
  set name(value) {
    const name = String(value);
    const { store, transaction } = this[slots];
    const execution = upgrading(this);
    if (store.name === name) return;
    const { stores } = transaction.db[slots];
    if (stores.has(name)) throw domException('ConstraintError', `There is an object store "${name}" already.`);
    rename(execution, stores, store, name);
    execution.place({ run: () => execution.call('renameStore', { store: store.id, name: escapeName(name) }) });
  }

  get keyPath() {
    return keyPathOf(this[slots].store, this[slots]);
  }
  get autoIncrement() {
    return this[slots].store.autoIncrement;
  }
  get indexNames() {
    return stringList(this[slots].store.indexes.keys());
  }
  get transaction() {
    return this[slots].transaction;
  }

  put(value, key) {
    checkArguments(arguments, 1, 'IDBObjectStore.put');
    return store(this, value, key, false);
  }

  add(value, key) {
    checkArguments(arguments, 1, 'IDBObjectStore.add');
    return store(this, value, key, true);
  }

  delete(query) {
    checkArguments(arguments, 1, 'IDBObjectStore.delete');
    const execution = writable(this);
    const span = toSpan(query, { nullable: false });
    return placeWrite(this, execution, () => execution.call('remove', { ...records.placeOf(this), ...span }));
  }

  clear() {
    const execution = writable(this);
    return placeWrite(this, execution, () => execution.call('clear', records.placeOf(this)));
  }

  get(query) {
    checkArguments(arguments, 1, 'IDBObjectStore.get');
    const execution = readable(this);
    const span = toSpan(query, { nullable: false });
    return records.requestFirst(this, execution, span, { keysOnly: false, result: records.valueOf });
  }

  getKey(query) {
    checkArguments(arguments, 1, 'IDBObjectStore.getKey');
    const execution = readable(this);
    const span = toSpan(query, { nullable: false });
    return records.requestFirst(this, execution, span, { keysOnly: true, result: records.keyOf });
  }

  getAll(query, count) {
    const execution = readable(this);
    const terms = records.toAllTerms(query, count);
    return records.requestAll(this, execution, terms, { keysOnly: false, result: records.valueOf });
  }

  getAllKeys(query, count) {
    const execution = readable(this);
    const terms = records.toAllTerms(query, count);
    return records.requestAll(this, execution, terms, { keysOnly: true, result: records.keyOf });
  }

  getAllRecords(options) {
    const execution = readable(this);
    const terms = records.toAllOptions(options);
    return records.requestAll(this, execution, terms, { keysOnly: false, result: records.newRecord });
  }

  count(query) {
    const execution = readable(this);
    return records.requestCount(this, execution, toSpan(query, { nullable: true }));
  }

  openCursor(query, direction = 'next') {
    const execution = readable(this);
    return openCursor(this, execution, query, direction, { keysOnly: false });
  }

  openKeyCursor(query, direction = 'next') {
    const execution = readable(this);
    return openCursor(this, execution, query, direction, { keysOnly: true });
  }

  index(name) {
    checkArguments(arguments, 1, 'IDBObjectStore.index');
    const { store, transaction } = this[slots];
    if (store.deleted) throw invalidState('The object store has been deleted.');
    if (transaction[slots].execution.state === 'finished') throw invalidState('The transaction has finished.');
    const index = store.indexes.get(String(name));
    if (index === undefined) throw domException('NotFoundError', `There is no index "${String(name)}".`);
    return indexHandle(this, index);
  }

  createIndex(name, keyPath, options) {
    checkArguments(arguments, 2, 'IDBObjectStore.createIndex');
    const text = String(name);
    const path = Array.isArray(keyPath) ? Array.from(keyPath, String) : String(keyPath);
    const { unique = false, multiEntry = false } = dictionary(options, 'options');
    const execution = upgrading(this);
    const { store } = this[slots];
    if (store.indexes.has(text)) throw domException('ConstraintError', `There is an index "${text}" already.`);
    if (!isValidKeyPath(path)) throw domException('SyntaxError', 'The keyPath is not valid.');
    if (multiEntry && Array.isArray(path)) {
      throw domException('InvalidAccessError', 'A multiEntry index has a keyPath that is no array.');
    }
    const index = {
      name: text,
      keyPath: path,
      unique: Boolean(unique),
      multiEntry: Boolean(multiEntry),
      deleted: false,
    };
    add(execution, store.indexes, index);
    execution.place({
      exclusive: true,
      run: () => fillIndex(execution, store, { ...index, name: escapeName(text) }, index),
    });
    return indexHandle(this, index);
  }

  deleteIndex(name) {
    checkArguments(arguments, 1, 'IDBObjectStore.deleteIndex');
    const execution = upgrading(this);
    const { store } = this[slots];
    const index = store.indexes.get(String(name));
    if (index === undefined) throw domException('NotFoundError', `There is no index "${String(name)}".`);
    remove(execution, store.indexes, index);
    execution.place({ run: () => execution.call('deleteIndex', { store: store.id, index: index.id }) });
  }
}
defineInterface(IDBObjectStore, 'IDBObjectStore');

export function newObjectStore(transaction, store) {
  return new IDBObjectStore(internal, transaction, store);
}

function indexHandle(handle, index) {
  const { handles } = handle[slots];
  if (!handles.has(index)) handles.set(index, newIndex(handle, index));
  return handles.get(index);
}

function readable(handle) {
  const { store, transaction } = handle[slots];
  if (store.deleted) throw invalidState('The object store has been deleted.');
  return activeExecution(transaction);
}

function writable(handle) {
  const execution = readable(handle);
  if (handle[slots].transaction.mode === 'readonly') throw readOnly();
  return execution;
}

function upgrading(handle) {
  const { store, transaction } = handle[slots];
  if (transaction.mode !== 'versionchange') throw invalidState('Only in a version change transaction.');
  if (store.deleted) throw invalidState('The object store has been deleted.');
  const { execution } = transaction[slots];
  if (execution.state !== 'active') throw transactionInactive();
  return execution;
}

function placeWrite(handle, execution, write) {
  const request = newRequest(handle, handle[slots].transaction);
  execution.place({
    request,
    async run() {
      execution.writes += 1;
      await write();
    },
  });
  return request;
}

/** put() and add(). */
function store(handle, value, givenKey, noOverwrite) {
  const execution = writable(handle);
  const { store: meta, transaction } = handle[slots];
  const inLine = meta.keyPath !== null;
  if (inLine && givenKey !== undefined) throw dataError('The object store has a keyPath: no key can be given.');
  if (!inLine && !meta.autoIncrement && givenKey === undefined) throw dataError('A key is required.');
  const key = givenKey === undefined ? undefined : encodeKey(givenKey);
  const cloned = cloneInactive(execution, value);
  const found = inLine ? keyWithin(cloned, meta) : key;
  const request = newRequest(handle, transaction);
  placePut(execution, { request, store: meta, cloned, key: found, noOverwrite, result: decodeKey });
  return request;
}
