// Version changes: what they do, and what is given back when they are aborted.
import assert from 'node:assert/strict';
import { ended, event, failure, subject, success, throws } from '../harness.mjs';

const life = subject('upgrade-transaction-lifecycle-user-aborted.any.js');
life('after abort(): nothing goes on', async (scene) => {
  const request = indexedDB.open(scene.name());
  request.onupgradeneeded = () => {
    const { result: db, transaction } = request;
    const store = db.createObjectStore('store');
    transaction.abort();
    throws(() => store.add(1, 1), 'InvalidStateError');
    throws(() => db.createObjectStore('other'), 'TransactionInactiveError');
    throws(() => transaction.objectStore('store'), 'InvalidStateError');
    throws(() => transaction.abort(), 'InvalidStateError');
  };
  assert.equal((await failure(request)).name, 'AbortError');
});
life('the abort event comes before the error of the request', async (scene) => {
  const order = [];
  const request = indexedDB.open(scene.name());
  request.onupgradeneeded = () => {
    const { result: db, transaction } = request;
    db.createObjectStore('store');
    transaction.onabort = ({ target }) => {
      order.push('abort');
      assert.equal(target, transaction);
      throws(() => db.createObjectStore('other'), 'InvalidStateError');
      throws(() => transaction.objectStore('store'), 'InvalidStateError');
    };
    transaction.abort();
  };
  request.onerror = () => order.push('error');
  await failure(request);
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(order, ['abort', 'error']);
});

const committed = subject('upgrade-transaction-lifecycle-committed.any.js');
committed('complete comes before success; then createObjectStore is refused', async (scene) => {
  const order = [];
  const request = indexedDB.open(scene.name());
  request.onupgradeneeded = () => {
    const { result: db, transaction } = request;
    assert.equal(transaction.mode, 'versionchange');
    assert.equal(request.readyState, 'done');
    db.createObjectStore('store');
    transaction.oncomplete = () => {
      order.push('complete');
      throws(() => db.createObjectStore('other'), 'InvalidStateError');
    };
  };
  request.onsuccess = () => order.push('success');
  scene.keep(await success(request));
  assert.deepEqual(order, ['complete', 'success']);
  assert.equal(request.transaction, null);
});

async function aborted(scene, name, version, change) {
  const request = indexedDB.open(name, version);
  let after;
  request.onupgradeneeded = () => {
    after = change(request.result, request.transaction);
    request.transaction.abort();
    after?.();
  };
  assert.equal((await failure(request)).name, 'AbortError');
  after?.();
}

const restored = subject('transaction-abort-object-store-metadata-revert.any.js');
restored('stores that were made or deleted', async (scene) => {
  const name = scene.name();
  (await scene.open((db) => db.createObjectStore('kept').add('value', 1), { name })).close();
  let connection;
  await aborted(scene, name, 2, (db) => {
    connection = db;
    const made = db.createObjectStore('made');
    db.deleteObjectStore('kept');
    assert.deepEqual([...db.objectStoreNames], ['made']);
    return () => {
      assert.deepEqual([...db.objectStoreNames], ['kept']);
      assert.deepEqual([...made.indexNames], []);
    };
  });
  assert.equal(connection.version, 1);
  const db = await scene.open(undefined, { name });
  assert.equal(await success(db.transaction('kept').objectStore('kept').get(1)), 'value');
});

const metadata = subject('transaction-abort-index-metadata-revert.any.js');
metadata('indexes that were made or deleted', async (scene) => {
  const name = scene.name();
  const first = (db) => db.createObjectStore('store').createIndex('kept', 'a');
  (await scene.open(first, { name })).close();
  await aborted(scene, name, 2, (_, transaction) => {
    const store = transaction.objectStore('store');
    const kept = store.index('kept');
    const made = store.createIndex('made', 'b');
    store.deleteIndex('kept');
    assert.deepEqual([...store.indexNames], ['made']);
    throws(() => kept.get(1), 'InvalidStateError');
    return () => {
      assert.deepEqual([...store.indexNames], ['kept']);
      throws(() => made.get(1), 'InvalidStateError');
    };
  });
});

const generator = subject('transaction-abort-generator-revert.any.js');
generator('the key generator goes back', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store', { autoIncrement: true }));
  for (const [end, expected] of [
    ['abort', 1],
    ['commit', 1],
    ['commit', 2],
    ['abort', 3],
    ['commit', 3],
  ]) {
    const transaction = db.transaction('store', 'readwrite');
    assert.equal(await success(transaction.objectStore('store').add('value')), expected);
    const over = ended(transaction);
    if (end === 'abort') transaction.abort();
    assert.equal(await over, end === 'abort' ? 'abort' : 'complete');
  }
});

