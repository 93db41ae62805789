// IDBIndex: the handle of an index in one transaction.
import { openCursor } from './cursor.mjs';
import { domException, invalidState, transactionInactive } from './errors.mjs';
import { escapeName } from './host.mjs';
import { indexKeys, keyPathOf } from './key_path.mjs';
import { toSpan } from './key_range.mjs';
import * as records from './records.mjs';
import { rename } from './schema.mjs';
import { activeExecution } from './transaction.mjs';
import { deserialize } from './values.mjs';
import { checkArguments, checkConstructor, defineInterface, internal, slots } from './web_idl.mjs';

export class IDBIndex {
  constructor(token, objectStore, index) {
    checkConstructor(token);
    const { store, transaction } = objectStore[slots];
    Object.defineProperty(this, slots, { value: { objectStore, transaction, store, index } });
  }

  get name() {
    return this[slots].index.name;
  }
  set name(value) {
    const name = String(value);
    const { store, index, transaction } = this[slots];
    if (transaction.mode !== 'versionchange') throw invalidState('Only in a version change transaction.');
    const { execution } = transaction[slots];
    if (execution.state !== 'active') throw transactionInactive();
    checkDeleted(this);
    if (index.name === name) return;
    if (store.indexes.has(name)) throw domException('ConstraintError', `There is an index "${name}" already.`);
    rename(execution, store.indexes, index, name);
    const params = () => ({ store: store.id, index: index.id, name: escapeName(name) });
    execution.place({ run: () => execution.call('renameIndex', params()) });
  }

  get objectStore() {
    return this[slots].objectStore;
  }
  get keyPath() {
    return keyPathOf(this[slots].index, this[slots]);
  }
  get multiEntry() {
    return this[slots].index.multiEntry;
  }
  get unique() {
    return this[slots].index.unique;
  }

  get(query) {
    checkArguments(arguments, 1, 'IDBIndex.get');
    const execution = readable(this);
    const span = toSpan(query, { nullable: false });
    return records.requestFirst(this, execution, span, { keysOnly: false, result: records.valueOf });
  }

  getKey(query) {
    checkArguments(arguments, 1, 'IDBIndex.getKey');
    const execution = readable(this);
    const span = toSpan(query, { nullable: false });
    return records.requestFirst(this, execution, span, { keysOnly: true, result: records.primaryKeyOf });
  }

  getAll(query, count) {
    const execution = readable(this);
    const terms = records.toAllTerms(query, count);
    return records.requestAll(this, execution, terms, { keysOnly: false, result: records.valueOf });
  }

  getAllKeys(query, count) {
    const execution = readable(this);
    const terms = records.toAllTerms(query, count);
    return records.requestAll(this, execution, terms, { keysOnly: true, result: records.primaryKeyOf });
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
}
defineInterface(IDBIndex, 'IDBIndex');

export function newIndex(objectStore, index) {
  return new IDBIndex(internal, objectStore, index);
}

function readable(handle) {
  checkDeleted(handle);
  return activeExecution(handle[slots].transaction);
}

function checkDeleted(handle) {
  const { store, index } = handle[slots];
  if (store.deleted || index.deleted) throw invalidState('The index or its object store has been deleted.');
}

const IN_FLIGHT = 64; // records of a new index that are on their way at once

/** Makes the index and fills it from the records that are there. What it throws aborts the version change. */
export async function fillIndex(execution, store, description, index) {
  const { name, keyPath, unique, multiEntry } = description;
  index.id = (await execution.call('createIndex', { store: store.id, name, keyPath, unique, multiEntry })).id;
  const params = { store: store.id, index: 0, direction: 'next' };
  for (let position = {}, more = true; more;) {
    const answer = await records.readSome(execution, { ...params, ...position, limit: IN_FLIGHT });
    await Promise.all(answer.records.map((record) => fill(execution, store, index, record)));
    more = answer.more && answer.records.length > 0;
    if (more) position = records.positionAfter(answer.records.at(-1), params);
  }
}

async function fill(execution, store, index, { key, value }) {
  const keys = indexKeys(deserialize(value), index);
  if (keys.length === 0) return;
  await execution.call('indexRecord', { store: store.id, index: index.id, primaryKey: key, keys });
}
