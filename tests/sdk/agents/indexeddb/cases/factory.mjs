// indexedDB itself: open, deleteDatabase, databases.
import assert from 'node:assert/strict';
import { event, failure, subject, success, throws } from '../harness.mjs';

const open = subject('idbfactory_open.any.js');
open('a new database has version 1', async (scene) => {
  const db = await scene.open();
  assert.equal(db.version, 1);
  assert.deepEqual([...db.objectStoreNames], []);
  assert.ok(db instanceof IDBDatabase && db instanceof EventTarget);
});
open('without a version: the version that there is', async (scene) => {
  const name = scene.name();
  (await scene.open(undefined, { name, version: 13 })).close();
  const request = indexedDB.open(name);
  request.onupgradeneeded = () => assert.fail('no upgrade is needed');
  assert.equal(scene.keep(await success(request)).version, 13);
});
open('upgradeneeded has both versions', async (scene) => {
  const name = scene.name();
  const seen = [];
  const note = (db, transaction, { oldVersion, newVersion }) => seen.push([oldVersion, newVersion, db.version]);
  (await scene.open(note, { name, version: 2 })).close();
  await scene.open(note, { name, version: 9 });
  assert.deepEqual(seen, [
    [0, 2, 2],
    [2, 9, 9],
  ]);
});
open('a lower version is a VersionError', async (scene) => {
  const name = scene.name();
  (await scene.open(undefined, { name, version: 2 })).close();
  const request = indexedDB.open(name, 1);
  const error = await failure(request);
  assert.equal(error.name, 'VersionError');
  throws(() => request.error.name && request.transaction.x, 'TypeError');
  assert.equal(request.result, undefined);
});
open('refuses versions that are none', () => {
  for (const version of [0, -1, 0.5, 2 ** 53, NaN, Infinity, 'foo', null, {}, [], false]) {
    throws(() => indexedDB.open('never made', version), 'TypeError');
  }
  throws(() => indexedDB.open(), 'TypeError');
});
open('takes what converts to a version', async (scene) => {
  for (const [given, version] of [
    [1.5, 1],
    ['2', 2],
    [true, 1],
    [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  ]) {
    const db = await scene.open(undefined, { name: scene.name(), version: given });
    assert.equal(db.version, version);
  }
});
open('requests are answered in the order in which they were made', async (scene) => {
  const name = scene.name();
  const order = [];
  const requests = [1, 2, 3].map((number) => {
    const request = indexedDB.open(name);
    request.onsuccess = () => order.push(number);
    return request;
  });
  for (const request of requests) scene.keep(await success(request));
  assert.deepEqual(order, [1, 2, 3]);
});
open('an upgrade that is aborted leaves no database', async (scene) => {
  const name = scene.name();
  const request = indexedDB.open(name, 3);
  request.onupgradeneeded = () => {
    request.result.createObjectStore('store');
    request.transaction.abort();
  };
  assert.equal((await failure(request)).name, 'AbortError');
  assert.equal(request.result, undefined);
  assert.equal(request.transaction, null);
  const db = await scene.open((_, __, { oldVersion }) => assert.equal(oldVersion, 0), { name });
  assert.equal(db.version, 1);
});
open('error in upgradeneeded: the listener throws, the upgrade is aborted', async (scene) => {
  const { uncaught } = await import('../harness.mjs');
  const errors = await uncaught(async () => {
    const request = indexedDB.open(scene.name());
    request.onupgradeneeded = () => {
      throw new Error('from upgradeneeded');
    };
    assert.equal((await failure(request)).name, 'AbortError');
  });
  assert.deepEqual(
    errors.map(({ message }) => message),
    ['from upgradeneeded'],
  );
});
open('a connection that was closed in upgradeneeded is an AbortError', async (scene) => {
  const request = indexedDB.open(scene.name());
  request.onupgradeneeded = () => request.result.close();
  assert.equal((await failure(request)).name, 'AbortError');
});

const requestShape = subject('idbrequest_result.any.js');
requestShape('a pending request has neither result nor error', async (scene) => {
  const request = indexedDB.open(scene.name());
  assert.equal(request.readyState, 'pending');
  throws(() => request.result, 'InvalidStateError');
  throws(() => request.error, 'InvalidStateError');
  assert.equal(request.source, null);
  assert.equal(request.transaction, null);
  scene.keep(await success(request));
  assert.equal(request.readyState, 'done');
  assert.equal(request.error, null);
});
const idl = subject('idlharness.any.js');
idl('interfaces have no constructors for callers', () => {
  for (const Interface of [
    IDBRequest,
    IDBOpenDBRequest,
    IDBFactory,
    IDBDatabase,
    IDBTransaction,
    IDBObjectStore,
    IDBIndex,
    IDBCursor,
    IDBCursorWithValue,
  ]) {
    throws(() => new Interface(), 'TypeError');
    assert.equal(Object.prototype.toString.call(Interface.prototype), `[object ${Interface.name}]`);
  }
  assert.ok(indexedDB instanceof IDBFactory);
});

const names = subject('idbfactory_open.any.js');
names('names are strings of any characters', async (scene) => {
  for (const name of [
    '',
    ' ',
    'null',
    'a\0b',
    '\ud83d\ude00',
    '\ud800',
    'x\udc00y',
    '\uffff',
    '\uffffd800',
    'Ä'.repeat(100),
  ]) {
    const request = indexedDB.open(name);
    const db = await success(request);
    assert.equal(db.name, name);
    db.close();
    assert.ok(
      (await indexedDB.databases()).some((known) => known.name === name),
      JSON.stringify(name),
    );
    await success(indexedDB.deleteDatabase(name));
  }
});

const remove = subject('idbfactory_deleteDatabase.any.js');
remove('the event is a version change to null', async (scene) => {
  const name = scene.name();
  (await scene.open(undefined, { name, version: 9 })).close();
  const request = indexedDB.deleteDatabase(name);
  const { oldVersion, newVersion, target, type, constructor } = await event(request, 'success');
  assert.deepEqual(
    [oldVersion, newVersion, target, type, constructor],
    [9, null, request, 'success', IDBVersionChangeEvent],
  );
  assert.equal(request.result, undefined);
});
remove('a database that is not there', async (scene) => {
  const { oldVersion } = await event(indexedDB.deleteDatabase(scene.name()), 'success');
  assert.equal(oldVersion, 0);
});
remove('what was in it is gone', async (scene) => {
  const name = scene.name();
  (await scene.open((db) => db.createObjectStore('store').add(1, 1), { name, version: 5 })).close();
  indexedDB.deleteDatabase(name);
  const db = await scene.open(undefined, { name });
  assert.equal(db.version, 1);
  assert.equal(db.objectStoreNames.length, 0);
});
remove('needs a name', () => throws(() => indexedDB.deleteDatabase(), 'TypeError'));

const blocked = subject('delete-request-queue.any.js');
blocked('versionchange, then blocked, then it waits until the connection is closed', async (scene) => {
  const name = scene.name();
  const db = await scene.open(undefined, { name, version: 2 });
  const order = [];
  db.onversionchange = ({ oldVersion, newVersion }) => order.push(['versionchange', oldVersion, newVersion]);
  const request = indexedDB.deleteDatabase(name);
  request.onblocked = ({ oldVersion, newVersion }) => {
    order.push(['blocked', oldVersion, newVersion]);
    setTimeout(() => db.close());
  };
  request.onsuccess = () => order.push(['success']);
  await success(request);
  assert.deepEqual(order, [['versionchange', 2, null], ['blocked', 2, null], ['success']]);
});
blocked('not blocked where versionchange closes', async (scene) => {
  const name = scene.name();
  const db = await scene.open(undefined, { name });
  db.onversionchange = () => db.close();
  const request = indexedDB.open(name, 2);
  request.onblocked = () => assert.fail('blocked');
  assert.equal(scene.keep(await success(request)).version, 2);
});
blocked('it waits for the transactions of a connection that is being closed', async (scene) => {
  const name = scene.name();
  const db = await scene.open((db) => db.createObjectStore('store'), { name });
  const transaction = db.transaction('store', 'readwrite');
  transaction.objectStore('store').put(1, 1);
  db.close();
  const order = [];
  transaction.oncomplete = () => order.push('complete');
  await success(indexedDB.deleteDatabase(name));
  order.push('deleted');
  assert.deepEqual(order, ['complete', 'deleted']);
});

const list = subject('get-databases.any.js');
list('those that there are', async (scene) => {
  const [one, two] = [scene.name(), scene.name()];
  await scene.open(undefined, { name: one, version: 7 });
  await scene.open(undefined, { name: two });
  const known = (await indexedDB.databases()).filter(({ name }) => [one, two].includes(name));
  known.sort((a, b) => (a.version < b.version ? 1 : -1));
  assert.deepEqual(known, [
    { name: one, version: 7 },
    { name: two, version: 1 },
  ]);
});
list('not one that was deleted', async (scene) => {
  const name = scene.name();
  (await scene.open(undefined, { name })).close();
  await success(indexedDB.deleteDatabase(name));
  assert.ok(!(await indexedDB.databases()).some((known) => known.name === name));
});
list('a version change shows once it is committed', async (scene) => {
  const name = scene.name();
  (await scene.open(undefined, { name, version: 2 })).close();
  let asked;
  await scene.open(() => (asked = indexedDB.databases()), { name, version: 3 });
  const during = (await asked).find((known) => known.name === name).version;
  assert.ok([2, 3].includes(during), String(during));
  assert.equal((await indexedDB.databases()).find((known) => known.name === name).version, 3);
});

const durability = subject('open-request-queue.any.js');
durability('opens and deletes of one name are carried out one after the other', async (scene) => {
  const name = scene.name();
  const order = [];
  const note = (what) => (request) => {
    request.onsuccess = () => {
      order.push(what);
      request.result?.close?.();
    };
    return success(request);
  };
  await Promise.all([
    note('open 1')(indexedDB.open(name, 1)),
    note('delete 1')(indexedDB.deleteDatabase(name)),
    note('open 2')(indexedDB.open(name, 2)),
    note('open 3')(indexedDB.open(name, 3)),
    note('delete 2')(indexedDB.deleteDatabase(name)),
    note('open 4')(indexedDB.open(name, 1)),
  ]);
  assert.deepEqual(order, ['open 1', 'delete 1', 'open 2', 'open 3', 'delete 2', 'open 4']);
});
