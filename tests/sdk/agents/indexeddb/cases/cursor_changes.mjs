// Cursors that change records, and records that change under a cursor.
import assert from 'node:assert/strict';
import { completed, subject, success, throws, walk } from '../harness.mjs';

async function records(scene, options, values) {
  const db = await scene.open((db) => {
    const store = db.createObjectStore('store', options);
    store.createIndex('index', 'a');
    for (const [key, value] of values.entries()) store.add(value, options === undefined ? key : undefined);
  });
  return db.transaction('store', 'readwrite').objectStore('store');
}

const update = subject('idbcursor_update_objectstore.any.js');
update('the record under it', async (scene) => {
  const store = await records(scene, { keyPath: 'id' }, [
    { id: 1, a: 1 },
    { id: 2, a: 2 },
  ]);
  await walk(store.openCursor(), (cursor) => {
    const request = cursor.update({ ...cursor.value, a: cursor.value.a * 10 });
    assert.equal(request.source, cursor);
    cursor.continue();
  });
  assert.deepEqual(await success(store.getAll()), [
    { id: 1, a: 10 },
    { id: 2, a: 20 },
  ]);
  assert.deepEqual(await success(store.index('index').getAllKeys(20)), [2]);
});
update('refuses another key, no clone, and a read-only transaction', async (scene) => {
  const store = await records(scene, { keyPath: 'id' }, [{ id: 1, a: 1 }]);
  const cursor = await success(store.openCursor());
  throws(() => cursor.update({ id: 2 }), 'DataError');
  throws(() => cursor.update({}), 'DataError');
  throws(() => cursor.update({ id: 1, f: () => {} }), 'DataCloneError');
  throws(() => cursor.update(), 'TypeError');
  assert.equal(await success(cursor.update({ id: 1 })), 1);
  const reading = store.transaction.db.transaction('store').objectStore('store');
  const other = await success(reading.openCursor());
  throws(() => other.update({ id: 1 }), 'ReadOnlyError');
  throws(() => other.delete(), 'ReadOnlyError');
});

const updateIndex = subject('idbcursor_update_index.any.js');
updateIndex('through an index', async (scene) => {
  const store = await records(scene, undefined, [{ a: 'x' }, { a: 'y' }]);
  const cursor = await success(store.index('index').openCursor('y'));
  assert.equal(await success(cursor.update({ a: 'z' })), 1);
  assert.deepEqual(await success(store.getAll()), [{ a: 'x' }, { a: 'z' }]);
  assert.equal(await success(store.index('index').getKey('y')), undefined);
});
updateIndex('not while it moves, nor past the end', async (scene) => {
  const store = await records(scene, undefined, [{ a: 'x' }]);
  const cursor = await success(store.openCursor());
  cursor.continue();
  throws(() => cursor.update({}), 'InvalidStateError');
  throws(() => cursor.delete(), 'InvalidStateError');
  await success(cursor.request);
  throws(() => cursor.update({}), 'InvalidStateError');
});

const remove = subject('idbcursor_delete_objectstore.any.js');
remove('every second record', async (scene) => {
  const store = await records(
    scene,
    undefined,
    Array.from({ length: 9 }, (_, a) => ({ a })),
  );
  const seen = await walk(store.openCursor(), (cursor) => {
    if (cursor.key % 2 === 1) cursor.delete();
    cursor.continue();
  });
  assert.equal(seen.length, 9);
  assert.deepEqual(await success(store.getAllKeys()), [0, 2, 4, 6, 8]);
});
remove('through an index', async (scene) => {
  const store = await records(scene, undefined, [{ a: 'x' }, { a: 'y' }]);
  const cursor = await success(store.index('index').openCursor('x'));
  assert.equal(await success(cursor.delete()), undefined);
  assert.deepEqual(await success(store.getAllKeys()), [1]);
});

const ahead = subject('idbcursor_iterating.any.js');
ahead('a record that was added ahead of it is seen', async (scene) => {
  const store = await records(
    scene,
    undefined,
    Array.from({ length: 5 }, (_, a) => ({ a })),
  );
  const seen = await walk(store.openCursor(), (cursor) => {
    if (cursor.key === 1) store.add({ a: 'new' }, 1.5);
    cursor.continue();
  });
  assert.deepEqual(
    seen.map(({ key }) => key),
    [0, 1, 1.5, 2, 3, 4],
  );
});
ahead('a record that was deleted ahead of it is not', async (scene) => {
  const store = await records(
    scene,
    undefined,
    Array.from({ length: 5 }, (_, a) => ({ a })),
  );
  const seen = await walk(store.openCursor(null, 'prev'), (cursor) => {
    if (cursor.key === 3) store.delete(IDBKeyRange.bound(1, 2));
    cursor.continue();
  });
  assert.deepEqual(
    seen.map(({ key }) => key),
    [4, 3, 0],
  );
});
ahead('a value that was changed ahead of it is the new one', async (scene) => {
  const store = await records(
    scene,
    undefined,
    Array.from({ length: 4 }, (_, a) => ({ a })),
  );
  const seen = await walk(store.index('index').openCursor(), (cursor) => {
    if (cursor.primaryKey === 0) store.put({ a: 2.5, changed: true }, 3);
    cursor.continue();
  });
  assert.deepEqual(seen.at(-1), { key: 2.5, primaryKey: 3, value: { a: 2.5, changed: true } });
});
ahead('the record under it was deleted: it goes on to the next, and update puts it again', async (scene) => {
  const store = await records(scene, undefined, [{ a: 0 }, { a: 1 }]);
  const cursor = await success(store.openCursor());
  await success(store.delete(0));
  assert.equal(await success(cursor.update({ a: 'again' })), 0);
  assert.deepEqual(await success(store.get(0)), { a: 'again' });
  cursor.continue();
  assert.equal((await success(cursor.request)).key, 1);
  await completed(store.transaction);
});
ahead('the store of a cursor was deleted', (scene) =>
  scene.open((db) => {
    const store = db.createObjectStore('store');
    store.add(1, 1);
    store.openCursor().onsuccess = ({ target: { result: cursor } }) => {
      if (cursor === null) return;
      db.deleteObjectStore('store');
      throws(() => cursor.continue(), 'InvalidStateError');
      throws(() => cursor.update(1), 'InvalidStateError');
      throws(() => cursor.delete(), 'InvalidStateError');
    };
  }),
);
