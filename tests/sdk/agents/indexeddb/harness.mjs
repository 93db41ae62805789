// Cases after the web platform's own tests, written from the standard: each is named by the file there that has the
// same subject, and what it checks.
import assert from 'node:assert/strict';

const DEADLINE = 15_000; // milliseconds that one case may take

/** 'FILE: WHAT' → function */
export const cases = new Map();

export function subject(file) {
  return (what, run) => {
    const name = `${file}: ${what}`;
    if (cases.has(name)) throw new Error(`two cases are named "${name}"`);
    cases.set(name, run);
  };
}

let databases = 0;

export async function runCase(name) {
  const run = cases.get(name);
  if (run === undefined) throw new Error(`there is no case "${name}"`);
  const scene = new Scene();
  let timer;
  const failed = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing happened for ${DEADLINE} ms`)), DEADLINE);
    capture(reject); // what a listener throws is the failure of its case, not the end of the agent
  });
  try {
    await Promise.race([run(scene), failed]);
  } finally {
    clearTimeout(timer);
    await scene.clean();
  }
}

let captured = null;

function capture(callback) {
  const before = captured;
  captured = callback;
  process.setUncaughtExceptionCaptureCallback(null);
  process.setUncaughtExceptionCaptureCallback(callback);
  return before;
}

/** What a case has to itself: database names, and connections that are closed afterwards. */
class Scene {
  #names = [];
  #connections = [];

  /** A name that no other case uses. */
  name() {
    databases += 1;
    this.#names.push(`case ${process.pid} ${Date.now()} ${databases}`);
    return this.#names.at(-1);
  }

  keep(db) {
    this.#connections.push(db);
    return db;
  }

  /** A new database, opened; upgrade(db, transaction, event) makes its stores. */
  async open(upgrade = () => {}, { name = this.name(), version } = {}) {
    const request = indexedDB.open(name, version);
    let thrown;
    request.onupgradeneeded = (event) => {
      try {
        upgrade(request.result, request.transaction, event);
      } catch (error) {
        thrown = error;
        request.transaction.abort();
      }
    };
    return this.keep(
      await success(request).catch((error) => {
        throw thrown ?? error;
      }),
    );
  }

  async clean() {
    for (const db of this.#connections) db.close();
    for (const name of this.#names) await success(indexedDB.deleteDatabase(name));
  }
}

/** The result of a request. */
export function success(request) {
  return new Promise((resolve, reject) => {
    request.addEventListener('success', () => resolve(request.result));
    request.addEventListener('error', () => reject(request.error));
  });
}

/** The error of a request, which does not abort the transaction. */
export function failure(request) {
  return new Promise((resolve, reject) => {
    request.addEventListener('success', () => reject(new Error('the request succeeded')));
    request.addEventListener('error', (event) => {
      event.preventDefault();
      event.stopPropagation();
      resolve(request.error);
    });
  });
}

/** 'complete' or 'abort' */
export function ended(transaction) {
  return new Promise((resolve) => {
    for (const type of ['complete', 'abort']) transaction.addEventListener(type, () => resolve(type));
  });
}

export async function completed(transaction) {
  const end = await ended(transaction);
  if (end !== 'complete') throw transaction.error ?? new Error('the transaction was aborted');
}

export function event(target, type) {
  return new Promise((resolve) => target.addEventListener(type, resolve, { once: true }));
}

/** Everything that a cursor comes by; `each` may change the way it goes on. */
export function walk(request, each = (cursor) => cursor.continue()) {
  return new Promise((resolve, reject) => {
    const seen = [];
    request.onerror = () => reject(request.error);
    request.onsuccess = () => {
      const cursor = request.result;
      if (cursor === null) return resolve(seen);
      seen.push({ key: cursor.key, primaryKey: cursor.primaryKey, value: cursor.value });
      if (each(cursor, seen.length) === 'stop') resolve(seen);
    };
  });
}

export function throws(run, name) {
  assert.throws(run, (error) => {
    assert.equal(error.name, name, error.message);
    if (name !== 'TypeError') assert.ok(error instanceof DOMException, `${error} is a DOMException`);
    return true;
  });
}

/** What runs after everything that has been promised, as a task of its own. */
export function nextTask() {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

export function isActive(transaction, store = transaction.objectStoreNames[0]) {
  try {
    transaction.objectStore(store).get(0);
    return true;
  } catch (error) {
    assert.ok(['TransactionInactiveError', 'InvalidStateError'].includes(error.name), error.name);
    return false;
  }
}

/** What listeners throw while `run` lasts, instead of the end of the process. */
export async function uncaught(run) {
  const errors = [];
  const before = capture((error) => errors.push(error));
  try {
    await run();
    await nextTask();
  } finally {
    capture(before);
  }
  return errors;
}
