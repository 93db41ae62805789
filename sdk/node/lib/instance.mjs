// One version of the agent in this process: its code, its context and its hooks. A soft upgrade has two of them.
import {
  asError,
  agentErrorBody,
  INVALID_PARAMS,
  INVALID_REQUEST,
  notRunning,
  RpcFault,
  SERVER_ERROR,
} from './faults.mjs';
import { createContext, InstanceChannel } from './context.mjs';
import { decodeMessage, encodeAnswer, isMessage } from './payload.mjs';
import { Health } from './health.mjs';
import { makeAgent } from './load.mjs';

const DEFAULT_IN_FLIGHT = 64;
const PROTOCOL = 1;

export class Instance {
  #code;
  #channel;
  #exported; // promise of what the entry exports
  #indexedDB;
  #agent;
  #context;
  #health = new Health();
  #initStarted = false;
  #serving = 0;
  #maxServing = DEFAULT_IN_FLIGHT;
  #isDropped = false;
  #drop;
  #dropped = new Promise((_, reject) => (this.#drop = reject));

  constructor(code, channel) {
    this.#code = code;
    this.#channel = new InstanceChannel(channel);
    this.#dropped.catch(() => {}); // nobody may be waiting
  }

  get running() {
    return this.#agent !== undefined;
  }

  get code() {
    return this.#code;
  }

  /** From now on nothing that it does reaches anybody, and none of its hooks is called. */
  drop() {
    this.#isDropped = true;
    this.#indexedDB?.close();
    this.#channel.close();
    this.#drop(notRunning('this version of the agent was discarded'));
  }

  /** The result of `work`, but for a version that is dropped meanwhile: then it is the error NOT_RUNNING at once. */
  untilDropped(work) {
    return Promise.race([work, this.#dropped]);
  }

  // ---- methods

  /** Reads the code and constructs nothing. */
  async load() {
    if (this.#agent !== undefined) {
      throw new RpcFault(INVALID_REQUEST, 'load: the code is loaded, and init was answered', { code: 'INVALID' });
    }
    if (this.#exported === undefined) await this.#supplyIndexedDB(this.#code.manifest());
    await this.#load();
    return {};
  }

  async init(params) {
    if (this.#initStarted) throw new RpcFault(INVALID_REQUEST, 'init comes once', { code: 'INVALID' });
    if (params.protocol !== PROTOCOL) {
      const text = `runner protocol ${params.protocol}; this SDK speaks ${PROTOCOL}`;
      throw new RpcFault(INVALID_PARAMS, text, { code: 'INVALID' });
    }
    this.#initStarted = true;
    this.#maxServing = params.limits?.inFlight ?? DEFAULT_IN_FLIGHT;
    await this.#supplyIndexedDB(params.manifest);
    this.showGlobals();
    this.#context = createContext(this.#channel, params, this.#indexedDB?.factory);
    const exported = await this.#load();
    if (this.#isDropped) throw notRunning('this version of the agent was discarded');
    this.#agent = makeAgent(exported, this.#context, this.#code.entry);
    return this.#run('onInit');
  }

  start() {
    return this.#run('onStart');
  }

  upgrade({ oldVersion }) {
    return this.#run('onUpgrade', oldVersion);
  }

  shutdown() {
    return this.#run('onShutdown');
  }

  restoreState({ state }) {
    return this.#run('restoreState', state);
  }

  async saveState() {
    return { state: (await this.#hook('saveState')) ?? null };
  }

  async health() {
    return { ...this.#health.status(), ...(await this.#hook('onHealthCheck')) };
  }

  async message({ message }) {
    if (typeof message !== 'object' || message === null) {
      throw new RpcFault(INVALID_PARAMS, 'message: params.message is not an object', { code: 'INVALID' });
    }
    if (this.#serving >= this.#maxServing) {
      const text = `${this.#serving} messages are being served, the limit`;
      throw new RpcFault(SERVER_ERROR, text, { code: 'BUSY', retryable: true });
    }
    if (typeof this.#agent.onMessage !== 'function') {
      throw new RpcFault(SERVER_ERROR, 'the agent has no onMessage', { code: 'UNKNOWN_CAPABILITY' });
    }
    this.#serving += 1;
    this.#health.active();
    try {
      const answer = await this.#hook('onMessage', decodeMessage(message));
      if (isMessage(answer) && answer.type === 'error')
        throw new Error(answer.error?.message ?? 'the agent answered an error');
      return encodeAnswer(answer);
    } finally {
      this.#serving -= 1;
    }
  }

  /** An error that the host saw. */
  async error({ message, stack, name }) {
    const error = new Error(message);
    error.name = name ?? 'Error';
    error.stack = stack ?? `${error.name}: ${message}`;
    await this.#onError(error);
    return {};
  }

  /** The error body for what a request to this version threw; its onError sees it first. */
  async fault(thrown) {
    if (thrown instanceof RpcFault) return thrown.toJSON();
    const error = asError(thrown);
    await this.#onError(error);
    return agentErrorBody(error);
  }

  log(level, message) {
    this.#channel.notifyLog(level, message);
  }

  /** The global indexedDB is this version's. */
  showGlobals() {
    if (this.#indexedDB !== undefined) globalThis.indexedDB = this.#indexedDB.factory;
  }

  // ---- hooks

  async #hook(name, ...args) {
    return this.#agent[name]?.(...args, this.#context);
  }

  async #run(name, ...args) {
    await this.#hook(name, ...args);
    return {};
  }

  /** An error that onError throws is logged and goes no further. */
  async #onError(error) {
    this.#health.failed(error);
    if (this.#isDropped) return;
    try {
      await this.#agent?.onError?.(error, this.#context);
    } catch (thrown) {
      this.log('error', `onError threw: ${asError(thrown).message}`);
    }
  }

  #load() {
    this.#exported ??= this.#code.load();
    return this.#exported;
  }

  /** Loaded where the manifest asks for it alone: other agents start without it. */
  async #supplyIndexedDB(manifest) {
    if (manifest?.memory?.backend !== 'indexeddb' || this.#indexedDB !== undefined) return;
    const { createIndexedDB } = await import('./indexeddb/install.mjs');
    this.#indexedDB = createIndexedDB(this.#channel);
    if (globalThis.indexedDB === undefined) this.showGlobals(); // code may name it as soon as it is read
  }
}
