// IDBTransaction: what an agent sees of an Execution.
import { domException, invalidState, transactionInactive } from './errors.mjs';
import { defineHandlers, PropagatingTarget, setParent } from './events.mjs';
import { Execution } from './execution.mjs';
import { newObjectStore } from './object_store.mjs';
import { checkArguments, checkConstructor, defineInterface, internal, slots, stringList } from './web_idl.mjs';

export class IDBTransaction extends PropagatingTarget {
  constructor(token, db, host, { mode, stores, durability, version }) {
    checkConstructor(token);
    super();
    const scope = stores?.map((store) => store.id);
    const database = db[slots].escapedName;
    const execution = new Execution(host, this, { database, mode, version, scope });
    Object.defineProperty(this, slots, { value: { db, mode, stores, durability, execution, handles: new Map() } });
    setParent(this, db);
  }

  get objectStoreNames() {
    const { db, stores } = this[slots];
    return stores === undefined ? db.objectStoreNames : stringList(stores.map((store) => store.name));
  }
  get mode() {
    return this[slots].mode;
  }
  get durability() {
    return this[slots].durability;
  }
  get db() {
    return this[slots].db;
  }
  get error() {
    return this[slots].execution.error;
  }

  objectStore(name) {
    checkArguments(arguments, 1, 'IDBTransaction.objectStore');
    const { db, stores, execution } = this[slots];
    if (execution.state === 'finished') throw invalidState('The transaction has finished.');
    const text = String(name);
    const known = stores ?? [...db[slots].stores.values()];
    const store = known.find((one) => one.name === text);
    if (store === undefined) throw domException('NotFoundError', `No object store "${text}" is in scope.`);
    return storeHandle(this, store);
  }

  abort() {
    const { execution } = this[slots];
    if (execution.state === 'committing' || execution.state === 'finished') {
      throw invalidState('The transaction has been committed or aborted.');
    }
    execution.abort(null);
  }

  commit() {
    const { execution } = this[slots];
    if (execution.state !== 'active') throw invalidState('The transaction is not active.');
    execution.commit();
  }
}
defineInterface(IDBTransaction, 'IDBTransaction');
defineHandlers(IDBTransaction, ['abort', 'complete', 'error']);

export function newTransaction(db, host, terms) {
  return new IDBTransaction(internal, db, host, terms);
}

/** The same object for a store each time. */
export function storeHandle(transaction, store) {
  const { handles } = transaction[slots];
  if (!handles.has(store)) handles.set(store, newObjectStore(transaction, store));
  return handles.get(store);
}

/** The execution that a request is placed in. */
export function activeExecution(transaction) {
  const { execution } = transaction[slots];
  if (execution.state !== 'active') throw transactionInactive();
  return execution;
}
