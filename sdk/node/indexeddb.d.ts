// The types of the standard indexedDB (W3C, Indexed Database API 3.0) as agents with memory.backend "indexeddb" have it.
// A module of its own, so that neither lib.dom nor @types/node is needed, and neither is disturbed. For the globals:
// "types": ["@kai/agent/indexeddb-globals"] in tsconfig.json, where lib.dom is not used.

export type IDBValidKey = number | string | Date | ArrayBufferLike | ArrayBufferView | IDBValidKey[];
export type IDBQuery = IDBValidKey | IDBKeyRange;
export type IDBTransactionMode = 'readonly' | 'readwrite' | 'versionchange';
export type IDBTransactionDurability = 'default' | 'strict' | 'relaxed';
export type IDBCursorDirection = 'next' | 'nextunique' | 'prev' | 'prevunique';

/** A DOMException; `retryable` is true where a new transaction may succeed, as after a restart of the supervisor. */
export interface IDBError extends Error {
  readonly code: number;
  readonly retryable?: boolean;
}

export interface IDBEvent<Target> {
  readonly type: string;
  readonly target: any;
  readonly currentTarget: Target;
  readonly eventPhase: number;
  readonly bubbles: boolean;
  readonly cancelable: boolean;
  readonly defaultPrevented: boolean;
  preventDefault(): void;
  stopPropagation(): void;
  stopImmediatePropagation(): void;
  composedPath(): any[];
}

export interface IDBVersionChangeEvent<Target = any> extends IDBEvent<Target> {
  readonly oldVersion: number;
  readonly newVersion: number | null;
}

export type IDBHandler<Target, E = IDBEvent<Target>> = ((this: Target, event: E) => unknown) | null;
export type IDBListener = ((event: any) => unknown) | { handleEvent(event: any): unknown };

export interface IDBListenerOptions {
  capture?: boolean;
  once?: boolean;
  signal?: any;
}

export interface IDBEventTarget {
  addEventListener(type: string, listener: IDBListener | null, options?: boolean | IDBListenerOptions): void;
  removeEventListener(type: string, listener: IDBListener | null, options?: boolean | IDBListenerOptions): void;
  dispatchEvent(event: any): boolean;
}

export interface DOMStringList extends Iterable<string> {
  readonly length: number;
  readonly [index: number]: string;
  contains(name: string): boolean;
  item(index: number): string | null;
}

export interface IDBFactory {
  open(name: string, version?: number): IDBOpenDBRequest;
  deleteDatabase(name: string): IDBOpenDBRequest;
  databases(): Promise<{ name: string; version: number }[]>;
  cmp(first: IDBValidKey, second: IDBValidKey): -1 | 0 | 1;
}

export interface IDBRequest<Result = any> extends IDBEventTarget {
  readonly result: Result;
  readonly error: IDBError | null;
  readonly source: IDBObjectStore | IDBIndex | IDBCursor | null;
  readonly transaction: IDBTransaction | null;
  readonly readyState: 'pending' | 'done';
  onsuccess: IDBHandler<this>;
  onerror: IDBHandler<this>;
}

export interface IDBOpenDBRequest extends IDBRequest<IDBDatabase> {
  onblocked: IDBHandler<this, IDBVersionChangeEvent<this>>;
  onupgradeneeded: IDBHandler<this, IDBVersionChangeEvent<this>>;
}

export interface IDBDatabase extends IDBEventTarget {
  readonly name: string;
  readonly version: number;
  readonly objectStoreNames: DOMStringList;
  transaction(
    storeNames: string | Iterable<string>,
    mode?: 'readonly' | 'readwrite',
    options?: { durability?: IDBTransactionDurability },
  ): IDBTransaction;
  createObjectStore(
    name: string,
    options?: { keyPath?: string | string[] | null; autoIncrement?: boolean },
  ): IDBObjectStore;
  deleteObjectStore(name: string): void;
  close(): void;
  onabort: IDBHandler<this>;
  onclose: IDBHandler<this>;
  onerror: IDBHandler<this>;
  onversionchange: IDBHandler<this, IDBVersionChangeEvent<this>>;
}

