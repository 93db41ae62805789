// The types of kAI agents: the specification's interfaces by their own names, and what the runtime gives an agent.

import type { IDBFactory } from './indexeddb.js';

export * from './indexeddb.js';

// ---- manifest ---------------------------------------------------------------------------------------------------

export interface AgentManifest {
  /** Unique agent identifier. */
  id: string;
  /** Human-readable name. */
  name: string;
  /** Semantic version, such as "1.0.3". */
  version: string;
  /** Entry point file, relative to the package, such as "main.ts". */
  entry: string;
  persona: AgentPersona;
  capabilities: string[];
  memory: MemoryConfig;
  security: SecurityConfig;
  dependencies: Dependency[];
  metadata: AgentMetadata;
  /** kAI's addition; left out, it follows from `entry`. */
  runtime?: Runtime;
}

export type AgentPersona = 'assistant' | 'specialist' | 'guardian' | 'orchestrator' | 'utility' | 'companion';

export interface MemoryConfig {
  type: 'volatile' | 'persistent' | 'hybrid';
  backend: 'memory' | 'indexeddb' | 'sqlite' | 'redis';
  /** Seconds; the default time to live of a key. */
  ttl?: number;
  /** MB. */
  maxSize?: number;
  persistent: boolean;
  sharedAccess?: boolean;
}

export interface SecurityConfig {
  sandbox: boolean;
  permissions: Permission[];
  crypto: 'ed25519' | 'secp256k1' | 'none';
  networkAccess: NetworkPolicy;
  fileAccess: FileAccessPolicy;
}

export interface Permission {
  resource: string;
  actions: ('read' | 'write' | 'execute' | 'delete')[];
  scope?: string;
}

export interface NetworkPolicy {
  allowOutbound: boolean;
  allowedDomains?: string[];
  blockedDomains?: string[];
  maxConnections?: number;
}

export interface FileAccessPolicy {
  allowedPaths: string[];
  readOnly: boolean;
  tempFileAccess: boolean;
}

export interface Dependency {
  name: string;
  version: string;
  type: 'module' | 'service' | 'agent';
  required: boolean;
}

export interface AgentMetadata {
  author: string;
  description: string;
  license: string;
  documentation?: string;
  tags: string[];
  /** ISO 8601. */
  created: string;
  /** ISO 8601. */
  updated: string;
}

export interface Runtime {
  kind?: 'node' | 'python' | 'native' | 'exec' | 'mcp';
  protocol?: 'none' | 'runner';
  args?: string[];
  env?: Record<string, string>;
}

// ---- messages ---------------------------------------------------------------------------------------------------

export interface KLPMessage<Payload = any> {
  protocol: 'klp/1.0';
  /** UUIDv7. */
  id: string;
  /** Stamped by the supervisor; what an agent writes here is not believed. */
  from: string;
  /** An agent id, `kaid`, or `topic:NAME`. */
  to: string;
  type: 'request' | 'response' | 'event' | 'error';
  /** The request's id, on a response and on an error. */
  correlationId?: string;
  /** On a request: one of the receiver's capabilities. */
  capability?: string;
  /** ISO 8601, UTC, milliseconds. */
  timestamp: string;
  /** Parsed JSON, or the bytes (a Uint8Array) where contentType is not JSON. */
  payload: Payload;
  /** Absent: application/json. */
  contentType?: string;
  metadata?: KLPMetadata;
  /** On type error. */
  error?: KLPErrorBody;
}

export interface KLPMetadata {
  priority?: 'low' | 'normal' | 'high' | 'urgent';
  /** Whole seconds. */
  ttl?: number;
  /** W3C Trace Context. */
  traceparent?: string;
}

export interface KLPErrorBody {
  code: KLPErrorCode;
  message: string;
  details?: Record<string, unknown>;
  retryable?: boolean;
}

export type KLPErrorCode =
  | 'NOT_FOUND'
  | 'NOT_RUNNING'
  | 'QUARANTINED'
  | 'DENIED'
  | 'INVALID'
  | 'UNKNOWN_CAPABILITY'
  | 'TOO_LARGE'
  | 'BUSY'
  | 'TIMEOUT'
  | 'EXPIRED'
  | 'REPLAY'
  | 'BAD_SIGNATURE'
  | 'AGENT_ERROR'
  | 'AGENT_CRASHED'
  | 'UPGRADING'
  | 'QUOTA_EXCEEDED'
  | 'CONFLICT'
  | 'UNAVAILABLE'
  | 'INTERNAL';

// ---- hooks ------------------------------------------------------------------------------------------------------

export type MaybePromise<T> = T | Promise<T>;

/**
 * The default export of an entry is a class that implements this (constructed with the AgentContext), or an object
 * that has these hooks (every hook gets the context as its last argument). Hooks may be plain or async.
 * An error that a hook throws answers the request with AGENT_ERROR and is given to onError; the agent lives on.
 *
 * A soft upgrade loads another version into this process, with modules of its own. What the version before has going on
 * (timers, sockets) goes on; calls of its context reject with NOT_RUNNING, and its log records are dropped.
 */
