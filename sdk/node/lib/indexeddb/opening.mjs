// Opening and deleting databases (the standard's connection queues): requests for one name are carried out one after
// the other, and a version change waits until the other connections are closed.
import { closeForGood, isClosed, newDatabase, newUpgrade } from './database.mjs';
import { abortError, domException } from './errors.mjs';
import { dispatch, errorEvent, IDBVersionChangeEvent, successEvent } from './events.mjs';
import { setTransaction, settle } from './request.mjs';
import { storesOf } from './schema.mjs';
import { task } from './tasks.mjs';
import { slots } from './web_idl.mjs';

export class Opening {
  #host;
  #queues = new Map(); // name → promise of the last request for it
  #connections = new Map(); // name → set of those that are not closed
  #changing = new Map(); // name → version before the version change that is running

  constructor(host) {
    this.#host = host;
  }

  /** version undefined: as it is, or 1. */
  open(request, name, version) {
    this.#queue(name, async () => {
      try {
        const database = await this.#open(request, name, version);
        await task(() => {
          settle(request, { result: database });
          dispatch(request, successEvent());
        });
      } catch (error) {
        await fail(request, error);
      }
    });
  }

  delete(request, name) {
    this.#queue(name, async () => {
      try {
        const oldVersion = await this.#delete(request, name);
        await task(() => {
          settle(request, { result: undefined });
          dispatch(request, new IDBVersionChangeEvent('success', { oldVersion, newVersion: null }));
        });
      } catch (error) {
        await fail(request, error);
      }
    });
  }

  /** A version change shows when it is committed. */
  async databases() {
    const known = await this.#host.databases();
    return known
      .map(({ name, version }) => ({ name, version: this.#changing.get(name) ?? version }))
      .filter(({ version }) => version > 0);
  }

  #queue(name, run) {
    const before = this.#queues.get(name) ?? Promise.resolve();
    const last = before.then(run).then(() => {
      if (this.#queues.get(name) === last) this.#queues.delete(name);
    });
    this.#queues.set(name, last);
  }

  async #open(request, name, asked) {
    const known = await this.#host.describe(name);
    const oldVersion = known?.version ?? 0;
    const version = asked ?? (oldVersion || 1);
    if (oldVersion > version) {
      throw domException('VersionError', `The database has version ${oldVersion}; ${version} was asked for.`);
    }
    const database = newDatabase(this.#host, { name, version, stores: storesOf(known) });
    if (oldVersion < version) {
      await this.#closeOthers(request, name, { oldVersion, newVersion: version });
    }
    this.#connect(name, database);
    if (oldVersion < version) await this.#upgrade(request, database, { oldVersion, newVersion: version });
    return database;
  }

  async #delete(request, name) {
    const known = await this.#host.describe(name);
    const oldVersion = known?.version ?? 0;
    await this.#closeOthers(request, name, { oldVersion, newVersion: null });
    if (known !== undefined) await this.#host.deleteDatabase(name);
    return oldVersion;
  }

  #connect(name, database) {
    const open = this.#connections.get(name) ?? new Set();
    this.#connections.set(name, open.add(database));
    database[slots].onClosed = () => {
      open.delete(database);
      if (open.size === 0) this.#connections.delete(name);
      for (const resume of database[slots].waiting.splice(0)) resume();
    };
  }

  /** Asks every open connection to close, and waits until they have. */
  async #closeOthers(request, name, versions) {
    const others = [...(this.#connections.get(name) ?? [])];
    for (const other of others) {
      await task(() => {
        if (!other[slots].closePending) dispatch(other, new IDBVersionChangeEvent('versionchange', versions));
      });
    }
    if (others.some((other) => !other[slots].closePending)) {
      await task(() => {
        if (others.some((other) => !other[slots].closePending)) {
          dispatch(request, new IDBVersionChangeEvent('blocked', versions));
        }
      });
    }
    for (const other of others) {
      if (!isClosed(other)) await new Promise((resolve) => other[slots].waiting.push(resolve));
    }
  }

  async #upgrade(request, database, versions) {
    const { name } = database;
    this.#changing.set(name, versions.oldVersion);
    const transaction = newUpgrade(database, versions.newVersion);
    const { execution } = transaction[slots];
    execution.onAbort(() => (database[slots].version = versions.oldVersion));
    const begun = await execution.begun;
    if (begun !== undefined) await task(() => upgradeNeeded(request, database, transaction, versions));
    const { committed } = await execution.finished;
    this.#changing.delete(name);
    setTransaction(request, null);
    if (!committed) closeForGood(database);
    if (begun === undefined) throw execution.error;
    if (!committed) throw abortError('The version change was aborted.');
    if (database[slots].closePending) throw abortError('The connection was closed during the version change.');
  }
}

function upgradeNeeded(request, database, transaction, versions) {
  const { execution } = transaction[slots];
  settle(request, { result: database });
  setTransaction(request, transaction);
  const threw = execution.dispatchActive(request, new IDBVersionChangeEvent('upgradeneeded', versions));
  return () => execution.endTask(threw);
}

function fail(request, error) {
  return task(() => {
    settle(request, { result: undefined, error });
    dispatch(request, errorEvent());
  });
}
