// Key generators.
import assert from 'node:assert/strict';
import { completed, failure, subject, success, throws } from '../harness.mjs';

const outOfLine = (scene) => scene.open((db) => db.createObjectStore('store', { autoIncrement: true }));
const inLine = (scene, keyPath = 'id') =>
  scene.open((db) => db.createObjectStore('store', { autoIncrement: true, keyPath }));
const writing = (db) => db.transaction('store', 'readwrite').objectStore('store');

const numbers = subject('keygenerator.any.js');
numbers('1, 2, 3', async (scene) => {
  const store = writing(await inLine(scene));
  const requests = [1, 2, 3].map(() => store.add({}));
  for (const [place, request] of requests.entries()) assert.equal(await success(request), place + 1);
  assert.deepEqual(await success(store.getAll()), [{ id: 1 }, { id: 2 }, { id: 3 }]);
});
numbers('the value that was given is not changed', async (scene) => {
  const store = writing(await inLine(scene));
  const value = { a: 1 };
  await success(store.add(value));
  assert.deepEqual(value, { a: 1 });
});

const constraint = subject('keygenerator.any.js');
constraint('a key that is taken does not disturb the numbers', async (scene) => {
  const store = writing(await inLine(scene));
  const keys = [];
  for (const value of [{}, {}, { id: 2 }, {}, { id: 2.00001 }, { id: 5 }, {}, { id: 6 }, {}]) {
    keys.push(await success(store.add(value)).catch((error) => error.name));
    if (keys.at(-1) === 'ConstraintError') break;
  }
  assert.deepEqual(keys, [1, 2, 'ConstraintError']);
});
constraint('the numbers go on after an error that was cancelled', async (scene) => {
  const store = writing(await inLine(scene));
  assert.equal(await success(store.add({})), 1);
  assert.equal((await failure(store.add({ id: 1 }))).name, 'ConstraintError');
  assert.equal(await success(store.add({})), 2);
  await completed(store.transaction);
});

const explicit = subject('keygenerator.any.js');
explicit('a greater number moves the generator, to the next whole one', async (scene) => {
  const store = writing(await outOfLine(scene));
  assert.equal(await success(store.put('a')), 1);
  assert.equal(await success(store.put('b', 7.9)), 7.9);
  assert.equal(await success(store.put('c')), 8);
  assert.equal(await success(store.put('d', -5)), -5);
  assert.equal(await success(store.put('e', 'text')), 'text');
  assert.equal((await success(store.put('f', new Date(100)))) instanceof Date, true);
  assert.equal(await success(store.put('g')), 9);
  assert.equal(await success(store.put('h', -Infinity)), -Infinity);
  assert.equal(await success(store.put('i')), 10);
});

const overflow = subject('keygenerator.any.js');
overflow('after 2 to the power of 53 there is none', async (scene) => {
  const db = await outOfLine(scene);
  const store = writing(db);
  assert.equal(await success(store.put('a', 2 ** 53 - 1)), 2 ** 53 - 1);
  assert.equal(await success(store.put('b')), 2 ** 53);
  assert.equal((await failure(store.put('c'))).name, 'ConstraintError');
  assert.equal(await success(store.put('d', 4)), 4);
  await completed(store.transaction);
  assert.equal((await failure(writing(db).put('e'))).name, 'ConstraintError');
});
overflow('Infinity is beyond too', async (scene) => {
  const store = writing(await outOfLine(scene));
  await success(store.put('a', Infinity));
  assert.equal((await failure(store.put('b'))).name, 'ConstraintError');
});

const inject = subject('keygenerator.any.js');
inject('objects on the way are made', async (scene) => {
  const store = writing(await inLine(scene, 'a.b.id'));
  assert.equal(await success(store.add({ x: 1 })), 1);
  assert.equal(await success(store.add({ a: { y: 2 } })), 2);
  assert.deepEqual(await success(store.getAll()), [{ x: 1, a: { b: { id: 1 } } }, { a: { y: 2, b: { id: 2 } } }]);
});
inject('where it cannot be put', async (scene) => {
  const store = writing(await inLine(scene, 'a.id'));
  for (const value of [1, 'text', null, true, { a: 1 }, { a: 'text' }, { a: null }])
    throws(() => store.add(value), 'DataError');
  assert.equal(await success(store.add({ a: [] })), 1);
  assert.equal((await success(store.get(1))).a.id, 1);
});
inject('an index over the injected key has it', async (scene) => {
  const db = await scene.open((db) =>
    db.createObjectStore('store', { keyPath: 'id', autoIncrement: true }).createIndex('index', 'id'),
  );
  const store = writing(db);
  store.add({ name: 'x' });
  assert.deepEqual(await success(store.index('index').get(1)), { name: 'x', id: 1 });
});

const persistence = subject('keygenerator.any.js');
persistence('the number is kept when the database is closed', async (scene) => {
  const name = scene.name();
  const db = await scene.open((db) => db.createObjectStore('store', { autoIncrement: true }).add('a'), { name });
  const store = writing(db);
  store.add('b');
  store.clear();
  await completed(store.transaction);
  db.close();
  const again = await scene.open(undefined, { name });
  assert.equal(await success(writing(again).add('c')), 3);
});
