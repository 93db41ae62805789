// IDBCursor and IDBCursorWithValue. A cursor reads ahead: the host is asked for some records at once, and what was read
// before a later write of the same transaction is dropped.
import { dataError, invalidState, readOnly } from './errors.mjs';
import { decodeKey, encodeKey } from './keys.mjs';
import { toSpan } from './key_range.mjs';
import { cloneInactive, keyWithin, placePut } from './put.mjs';
import { DIRECTIONS, placeOf, positionAfter, readSome } from './records.mjs';
import { newRequest } from './request.mjs';
import { activeExecution } from './transaction.mjs';
import { deserialize } from './values.mjs';
import {
  checkArguments,
  checkConstructor,
  defineInterface,
  enforceRange,
  enumeration,
  internal,
  slots,
} from './web_idl.mjs';

const FIRST_READ = 4; // records; doubled with each read up to MAX_READ
const MAX_READ = 256;

export class IDBCursor {
  constructor(token, source, { span, direction, keysOnly, request }) {
    checkConstructor(token);
    const state = {
      source,
      span,
      direction,
      keysOnly,
      request,
      record: undefined, // the position; undefined before the first and after the last
      gotValue: false,
      ahead: [], // records read ahead
      more: true, // beyond them
      readAt: 0, // the transaction's `writes` when they were read
      readSize: FIRST_READ,
    };
    Object.defineProperty(this, slots, { value: state });
  }

  get source() {
    return this[slots].source;
  }
  get direction() {
    return this[slots].direction;
  }
  get request() {
    return this[slots].request;
  }
  get key() {
    return decodeOnce(this[slots], 'key');
  }
  get primaryKey() {
    return decodeOnce(this[slots], 'primaryKey');
  }

  advance(count) {
    checkArguments(arguments, 1, 'IDBCursor.advance');
    const steps = enforceRange(count, 'count');
    if (steps === 0) throw new TypeError('count is 0');
    const execution = movable(this);
    move(this, execution, { skip: steps - 1 });
  }

  continue(key) {
    const execution = movable(this);
    const { record, direction } = this[slots];
    if (key === undefined) return move(this, execution, { skip: 0 });
    const target = encodeKey(key);
    if (order(direction, target, record.key) <= 0) throw dataError('The key is not beyond the position of the cursor.');
    return move(this, execution, { skip: 0, key: target });
  }

  continuePrimaryKey(key, primaryKey) {
    checkArguments(arguments, 2, 'IDBCursor.continuePrimaryKey');
    const { source, direction } = this[slots];
    // As in the standard: the transaction and the source come before what the cursor is.
    const execution = usable(this);
    if (source[slots].index === undefined || direction.endsWith('unique')) {
      throw new DOMException('Only for cursors of an index, with direction next or prev.', 'InvalidAccessError');
    }
    if (!this[slots].gotValue) throw invalidState('The cursor is moving, or past its end.');
    const target = { key: encodeKey(key), primaryKey: encodeKey(primaryKey) };
    if (orderOfPairs(direction, target, this[slots].record) <= 0) {
      throw dataError('The keys are not beyond the position of the cursor.');
    }
    move(this, execution, { skip: 0, ...target });
  }

  update(value) {
    checkArguments(arguments, 1, 'IDBCursor.update');
    const execution = changeable(this);
    const { source, record } = this[slots];
    const { store, transaction } = source[slots];
    const cloned = cloneInactive(execution, value);
    if (store.keyPath !== null) {
      const key = keyWithin(cloned, { ...store, autoIncrement: false });
      if (!key.equals(record.primaryKey)) throw dataError('The value has another key than the record.');
    }
    const request = newRequest(this, transaction);
    placePut(execution, { request, store, cloned, key: record.primaryKey, noOverwrite: false, result: decodeKey });
    return request;
  }

  delete() {
    const execution = changeable(this);
    const { source, record } = this[slots];
    const { store, transaction } = source[slots];
    const request = newRequest(this, transaction);
    const { primaryKey } = record;
    execution.place({
      request,
      async run() {
        execution.writes += 1;
        const span = { lower: primaryKey, upper: primaryKey, lowerOpen: false, upperOpen: false };
        await execution.call('remove', { store: store.id, index: 0, ...span });
      },
    });
    return request;
  }
}
defineInterface(IDBCursor, 'IDBCursor');

