// Connections: transaction(), createObjectStore(), deleteObjectStore(), close().
import assert from 'node:assert/strict';
import { completed, ended, subject, success, throws } from '../harness.mjs';

const create = subject('idbdatabase_createObjectStore.any.js');
create('the store has what was asked for', (scene) =>
  scene.open((db, transaction) => {
    const store = db.createObjectStore('store', { keyPath: 'a.b', autoIncrement: true });
    assert.ok(store instanceof IDBObjectStore);
    assert.deepEqual([store.name, store.keyPath, store.autoIncrement], ['store', 'a.b', true]);
    assert.deepEqual([...store.indexNames], []);
    assert.equal(store.transaction, transaction);
    assert.equal(transaction.objectStore('store'), store);
    assert.deepEqual([...db.objectStoreNames], ['store']);
    assert.deepEqual([...transaction.objectStoreNames], ['store']);
  }),
);
create('names in order of code units', (scene) =>
  scene.open((db) => {
    for (const name of ['b', 'a', '\uffff', '\ud83d\ude00', '', 'B', '10', '9']) db.createObjectStore(name);
    assert.deepEqual([...db.objectStoreNames], ['', '10', '9', 'B', 'a', 'b', '\ud83d\ude00', '\uffff']);
    assert.equal(db.objectStoreNames.contains('a'), true);
    assert.equal(db.objectStoreNames.contains('c'), false);
    assert.equal(db.objectStoreNames.item(1), '10');
    assert.equal(db.objectStoreNames.item(99), null);
    assert.equal(db.objectStoreNames[2], '9');
  }),
);
create('no two of one name', (scene) =>
  scene.open((db) => {
    db.createObjectStore('store');
    throws(() => db.createObjectStore('store'), 'ConstraintError');
  }),
);
create('refuses key paths that are none', (scene) =>
  scene.open((db) => {
    for (const keyPath of [
      'a b',
      'a.',
      '.a',
      '1a',
      'a..b',
      ' ',
      [],
      [''].concat('a b'),
      ['a.'],
      { toString: () => ' ' },
    ]) {
      throws(() => db.createObjectStore('store', { keyPath }), 'SyntaxError');
    }
    assert.equal(db.objectStoreNames.length, 0);
  }),
);
create('takes key paths of identifiers in any script', (scene) =>
  scene.open((db) => {
    for (const keyPath of ['', 'a', '_a.$b', 'ä.б1', 'a\u200d', ['a', 'b.c'], ['']]) {
      const store = db.createObjectStore(JSON.stringify(keyPath), { keyPath });
      assert.deepEqual(store.keyPath, keyPath);
      if (Array.isArray(keyPath)) assert.equal(store.keyPath, store.keyPath);
    }
  }),
);
create('a key generator needs a key path that is neither empty nor an array', (scene) =>
  scene.open((db) => {
    throws(() => db.createObjectStore('a', { keyPath: '', autoIncrement: true }), 'InvalidAccessError');
    throws(() => db.createObjectStore('b', { keyPath: ['x'], autoIncrement: true }), 'InvalidAccessError');
    throws(() => db.createObjectStore('b', 'no object'), 'TypeError');
  }),
);
create('outside of a version change', async (scene) => {
  const db = await scene.open();
  throws(() => db.createObjectStore('store'), 'InvalidStateError');
  throws(() => db.deleteObjectStore('store'), 'InvalidStateError');
});
create('exceptions come in the order of the standard', (scene) =>
  scene.open((db) => {
    db.createObjectStore('store');
    throws(() => db.createObjectStore('store', { keyPath: 'a b' }), 'SyntaxError');
    throws(() => db.createObjectStore('store', { keyPath: '', autoIncrement: true }), 'ConstraintError');
  }),
);

