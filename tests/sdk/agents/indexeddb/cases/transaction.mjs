// Transactions: how long they live, and their order.
import assert from 'node:assert/strict';
import { completed, ended, failure, isActive, nextTask, subject, success, throws } from '../harness.mjs';

const stores = (scene, ...names) => scene.open((db) => names.forEach((name) => db.createObjectStore(name)));

const lifetime = subject('transaction-lifetime.any.js');
lifetime('it completes when no request is left', async (scene) => {
  const db = await stores(scene, 'store');
  const transaction = db.transaction('store', 'readwrite');
  const order = [];
  transaction.objectStore('store').put(1, 1).onsuccess = () => {
    order.push(1);
    transaction.objectStore('store').put(2, 2).onsuccess = () => order.push(2);
  };
  transaction.oncomplete = () => order.push('complete');
  await ended(transaction);
  assert.deepEqual(order, [1, 2, 'complete']);
  throws(() => transaction.abort(), 'InvalidStateError');
  throws(() => transaction.objectStore('store'), 'InvalidStateError');
});

const empty = subject('transaction-lifetime-empty.any.js');
empty('transactions without requests complete in order', async (scene) => {
  const db = await stores(scene, 'store');
  const order = [];
  const begin = (name, mode) => {
    const transaction = db.transaction('store', mode);
    transaction.oncomplete = () => order.push(name);
    return ended(transaction);
  };
  await Promise.all([begin(1, 'readonly'), begin(2, 'readwrite'), begin(3, 'readonly'), begin(4, 'readwrite')]);
  assert.deepEqual(order, [1, 2, 3, 4]);
});

const timing = subject('transaction-deactivation-timing.any.js');
timing('a new transaction is active until control returns to the event loop', async (scene) => {
  const db = await stores(scene, 'store');
  const transaction = db.transaction('store');
  assert.ok(isActive(transaction));
  await Promise.resolve();
  assert.ok(isActive(transaction));
  await nextTask();
  assert.ok(!isActive(transaction));
});
timing('one that was made in a microtask too', async (scene) => {
  const db = await stores(scene, 'store');
  const transaction = await Promise.resolve().then(() => db.transaction('store'));
  assert.ok(isActive(transaction));
  await nextTask();
  assert.ok(!isActive(transaction));
});

const order = subject('transaction-scheduling-ordering.any.js');
order('a writer waits for the readers before it, readers for the writer', async (scene) => {
  const db = await stores(scene, 'store');
  const seen = [];
  const read = (name) => {
    const request = db.transaction('store').objectStore('store').get('key');
    request.onsuccess = () => seen.push(`${name} ${request.result}`);
    return ended(request.transaction);
  };
  const write = (value) => {
    const request = db.transaction('store', 'readwrite').objectStore('store').put(value, 'key');
    request.onsuccess = () => seen.push(`wrote ${value}`);
    return ended(request.transaction);
  };
  await Promise.all([read('a'), write(1), read('b'), write(2), read('c')]);
  assert.deepEqual(seen, ['a undefined', 'wrote 1', 'b 1', 'wrote 2', 'c 2']);
});
const within = subject('transaction-scheduling-within-database.any.js');
within('readers run at once', async (scene) => {
  const db = await stores(scene, 'store');
  const [one, two] = [db.transaction('store'), db.transaction('store')];
  const running = new Set();
  // Each keeps itself alive until the other has been answered too.
  const keepAlive = (transaction) => {
    transaction.objectStore('store').get(1).onsuccess = () => {
      running.add(transaction);
      if (running.size < 2) keepAlive(transaction);
    };
  };
  keepAlive(one);
  keepAlive(two);
  assert.deepEqual(await Promise.all([ended(one), ended(two)]), ['complete', 'complete']);
});
within('a hundred transactions at once', async (scene) => {
  const db = await stores(scene, 'store');
  const all = Array.from({ length: 100 }, (_, key) => {
    const transaction = db.transaction('store', 'readwrite');
    transaction.objectStore('store').put(key, key);
    return completed(transaction);
  });
  await Promise.all(all);
  assert.equal(await success(db.transaction('store').objectStore('store').count()), 100);
});
const databases = subject('transaction-scheduling-across-databases.any.js');
databases('transactions of two databases', async (scene) => {
  const [one, two] = [await stores(scene, 'store'), await stores(scene, 'store')];
  const ends = [one, two, one, two].map((db, key) => {
    const transaction = db.transaction('store', 'readwrite');
    transaction.objectStore('store').put(key, key);
    return completed(transaction);
  });
  await Promise.all(ends);
  assert.deepEqual(await success(one.transaction('store').objectStore('store').getAllKeys()), [0, 2]);
  assert.deepEqual(await success(two.transaction('store').objectStore('store').getAllKeys()), [1, 3]);
});