export class IDBCursorWithValue extends IDBCursor {
  get value() {
    return this[slots].value;
  }
}
defineInterface(IDBCursorWithValue, 'IDBCursorWithValue');

export function openCursor(source, execution, query, direction, { keysOnly }) {
  const kind = enumeration(direction, DIRECTIONS, 'direction');
  const span = toSpan(query, { nullable: true });
  const request = newRequest(source, source[slots].transaction);
  const Kind = keysOnly ? IDBCursor : IDBCursorWithValue;
  const cursor = new Kind(internal, source, { span, direction: kind, keysOnly, request });
  placeStep(cursor, execution, { skip: 0 });
  return request;
}

// ---- checks, in the order of the standard

function usable(cursor) {
  const { source } = cursor[slots];
  const { transaction, store, index } = source[slots];
  const execution = activeExecution(transaction);
  if (store.deleted || index?.deleted) throw invalidState('The object store or index has been deleted.');
  return execution;
}

function movable(cursor) {
  const execution = usable(cursor);
  if (!cursor[slots].gotValue) throw invalidState('The cursor is moving, or past its end.');
  return execution;
}

function changeable(cursor) {
  const { source, keysOnly, gotValue } = cursor[slots];
  const { transaction, store, index } = source[slots];
  const execution = activeExecution(transaction);
  if (transaction.mode === 'readonly') throw readOnly();
  if (store.deleted || index?.deleted) throw invalidState('The object store or index has been deleted.');
  if (!gotValue) throw invalidState('The cursor is moving, or past its end.');
  if (keysOnly) throw invalidState('The cursor has keys only.');
  return execution;
}

// ---- moving

/** Positive where `key` is beyond `other` in this direction. */
function order(direction, key, other) {
  const ascending = Buffer.compare(key, other);
  return direction.startsWith('next') ? ascending : -ascending;
}

function orderOfPairs(direction, pair, other) {
  return order(direction, pair.key, other.key) || order(direction, pair.primaryKey, other.primaryKey);
}

function move(cursor, execution, target) {
  const { request } = cursor[slots];
  cursor[slots].gotValue = false;
  request[slots].done = false;
  request[slots].result = undefined;
  placeStep(cursor, execution, target);
}

/** The cursor itself changes when the event is fired: until then its key and value are those of before. */
function placeStep(cursor, execution, target) {
  const state = cursor[slots];
  execution.place({
    request: state.request,
    run: () => takeAhead(state, execution, target) ?? read(state, execution, target),
    arrive: (record) => arrive(cursor, record),
  });
}

/** The result of the request: the cursor, or null past the end. */
function arrive(cursor, record) {
  const state = cursor[slots];
  state.record = record;
  state.decoded = {};
  state.gotValue = record !== undefined;
  state.value = record?.value === undefined ? undefined : deserialize(record.value);
  return record === undefined ? null : cursor;
}

/** From what was read ahead; undefined where the host has to be asked. */
function takeAhead(state, execution, { skip, key, primaryKey }) {
  if (state.readAt !== execution.writes) {
    state.ahead = [];
    state.readSize = FIRST_READ;
    return undefined;
  }
  if (skip >= state.ahead.length) return undefined;
  const target = { key, primaryKey };
  const reached = (record) =>
    key === undefined ||
    (primaryKey === undefined
      ? order(state.direction, record.key, key) >= 0
      : orderOfPairs(state.direction, record, target) >= 0);
  const at = state.ahead.findIndex(reached);
  if (at === -1) return undefined;
  const [found] = state.ahead.splice(0, at + skip + 1).slice(-1);
  return found;
}

async function read(state, execution, target) {
  const params = { ...placeOf(state.source), ...state.span, direction: state.direction, keysOnly: state.keysOnly };
  const limit = state.readSize;
  state.readAt = execution.writes;
  state.ahead = [];
  state.readSize = Math.min(limit * 2, MAX_READ);
  const { records } = await readSome(execution, { ...params, ...startOf(state, params, target), limit });
  const [first, ...rest] = records;
  state.ahead = rest;
  return first;
}

function startOf({ record }, params, { skip, key, primaryKey }) {
  if (key !== undefined) return { key, primaryKey, inclusive: true };
  return record === undefined ? { skip } : { ...positionAfter(record, params), skip };
}

function decodeOnce(state, name) {
  if (state.record === undefined) return undefined;
  state.decoded[name] ??= decodeKey(state.record[name]);
  return state.decoded[name];
}
