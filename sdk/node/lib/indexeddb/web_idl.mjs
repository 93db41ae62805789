// What Web IDL asks of interfaces in JavaScript: constructors that are not for callers, conversions of arguments.

/** The member under which an object keeps its internal slots. */
export const slots = Symbol('slots');

/** The first argument of constructors that only this SDK may call. */
export const internal = Symbol('internal');

export function checkConstructor(token) {
  if (token !== internal) throw new TypeError('Illegal constructor');
}

export function checkArguments(given, required, where) {
  if (given.length < required) {
    throw new TypeError(`${where}: ${required} argument${required === 1 ? '' : 's'} required, ${given.length} present`);
  }
}

/** [EnforceRange] unsigned long, or with 2 ** 53 - 1 unsigned long long. */
export function enforceRange(value, name, max = 2 ** 32 - 1) {
  const number = Math.trunc(Number(value));
  if (!Number.isFinite(number) || number < 0 || number > max) {
    throw new TypeError(`${name} is not a whole number from 0 to ${max}: ${String(value)}`);
  }
  return number + 0;
}

export function enumeration(value, values, name) {
  const text = String(value);
  if (!values.includes(text)) throw new TypeError(`${name} is none of ${values.join(', ')}: ${text}`);
  return text;
}

/** A dictionary argument; undefined and null are an empty one. */
export function dictionary(value, name) {
  if (value === undefined || value === null) return {};
  if (typeof value !== 'object' && typeof value !== 'function') throw new TypeError(`${name} is not an object`);
  return value;
}

/** Attributes and methods are enumerable on the prototype; Symbol.toStringTag names the interface. */
export function defineInterface(constructor, name) {
  const members = Object.getOwnPropertyDescriptors(constructor.prototype);
  for (const [member, descriptor] of Object.entries(members)) {
    if (member === 'constructor') continue;
    Object.defineProperty(constructor.prototype, member, { ...descriptor, enumerable: true });
  }
  Object.defineProperty(constructor.prototype, Symbol.toStringTag, { value: name, configurable: true });
}

/** DOMStringList: names in order, with indices. */
export class DOMStringList {
  constructor(token, names) {
    checkConstructor(token);
    names.forEach((name, index) => {
      Object.defineProperty(this, index, { value: name, enumerable: true, configurable: true });
    });
    this[slots] = { names };
    Object.defineProperty(this, slots, { enumerable: false });
  }

  get length() {
    return this[slots].names.length;
  }

  item(index) {
    return this[slots].names[index] ?? null;
  }

  contains(name) {
    return this[slots].names.includes(String(name));
  }
}
DOMStringList.prototype[Symbol.iterator] = Array.prototype[Symbol.iterator];
Object.defineProperty(DOMStringList.prototype, Symbol.iterator, { enumerable: false });
defineInterface(DOMStringList, 'DOMStringList');

/** Sorted by code units, as JavaScript compares strings. */
export function stringList(names) {
  return new DOMStringList(internal, [...names].sort());
}
