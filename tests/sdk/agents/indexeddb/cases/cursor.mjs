// Cursors: where they go.
import assert from 'node:assert/strict';
import { completed, nextTask, subject, success, throws, walk } from '../harness.mjs';

/** Ten records, keys 0 to 9. */
async function ten(scene, mode = 'readonly', count = 10) {
  const db = await scene.open((db) => {
    const store = db.createObjectStore('store');
    for (let key = 0; key < count; key++) store.add(`value ${key}`, key);
  });
  return db.transaction('store', mode).objectStore('store');
}

const PAIRS = [
  ['a', 1],
  ['a', 2],
  ['b', 3],
  ['b', 4],
  ['c', 5],
  ['c', 6],
  ['c', 7],
];

async function pairs(scene, mode = 'readonly') {
  const db = await scene.open((db) => {
    const store = db.createObjectStore('store');
    store.createIndex('index', 'letter');
    for (const [letter, key] of PAIRS) store.add({ letter }, key);
  });
  return db.transaction('store', mode).objectStore('store').index('index');
}

const keysOf = (seen) => seen.map(({ key }) => key);
const pairsOf = (seen) => seen.map(({ key, primaryKey }) => [key, primaryKey]);

const open = subject('idbobjectstore_openCursor.any.js');
open('all records in order', async (scene) => {
  const store = await ten(scene, 'readonly', 300);
  const seen = await walk(store.openCursor());
  assert.equal(seen.length, 300);
  seen.forEach((record, key) => assert.deepEqual(record, { key, primaryKey: key, value: `value ${key}` }));
});
open('attributes', async (scene) => {
  const store = await ten(scene);
  const request = store.openCursor(null, 'prev');
  const cursor = await success(request);
  assert.ok(cursor instanceof IDBCursorWithValue && cursor instanceof IDBCursor);
  assert.deepEqual(
    [cursor.source, cursor.request, cursor.direction, cursor.key, cursor.primaryKey, cursor.value],
    [store, request, 'prev', 9, 9, 'value 9'],
  );
  assert.equal(request.source, store);
});
open('a key and ranges', async (scene) => {
  const store = await ten(scene);
  assert.deepEqual(keysOf(await walk(store.openCursor(4))), [4]);
  assert.deepEqual(keysOf(await walk(store.openCursor(IDBKeyRange.bound(2, 5, true, false)))), [3, 4, 5]);
  assert.deepEqual(keysOf(await walk(store.openCursor(IDBKeyRange.lowerBound(7), 'prev'))), [9, 8, 7]);
  assert.deepEqual(keysOf(await walk(store.openCursor(IDBKeyRange.upperBound(2, true), 'prevunique'))), [1, 0]);
  assert.deepEqual(await walk(store.openCursor('none')), []);
});
open('refuses', async (scene) => {
  const store = await ten(scene);
  throws(() => store.openCursor(NaN), 'DataError');
  throws(() => store.openCursor(null, 'up'), 'TypeError');
  await completed(store.transaction);
  throws(() => store.openCursor(), 'TransactionInactiveError');
});

const keyCursor = subject('idbobjectstore_openKeyCursor.any.js');
keyCursor('has no value, and refuses update and delete', async (scene) => {
  const store = await ten(scene, 'readwrite');
  const cursor = await success(store.openKeyCursor());
  assert.ok(cursor instanceof IDBCursor && !(cursor instanceof IDBCursorWithValue));
  assert.equal('value' in cursor, false);
  assert.deepEqual([cursor.key, cursor.primaryKey], [0, 0]);
  throws(() => cursor.update(1), 'InvalidStateError');
  throws(() => cursor.delete(), 'InvalidStateError');
});

const index = subject('idbindex_openCursor.any.js');
index('next and prev: by key, then by primary key', async (scene) => {
  const source = await pairs(scene);
  assert.deepEqual(pairsOf(await walk(source.openCursor())), PAIRS);
  assert.deepEqual(pairsOf(await walk(source.openCursor(null, 'prev'))), [...PAIRS].reverse());
  assert.deepEqual(pairsOf(await walk(source.openKeyCursor('b'))), [
    ['b', 3],
    ['b', 4],
  ]);
});

