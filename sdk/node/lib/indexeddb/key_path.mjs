// Key paths: which part of a value is its key. All of it works on clones, which have no getters.
import { types } from 'node:util';
import { encodeSubkeys, tryEncodeKey } from './keys.mjs';

const IDENTIFIER = /^[$_\p{ID_Start}][$\u200c\u200d\p{ID_Continue}]*$/u;

export function isValidKeyPath(path) {
  if (Array.isArray(path)) return path.length > 0 && path.every(isValidPathString);
  return isValidPathString(path);
}

function isValidPathString(path) {
  return typeof path === 'string' && (path === '' || path.split('.').every((name) => IDENTIFIER.test(name)));
}

/** A key path as an argument: a string, or a sequence of strings. */
export function toKeyPath(value) {
  if (value === null || value === undefined) return null;
  if (typeof value === 'object' && typeof value[Symbol.iterator] === 'function') return Array.from(value, String);
  return String(value);
}

/** What the attribute keyPath answers: an array is the same object each time. */
export function keyPathOf(meta, slots) {
  if (!Array.isArray(meta.keyPath)) return meta.keyPath;
  slots.keyPath ??= [...meta.keyPath];
  return slots.keyPath;
}

/** undefined where the value has no such part. */
export function evaluate(value, path) {
  if (Array.isArray(path)) {
    const parts = path.map((one) => evaluate(value, one));
    return parts.includes(undefined) ? undefined : parts;
  }
  if (path === '') return value;
  return path.split('.').reduce(property, value);
}

function property(value, name) {
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'string') return name === 'length' ? value.length : undefined;
  if (typeof value !== 'object') return undefined;
  // Own data properties alone; what a Blob or File has there is not cloneable in agents.
  if (Array.isArray(value) && name === 'length') return value.length;
  return Object.hasOwn(value, name) ? value[name] : undefined;
}

/** { key }: its bytes, undefined for what is no valid key; or undefined where the path leads nowhere. */
export function extractKey(value, path) {
  const part = evaluate(value, path);
  return part === undefined ? undefined : { key: tryEncodeKey(part) };
}

/** What a value has in an index: none, one, or with multiEntry several keys. */
export function indexKeys(value, { keyPath, multiEntry }) {
  const part = evaluate(value, keyPath);
  if (part === undefined) return [];
  if (multiEntry && Array.isArray(part)) return encodeSubkeys(part);
  const key = tryEncodeKey(part);
  return key === undefined ? [] : [key];
}

/** Whether injectKey can put a generated key there. */
export function canInjectKey(value, path) {
  const names = path.split('.');
  names.pop();
  for (const name of names) {
    if (!isObject(value)) return false;
    if (!Object.hasOwn(value, name)) return true;
    value = value[name];
  }
  return isObject(value);
}

export function injectKey(value, path, key) {
  const names = path.split('.');
  const last = names.pop();
  for (const name of names) {
    if (!Object.hasOwn(value, name)) define(value, name, {});
    value = value[name];
  }
  define(value, last, key);
}

function isObject(value) {
  return typeof value === 'object' && value !== null && !types.isBoxedPrimitive(value);
}

/** Defined, not set: a path may be named __proto__. */
function define(object, name, value) {
  Object.defineProperty(object, name, { value, writable: true, enumerable: true, configurable: true });
}
