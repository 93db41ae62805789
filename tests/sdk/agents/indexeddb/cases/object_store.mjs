// Writing: add, put, delete, clear.
import assert from 'node:assert/strict';
import { completed, ended, failure, subject, success, throws } from '../harness.mjs';

const outOfLine = (scene) => scene.open((db) => db.createObjectStore('store'));
const inLine = (scene, options = { keyPath: 'id' }) => scene.open((db) => db.createObjectStore('store', options));
const writing = (db) => db.transaction('store', 'readwrite').objectStore('store');

const add = subject('idbobjectstore_add.any.js');
add('the result is the key', async (scene) => {
  const store = writing(await outOfLine(scene));
  const request = store.add('value', 'key');
  assert.equal(request.source, store);
  assert.equal(request.transaction, store.transaction);
  assert.equal(await success(request), 'key');
  assert.equal(await success(store.get('key')), 'value');
});
add('a key that is there is a ConstraintError', async (scene) => {
  const store = writing(await inLine(scene));
  store.add({ id: 1, value: 'old' });
  assert.equal((await failure(store.add({ id: 1, value: 'new' }))).name, 'ConstraintError');
  assert.equal((await success(store.get(1))).value, 'old');
  await completed(store.transaction);
});
add('an error that nobody cancels aborts', async (scene) => {
  const db = await inLine(scene);
  const store = writing(db);
  store.add({ id: 1 });
  store.add({ id: 1 });
  assert.equal(await ended(store.transaction), 'abort');
  assert.equal(store.transaction.error.name, 'ConstraintError');
  assert.equal(await success(db.transaction('store').objectStore('store').count()), 0);
});
add('keys given where they must not be, or missing', async (scene) => {
  const out = writing(await outOfLine(scene));
  throws(() => out.add('value'), 'DataError');
  throws(() => out.add(), 'TypeError');
  const within = writing(await inLine(scene));
  throws(() => within.add({ id: 1 }, 2), 'DataError');
  throws(() => within.add({}), 'DataError');
  throws(() => within.add({ id: {} }), 'DataError');
  throws(() => within.add('no object'), 'DataError');
  throws(() => within.add(null), 'DataError');
});
add('a unique index that has the key is a ConstraintError', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store').createIndex('index', 'a', { unique: true }));
  const store = writing(db);
  store.add({ a: 1 }, 1);
  assert.equal((await failure(store.add({ a: 1 }, 2))).name, 'ConstraintError');
  assert.deepEqual(await success(store.getAllKeys()), [1]);
});
add('read-only', async (scene) => {
  const store = (await outOfLine(scene)).transaction('store').objectStore('store');
  throws(() => store.add(1, 1), 'ReadOnlyError');
  throws(() => store.put(1, 1), 'ReadOnlyError');
  throws(() => store.delete(1), 'ReadOnlyError');
  throws(() => store.clear(), 'ReadOnlyError');
});

const put = subject('idbobjectstore_put.any.js');
put('replaces the record', async (scene) => {
  const store = writing(await inLine(scene));
  store.put({ id: 'a', value: 1 });
  store.put({ id: 'a', value: 2 });
  assert.deepEqual(await success(store.getAll()), [{ id: 'a', value: 2 }]);
});
put('what was in the indexes of the old record is gone', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store').createIndex('index', 'a', { multiEntry: true }));
  const store = writing(db);
  store.put({ a: [1, 2, 3] }, 'key');
  store.put({ a: [3, 4] }, 'key');
  store.put({}, 'other');
  assert.deepEqual(
    (await success(store.index('index').getAllRecords())).map(({ key }) => key),
    [3, 4],
  );
});
put('a unique key may be put again by the same record', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store').createIndex('index', 'a', { unique: true }));
  const store = writing(db);
  store.put({ a: 1 }, 1);
  assert.equal(await success(store.put({ a: 1, b: 2 }, 1)), 1);
  assert.equal((await failure(store.put({ a: 1 }, 2))).name, 'ConstraintError');
});

