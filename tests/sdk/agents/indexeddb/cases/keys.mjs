// Keys: what is one, their order, and ranges of them.
import assert from 'node:assert/strict';
import { completed, subject, success, throws } from '../harness.mjs';

const ORDERED = [
  -Infinity,
  -1.7976931348623157e308,
  -2,
  -1.5,
  -5e-324,
  0,
  5e-324,
  1,
  1.5,
  2 ** 53,
  Infinity,
  new Date(-1),
  new Date(0),
  new Date(1e12),
  '',
  '\0',
  '\x01',
  'A',
  'a',
  'aa',
  'b',
  '\x7e',
  '\x7f',
  '\x80',
  'é',
  '\u407e',
  '\u407f',
  '\ud7ff',
  '\ud83d\ude00',
  '\udfff',
  '\ue000',
  '\uffff',
  new Uint8Array([]),
  new Uint8Array([0]),
  new Uint8Array([0, 0]),
  new Uint8Array([0, 1]),
  new Uint8Array([1]),
  new Uint8Array([2]),
  new Uint8Array([255]),
  [],
  [-Infinity],
  [0],
  [0, 0],
  [1],
  [new Date(0)],
  ['', 0],
  ['a'],
  ['a', 'a'],
  [new Uint8Array([0])],
  [[]],
  [[], []],
  [[0]],
  [[[]]],
];

const cmp = subject('idbfactory_cmp.any.js');
cmp('orders numbers, dates, strings, binary and arrays', () => {
  ORDERED.forEach((one, i) =>
    ORDERED.forEach((other, j) => {
      const [first, second] = [JSON.stringify(one), JSON.stringify(other)];
      assert.equal(indexedDB.cmp(one, other), Math.sign(i - j), `${first} and ${second} (${i}, ${j})`);
    }),
  );
});
cmp('strings are compared by code units, not by code points', () => {
  assert.equal(indexedDB.cmp('\ud83d\ude00', '\uffff'), -1);
});
cmp('-0 is 0', () => assert.equal(indexedDB.cmp(-0, 0), 0));
cmp('needs two arguments', () => {
  throws(() => indexedDB.cmp(), 'TypeError');
  throws(() => indexedDB.cmp(1), 'TypeError');
});
cmp('refuses what is no key', () => {
  for (const value of [
    null,
    undefined,
    NaN,
    true,
    {},
    () => {},
    /a/,
    new Date(NaN),
    [NaN],
    [undefined],
    Symbol.iterator,
    1n,
  ]) {
    throws(() => indexedDB.cmp(value, 1), 'DataError');
    throws(() => indexedDB.cmp(1, value), 'DataError');
  }
});

const binary = subject('idb-binary-key-roundtrip.any.js');
binary('every kind of view is the bytes of its part of the buffer', () => {
  const { buffer } = new Uint8Array([9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9, 9, 9, 9]);
  for (const View of [Uint8Array, Int8Array, Uint8ClampedArray, DataView]) {
    assert.equal(indexedDB.cmp(new View(buffer, 1, 4), new Uint8Array([1, 2, 3, 4])), 0, View.name);
  }
  for (const View of [Uint16Array, Int32Array, Float64Array, BigInt64Array]) {
    assert.equal(
      indexedDB.cmp(new View(buffer, 8, 1), new Uint8Array(buffer, 8, View.BYTES_PER_ELEMENT)),
      0,
      View.name,
    );
  }
});
binary('comes back as an ArrayBuffer', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store'));
  const transaction = db.transaction('store', 'readwrite');
  const key = await success(transaction.objectStore('store').put('value', new Uint8Array([0, 1, 2, 255])));
  assert.ok(key instanceof ArrayBuffer);
  assert.deepEqual([...new Uint8Array(key)], [0, 1, 2, 255]);
});
binary('a detached buffer is no key', () => {
  const buffer = new ArrayBuffer(4);
  structuredClone(buffer, { transfer: [buffer] });
  throws(() => indexedDB.cmp(buffer, 1), 'DataError');
});