export interface IDBTransaction extends IDBEventTarget {
  readonly objectStoreNames: DOMStringList;
  readonly mode: IDBTransactionMode;
  readonly durability: IDBTransactionDurability;
  readonly db: IDBDatabase;
  readonly error: IDBError | null;
  objectStore(name: string): IDBObjectStore;
  commit(): void;
  abort(): void;
  onabort: IDBHandler<this>;
  /** What was written is on the disk. */
  oncomplete: IDBHandler<this>;
  onerror: IDBHandler<this>;
}

export interface IDBGetAllOptions {
  query?: IDBQuery | null;
  count?: number;
  direction?: IDBCursorDirection;
}

export interface IDBRecord {
  readonly key: IDBValidKey;
  readonly primaryKey: IDBValidKey;
  readonly value: any;
}

/** What object stores and indexes have in common. */
export interface IDBRecordSource {
  readonly keyPath: string | string[] | null;
  get(query: IDBQuery): IDBRequest<any>;
  getKey(query: IDBQuery): IDBRequest<IDBValidKey | undefined>;
  getAll(query?: IDBQuery | null | IDBGetAllOptions, count?: number): IDBRequest<any[]>;
  getAllKeys(query?: IDBQuery | null | IDBGetAllOptions, count?: number): IDBRequest<IDBValidKey[]>;
  getAllRecords(options?: IDBGetAllOptions): IDBRequest<IDBRecord[]>;
  count(query?: IDBQuery | null): IDBRequest<number>;
  openCursor(query?: IDBQuery | null, direction?: IDBCursorDirection): IDBRequest<IDBCursorWithValue | null>;
  openKeyCursor(query?: IDBQuery | null, direction?: IDBCursorDirection): IDBRequest<IDBCursor | null>;
}

export interface IDBObjectStore extends IDBRecordSource {
  name: string;
  readonly indexNames: DOMStringList;
  readonly transaction: IDBTransaction;
  readonly autoIncrement: boolean;
  put(value: any, key?: IDBValidKey): IDBRequest<IDBValidKey>;
  add(value: any, key?: IDBValidKey): IDBRequest<IDBValidKey>;
  delete(query: IDBQuery): IDBRequest<undefined>;
  clear(): IDBRequest<undefined>;
  index(name: string): IDBIndex;
  createIndex(name: string, keyPath: string | string[], options?: { unique?: boolean; multiEntry?: boolean }): IDBIndex;
  deleteIndex(name: string): void;
}

export interface IDBIndex extends IDBRecordSource {
  name: string;
  readonly objectStore: IDBObjectStore;
  readonly multiEntry: boolean;
  readonly unique: boolean;
}

export interface IDBCursor {
  readonly source: IDBObjectStore | IDBIndex;
  readonly direction: IDBCursorDirection;
  readonly key: IDBValidKey;
  readonly primaryKey: IDBValidKey;
  readonly request: IDBRequest;
  advance(count: number): void;
  continue(key?: IDBValidKey): void;
  continuePrimaryKey(key: IDBValidKey, primaryKey: IDBValidKey): void;
  update(value: any): IDBRequest<IDBValidKey>;
  delete(): IDBRequest<undefined>;
}

export interface IDBCursorWithValue extends IDBCursor {
  readonly value: any;
}

export interface IDBKeyRange {
  readonly lower: any;
  readonly upper: any;
  readonly lowerOpen: boolean;
  readonly upperOpen: boolean;
  includes(key: IDBValidKey): boolean;
}

export interface IDBKeyRangeConstructor {
  readonly prototype: IDBKeyRange;
  only(value: IDBValidKey): IDBKeyRange;
  lowerBound(lower: IDBValidKey, open?: boolean): IDBKeyRange;
  upperBound(upper: IDBValidKey, open?: boolean): IDBKeyRange;
  bound(lower: IDBValidKey, upper: IDBValidKey, lowerOpen?: boolean, upperOpen?: boolean): IDBKeyRange;
}
