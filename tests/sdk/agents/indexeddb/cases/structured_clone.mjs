// Values: what is stored is the structured clone.
import assert from 'node:assert/strict';
import { completed, subject, success, throws } from '../harness.mjs';

async function roundTrip(scene, value) {
  const db = await scene.open((db) => db.createObjectStore('store'));
  const store = db.transaction('store', 'readwrite').objectStore('store');
  store.put(value, 1);
  return success(store.get(1));
}

const clones = subject('structured-clone.any.js');
const shared = { shared: true };
for (const [what, value] of [
  ['undefined and null', [undefined, null]],
  ['numbers', [0, -0, 1.5, -Infinity, NaN, 2 ** 53]],
  ['strings', ['', 'a\0b', '\ud800', 'é😀']],
  ['booleans and bigints', [true, false, 1n, -(2n ** 100n)]],
  ['wrapped primitives', [Object(1), Object('x'), Object(false), Object(1n)]],
  ['dates', [new Date(0), new Date(1e15), new Date(-1)]],
  ['regular expressions', [/a/, /b(c)/giu]],
  ['arrays with holes and names', [[, 1], Object.assign([1], { name: 'x' })]],
  ['objects', [{}, { a: { b: [] } }, { '': 1, __proto: 2 }]],
  ['maps and sets', [new Map([[{ a: 1 }, new Set([1, 'x'])]]), new Set([new Map()])]],
  [
    'buffers and views',
    [
      new ArrayBuffer(3),
      new Uint8Array([1, 2]),
      new Float64Array([1.5, NaN]),
      new BigInt64Array([1n]),
      new DataView(new ArrayBuffer(2)),
    ],
  ],
  ['errors', [new TypeError('message'), new RangeError('other')]],
]) {
  clones(what, async (scene) => assert.deepEqual(await roundTrip(scene, value), value));
}
clones('a date that is none', async (scene) => assert.equal((await roundTrip(scene, new Date(NaN))).getTime(), NaN));
clones('one object in two places, and cycles', async (scene) => {
  const value = { one: shared, two: shared };
  value.self = value;
  const stored = await roundTrip(scene, value);
  assert.equal(stored.one, stored.two);
  assert.equal(stored.self, stored);
  assert.notEqual(stored.one, shared);
});
clones('views of one buffer share it, and have no more than it', async (scene) => {
  const buffer = new ArrayBuffer(16);
  const { one, two } = await roundTrip(scene, { one: new Uint8Array(buffer, 4, 4), two: new Uint16Array(buffer) });
  assert.equal(one.buffer, two.buffer);
  assert.deepEqual([one.byteOffset, one.length, one.buffer.byteLength], [4, 4, 16]);
});
clones('a Buffer is stored as a Uint8Array', async (scene) => {
  const stored = await roundTrip(scene, Buffer.from('bytes'));
  assert.equal(stored.constructor, Uint8Array);
  assert.equal(Buffer.from(stored).toString(), 'bytes');
});
clones('getters and prototypes do not go with it', async (scene) => {
  class Point {
    x = 1;
    get y() {
      return 2;
    }
  }
  const stored = await roundTrip(scene, new Point());
  assert.deepEqual(stored, { x: 1 });
  assert.equal(Object.getPrototypeOf(stored), Object.prototype);
});

const errors = subject('structured-clone.any.js');
errors('what cannot be cloned is a DataCloneError at once', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store'));
  const store = db.transaction('store', 'readwrite').objectStore('store');
  for (const value of [
    () => {},
    Symbol('x'),
    new WeakMap(),
    Promise.resolve(),
    { deep: [() => {}] },
    new SharedArrayBuffer(4),
    new Blob(['x']),
  ]) {
    throws(() => store.put(value, 1), 'DataCloneError');
    throws(() => store.add(value, 1), 'DataCloneError');
  }
  assert.equal(await success(store.put('value', 1)), 1);
  await completed(store.transaction);
});

const transaction = subject('clone-before-keypath-eval.any.js');
transaction('the value is as it was when put was called', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store').createIndex('index', 'a'));
  const store = db.transaction('store', 'readwrite').objectStore('store');
  const value = { a: 1 };
  store.put(value, 'key');
  value.a = 2;
  assert.deepEqual(await success(store.get('key')), { a: 1 });
  assert.equal(await success(store.index('index').getKey(1)), 'key');
});