const abort = subject('idbtransaction_abort.any.js');
abort('what was written is gone, requests that wait get an AbortError', async (scene) => {
  const db = await stores(scene, 'store');
  const transaction = db.transaction('store', 'readwrite');
  const store = transaction.objectStore('store');
  await success(store.put(1, 1));
  const waiting = store.put(2, 2);
  const error = failure(waiting);
  const end = ended(transaction);
  transaction.abort();
  throws(() => transaction.abort(), 'InvalidStateError');
  throws(() => store.put(3, 3), 'TransactionInactiveError');
  assert.equal((await error).name, 'AbortError');
  assert.equal(waiting.readyState, 'done');
  assert.equal(await end, 'abort');
  assert.equal(transaction.error, null);
  assert.equal(await success(db.transaction('store').objectStore('store').count()), 0);
});
abort('before it has begun', async (scene) => {
  const db = await stores(scene, 'store');
  const first = db.transaction('store', 'readwrite');
  first.objectStore('store').put(1, 1);
  const second = db.transaction('store', 'readwrite');
  second.objectStore('store').clear();
  const end = ended(second);
  second.abort();
  assert.equal(await end, 'abort');
  assert.equal(await success(db.transaction('store', 'readwrite').objectStore('store').count()), 1);
});
abort('many keys, deletes and a clear are given back', async (scene) => {
  const db = await stores(scene, 'store');
  const first = db.transaction('store', 'readwrite');
  for (let key = 0; key < 20; key++) first.objectStore('store').put(key, key);
  await completed(first);
  const second = db.transaction('store', 'readwrite');
  const store = second.objectStore('store');
  store.delete(IDBKeyRange.lowerBound(10));
  store.put('changed', 1);
  await success(store.clear());
  assert.equal(await success(store.count()), 0);
  const end = ended(second);
  second.abort();
  await end;
  assert.deepEqual(
    await success(db.transaction('store').objectStore('store').getAll()),
    Array.from({ length: 20 }, (_, key) => key),
  );
});

const handle = subject('idbtransaction.any.js');
handle('the same handle each time', async (scene) => {
  const db = await stores(scene, 'a', 'b');
  const transaction = db.transaction(['a', 'b']);
  assert.equal(transaction.objectStore('a'), transaction.objectStore('a'));
  assert.notEqual(transaction.objectStore('a'), db.transaction('a').objectStore('a'));
});

const queue = subject('transaction-requestqueue.any.js');
queue('requests of two stores are answered in the order in which they were made', async (scene) => {
  const db = await stores(scene, 'a', 'b');
  const transaction = db.transaction(['a', 'b'], 'readwrite');
  const seen = [];
  for (let number = 0; number < 50; number++) {
    const store = transaction.objectStore(number % 2 ? 'a' : 'b');
    const request = number % 5 ? store.put(number, number) : store.getAll();
    request.onsuccess = () => seen.push(number);
  }
  await completed(transaction);
  assert.deepEqual(
    seen,
    Array.from({ length: 50 }, (_, number) => number),
  );
});
