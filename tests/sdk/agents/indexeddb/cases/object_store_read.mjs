// Reading: get, getKey, getAll, getAllKeys, getAllRecords, count.
import assert from 'node:assert/strict';
import { completed, subject, success, throws } from '../harness.mjs';

/** Ten records, keys 0 to 9, values 'value 0' to 'value 9'. */
async function ten(scene, mode = 'readonly') {
  const db = await scene.open((db) => {
    const store = db.createObjectStore('store');
    for (let key = 0; key < 10; key++) store.add(`value ${key}`, key);
  });
  return db.transaction('store', mode).objectStore('store');
}

const get = subject('idbobjectstore_get.any.js');
get('by key', async (scene) => {
  const store = await ten(scene);
  assert.equal(await success(store.get(3)), 'value 3');
  assert.equal(await success(store.get(33)), undefined);
});
get('the first of a range', async (scene) => {
  const store = await ten(scene);
  assert.equal(await success(store.get(IDBKeyRange.bound(3, 6))), 'value 3');
  assert.equal(await success(store.get(IDBKeyRange.bound(3, 6, true))), 'value 4');
  assert.equal(await success(store.get(IDBKeyRange.lowerBound(10))), undefined);
});
get('keys of every kind', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store'));
  const store = db.transaction('store', 'readwrite').objectStore('store');
  const keys = [1, -0.5, new Date(5), 'text', new Uint8Array([1, 2]), [1, [2, 'x']], [], ''];
  keys.forEach((key, place) => store.put(place, key));
  for (const [place, key] of keys.entries()) assert.equal(await success(store.get(key)), place);
});
get('refuses what is no key', async (scene) => {
  const store = await ten(scene);
  throws(() => store.get(), 'TypeError');
  for (const query of [undefined, null, {}, NaN, [null]]) {
    throws(() => store.get(query), 'DataError');
    throws(() => store.getKey(query), 'DataError');
  }
});
get('after the transaction has finished', async (scene) => {
  const store = await ten(scene);
  await completed(store.transaction);
  throws(() => store.get(1), 'TransactionInactiveError');
});

const getKey = subject('idbobjectstore_getKey.any.js');
getKey('by key and by range', async (scene) => {
  const store = await ten(scene);
  assert.equal(await success(store.getKey(3)), 3);
  assert.equal(await success(store.getKey(33)), undefined);
  assert.equal(await success(store.getKey(IDBKeyRange.lowerBound(3, true))), 4);
});

const getAll = subject('idbobjectstore_getAll.any.js');
getAll('all of them, in order', async (scene) => {
  const store = await ten(scene);
  assert.deepEqual(
    await success(store.getAll()),
    Array.from({ length: 10 }, (_, key) => `value ${key}`),
  );
  assert.deepEqual(
    await success(store.getAll(null)),
    Array.from({ length: 10 }, (_, key) => `value ${key}`),
  );
});
getAll('a key, a range, a count', async (scene) => {
  const store = await ten(scene);
  assert.deepEqual(await success(store.getAll(4)), ['value 4']);
  assert.deepEqual(await success(store.getAll('none')), []);
  assert.deepEqual(await success(store.getAll(IDBKeyRange.bound(3, 5))), ['value 3', 'value 4', 'value 5']);
  assert.deepEqual(await success(store.getAll(IDBKeyRange.lowerBound(3), 2)), ['value 3', 'value 4']);
  assert.equal((await success(store.getAll(undefined, 0))).length, 10);
  assert.equal((await success(store.getAll(undefined, 2 ** 32 - 1))).length, 10);
});
getAll('refuses what is no key or no count', async (scene) => {
  const store = await ten(scene);
  throws(() => store.getAll(NaN), 'DataError');
  throws(() => store.getAll([null]), 'DataError');
  throws(() => store.getAll(null, -1), 'TypeError');
  throws(() => store.getAll(null, 2 ** 32), 'TypeError');
});

const options = subject('idbobjectstore_getAll-options.any.js');
options('direction, query and count by name', async (scene) => {
  const store = await ten(scene);
  assert.deepEqual(await success(store.getAll({ direction: 'prev', count: 2 })), ['value 9', 'value 8']);
  const query = IDBKeyRange.bound(2, 4);
  assert.deepEqual(await success(store.getAllKeys({ query, direction: 'prev' })), [4, 3, 2]);
  throws(() => store.getAll({ direction: 'up' }), 'TypeError');
});

const getAllKeys = subject('idbobjectstore_getAllKeys.any.js');
getAllKeys('keys in order', async (scene) => {
  const store = await ten(scene);
  assert.deepEqual(await success(store.getAllKeys()), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assert.deepEqual(await success(store.getAllKeys(IDBKeyRange.upperBound(3, true), 2)), [0, 1]);
});

const getAllRecords = subject('idbobjectstore_getAllRecords.any.js');
getAllRecords('keys and values', async (scene) => {
  const store = await ten(scene);
  const records = await success(store.getAllRecords({ query: IDBKeyRange.lowerBound(8), direction: 'prev' }));
  assert.ok(records[0] instanceof IDBRecord);
  assert.deepEqual(
    records.map(({ key, primaryKey, value }) => [key, primaryKey, value]),
    [
      [9, 9, 'value 9'],
      [8, 8, 'value 8'],
    ],
  );
});

const count = subject('idbobjectstore_count.any.js');
count('all, of a key, of a range', async (scene) => {
  const store = await ten(scene);
  assert.equal(await success(store.count()), 10);
  assert.equal(await success(store.count(5)), 1);
  assert.equal(await success(store.count(50)), 0);
  assert.equal(await success(store.count(IDBKeyRange.bound(5, 20))), 5);
  throws(() => store.count(NaN), 'DataError');
});
