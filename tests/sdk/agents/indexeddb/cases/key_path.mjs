// Key paths.
import assert from 'node:assert/strict';
import { subject, success, throws } from '../harness.mjs';

async function keyOf(scene, keyPath, value) {
  const db = await scene.open((db) => db.createObjectStore('store', { keyPath }));
  const store = db.transaction('store', 'readwrite').objectStore('store');
  return success(store.put(value));
}

const paths = subject('keypath.any.js');
paths('a property', async (scene) => assert.equal(await keyOf(scene, 'a', { a: 'x' }), 'x'));
paths('a property of a property', async (scene) =>
  assert.equal(await keyOf(scene, 'a.b.c', { a: { b: { c: 5 } } }), 5),
);
paths('the value itself', async (scene) => assert.equal(await keyOf(scene, '', 'x'), 'x'));
paths('the length of a string and of an array', async (scene) => {
  assert.equal(await keyOf(scene, 'length', 'four'), 4);
  assert.equal(await keyOf(scene, 'a.length', { a: [1, 2] }), 2);
});
paths('an array of paths is an array of keys', async (scene) => {
  assert.deepEqual(await keyOf(scene, ['a', 'b.c'], { a: 1, b: { c: 'x' } }), [1, 'x']);
  assert.deepEqual(await keyOf(scene, [''], 'x'), ['x']);
});
paths('an array of paths of which one leads nowhere', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store', { keyPath: ['a', 'b'] }));
  const store = db.transaction('store', 'readwrite').objectStore('store');
  throws(() => store.put({ a: 1 }), 'DataError');
  throws(() => store.put({ a: 1, b: null }), 'DataError');
});
paths('names that objects have from their prototype', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store', { keyPath: 'constructor' }));
  const store = db.transaction('store', 'readwrite').objectStore('store');
  throws(() => store.put({}), 'DataError');
  assert.equal(await success(store.put({ constructor: 'x' })), 'x');
});

const getters = subject('keypath-exceptions.any.js');
getters('a getter is called by the clone alone, and what it throws is thrown', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store', { keyPath: 'id' }));
  const store = db.transaction('store', 'readwrite').objectStore('store');
  let calls = 0;
  const value = {
    get id() {
      calls += 1;
      return calls;
    },
  };
  assert.equal(await success(store.put(value)), 1);
  assert.equal(calls, 1);
  const failing = {
    get id() {
      throw new RangeError('getter');
    },
  };
  assert.throws(() => store.put(failing), { name: 'RangeError' });
});
getters('the transaction is not active while the value is cloned', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store', { keyPath: 'id' }));
  const store = db.transaction('store', 'readwrite').objectStore('store');
  let error;
  const value = {
    get id() {
      try {
        store.get(1);
      } catch (thrown) {
        error = thrown;
      }
      return 1;
    },
  };
  await success(store.put(value));
  assert.equal(error.name, 'TransactionInactiveError');
  assert.equal(await success(store.count()), 1);
});

const special = subject('keypath-special-identifiers.any.js');
special('names that are words of the language', async (scene) => {
  for (const name of ['if', 'class', 'this', '__proto__', 'null', 'undefined', 'length']) {
    const value = JSON.parse(`{"${name}": "x"}`);
    assert.equal(await keyOf(scene, name, value), 'x', name);
  }
});
