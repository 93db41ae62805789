// commit().
import assert from 'node:assert/strict';
import { completed, ended, nextTask, subject, success, throws } from '../harness.mjs';

const store = (scene) => scene.open((db) => db.createObjectStore('store'));

const explicit = subject('idb-explicit-commit.any.js');
explicit('writes what was asked for before', async (scene) => {
  const db = await store(scene);
  const transaction = db.transaction('store', 'readwrite');
  for (let key = 0; key < 10; key++) transaction.objectStore('store').put(key, key);
  transaction.commit();
  await completed(transaction);
  assert.equal(await success(db.transaction('store').objectStore('store').count()), 10);
});
explicit('nothing can be asked, committed or aborted afterwards', async (scene) => {
  const db = await store(scene);
  const transaction = db.transaction('store', 'readwrite');
  const handle = transaction.objectStore('store');
  const request = handle.put(1, 1);
  transaction.commit();
  throws(() => handle.put(2, 2), 'TransactionInactiveError');
  throws(() => transaction.commit(), 'InvalidStateError');
  throws(() => transaction.abort(), 'InvalidStateError');
  assert.equal(transaction.objectStore('store'), handle);
  let seen;
  request.onsuccess = () => {
    seen = request.result;
    throws(() => handle.put(2, 2), 'TransactionInactiveError');
  };
  await completed(transaction);
  assert.equal(seen, 1);
  throws(() => transaction.commit(), 'InvalidStateError');
});
explicit('not while the transaction is inactive', async (scene) => {
  const db = await store(scene);
  const transaction = db.transaction('store', 'readwrite');
  transaction.objectStore('store').put(1, 1);
  const end = ended(transaction);
  await nextTask();
  throws(() => transaction.commit(), 'InvalidStateError');
  assert.equal(await end, 'complete');
});
explicit('without requests', async (scene) => {
  const db = await store(scene);
  const transaction = db.transaction('store', 'readwrite');
  transaction.commit();
  await completed(transaction);
});
explicit('within upgradeneeded', async (scene) => {
  const db = await scene.open((db, transaction) => {
    db.createObjectStore('store').put(1, 1);
    transaction.commit();
    throws(() => db.createObjectStore('other'), 'TransactionInactiveError');
  });
  assert.deepEqual([...db.objectStoreNames], ['store']);
  assert.equal(await success(db.transaction('store').objectStore('store').get(1)), 1);
});
explicit('a request that fails aborts it', async (scene) => {
  const db = await store(scene);
  const transaction = db.transaction('store', 'readwrite');
  transaction.objectStore('store').add(1, 1);
  transaction.objectStore('store').add(2, 1);
  transaction.commit();
  assert.equal(await ended(transaction), 'abort');
  assert.equal(transaction.error.name, 'ConstraintError');
  assert.equal(await success(db.transaction('store').objectStore('store').count()), 0);
});
explicit('in a listener of success', async (scene) => {
  const db = await store(scene);
  const transaction = db.transaction('store', 'readwrite');
  await success(transaction.objectStore('store').put(1, 1));
  transaction.objectStore('store').put(2, 2);
  transaction.commit();
  await completed(transaction);
  assert.equal(await success(db.transaction('store').objectStore('store').count()), 2);
});

const durability = subject('transaction-relaxed-durability.any.js');
durability('what was complete is there in a new connection', async (scene) => {
  const name = scene.name();
  const db = await scene.open((db) => db.createObjectStore('store'), { name });
  for (const kind of ['default', 'strict', 'relaxed']) {
    const transaction = db.transaction('store', 'readwrite', { durability: kind });
    transaction.objectStore('store').put(kind, kind);
    await completed(transaction);
  }
  db.close();
  const again = await scene.open(undefined, { name });
  assert.deepEqual(await success(again.transaction('store').objectStore('store').getAllKeys()), [
    'default',
    'relaxed',
    'strict',
  ]);
});