const exceptions = subject('idbobjectstore-add-put-exception-order.any.js');
exceptions('deleted, inactive, read-only, then the key', async (scene) => {
  const db = await inLine(scene);
  const reading = db.transaction('store').objectStore('store');
  for (const method of ['add', 'put']) throws(() => reading[method]({ id: 1 }, 'given'), 'ReadOnlyError');
  await completed(reading.transaction);
  for (const method of ['add', 'put']) throws(() => reading[method]({ id: 1 }, 'given'), 'TransactionInactiveError');
  await scene.open((db) => {
    const store = db.createObjectStore('store');
    db.deleteObjectStore('store');
    for (const method of ['add', 'put']) throws(() => store[method]({}, {}), 'InvalidStateError');
  });
});

const remove = subject('idbobjectstore_delete.any.js');
remove('one record', async (scene) => {
  const store = writing(await inLine(scene));
  store.add({ id: 1 });
  store.add({ id: 2 });
  assert.equal(await success(store.delete(1)), undefined);
  assert.equal(await success(store.get(1)), undefined);
  assert.equal(await success(store.count()), 1);
  assert.equal(await success(store.delete('not there')), undefined);
});
remove('a range', async (scene) => {
  const store = writing(await outOfLine(scene));
  for (let key = 0; key < 10; key++) store.add(key, key);
  store.delete(IDBKeyRange.bound(3, 6, false, true));
  assert.deepEqual(await success(store.getAllKeys()), [0, 1, 2, 6, 7, 8, 9]);
  store.delete(IDBKeyRange.upperBound(2, true));
  store.delete(IDBKeyRange.lowerBound(8));
  assert.deepEqual(await success(store.getAllKeys()), [2, 6, 7]);
});
remove('its index entries go with it', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store').createIndex('index', 'a'));
  const store = writing(db);
  store.add({ a: 'x' }, 1);
  store.add({ a: 'x' }, 2);
  store.delete(1);
  assert.deepEqual(await success(store.index('index').getAllKeys()), [2]);
});
remove('refuses what is no key', async (scene) => {
  const store = writing(await outOfLine(scene));
  throws(() => store.delete(), 'TypeError');
  for (const query of [undefined, null, {}, NaN]) throws(() => store.delete(query), 'DataError');
});

const clear = subject('idbobjectstore_clear.any.js');
clear('all records, and the generator goes on', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store', { autoIncrement: true }).createIndex('index', 'a'));
  const store = writing(db);
  store.add({ a: 1 });
  store.add({ a: 2 });
  assert.equal(await success(store.clear()), undefined);
  assert.equal(await success(store.count()), 0);
  assert.equal(await success(store.index('index').count()), 0);
  assert.equal(await success(store.add({ a: 3 })), 3);
});

const large = subject('kAI sizes');
large('a value of 700 KiB comes back', async (scene) => {
  const store = writing(await outOfLine(scene));
  const value = new Uint8Array(700 << 10).map((_, index) => index * 7);
  store.put(value, 1);
  assert.deepEqual(await success(store.get(1)), value);
});
large('a value that no record can have is refused at once, the transaction goes on', async (scene) => {
  const store = writing(await outOfLine(scene));
  throws(() => store.put(new Uint8Array(800 << 10), 1), 'UnknownError');
  assert.equal(await success(store.put('small', 1)), 1);
  await completed(store.transaction);
});
large('getAll of more than one answer holds', async (scene) => {
  const store = writing(await outOfLine(scene));
  const value = new Uint8Array(300 << 10);
  for (let key = 0; key < 12; key++) store.put(value, key);
  const all = store.getAll();
  store.clear(); // comes after, whatever number of answers getAll takes
  assert.equal((await success(all)).length, 12);
  assert.equal(await success(store.count()), 0);
});
large('5,000 records in one transaction', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store', { autoIncrement: true }));
  const store = writing(db);
  for (let key = 1; key <= 5000; key++) store.add({ key });
  await completed(store.transaction);
  const keys = await success(db.transaction('store').objectStore('store').getAllKeys());
  assert.deepEqual([keys.length, keys[0], keys[4999]], [5000, 1, 5000]);
});
