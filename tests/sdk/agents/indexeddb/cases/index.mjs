// Indexes: createIndex, deleteIndex, reading by them, unique and multiEntry.
import assert from 'node:assert/strict';
import { completed, failure, subject, success, throws, walk } from '../harness.mjs';

const PEOPLE = [
  { id: 1, name: 'Bob', city: 'Rome' },
  { id: 2, name: 'Alice', city: 'Oslo' },
  { id: 3, name: 'Carol', city: 'Rome' },
  { id: 4, name: 'Dan' },
  { id: 5, name: 'Eve', city: 'Oslo' },
];

async function people(scene, mode = 'readonly') {
  const db = await scene.open((db) => {
    const store = db.createObjectStore('store', { keyPath: 'id' });
    store.createIndex('city', 'city');
    store.createIndex('name', 'name', { unique: true });
    for (const person of PEOPLE) store.add(person);
  });
  return db.transaction('store', mode).objectStore('store');
}

const create = subject('idbobjectstore_createIndex.any.js');
create('the index has what was asked for', (scene) =>
  scene.open((db) => {
    const store = db.createObjectStore('store');
    const index = store.createIndex('index', 'a.b', { unique: true, multiEntry: true });
    assert.ok(index instanceof IDBIndex);
    assert.deepEqual(
      [index.name, index.keyPath, index.unique, index.multiEntry, index.objectStore],
      ['index', 'a.b', true, true, store],
    );
    assert.equal(store.index('index'), index);
    assert.deepEqual([...store.indexNames], ['index']);
    assert.deepEqual(store.createIndex('array', ['a', 'b']).keyPath, ['a', 'b']);
  }),
);
create('is filled from the records that are there', async (scene) => {
  const db = await scene.open((db) => {
    const store = db.createObjectStore('store', { keyPath: 'id' });
    for (const person of PEOPLE) store.add(person);
    store.createIndex('city', 'city');
    store.add({ id: 6, city: 'Bern' });
  });
  const index = db.transaction('store').objectStore('store').index('city');
  assert.deepEqual(await success(index.getAllKeys()), [6, 2, 5, 1, 3]);
});
create('a unique index over records that have a key twice aborts', async (scene) => {
  const name = scene.name();
  (await scene.open((db) => db.createObjectStore('store', { keyPath: 'id' }), { name })).close();
  const second = indexedDB.open(name, 2);
  let error;
  second.onupgradeneeded = () => {
    const store = second.transaction.objectStore('store');
    for (const person of PEOPLE) store.add(person);
    store.createIndex('city', 'city', { unique: true });
    second.transaction.onabort = ({ target }) => (error = target.error);
  };
  assert.equal((await failure(second)).name, 'AbortError');
  assert.equal(error.name, 'ConstraintError');
});
create('refuses', (scene) =>
  scene.open((db) => {
    const store = db.createObjectStore('store');
    store.createIndex('index', 'a');
    throws(() => store.createIndex('index', 'b'), 'ConstraintError');
    throws(() => store.createIndex('other', 'a b'), 'SyntaxError');
    throws(() => store.createIndex('other', []), 'SyntaxError');
    throws(() => store.createIndex('other', ['a', 'b'], { multiEntry: true }), 'InvalidAccessError');
    throws(() => store.createIndex('other'), 'TypeError');
    assert.deepEqual([...store.indexNames], ['index']);
  }),
);
create('outside of a version change', async (scene) => {
  const store = await people(scene, 'readwrite');
  throws(() => store.createIndex('other', 'a'), 'InvalidStateError');
  throws(() => store.deleteIndex('city'), 'InvalidStateError');
});

const remove = subject('idbobjectstore_deleteIndex.any.js');
remove('the index is gone', (scene) =>
  scene.open((db) => {
    const store = db.createObjectStore('store');
    const index = store.createIndex('index', 'a');
    store.add({ a: 1 }, 1);
    store.deleteIndex('index');
    assert.deepEqual([...store.indexNames], []);
    throws(() => store.index('index'), 'NotFoundError');
    throws(() => index.get(1), 'InvalidStateError');
    throws(() => index.openCursor(), 'InvalidStateError');
    throws(() => store.deleteIndex('index'), 'NotFoundError');
  }),
);

const lookup = subject('idbobjectstore_index.any.js');
lookup('the same handle each time, NotFoundError, InvalidStateError after the end', async (scene) => {
  const store = await people(scene);
  assert.equal(store.index('city'), store.index('city'));
  throws(() => store.index('none'), 'NotFoundError');
  throws(() => store.index(), 'TypeError');
  await completed(store.transaction);
  throws(() => store.index('city'), 'InvalidStateError');
});

