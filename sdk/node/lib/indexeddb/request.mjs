// IDBRequest and IDBOpenDBRequest.
import { invalidState } from './errors.mjs';
import { defineHandlers, PropagatingTarget, setParent } from './events.mjs';
import { checkConstructor, defineInterface, internal, slots } from './web_idl.mjs';

export class IDBRequest extends PropagatingTarget {
  constructor(token, source, transaction) {
    checkConstructor(token);
    super();
    const state = { source, transaction, done: false, result: undefined, error: null };
    Object.defineProperty(this, slots, { value: state });
    setParent(this, transaction);
  }

  get result() {
    if (!this[slots].done) throw invalidState('The request is pending.');
    return this[slots].result;
  }
  get error() {
    if (!this[slots].done) throw invalidState('The request is pending.');
    return this[slots].error;
  }
  get source() {
    return this[slots].source;
  }
  get transaction() {
    return this[slots].transaction;
  }
  get readyState() {
    return this[slots].done ? 'done' : 'pending';
  }
}
defineInterface(IDBRequest, 'IDBRequest');
defineHandlers(IDBRequest, ['success', 'error']);

export class IDBOpenDBRequest extends IDBRequest {
  constructor(token) {
    super(token, null, null);
  }
}
defineInterface(IDBOpenDBRequest, 'IDBOpenDBRequest');
defineHandlers(IDBOpenDBRequest, ['blocked', 'upgradeneeded']);

export function newRequest(source, transaction) {
  return new IDBRequest(internal, source, transaction);
}

export function settle(request, { result, error = null }) {
  Object.assign(request[slots], { done: true, result, error });
}

/** Of an open request: the versionchange transaction while it lives, else null. */
export function setTransaction(request, transaction) {
  request[slots].transaction = transaction;
  setParent(request, transaction);
}
