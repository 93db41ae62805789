// Keys, encoded so that their byte order (memcmp) is IndexedDB's order; docs/indexeddb.md describes the bytes. Within
// the SDK a key is always its bytes, a Buffer.
import { types } from 'node:util';
import { dataError } from './errors.mjs';

const END = 0x00; // of a string, a binary key and an array; less than every tag and every unit's first byte
const NUMBER = 0x10;
const DATE = 0x20;
const STRING = 0x30;
const BINARY = 0x40;
const ARRAY = 0x50;

const MAX_DEPTH = 1000; // arrays in arrays; the depth to which the encoder recurses

// Code units of a string take one byte below TWO_BYTES, two below THREE_BYTES, three from there on.
const TWO_BYTES = 0x7f;
const THREE_BYTES = TWO_BYTES + 0x4000;

const double = new DataView(new ArrayBuffer(8));

/** The key's bytes, or undefined for a value that is no valid key. What a getter of the value throws is thrown. */
export function tryEncodeKey(value) {
  const bytes = [];
  return append(bytes, value, new Set()) ? Buffer.from(bytes) : undefined;
}

export function encodeKey(value) {
  const key = tryEncodeKey(value);
  if (key === undefined)
    throw dataError('The value is not a valid key: a number, string, Date, binary or array of keys.');
  return key;
}

export function decodeKey(key) {
  return read(key, 0).value;
}

/** The subkeys of a multiEntry index's array, without duplicates and without what is no valid key. */
export function encodeSubkeys(array) {
  const keys = new Map();
  for (let index = 0; index < array.length; index++) {
    const key = tryEncodeKey(array[index]);
    if (key !== undefined) keys.set(key.toString('latin1'), key);
  }
  return [...keys.values()];
}

/** The number that a key generator takes note of; undefined for keys that are no number. */
export function numberOf(key) {
  return key[0] === NUMBER ? decodeKey(key) : undefined;
}

function append(bytes, value, seen) {
  if (typeof value === 'number') return appendNumber(bytes, NUMBER, value);
  if (typeof value === 'string') return appendString(bytes, value);
  if (typeof value !== 'object' || value === null) return false;
  if (types.isDate(value)) return appendNumber(bytes, DATE, Date.prototype.getTime.call(value));
  if (types.isArrayBuffer(value) || ArrayBuffer.isView(value)) return appendBinary(bytes, value);
  return Array.isArray(value) && appendArray(bytes, value, seen);
}

/** IEEE 754, big-endian: with the sign bit inverted where it is positive, all bits where it is negative. */
function appendNumber(bytes, tag, value) {
  if (Number.isNaN(value)) return false;
  double.setFloat64(0, value === 0 ? 0 : value); // -0 is 0
  const inverted = value < 0 ? 0xff : 0;
  bytes.push(tag, double.getUint8(0) ^ (inverted || 0x80));
  for (let index = 1; index < 8; index++) bytes.push(double.getUint8(index) ^ inverted);
  return true;
}

function appendString(bytes, value) {
  bytes.push(STRING);
  for (let index = 0; index < value.length; index++) {
    const unit = value.charCodeAt(index);
    if (unit < TWO_BYTES) {
      bytes.push(unit + 1);
    } else if (unit < THREE_BYTES) {
      const rest = unit - TWO_BYTES;
      bytes.push(0x80 | (rest >> 8), rest & 0xff);
    } else {
      const rest = unit - THREE_BYTES;
      bytes.push(0xc0, rest >> 8, rest & 0xff);
    }
  }
  bytes.push(END);
  return true;
}

/** 00 and 01 are escaped by 01, so that END ends it. */
function appendBinary(bytes, value) {
  if (isDetached(value)) return false;
  const view = ArrayBuffer.isView(value)
    ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
    : new Uint8Array(value);
  bytes.push(BINARY);
  for (const byte of view) {
    if (byte <= 1) bytes.push(1, byte + 1);
    else bytes.push(byte);
  }
  bytes.push(END);
  return true;
}

function isDetached(value) {
  const buffer = ArrayBuffer.isView(value) ? value.buffer : value;
  if (types.isSharedArrayBuffer(buffer)) return false;
  if (buffer.byteLength > 0) return false;
  try {
    new Uint8Array(buffer); // Node 18 has no ArrayBuffer.prototype.detached
    return false;
  } catch {
    return true;
  }
}

function appendArray(bytes, value, seen) {
  if (seen.has(value) || seen.size >= MAX_DEPTH) return false;
  seen.add(value);
  bytes.push(ARRAY);
  const { length } = value;
  for (let index = 0; index < length; index++) {
    if (!Object.hasOwn(value, index) || !append(bytes, value[index], seen)) return false;
  }
  bytes.push(END);
  seen.delete(value);
  return true;
}

function read(key, at) {
  switch (key[at]) {
    case NUMBER:
      return { value: readNumber(key, at + 1), next: at + 9 };
    case DATE:
      return { value: new Date(readNumber(key, at + 1)), next: at + 9 };
    case STRING:
      return readString(key, at + 1);
    case BINARY:
      return readBinary(key, at + 1);
    case ARRAY:
      return readArray(key, at + 1);
    default:
      throw new Error(`${key.toString('hex')} is not an encoded key`);
  }
}

function readNumber(key, at) {
  const inverted = key[at] & 0x80 ? 0 : 0xff;
  double.setUint8(0, key[at] ^ (inverted || 0x80));
  for (let index = 1; index < 8; index++) double.setUint8(index, key[at + index] ^ inverted);
  return double.getFloat64(0);
}

function readString(key, at) {
  const units = [];
  while (key[at] !== END) {
    const first = key[at++];
    if (first < 0x80) units.push(first - 1);
    else if (first < 0xc0) units.push(((first & 0x3f) << 8) + key[at++] + TWO_BYTES);
    else units.push((key[at++] << 8) + key[at++] + THREE_BYTES);
  }
  let value = '';
  for (let start = 0; start < units.length; start += 4096) {
    value += String.fromCharCode(...units.slice(start, start + 4096));
  }
  return { value, next: at + 1 };
}

function readBinary(key, at) {
  const bytes = [];
  for (; key[at] !== END; at++) bytes.push(key[at] === 1 ? key[++at] - 1 : key[at]);
  return { value: new Uint8Array(bytes).buffer, next: at + 1 };
}

function readArray(key, at) {
  const array = [];
  while (key[at] !== END) {
    const { value, next } = read(key, at);
    array.push(value);
    at = next;
  }
  return { value: array, next: at + 1 };
}