export interface AgentLifecycleHooks {
  /** A start calls onInit and onStart; an upgrade onInit, restoreState, onUpgrade, onStart. */
  onInit(): MaybePromise<void>;
  onStart(): MaybePromise<void>;
  /**
   * The value is the payload of the response (a Uint8Array goes as bytes), or a whole KLPMessage, as reply() makes.
   * Events of topics that the agent may read come here too (`msg.type` is 'event'); their value is ignored.
   */
  onMessage(msg: KLPMessage): MaybePromise<KLPMessage | unknown>;
  /** This version takes the place of oldVersion, and has its state. */
  onUpgrade?(oldVersion: string): MaybePromise<void>;
  /** The process ends after it. Not called when another version takes over inside the process. */
  onShutdown(): MaybePromise<void>;
  onError?(err: Error): MaybePromise<void>;
  /** Fields that are left out are filled in by the runtime. */
  onHealthCheck?(): MaybePromise<Partial<HealthStatus>>;
  /**
   * What the next version is to know and the memory does not: JSON of at most 1 MiB, which its restoreState gets. All
   * messages have been answered before, and none comes after it, but when the upgrade fails: then they go on here.
   */
  saveState?(): MaybePromise<unknown>;
  /** What saveState of the version before returned, after onInit; null where it has no such hook. */
  restoreState?(state: any): MaybePromise<void>;
}

export interface HealthStatus {
  status: 'healthy' | 'warning' | 'critical';
  /** Milliseconds. */
  uptime: number;
  /** MB. */
  memoryUsage: number;
  /** Percent of one core. */
  cpuUsage?: number;
  /** ISO 8601. */
  lastActivity: string;
  errors: ErrorSummary[];
}

export interface ErrorSummary {
  type: string;
  count: number;
  /** ISO 8601. */
  lastOccurrence: string;
  message: string;
}

// ---- context ----------------------------------------------------------------------------------------------------

export interface AgentContext {
  readonly agent: { id: string; name: string; version: string };
  readonly manifest: AgentManifest;
  readonly capabilities: string[];
  /** What the operator granted, which may be less than the manifest asked for. */
  readonly permissions: Permission[];
  readonly limits: AgentLimits;
  readonly memory: AgentMemory;
  /**
   * The standard's indexedDB, which is also a global: where the manifest's memory.backend is "indexeddb". In a soft
   * upgrade the global is the next version's from its onInit on, so modules use it in functions and do not keep it.
   */
  readonly indexedDB?: IDBFactory;
  readonly log: AgentLog;
  /**
   * Asks another agent; the promise is the payload of its response. Rejects with an AgentError; one that is `retryable`
   * (UNAVAILABLE while kaid restarts, BUSY, TIMEOUT …) may be tried again. To `topic:NAME` it publishes: the capability is
   * left out of account, and the promise is null once it is sent.
   */
  send(to: string, capability: string, payload?: unknown, options?: SendOptions): Promise<any>;
  /** Publishes to `topic:AGENT.NAME`; the promise is kept once it is sent. A refusal (DENIED) is a line of the log. */
  emit(name: string, data?: unknown, options?: KLPMetadata): Promise<void>;
}

export interface SendOptions extends KLPMetadata {
  /** How long to wait for the answer. */
  timeoutMs?: number;
}

export interface AgentLimits {
  /** How long a request may take. */
  messageMs: number;
  /** Requests that are served at once. */
  inFlight: number;
  frameBytes: number;
}

/**
 * Values are JSON, or bytes (Uint8Array). Every call rejects with an AgentError: CONFLICT where a condition does not hold,
 * QUOTA_EXCEEDED, TOO_LARGE, INVALID, DENIED (another agent's memory without a grant). One that is `retryable`
 * (UNAVAILABLE, BUSY, TIMEOUT) may be tried again; of a write that was under way nobody knows then whether it was done.
 */
export interface AgentMemory {
  /** undefined where there is no such key. `agent` reads the shared memory of another agent. */
  get(key: string, options?: { agent?: string }): Promise<any>;
  /** The value with its version, for `ifVersion`; undefined where there is no such key. */
  getEntry(key: string, options?: { agent?: string }): Promise<{ value: any; version: number } | undefined>;
  set(key: string, value: unknown, options?: MemorySetOptions): Promise<{ version: number }>;
  /** Those of the keys (at most 1,000) that are there. */
  getMany(keys: string[], options?: { agent?: string }): Promise<Map<string, any>>;
  /** All or none, at most 1,000; conditions too: one that does not hold, and nothing is written. */
  setMany(entries: MemoryEntry[]): Promise<{ version: number }[]>;
  /** Whether there was such a key. */
  delete(key: string): Promise<boolean>;
  /** Keys in the order of their UTF-8 bytes, at most 1,000 at once; with `cursor` the next ones. No cursor: that was all. */
  list(options?: MemoryListOptions): Promise<{ keys: string[]; cursor?: string }>;
}

export interface MemoryListOptions {
  prefix?: string;
  limit?: number;
  /** Of the answer before. */
  cursor?: string;
  /** Reads the shared memory of another agent. */
  agent?: string;
}

export interface MemorySetOptions {
  /** Seconds, also parts of one; 0 is never. Left out: the manifest's. */
  ttl?: number;
  /** CONFLICT where the key exists. */
  ifAbsent?: boolean;
  /** CONFLICT where the key has another version. */
  ifVersion?: number;
}

export interface MemoryEntry extends MemorySetOptions {
  key: string;
  value: unknown;
}

export interface AgentLog {
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
}

// ---- values -----------------------------------------------------------------------------------------------------

/** A call to the runtime that failed, and what an agent may throw to say more than a message. */
export class AgentError extends Error {
  constructor(
    message: string,
    options?: { code?: KLPErrorCode; details?: Record<string, unknown>; retryable?: boolean; cause?: unknown },
  );
  readonly code: KLPErrorCode;
  readonly details?: Record<string, unknown>;
  readonly retryable: boolean;
}

/** The response to `msg` as a whole KLPMessage, where more than the payload is to be said. */
export function reply<Payload>(msg: KLPMessage, payload: Payload): KLPMessage<Payload>;
