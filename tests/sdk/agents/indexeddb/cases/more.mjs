// What else the standard's own tests look at.
import assert from 'node:assert/strict';
import { completed, ended, event, failure, nextTask, subject, success, throws, uncaught, walk } from '../harness.mjs';

const withStore = (scene, ...args) => scene.open((db) => db.createObjectStore('store', ...args));

const detached = subject('idb-binary-key-detached.any.js');
detached('a detached view is no key', async (scene) => {
  const db = await withStore(scene);
  const view = new Uint8Array([1, 2, 3]);
  structuredClone(view.buffer, { transfer: [view.buffer] });
  const store = db.transaction('store', 'readwrite').objectStore('store');
  throws(() => store.put('value', view), 'DataError');
});

const scopes = subject('name-scopes.any.js');
scopes('names of stores and indexes are their own in each database and store', async (scene) => {
  const make = (db) => ['a', 'b'].forEach((name) => db.createObjectStore(name).createIndex('index', name));
  const [one, two] = [await scene.open(make), await scene.open(make)];
  for (const db of [one, two]) {
    const transaction = db.transaction(['a', 'b'], 'readwrite');
    for (const name of ['a', 'b']) {
      transaction.objectStore(name).put({ [name]: db.name }, 1);
      assert.equal((await success(transaction.objectStore(name).index('index').get(db.name)))[name], db.name);
    }
  }
});

const ordering = subject('request-event-ordering-large-mixed-with-small-values.any.js');
ordering('large and small values are answered in the order of the requests', async (scene) => {
  const db = await withStore(scene);
  const transaction = db.transaction('store', 'readwrite');
  const store = transaction.objectStore('store');
  for (let key = 0; key < 10; key++) store.put(key % 2 ? 'small' : 'x'.repeat(400_000), key);
  const seen = [];
  for (let key = 0; key < 10; key++) store.get(key).onsuccess = ({ target }) => seen.push([key, target.result.length]);
  await completed(transaction);
  assert.deepEqual(
    seen,
    Array.from({ length: 10 }, (_, key) => [key, key % 2 ? 5 : 400_000]),
  );
});
const abortOrdering = subject('request-abort-ordering.any.js');
abortOrdering('requests of an aborted transaction fail in their order, then abort is fired', async (scene) => {
  const db = await withStore(scene);
  const transaction = db.transaction('store', 'readwrite');
  const seen = [];
  for (let key = 0; key < 5; key++) transaction.objectStore('store').put(key, key).onerror = () => seen.push(key);
  const end = ended(transaction);
  transaction.abort();
  seen.push('called');
  await end;
  assert.deepEqual(seen, ['called', 0, 1, 2, 3, 4]);
});

const commitThrow = subject('idb-explicit-commit-throw.any.js');
commitThrow('an error that a listener throws after commit() does not abort', async (scene) => {
  const db = await withStore(scene);
  const transaction = db.transaction('store', 'readwrite');
  const errors = await uncaught(async () => {
    transaction.objectStore('store').put(1, 1).onsuccess = () => {
      transaction.commit();
      throw new Error('after commit');
    };
    assert.equal(await ended(transaction), 'complete');
  });
  assert.equal(errors.length, 1);
});

const readWaits = subject('transaction-scheduling-ro-waits-for-rw.any.js');
readWaits('a reader does not begin while a writer lives', async (scene) => {
  const db = await withStore(scene);
  const seen = [];
  const writer = db.transaction('store', 'readwrite');
  let rounds = 0;
  const keepAlive = () => {
    writer.objectStore('store').put(rounds, 'key').onsuccess = () => {
      if (++rounds < 20) keepAlive();
    };
  };
  keepAlive();
  writer.oncomplete = () => seen.push('writer');
  const reader = db.transaction('store');
  reader.objectStore('store').get('key').onsuccess = ({ target }) => seen.push(target.result);
  await completed(reader);
  assert.deepEqual(seen, ['writer', 19]);
});
const starvation = subject('writer-starvation.any.js');
starvation('a writer has its turn though readers keep coming', async (scene) => {
  const db = await withStore(scene);
  let written = false;
  const read = async () => {
    while (!written) await success(db.transaction('store').objectStore('store').get(1));
  };
  const readers = [read(), read(), read()];
  await success(db.transaction('store').objectStore('store').get(1));
  const writer = db.transaction('store', 'readwrite');
  writer.objectStore('store').put(1, 1);
  await completed(writer);
  written = true;
  await Promise.all(readers);
});

