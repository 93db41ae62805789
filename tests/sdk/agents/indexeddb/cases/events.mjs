// Events: their path, and what listeners that throw or cancel do.
import assert from 'node:assert/strict';
import { completed, ended, isActive, subject, success, throws, uncaught } from '../harness.mjs';

const store = (scene) => scene.open((db) => db.createObjectStore('store'));

const bubbling = subject('transaction_bubble-and-capture.any.js');
bubbling('an error goes down by the capturing listeners and up by the others', async (scene) => {
  const db = await store(scene);
  const transaction = db.transaction('store', 'readwrite');
  transaction.objectStore('store').add(1, 1);
  const request = transaction.objectStore('store').add(1, 1);
  const order = [];
  for (const [name, target] of Object.entries({ db, transaction, request })) {
    for (const capture of [false, true]) {
      target.addEventListener(
        'error',
        (event) => {
          order.push(`${name} ${capture ? 'capture' : 'bubble'} ${event.eventPhase}`);
          assert.equal(event.target, request);
          assert.equal(event.currentTarget, target);
          assert.deepEqual(event.composedPath(), [request, transaction, db]);
          event.preventDefault();
        },
        capture,
      );
    }
  }
  await completed(transaction);
  assert.deepEqual(order, [
    'db capture 1',
    'transaction capture 1',
    'request capture 2',
    'request bubble 2',
    'transaction bubble 3',
    'db bubble 3',
  ]);
});
bubbling('success does not bubble', async (scene) => {
  const db = await store(scene);
  const transaction = db.transaction('store', 'readwrite');
  const order = [];
  transaction.addEventListener('success', () => order.push('bubble'));
  transaction.addEventListener('success', () => order.push('capture'), true);
  const request = transaction.objectStore('store').add(1, 1);
  request.onsuccess = ({ bubbles, cancelable, type }) => order.push([bubbles, cancelable, type]);
  await completed(transaction);
  assert.deepEqual(order, ['capture', [false, false, 'success']]);
});
bubbling('abort goes on to the connection, complete does not', async (scene) => {
  const db = await store(scene);
  const seen = [];
  db.onabort = ({ target }) => seen.push(target);
  db.addEventListener('complete', () => seen.push('complete'));
  const aborted = db.transaction('store');
  aborted.abort();
  await ended(aborted);
  await completed(db.transaction('store'));
  assert.deepEqual(seen, [aborted]);
});
bubbling('stopPropagation and stopImmediatePropagation', async (scene) => {
  const db = await store(scene);
  const transaction = db.transaction('store', 'readwrite');
  const seen = [];
  const fail = () => {
    transaction.objectStore('store').add(1, 1);
    return transaction.objectStore('store').add(1, 1);
  };
  transaction.onerror = () => seen.push('transaction');
  const one = fail();
  one.addEventListener('error', (event) => {
    event.preventDefault();
    event.stopImmediatePropagation();
    seen.push('first');
  });
  one.addEventListener('error', () => seen.push('second'));
  transaction.objectStore('store').clear();
  await completed(transaction);
  assert.deepEqual(seen, ['first']);
});

const error = subject('request_bubble-and-capture.any.js');
error('preventDefault keeps the transaction; the error has a name', async (scene) => {
  const db = await store(scene);
  const transaction = db.transaction('store', 'readwrite');
  transaction.objectStore('store').add('old', 1);
  const request = transaction.objectStore('store').add('new', 1);
  let seen;
  db.onerror = (event) => {
    seen = [event.target, event.target.error.name, event.bubbles, event.cancelable];
    event.preventDefault();
  };
  await completed(transaction);
  assert.deepEqual(seen, [request, 'ConstraintError', true, true]);
  assert.equal(request.result, undefined);
  assert.equal(transaction.error, null);
  assert.equal(await success(db.transaction('store').objectStore('store').get(1)), 'old');
});

const throwing = subject('fire-success-event-exception.any.js');
throwing('a listener of success throws: the transaction aborts', async (scene) => {
  const db = await store(scene);
  const transaction = db.transaction('store', 'readwrite');
  const errors = await uncaught(async () => {
    transaction.objectStore('store').add(1, 1).onsuccess = () => {
      throw new Error('from success');
    };
    assert.equal(await ended(transaction), 'abort');
  });
  assert.equal(transaction.error.name, 'AbortError');
  assert.deepEqual(
    errors.map(({ message }) => message),
    ['from success'],
  );
  assert.equal(await success(db.transaction('store').objectStore('store').count()), 0);
});
const throwingError = subject('fire-error-event-exception.any.js');
throwingError('a listener of error throws: it aborts, preventDefault or not', async (scene) => {
  const db = await store(scene);
  const transaction = db.transaction('store', 'readwrite');
  const errors = await uncaught(async () => {
    transaction.objectStore('store').add(1, 1);
    transaction.objectStore('store').add(1, 1).onerror = (event) => {
      event.preventDefault();
      throw new Error('from error');
    };
    assert.equal(await ended(transaction), 'abort');
  });
  assert.equal(transaction.error.name, 'AbortError');
  assert.equal(errors.length, 1);
});

const active = subject('event-dispatch-active-flag.any.js');
active('active in the listeners and their microtasks, not in later tasks', async (scene) => {
  const db = await store(scene);
  const transaction = db.transaction('store');
  assert.equal(isActive(transaction), true);
  await success(transaction.objectStore('store').get(1));
  assert.equal(isActive(transaction), true);
  await Promise.resolve()
    .then(() => {})
    .then(() => {});
  assert.equal(isActive(transaction), true);
  await new Promise((resolve) => setTimeout(resolve));
  assert.equal(isActive(transaction), false);
});
active('an event of the agent makes nothing active', async (scene) => {
  const db = await store(scene);
  const transaction = db.transaction('store');
  const request = transaction.objectStore('store').get(1);
  await new Promise((resolve) => setTimeout(resolve));
  const seen = [];
  request.addEventListener('mine', (event) => seen.push(event.target === request, isActive(transaction)));
  assert.equal(request.dispatchEvent(new Event('mine', { bubbles: true })), true);
  assert.deepEqual(seen, [true, false]);
});

const handlers = subject('idbrequest-onupgradeneeded.any.js');
handlers('the attribute is one listener, in the place where it was first set', async (scene) => {
  const db = await store(scene);
  const seen = [];
  const listener = (name) => () => seen.push(name);
  const request = db.transaction('store').objectStore('store').get(1);
  assert.equal(request.onsuccess, null);
  request.addEventListener('success', listener('a'));
  request.onsuccess = listener('replaced');
  request.addEventListener('success', listener('c'));
  const handler = listener('b');
  request.onsuccess = handler;
  assert.equal(request.onsuccess, handler);
  request.addEventListener('success', { handleEvent: listener('d') });
  request.addEventListener('success', listener('e'), { once: true });
  const removed = listener('removed');
  request.addEventListener('success', removed);
  request.removeEventListener('success', removed);
  request.onerror = 'no function';
  assert.equal(request.onerror, null);
  await success(request);
  assert.deepEqual(seen, ['a', 'b', 'c', 'd', 'e']);
  throws(() => request.dispatchEvent({ type: 'x' }), 'TypeError');
});