const get = subject('idbindex_get.any.js');
get('the record with the lowest primary key', async (scene) => {
  const index = (await people(scene)).index('city');
  const request = index.get('Rome');
  assert.equal(request.source, index);
  assert.deepEqual(await success(request), PEOPLE[0]);
  assert.equal(await success(index.get('Paris')), undefined);
  assert.deepEqual(await success(index.get(IDBKeyRange.lowerBound('Oslo', true))), PEOPLE[0]);
});
get('refuses what is no key', async (scene) => {
  const index = (await people(scene)).index('city');
  for (const query of [null, undefined, NaN, {}]) {
    throws(() => index.get(query), 'DataError');
    throws(() => index.getKey(query), 'DataError');
  }
  throws(() => index.get(), 'TypeError');
});

const getKey = subject('idbindex_getKey.any.js');
getKey('is the primary key', async (scene) => {
  const index = (await people(scene)).index('name');
  assert.equal(await success(index.getKey('Alice')), 2);
  assert.equal(await success(index.getKey('Nobody')), undefined);
});

const getAll = subject('idbindex_getAll.any.js');
getAll('in the order of the index, then of primary keys', async (scene) => {
  const index = (await people(scene)).index('city');
  assert.deepEqual(
    (await success(index.getAll())).map(({ id }) => id),
    [2, 5, 1, 3],
  );
  assert.deepEqual(await success(index.getAllKeys('Rome')), [1, 3]);
  assert.deepEqual(await success(index.getAllKeys(IDBKeyRange.lowerBound('Oslo'), 3)), [2, 5, 1]);
  const records = await success(index.getAllRecords({ direction: 'prevunique' }));
  assert.deepEqual(
    records.map(({ key, primaryKey }) => [key, primaryKey]),
    [
      ['Rome', 1],
      ['Oslo', 2],
    ],
  );
});

const count = subject('idbindex_count.any.js');
count('all, of a key, of a range', async (scene) => {
  const index = (await people(scene)).index('city');
  assert.equal(await success(index.count()), 4);
  assert.equal(await success(index.count('Rome')), 2);
  assert.equal(await success(index.count(IDBKeyRange.upperBound('P'))), 2);
});

const multi = subject('idbindex-multientry.any.js');
multi('an entry for each part of an array, without duplicates and what is no key', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store').createIndex('index', 'tags', { multiEntry: true }));
  const store = db.transaction('store', 'readwrite').objectStore('store');
  store.add({ tags: ['b', 'a', 'b', NaN, {}, null] }, 1);
  store.add({ tags: 'a' }, 2);
  store.add({ tags: [] }, 3);
  store.add({ tags: [['a', 'b']] }, 4);
  const seen = await walk(store.index('index').openKeyCursor());
  assert.deepEqual(
    seen.map(({ key, primaryKey }) => [key, primaryKey]),
    [
      ['a', 1],
      ['a', 2],
      ['b', 1],
      [['a', 'b'], 4],
    ],
  );
});
multi('unique: two records with one tag are a ConstraintError', async (scene) => {
  const db = await scene.open((db) =>
    db.createObjectStore('store').createIndex('index', 'tags', { multiEntry: true, unique: true }),
  );
  const store = db.transaction('store', 'readwrite').objectStore('store');
  store.add({ tags: ['a', 'b', 'a'] }, 1);
  assert.equal((await failure(store.add({ tags: ['c', 'b'] }, 2))).name, 'ConstraintError');
  assert.equal(await success(store.index('index').count('c')), 0);
});
multi('a large array', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store').createIndex('index', '', { multiEntry: true }));
  const store = db.transaction('store', 'readwrite').objectStore('store');
  store.add(
    Array.from({ length: 900 }, (_, number) => number),
    1,
  );
  assert.equal(await success(store.index('index').count()), 900);
});

const invalid = subject('idbobjectstore_createIndex.any.js');
invalid('records whose part is no key are not in the index', async (scene) => {
  const db = await scene.open((db) => {
    const store = db.createObjectStore('store');
    store.createIndex('one', 'a');
    store.createIndex('two', ['a', 'b']);
  });
  const store = db.transaction('store', 'readwrite').objectStore('store');
  store.add({ a: true }, 1);
  store.add({ a: 1 }, 2);
  store.add({ a: 1, b: 2 }, 3);
  store.add(null, 4);
  store.add('text', 5);
  assert.deepEqual(await success(store.index('one').getAllKeys()), [2, 3]);
  assert.deepEqual(await success(store.index('two').getAllKeys()), [3]);
  assert.deepEqual(await success(store.index('two').get([1, 2])), { a: 1, b: 2 });
});