const reused = subject('idbcursor-reused.any.js');
reused('a cursor is one object all the way', async (scene) => {
  const db = await withStore(scene);
  const store = db.transaction('store', 'readwrite').objectStore('store');
  for (const key of [1, 2, 3]) store.add(key, key);
  const cursors = new Set();
  await walk(store.openCursor(), (cursor) => {
    cursors.add(cursor);
    cursor.continue();
  });
  assert.equal(cursors.size, 1);
});
const interleaved = subject('interleaved-cursors-large.any.js');
interleaved('twenty cursors over large values', async (scene) => {
  const db = await withStore(scene);
  const writing = db.transaction('store', 'readwrite');
  for (let key = 0; key < 20; key++) writing.objectStore('store').put(new Uint8Array(60_000).fill(key), key);
  await completed(writing);
  const store = db.transaction('store').objectStore('store');
  const walks = Array.from({ length: 20 }, (_, from) => walk(store.openCursor(IDBKeyRange.lowerBound(from))));
  const lengths = (await Promise.all(walks)).map((seen) => seen.length);
  assert.deepEqual(
    lengths,
    Array.from({ length: 20 }, (_, from) => 20 - from),
  );
});

const query = subject('idbindex-query-exception-order.any.js');
query('deleted, then inactive, then the key', async (scene) => {
  const db = await scene.open((db) => {
    const store = db.createObjectStore('store');
    const index = store.createIndex('deleted', 'a');
    store.createIndex('index', 'a');
    store.deleteIndex('deleted');
    for (const method of ['get', 'getKey', 'getAll', 'getAllKeys', 'count', 'openCursor', 'openKeyCursor'])
      throws(() => index[method](NaN), 'InvalidStateError');
  });
  const index = db.transaction('store').objectStore('store').index('index');
  await completed(index.objectStore.transaction);
  for (const method of ['get', 'getKey', 'getAll', 'getAllKeys', 'count', 'openCursor', 'openKeyCursor'])
    throws(() => index[method](NaN), 'TransactionInactiveError');
});

const order = subject('index_sort_order.any.js');
order('keys of every kind in an index', async (scene) => {
  const keys = [-1, 0, 2, new Date(1), 'a', 'b', new Uint8Array([7]), [], ['a']];
  const db = await scene.open((db) => db.createObjectStore('store').createIndex('index', 'a'));
  const store = db.transaction('store', 'readwrite').objectStore('store');
  keys.forEach((a, place) => store.add({ a }, keys.length - place));
  assert.deepEqual(
    await success(store.index('index').getAllKeys()),
    keys.map((_, place) => keys.length - place),
  );
});

const maxSize = subject('keypath_maxsize.any.js');
maxSize('a key path of 1,500 names', async (scene) => {
  const path = Array.from({ length: 1500 }, () => 'a').join('.');
  const db = await withStore(scene, { keyPath: path });
  let value = 'key';
  for (let depth = 0; depth < 1500; depth++) value = { a: value };
  assert.equal(await success(db.transaction('store', 'readwrite').objectStore('store').put(value)), 'key');
});

const sizes = subject('kAI sizes');
sizes('a key of more than 4 KiB is an UnknownError of its request', async (scene) => {
  const db = await withStore(scene);
  const transaction = db.transaction('store', 'readwrite');
  assert.equal((await failure(transaction.objectStore('store').put(1, 'k'.repeat(5000)))).name, 'UnknownError');
  assert.equal(await success(transaction.objectStore('store').put(1, 'k'.repeat(4000))), 'k'.repeat(4000));
  await completed(transaction);
});

const backend = subject('upgrade-transaction-lifecycle-backend-aborted.any.js');
backend('a request that fails in a later task of upgradeneeded aborts it', async (scene) => {
  const request = indexedDB.open(scene.name());
  request.onupgradeneeded = () => {
    const store = request.result.createObjectStore('store');
    store.add(1, 1).onsuccess = () => store.add(2, 1);
  };
  assert.equal((await failure(request)).name, 'AbortError');
});
const deactivation = subject('upgrade-transaction-deactivation-timing.any.js');
deactivation('a version change is inactive after upgradeneeded', async (scene) => {
  const request = indexedDB.open(scene.name());
  const opened = success(request); // it may come while the next task is waited for
  const { target } = await event(request, 'upgradeneeded');
  const { result: db, transaction } = target;
  const store = db.createObjectStore('store'); // a microtask of the event: still active
  store.put(1, 1);
  const end = ended(transaction);
  await nextTask();
  throws(() => store.put(2, 2), 'TransactionInactiveError');
  assert.equal(await end, 'complete');
  scene.keep(await opened);
});
