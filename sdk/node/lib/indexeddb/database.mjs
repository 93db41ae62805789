// IDBDatabase: one connection.
import { domException, invalidState, transactionInactive } from './errors.mjs';
import { defineHandlers, PropagatingTarget } from './events.mjs';
import { escapeName } from './host.mjs';
import { isValidKeyPath, toKeyPath } from './key_path.mjs';
import { add, remove, storeOf } from './schema.mjs';
import { newTransaction, storeHandle } from './transaction.mjs';
import {
  checkArguments,
  checkConstructor,
  defineInterface,
  dictionary,
  enumeration,
  internal,
  slots,
  stringList,
} from './web_idl.mjs';

export class IDBDatabase extends PropagatingTarget {
  constructor(token, host, { name, version, stores }) {
    checkConstructor(token);
    super();
    const state = {
      host,
      name,
      escapedName: escapeName(name),
      version,
      stores, // name → store
      closePending: false,
      upgrade: null, // the versionchange transaction while it lives
      transactions: new Set(), // not finished
      waiting: [], // to be called when the connection is closed
      onClosed: undefined,
    };
    Object.defineProperty(this, slots, { value: state });
  }

  get name() {
    return this[slots].name;
  }
  get version() {
    return this[slots].version;
  }
  get objectStoreNames() {
    return stringList(this[slots].stores.keys());
  }

  transaction(storeNames, mode = 'readonly', options) {
    checkArguments(arguments, 1, 'IDBDatabase.transaction');
    const names = toNames(storeNames);
    const { durability = 'default' } = dictionary(options, 'options');
    enumeration(mode, ['readonly', 'readwrite', 'versionchange'], 'mode');
    enumeration(durability, ['default', 'strict', 'relaxed'], 'durability');
    const { host, stores, upgrade, closePending } = this[slots];
    if (upgrade !== null) throw invalidState('A version change transaction is running.');
    if (closePending) throw invalidState('The connection is closed or being closed.');
    for (const name of names) {
      if (!stores.has(name)) throw domException('NotFoundError', `There is no object store "${name}".`);
    }
    if (names.length === 0)
      throw domException('InvalidAccessError', 'The scope of a transaction has at least one object store.');
    if (String(mode) === 'versionchange') throw new TypeError('A versionchange transaction comes with open() alone.');
    const scope = names.map((name) => stores.get(name));
    const terms = { mode: String(mode), stores: scope, durability: String(durability) };
    const transaction = track(this, newTransaction(this, host, terms));
    transaction[slots].execution.activate();
    return transaction;
  }

  createObjectStore(name, options) {
    checkArguments(arguments, 1, 'IDBDatabase.createObjectStore');
    const text = String(name);
    const { keyPath: given = null, autoIncrement = false } = dictionary(options, 'options');
    const keyPath = toKeyPath(given);
    const execution = upgradeOf(this);
    const { stores, upgrade } = this[slots];
    if (keyPath !== null && !isValidKeyPath(keyPath)) throw domException('SyntaxError', 'The keyPath is not valid.');
    if (stores.has(text)) throw domException('ConstraintError', `There is an object store "${text}" already.`);
    if (autoIncrement && (keyPath === '' || Array.isArray(keyPath))) {
      throw domException('InvalidAccessError', 'A key generator needs a keyPath that is neither empty nor an array.');
    }
    const store = storeOf({ name: '', keyPath, autoIncrement: Boolean(autoIncrement) });
    store.name = text;
    add(execution, stores, store);
    execution.place({
      exclusive: true,
      async run() {
        const params = { name: escapeName(text), keyPath, autoIncrement: store.autoIncrement };
        store.id = (await execution.call('createStore', params)).id;
        execution.generators.set(store.id, 1);
      },
    });
    return storeHandle(upgrade, store);
  }

  deleteObjectStore(name) {
    checkArguments(arguments, 1, 'IDBDatabase.deleteObjectStore');
    const execution = upgradeOf(this);
    const { stores } = this[slots];
    const store = stores.get(String(name));
    if (store === undefined) throw domException('NotFoundError', `There is no object store "${String(name)}".`);
    for (const index of [...store.indexes.values()]) remove(execution, store.indexes, index);
    remove(execution, stores, store);
    execution.place({
      run() {
        execution.writes += 1;
        return execution.call('deleteStore', { store: store.id });
      },
    });
  }

  close() {
    closeForGood(this);
  }
}
defineInterface(IDBDatabase, 'IDBDatabase');
defineHandlers(IDBDatabase, ['abort', 'close', 'error', 'versionchange']);

export function newDatabase(host, terms) {
  return new IDBDatabase(internal, host, terms);
}

export function newUpgrade(db, version) {
  const transaction = newTransaction(db, db[slots].host, { mode: 'versionchange', durability: 'default', version });
  db[slots].upgrade = transaction;
  return track(db, transaction);
}

function track(db, transaction) {
  const { transactions } = db[slots];
  transactions.add(transaction);
  transaction[slots].execution.onFinished = () => {
    transactions.delete(transaction);
    if (db[slots].upgrade === transaction) db[slots].upgrade = null;
    closeIfIdle(db);
  };
  return transaction;
}

/** A connection is closed when close() was called and its transactions have finished. */
export function isClosed(db) {
  return db[slots].closePending && db[slots].transactions.size === 0;
}

export function closeForGood(db) {
  db[slots].closePending = true;
  closeIfIdle(db);
}

function closeIfIdle(db) {
  if (isClosed(db)) db[slots].onClosed?.();
}

function upgradeOf(db) {
  const { upgrade } = db[slots];
  if (upgrade === null) throw invalidState('Only in a version change transaction.');
  const { execution } = upgrade[slots];
  if (execution.state !== 'active') throw transactionInactive();
  return execution;
}

function toNames(value) {
  if (typeof value === 'object' && value !== null && typeof value[Symbol.iterator] === 'function') {
    return [...new Set(Array.from(value, String))].sort();
  }
  return [String(value)];
}
