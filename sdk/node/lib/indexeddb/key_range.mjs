// IDBKeyRange. Its bounds are kept encoded.
import { dataError } from './errors.mjs';
import { decodeKey, encodeKey } from './keys.mjs';
import { checkArguments, checkConstructor, defineInterface, internal, slots } from './web_idl.mjs';

export class IDBKeyRange {
  constructor(token, lower, upper, lowerOpen, upperOpen) {
    checkConstructor(token);
    Object.defineProperty(this, slots, { value: { lower, upper, lowerOpen, upperOpen } });
  }

  get lower() {
    return this[slots].lower && decodeOnce(this[slots], 'lower');
  }
  get upper() {
    return this[slots].upper && decodeOnce(this[slots], 'upper');
  }
  get lowerOpen() {
    return this[slots].lowerOpen;
  }
  get upperOpen() {
    return this[slots].upperOpen;
  }

  includes(value) {
    checkArguments(arguments, 1, 'IDBKeyRange.includes');
    const { lower, upper, lowerOpen, upperOpen } = this[slots];
    const key = encodeKey(value);
    if (lower && Buffer.compare(key, lower) < (lowerOpen ? 1 : 0)) return false;
    return !(upper && Buffer.compare(key, upper) > (upperOpen ? -1 : 0));
  }

  static only(value) {
    checkArguments(arguments, 1, 'IDBKeyRange.only');
    const key = encodeKey(value);
    return new IDBKeyRange(internal, key, key, false, false);
  }

  static lowerBound(lower, open = false) {
    checkArguments(arguments, 1, 'IDBKeyRange.lowerBound');
    return new IDBKeyRange(internal, encodeKey(lower), undefined, Boolean(open), true);
  }

  static upperBound(upper, open = false) {
    checkArguments(arguments, 1, 'IDBKeyRange.upperBound');
    return new IDBKeyRange(internal, undefined, encodeKey(upper), true, Boolean(open));
  }

  static bound(lower, upper, lowerOpen = false, upperOpen = false) {
    checkArguments(arguments, 2, 'IDBKeyRange.bound');
    const [first, last] = [encodeKey(lower), encodeKey(upper)];
    const order = Buffer.compare(first, last);
    if (order > 0) throw dataError('The lower key is greater than the upper key.');
    if (order === 0 && (lowerOpen || upperOpen)) throw dataError('A range of one key cannot be open.');
    return new IDBKeyRange(internal, first, last, Boolean(lowerOpen), Boolean(upperOpen));
  }
}
defineInterface(IDBKeyRange, 'IDBKeyRange');

function decodeOnce(range, bound) {
  range.decoded ??= {};
  range.decoded[bound] ??= decodeKey(range[bound]);
  return range.decoded[bound];
}

/** A query argument, a key or a range, as the members of a request to the host. */
export function toSpan(query, { nullable }) {
  if (query instanceof IDBKeyRange) return { ...query[slots], decoded: undefined };
  if (query === undefined || query === null) {
    if (nullable) return {};
    throw dataError('A key or a key range is required.');
  }
  const key = encodeKey(query);
  return { lower: key, upper: key, lowerOpen: false, upperOpen: false };
}