const validity = subject('key_valid.any.js');
validity('every valid key comes back from the store as it was, in order', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store'));
  const transaction = db.transaction('store', 'readwrite');
  const store = transaction.objectStore('store');
  for (const [place, key] of ORDERED.map((key, place) => [place, key]).reverse()) store.add(place, key);
  assert.deepEqual(
    await success(store.getAll()),
    ORDERED.map((_, place) => place),
  );
  const keys = await success(store.getAllKeys());
  keys.forEach((key, place) => assert.equal(indexedDB.cmp(key, ORDERED[place]), 0));
  assert.deepEqual(keys.slice(0, 30), ORDERED.slice(0, 30));
  await completed(transaction);
});

const invalid = subject('key_invalid.any.js');
invalid('a store refuses what is no key', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store'));
  const cyclic = [];
  cyclic.push(cyclic);
  for (const key of [true, null, NaN, {}, () => {}, new Date(NaN), [{}], [, 1], cyclic, [[NaN]], /a/, 1n, globalThis]) {
    const store = db.transaction('store', 'readwrite').objectStore('store');
    throws(() => store.add('value', key), 'DataError');
  }
});

const conversion = subject('key-conversion-exceptions.any.js');
conversion('what a getter of an array throws is thrown', () => {
  const key = ['a'];
  Object.defineProperty(key, 1, {
    get() {
      throw new RangeError('getter');
    },
  });
  assert.throws(() => indexedDB.cmp(key, 1), { name: 'RangeError', message: 'getter' });
  assert.throws(() => IDBKeyRange.only(key), { name: 'RangeError', message: 'getter' });
});

const range = subject('idbkeyrange.any.js');
range('only', () => {
  const one = IDBKeyRange.only('a');
  assert.deepEqual([one.lower, one.upper, one.lowerOpen, one.upperOpen], ['a', 'a', false, false]);
});
range('lowerBound, upperBound and bound', () => {
  const parts = ({ lower, upper, lowerOpen, upperOpen }) => [lower, upper, lowerOpen, upperOpen];
  assert.deepEqual(parts(IDBKeyRange.lowerBound(1)), [1, undefined, false, true]);
  assert.deepEqual(parts(IDBKeyRange.lowerBound(1, true)), [1, undefined, true, true]);
  assert.deepEqual(parts(IDBKeyRange.upperBound(1)), [undefined, 1, true, false]);
  assert.deepEqual(parts(IDBKeyRange.upperBound(1, true)), [undefined, 1, true, true]);
  assert.deepEqual(parts(IDBKeyRange.bound(1, 2, true)), [1, 2, true, false]);
});
range('refuses bounds the wrong way round, open ranges of one key, and no keys', () => {
  throws(() => IDBKeyRange.bound(2, 1), 'DataError');
  throws(() => IDBKeyRange.bound('a', 1), 'DataError');
  throws(() => IDBKeyRange.bound(1, 1, true), 'DataError');
  throws(() => IDBKeyRange.bound(1, 1, false, true), 'DataError');
  throws(() => IDBKeyRange.only(null), 'DataError');
  throws(() => IDBKeyRange.lowerBound(undefined), 'DataError');
  throws(() => IDBKeyRange.bound(1), 'TypeError');
  throws(() => new IDBKeyRange(), 'TypeError');
});
range('a bound is the same object each time', () => {
  const bounds = IDBKeyRange.bound([1], [2]);
  assert.equal(bounds.lower, bounds.lower);
});

const includes = subject('idbkeyrange-includes.any.js');
includes('open and closed bounds', () => {
  const closed = IDBKeyRange.bound(5, 12);
  const open = IDBKeyRange.bound(5, 12, true, true);
  for (const [key, inClosed, inOpen] of [
    [4, false, false],
    [5, true, false],
    [6, true, true],
    [12, true, false],
    [12.1, false, false],
  ]) {
    assert.equal(closed.includes(key), inClosed, String(key));
    assert.equal(open.includes(key), inOpen, String(key));
  }
  assert.equal(IDBKeyRange.lowerBound(5).includes('a'), true);
  assert.equal(IDBKeyRange.upperBound(5, true).includes(5), false);
  assert.equal(IDBKeyRange.only([1, 'a']).includes([1, 'a']), true);
});
includes('refuses what is no key', () => {
  throws(() => IDBKeyRange.only(1).includes(), 'TypeError');
  throws(() => IDBKeyRange.only(1).includes(null), 'DataError');
  throws(() => IDBKeyRange.only(1).includes(NaN), 'DataError');
});