const rename = subject('idbobjectstore-rename-store.any.js');
rename('a store under another name has its records, indexes and generator', async (scene) => {
  const name = scene.name();
  const first = (db) => {
    const store = db.createObjectStore('books', { autoIncrement: true, keyPath: 'id' });
    store.createIndex('by title', 'title');
    store.add({ title: 'one' });
  };
  (await scene.open(first, { name })).close();
  const second = (db, transaction) => {
    const store = transaction.objectStore('books');
    store.name = 'renamed';
    assert.equal(store.name, 'renamed');
    assert.deepEqual([...db.objectStoreNames], ['renamed']);
    assert.equal(transaction.objectStore('renamed'), store);
    throws(() => transaction.objectStore('books'), 'NotFoundError');
    db.createObjectStore('books');
    throws(() => (store.name = 'books'), 'ConstraintError');
    store.name = 'renamed';
  };
  const db = await scene.open(second, { name, version: 2 });
  const store = db.transaction('renamed', 'readwrite').objectStore('renamed');
  assert.deepEqual(await success(store.index('by title').get('one')), { id: 1, title: 'one' });
  assert.equal(await success(store.add({ title: 'two' })), 2);
});
rename('two stores change their names', async (scene) => {
  const name = scene.name();
  (
    await scene.open((db) => ['a', 'b'].forEach((store) => db.createObjectStore(store).add(store, 1)), { name })
  ).close();
  const db = await scene.open(
    (_, transaction) => {
      const [a, b] = ['a', 'b'].map((store) => transaction.objectStore(store));
      a.name = 'c';
      b.name = 'a';
      a.name = 'b';
    },
    { name, version: 2 },
  );
  const transaction = db.transaction(['a', 'b']);
  assert.equal(await success(transaction.objectStore('a').get(1)), 'b');
  assert.equal(await success(transaction.objectStore('b').get(1)), 'a');
});
rename('not outside of a version change', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store').createIndex('index', 'a'));
  const store = db.transaction('store', 'readwrite').objectStore('store');
  throws(() => (store.name = 'other'), 'InvalidStateError');
  throws(() => (store.index('index').name = 'other'), 'InvalidStateError');
});

const renameAbort = subject('idbobjectstore-rename-abort.any.js');
renameAbort('the old names come back', async (scene) => {
  const name = scene.name();
  (await scene.open((db) => db.createObjectStore('store').createIndex('index', 'a'), { name })).close();
  await aborted(scene, name, 2, (db, transaction) => {
    const store = transaction.objectStore('store');
    const index = store.index('index');
    store.name = 'renamed';
    store.name = 'again';
    index.name = 'other';
    return () => {
      assert.deepEqual([store.name, index.name], ['store', 'index']);
      assert.deepEqual([[...db.objectStoreNames], [...store.indexNames]], [['store'], ['index']]);
    };
  });
});

const renameIndex = subject('idbindex-rename.any.js');
renameIndex('an index under another name has its entries', async (scene) => {
  const name = scene.name();
  const first = (db) => {
    const store = db.createObjectStore('store', { keyPath: 'id' });
    store.createIndex('index', 'a');
    store.createIndex('taken', 'a');
    store.add({ id: 1, a: 'x' });
  };
  (await scene.open(first, { name })).close();
  const second = (_, transaction) => {
    const store = transaction.objectStore('store');
    const index = store.index('index');
    throws(() => (index.name = 'taken'), 'ConstraintError');
    index.name = 'renamed';
    assert.equal(store.index('renamed'), index);
    throws(() => store.index('index'), 'NotFoundError');
  };
  const db = await scene.open(second, { name, version: 2 });
  const store = db.transaction('store').objectStore('store');
  assert.deepEqual([...store.indexNames], ['renamed', 'taken']);
  assert.deepEqual(await success(store.index('renamed').get('x')), { id: 1, a: 'x' });
});

const blocked = subject('idbversionchangeevent.any.js');
blocked('a version change waits for the other connection, and its event has both versions', async (scene) => {
  const name = scene.name();
  const db = await scene.open(undefined, { name, version: 3 });
  const asked = event(db, 'versionchange');
  const request = indexedDB.open(name, 4);
  const isBlocked = event(request, 'blocked');
  const { oldVersion, newVersion } = await asked;
  assert.deepEqual([oldVersion, newVersion], [3, 4]);
  await isBlocked;
  assert.equal(request.readyState, 'pending');
  db.close();
  assert.equal(scene.keep(await success(request)).version, 4);
});

const constructorOf = subject('idbversionchangeevent.any.js');
constructorOf('can be made', () => {
  const plain = new IDBVersionChangeEvent('x');
  assert.deepEqual([plain.type, plain.oldVersion, plain.newVersion, plain.bubbles], ['x', 0, null, false]);
  const made = new IDBVersionChangeEvent('x', { oldVersion: 1, newVersion: 2, bubbles: true });
  assert.deepEqual([made.oldVersion, made.newVersion, made.bubbles], [1, 2, true]);
  assert.ok(made instanceof Event);
});

const within = subject('transaction-create_in_versionchange.any.js');
within('requests of upgradeneeded are carried out in order', async (scene) => {
  const order = [];
  await scene.open((db, transaction) => {
    const store = db.createObjectStore('store');
    for (const number of [1, 2, 3]) store.add(number, number).onsuccess = () => order.push(number);
    store.count().onsuccess = ({ target }) => order.push(`count ${target.result}`);
    transaction.oncomplete = () => order.push('complete');
  });
  assert.deepEqual(order, [1, 2, 3, 'count 3', 'complete']);
});
within('a request that fails aborts the version change', async (scene) => {
  const request = indexedDB.open(scene.name());
  const seen = [];
  request.onupgradeneeded = () => {
    const store = request.result.createObjectStore('store');
    store.add(1, 1);
    store.add(2, 1).onerror = () => seen.push('error');
    request.transaction.onabort = () => seen.push(request.transaction.error.name);
  };
  assert.equal((await failure(request)).name, 'AbortError');
  assert.deepEqual(seen.slice(0, 2), ['error', 'ConstraintError']);
});
