// The operations that object stores and indexes have in common: reading, and making requests of it.
import { decodeRecord } from './host.mjs';
import { IDBKeyRange, toSpan } from './key_range.mjs';
import { decodeKey, tryEncodeKey } from './keys.mjs';
import { newRequest } from './request.mjs';
import { deserialize } from './values.mjs';
import {
  checkConstructor,
  defineInterface,
  dictionary,
  enforceRange,
  enumeration,
  internal,
  slots,
} from './web_idl.mjs';

export const DIRECTIONS = ['next', 'nextunique', 'prev', 'prevunique'];

/** IDBRecord, of getAllRecords. */
export class IDBRecord {
  #record;

  constructor(token, record) {
    checkConstructor(token);
    this.#record = record;
  }

  get key() {
    return (this.#record.decodedKey ??= decodeKey(this.#record.key));
  }
  get primaryKey() {
    return (this.#record.decodedPrimaryKey ??= decodeKey(this.#record.primaryKey));
  }
  get value() {
    return this.#record.decodedValue;
  }
}
defineInterface(IDBRecord, 'IDBRecord');

export function newRecord(record) {
  return new IDBRecord(internal, { ...record, decodedValue: deserialize(record.value) });
}

/** One answer of the host: the records, and whether there are more. */
export async function readSome(execution, params) {
  const { records, more = false } = await execution.call('read', params);
  return { records: records.map(decodeRecord), more };
}

/** As many answers as it takes; `count` 0 is all. Nothing else may be written meanwhile. */
async function readAll(execution, params, count) {
  const all = [];
  for (let position = {}; ;) {
    const limit = count === 0 ? 0 : count - all.length;
    const { records, more } = await readSome(execution, { ...params, ...position, limit });
    for (const record of records) all.push(record);
    if (!more || records.length === 0 || all.length === count) return all;
    position = positionAfter(records.at(-1), params);
  }
}

/** The position of a record: in an index its two keys, unless there is one record for a key only. */
export function positionAfter({ key, primaryKey }, { index, direction }) {
  const single = index === 0 || direction.endsWith('unique');
  return single ? { key } : { key, primaryKey };
}

/** The place of an object store or index for the host, made when the operation is sent: only then are the ids known. */
export function placeOf(source) {
  const { store, index } = source[slots];
  return { store: store.id, index: index?.id ?? 0 };
}

export function requestFirst(source, execution, span, { keysOnly, result }) {
  const request = newRequest(source, source[slots].transaction);
  execution.place({
    request,
    async run() {
      const params = { ...placeOf(source), ...span, direction: 'next', limit: 1, keysOnly };
      const { records } = await readSome(execution, params);
      return records.length === 0 ? undefined : result(records[0]);
    },
  });
  return request;
}

export function requestAll(source, execution, { span, count, direction }, { keysOnly, result }) {
  const request = newRequest(source, source[slots].transaction);
  execution.place({
    request,
    // What is written later in this transaction must not come between two answers.
    exclusive: source[slots].transaction.mode !== 'readonly',
    async run() {
      const params = { ...placeOf(source), ...span, direction, keysOnly };
      return (await readAll(execution, params, count)).map(result);
    },
  });
  return request;
}

export function requestCount(source, execution, span) {
  const request = newRequest(source, source[slots].transaction);
  execution.place({
    request,
    run: async () => (await execution.call('count', { ...placeOf(source), ...span })).count,
  });
  return request;
}

/** The arguments of getAll and getAllKeys: (query, count), or one dictionary of options. */
export function toAllTerms(query, count) {
  const isOptions = typeof query === 'object' && query !== null && !(query instanceof IDBKeyRange) && !isKeyLike(query);
  return isOptions ? toAllOptions(query) : allTerms(query, count, 'next');
}

export function toAllOptions(options) {
  const { query, count, direction = 'next' } = dictionary(options, 'options');
  return allTerms(query, count, enumeration(direction, DIRECTIONS, 'direction'));
}

function allTerms(query, count, direction) {
  const limit = count === undefined ? 0 : enforceRange(count, 'count');
  return { span: toSpan(query, { nullable: true }), count: limit, direction };
}

/** Arrays, dates and binary are keys, or are meant to be. */
function isKeyLike(value) {
  return (
    Array.isArray(value) || value instanceof Date || ArrayBuffer.isView(value) || tryEncodeKey(value) !== undefined
  );
}

export const keyOf = (record) => decodeKey(record.key);
export const primaryKeyOf = (record) => decodeKey(record.primaryKey);
export const valueOf = (record) => deserialize(record.value);