const unique = subject('idbcursor-direction-index.any.js');
unique('nextunique and prevunique: each key once, with its first record', async (scene) => {
  const source = await pairs(scene);
  assert.deepEqual(pairsOf(await walk(source.openCursor(null, 'nextunique'))), [
    ['a', 1],
    ['b', 3],
    ['c', 5],
  ]);
  assert.deepEqual(pairsOf(await walk(source.openCursor(null, 'prevunique'))), [
    ['c', 5],
    ['b', 3],
    ['a', 1],
  ]);
});
unique('continue to a key and advance', async (scene) => {
  const source = await pairs(scene);
  assert.deepEqual(
    pairsOf(
      await walk(source.openCursor(null, 'nextunique'), (cursor) =>
        cursor.continue('c'.repeat(cursor.key === 'a' ? 1 : 2)),
      ),
    ),
    [
      ['a', 1],
      ['c', 5],
    ],
  );
  assert.deepEqual(pairsOf(await walk(source.openCursor(null, 'prevunique'), (cursor) => cursor.advance(2))), [
    ['c', 5],
    ['a', 1],
  ]);
});

const advance = subject('idbcursor-advance.any.js');
advance('so many records on', async (scene) => {
  const store = await ten(scene, 'readonly', 100);
  assert.deepEqual(keysOf(await walk(store.openCursor(), (cursor) => cursor.advance(30))), [0, 30, 60, 90]);
  assert.deepEqual(
    keysOf(await walk(store.openCursor(null, 'prev'), (cursor, seen) => cursor.advance(seen === 1 ? 2 : 1000))),
    [99, 97],
  );
  assert.deepEqual(pairsOf(await walk((await pairs(scene)).openCursor(), (cursor) => cursor.advance(3))), [
    ['a', 1],
    ['b', 4],
    ['c', 7],
  ]);
});
advance('refuses counts that are none', async (scene) => {
  const cursor = await success((await ten(scene)).openCursor());
  for (const count of [0, -1, 2 ** 32, NaN, Infinity, 'x', {}, undefined, null, 0.5])
    throws(() => cursor.advance(count), 'TypeError');
  throws(() => cursor.advance(), 'TypeError');
});

const continueTo = subject('idbcursor-continue.any.js');
continueTo('a key, or the next beyond it', async (scene) => {
  const store = await ten(scene);
  assert.deepEqual(keysOf(await walk(store.openCursor(), (cursor) => cursor.continue(cursor.key + 2.5))), [0, 3, 6, 9]);
  assert.deepEqual(
    keysOf(await walk(store.openCursor(null, 'prev'), (cursor) => cursor.continue(cursor.key - 2.5))),
    [9, 6, 3, 0],
  );
  assert.deepEqual(
    pairsOf(
      await walk((await pairs(scene)).openCursor(), (cursor, seen) => cursor.continue(seen === 1 ? 'b' : undefined)),
    ),
    [
      ['a', 1],
      ['b', 3],
      ['b', 4],
      ['c', 5],
      ['c', 6],
      ['c', 7],
    ],
  );
  assert.deepEqual(
    pairsOf(
      await walk((await pairs(scene)).openCursor(null, 'prev'), (cursor, seen) =>
        cursor.continue(seen === 1 ? 'b' : undefined),
      ),
    ),
    [
      ['c', 7],
      ['b', 4],
      ['b', 3],
      ['a', 2],
      ['a', 1],
    ],
  );
});
continueTo('far ahead of what was read', async (scene) => {
  const store = await ten(scene, 'readonly', 200);
  assert.deepEqual(keysOf(await walk(store.openCursor(), (cursor) => cursor.continue(cursor.key + 70))), [0, 70, 140]);
});
continueTo('refuses keys that are not beyond', async (scene) => {
  const store = await ten(scene);
  const up = await success(store.openCursor(5));
  for (const key of [5, 4, -Infinity]) throws(() => up.continue(key), 'DataError');
  throws(() => up.continue(NaN), 'DataError');
  throws(() => up.continue(null), 'DataError');
  const down = await success(store.openCursor(5, 'prev'));
  for (const key of [5, 6]) throws(() => down.continue(key), 'DataError');
});
continueTo('not twice, not past the end, not after the transaction', async (scene) => {
  const store = await ten(scene);
  const cursor = await success(store.openCursor(9));
  cursor.continue();
  throws(() => cursor.continue(), 'InvalidStateError');
  throws(() => cursor.advance(1), 'InvalidStateError');
  assert.equal(await success(cursor.request), null);
  throws(() => cursor.continue(), 'InvalidStateError');
  await completed(store.transaction);
  throws(() => cursor.continue(), 'TransactionInactiveError');
  throws(() => cursor.advance(1), 'TransactionInactiveError');
});
continueTo('the request is pending again, and its result is the same cursor', async (scene) => {
  const store = await ten(scene);
  const request = store.openCursor();
  const cursor = await success(request);
  cursor.continue();
  assert.equal(request.readyState, 'pending');
  throws(() => request.result, 'InvalidStateError');
  assert.deepEqual([cursor.key, cursor.value], [0, 'value 0']);
  assert.equal(await success(request), cursor);
  assert.deepEqual([cursor.key, cursor.value], [1, 'value 1']);
});