const remove = subject('idbdatabase_deleteObjectStore.any.js');
remove('the store is gone, and its handle is of no use', (scene) =>
  scene.open((db, transaction) => {
    const store = db.createObjectStore('store');
    store.createIndex('index', 'a');
    db.deleteObjectStore('store');
    assert.deepEqual([...db.objectStoreNames], []);
    assert.deepEqual([...store.indexNames], []);
    throws(() => transaction.objectStore('store'), 'NotFoundError');
    for (const use of ['add', 'put', 'get', 'delete', 'count', 'index'])
      throws(() => store[use]('x'), 'InvalidStateError');
    throws(() => store.createIndex('other', 'a'), 'InvalidStateError');
    throws(() => store.clear(), 'InvalidStateError');
    throws(() => (store.name = 'other'), 'InvalidStateError');
  }),
);
remove('a store that is not there', (scene) =>
  scene.open((db) => throws(() => db.deleteObjectStore('store'), 'NotFoundError')),
);
remove('a new store of that name is empty', async (scene) => {
  const db = await scene.open((db) => {
    db.createObjectStore('store').add('old', 1);
    db.deleteObjectStore('store');
    db.createObjectStore('store', { autoIncrement: true }).add('new');
  });
  const store = db.transaction('store').objectStore('store');
  assert.deepEqual(await success(store.getAll()), ['new']);
});

const transaction = subject('idbdatabase_transaction.any.js');
transaction('scope, mode and durability', async (scene) => {
  const db = await scene.open((db) => ['a', 'b', 'c'].forEach((name) => db.createObjectStore(name)));
  const one = db.transaction('b');
  assert.deepEqual(
    [[...one.objectStoreNames], one.mode, one.durability, one.db, one.error],
    [['b'], 'readonly', 'default', db, null],
  );
  const two = db.transaction(['c', 'a', 'c'], 'readwrite', { durability: 'strict' });
  assert.deepEqual([[...two.objectStoreNames], two.mode, two.durability], [['a', 'c'], 'readwrite', 'strict']);
  const three = db.transaction(db.objectStoreNames, 'readwrite', { durability: 'relaxed' });
  assert.deepEqual([[...three.objectStoreNames], three.durability], [['a', 'b', 'c'], 'relaxed']);
  throws(() => one.objectStore('a'), 'NotFoundError');
  throws(() => one.objectStore(), 'TypeError');
});
transaction('refuses what is not there or not allowed', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store'));
  throws(() => db.transaction('other'), 'NotFoundError');
  throws(() => db.transaction(['store', 'other']), 'NotFoundError');
  throws(() => db.transaction([]), 'InvalidAccessError');
  throws(() => db.transaction('store', 'versionchange'), 'TypeError');
  throws(() => db.transaction('store', 'readWrite'), 'TypeError');
  throws(() => db.transaction('store', 'readonly', { durability: 'eternal' }), 'TypeError');
  throws(() => db.transaction(), 'TypeError');
});
transaction('not within a version change', (scene) =>
  scene.open((db) => {
    db.createObjectStore('store');
    throws(() => db.transaction('store'), 'InvalidStateError');
  }),
);

const close = subject('idbdatabase_close.any.js');
close('a closed connection begins no transaction', async (scene) => {
  const db = await scene.open((db) => db.createObjectStore('store'));
  db.close();
  throws(() => db.transaction('store'), 'InvalidStateError');
  db.close();
});
close('transactions that were begun go on', async (scene) => {
  const name = scene.name();
  const db = await scene.open((db) => db.createObjectStore('store'), { name });
  const begun = db.transaction('store', 'readwrite');
  begun.objectStore('store').put('value', 'key').onsuccess = () => begun.objectStore('store').put('more', 'other');
  db.close();
  await completed(begun);
  const again = await scene.open(undefined, { name });
  assert.deepEqual(await success(again.transaction('store').objectStore('store').getAllKeys()), ['key', 'other']);
});
close('a closing connection gets no versionchange event', async (scene) => {
  const name = scene.name();
  const db = await scene.open(undefined, { name });
  db.onversionchange = () => assert.fail('versionchange');
  db.close();
  await scene.open(undefined, { name, version: 2 });
});

const connections = subject('transaction-scheduling-across-connections.any.js');
connections('a connection sees what another wrote', async (scene) => {
  const name = scene.name();
  const one = await scene.open((db) => db.createObjectStore('store', { autoIncrement: true }), { name });
  const two = await scene.open(undefined, { name });
  const keys = [];
  for (const db of [one, two, one]) {
    const transaction = db.transaction('store', 'readwrite');
    keys.push(await success(transaction.objectStore('store').add('value')));
    assert.equal(await ended(transaction), 'complete');
  }
  assert.deepEqual(keys, [1, 2, 3]);
});
