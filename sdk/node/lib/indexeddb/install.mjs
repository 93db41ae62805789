// Gives an agent whose backend is indexeddb the interfaces of the standard, as globals like a browser's.
import { IDBCursor, IDBCursorWithValue } from './cursor.mjs';
import { IDBDatabase } from './database.mjs';
import { IDBVersionChangeEvent } from './events.mjs';
import { IDBFactory } from './factory.mjs';
import { Host } from './host.mjs';
import { IDBKeyRange } from './key_range.mjs';
import { IDBObjectStore } from './object_store.mjs';
import { IDBRecord } from './records.mjs';
import { IDBOpenDBRequest, IDBRequest } from './request.mjs';
import { IDBIndex } from './store_index.mjs';
import { IDBTransaction } from './transaction.mjs';
import { DOMStringList, internal } from './web_idl.mjs';

const interfaces = {
  DOMStringList,
  IDBCursor,
  IDBCursorWithValue,
  IDBDatabase,
  IDBFactory,
  IDBIndex,
  IDBKeyRange,
  IDBObjectStore,
  IDBOpenDBRequest,
  IDBRecord,
  IDBRequest,
  IDBTransaction,
  IDBVersionChangeEvent,
};

/**
 * {factory, close()} on this channel of one version of the agent; whoever calls decides when it is globalThis.indexedDB.
 * close() ends the transactions of a version that is dropped.
 */
export function createIndexedDB(channel) {
  for (const [name, value] of Object.entries({ ...interfaces, indexedDB: globalThis.indexedDB })) {
    Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
  }
  const host = new Host(channel);
  return { factory: new IDBFactory(internal, host), close: () => host.close() };
}