const primary = subject('idbcursor-continuePrimaryKey.any.js');
primary('to a pair, or the next beyond it', async (scene) => {
  const source = await pairs(scene);
  const steps = [
    ['b', 4],
    ['c', 5.5],
  ];
  assert.deepEqual(
    pairsOf(
      await walk(source.openCursor(), (cursor, seen) =>
        seen <= 2 ? cursor.continuePrimaryKey(...steps[seen - 1]) : cursor.continue(),
      ),
    ),
    [
      ['a', 1],
      ['b', 4],
      ['c', 6],
      ['c', 7],
    ],
  );
  assert.deepEqual(
    pairsOf(
      await walk(source.openCursor(null, 'prev'), (cursor, seen) =>
        seen === 1 ? cursor.continuePrimaryKey('b', 3.5) : 'stop',
      ),
    ),
    [
      ['c', 7],
      ['b', 3],
    ],
  );
});
primary('refuses', async (scene) => {
  const source = await pairs(scene);
  const cursor = await success(source.openCursor('b'));
  throws(() => cursor.continuePrimaryKey('b', 3), 'DataError');
  throws(() => cursor.continuePrimaryKey('a', 9), 'DataError');
  throws(() => cursor.continuePrimaryKey('c', null), 'DataError');
  throws(() => cursor.continuePrimaryKey('c'), 'TypeError');
  const uniqueCursor = await success(source.openCursor(null, 'nextunique'));
  throws(() => uniqueCursor.continuePrimaryKey('c', 9), 'InvalidAccessError');
  const storeCursor = await success(source.objectStore.openCursor());
  throws(() => storeCursor.continuePrimaryKey(9, 9), 'InvalidAccessError');
});

const same = subject('idbcursor-key.any.js');
same('a key is the same object until the cursor moves', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store'));
  const store = db.transaction('store', 'readwrite').objectStore('store');
  store.add({ a: 1 }, [1]);
  const cursor = await success(store.openCursor());
  assert.equal(cursor.key, cursor.key);
  assert.equal(cursor.value, cursor.value);
  cursor.value.a = 2;
  assert.deepEqual(cursor.value, { a: 2 });
  assert.deepEqual(await success(store.get([1])), { a: 1 });
});

const two = subject('interleaved-cursors-small.any.js');
two('two cursors of one transaction go their own ways', async (scene) => {
  const store = await ten(scene);
  const [up, down] = await Promise.all([walk(store.openCursor()), walk(store.openCursor(null, 'prev'))]);
  assert.deepEqual(keysOf(up), keysOf(down).reverse());
  await nextTask();
});
