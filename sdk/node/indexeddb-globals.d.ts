// The globals of agents with memory.backend "indexeddb", for projects that do not use lib.dom:
// "types": ["@kai/agent/indexeddb-globals"] in tsconfig.json.
import type * as idb from './indexeddb.js';

declare global {
  var indexedDB: idb.IDBFactory;
  var IDBKeyRange: idb.IDBKeyRangeConstructor;
  type IDBValidKey = idb.IDBValidKey;
  type IDBFactory = idb.IDBFactory;
  type IDBRequest<Result = any> = idb.IDBRequest<Result>;
  type IDBOpenDBRequest = idb.IDBOpenDBRequest;
  type IDBDatabase = idb.IDBDatabase;
  type IDBTransaction = idb.IDBTransaction;
  type IDBObjectStore = idb.IDBObjectStore;
  type IDBIndex = idb.IDBIndex;
  type IDBCursor = idb.IDBCursor;
  type IDBCursorWithValue = idb.IDBCursorWithValue;
  type IDBKeyRange = idb.IDBKeyRange;
  type IDBVersionChangeEvent = idb.IDBVersionChangeEvent;
}
