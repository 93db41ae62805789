// The host's requests, each carried out by a hook of the agent. The host decides the order; only `init` must be first.
import {
  asError,
  agentErrorBody,
  INVALID_PARAMS,
  INVALID_REQUEST,
  METHOD_NOT_FOUND,
  RpcFault,
  SERVER_ERROR,
} from './faults.mjs';
import { createContext } from './context.mjs';
import { decodeMessage, encodeAnswer, isMessage } from './payload.mjs';
import { Health } from './health.mjs';
import { loadAgent } from './load.mjs';

const DEFAULT_IN_FLIGHT = 64;
const PROTOCOL = 1;

export class Session {
  #entry;
  #channel;
  #agent;
  #context;
  #health = new Health();
  #initStarted = false;
  #serving = 0;
  #maxServing = DEFAULT_IN_FLIGHT;

  #methods = new Map(
    Object.entries({
      init: (params) => this.#init(params),
      start: () => this.#run('onStart'),
      message: (params) => this.#message(params),
      upgrade: ({ oldVersion }) => this.#run('onUpgrade', oldVersion),
      shutdown: () => this.#run('onShutdown'),
      error: (params) => this.#hostError(params),
      health: () => this.#healthCheck(),
      saveState: async () => ({ state: (await this.#hook('saveState')) ?? null }),
      restoreState: ({ state }) => this.#run('restoreState', state),
    }),
  );

  constructor(entry) {
    this.#entry = entry;
  }

  attach(channel) {
    this.#channel = channel;
  }

  // ---- the channel's side

  async request(method, params) {
    const serve = this.#methods.get(method);
    if (serve === undefined) throw new RpcFault(METHOD_NOT_FOUND, `no method ${method}`, { code: 'INVALID' });
    if (method !== 'init' && this.#agent === undefined) {
      throw new RpcFault(INVALID_REQUEST, `${method} before init was answered`, { code: 'NOT_RUNNING' });
    }
    return serve(params);
  }

  /** Events come as `message` without an id. */
  notification(method, params) {
    if (method !== 'message') return;
    this.request(method, params).catch(async (thrown) => {
      const { message } = await this.fault(thrown);
      this.#channel.notifyLog('error', `an event was not handled: ${message}`);
    });
  }

  async fault(thrown) {
    if (thrown instanceof RpcFault) return thrown.toJSON();
    const error = asError(thrown);
    await this.#onError(error);
    return agentErrorBody(error);
  }

  /** Called once the answer has been handed to the kernel. */
  answered(method) {
    if (method === 'shutdown') process.exit(0);
  }

  closed() {
    process.exit(0);
  }

  // ---- methods

  async #init(params) {
    if (this.#initStarted) throw new RpcFault(INVALID_REQUEST, 'init comes once', { code: 'INVALID' });
    if (params.protocol !== PROTOCOL) {
      const message = `runner protocol ${params.protocol}; this SDK speaks ${PROTOCOL}`;
      throw new RpcFault(INVALID_PARAMS, message, { code: 'INVALID' });
    }
    this.#initStarted = true;
    this.#maxServing = params.limits?.inFlight ?? DEFAULT_IN_FLIGHT;
    this.#context = createContext(this.#channel, params, await indexedDBOf(params, this.#channel));
    this.#agent = await loadAgent(this.#entry, this.#context);
    return this.#run('onInit');
  }

  async #message({ message }) {
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

  async #hostError({ message, stack, name }) {
    const error = new Error(message);
    error.name = name ?? 'Error';
    error.stack = stack ?? `${error.name}: ${message}`;
    await this.#onError(error);
    return {};
  }

  async #healthCheck() {
    return { ...this.#health.status(), ...(await this.#hook('onHealthCheck')) };
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
    try {
      await this.#agent?.onError?.(error, this.#context);
    } catch (thrown) {
      this.#channel.notifyLog('error', `onError threw: ${asError(thrown).message}`);
    }
  }
}

/** Loaded where the manifest asks for it alone: other agents start without it. */
async function indexedDBOf({ manifest }, channel) {
  if (manifest?.memory?.backend !== 'indexeddb') return undefined;
  const { installIndexedDB } = await import('./indexeddb/install.mjs');
  return installIndexedDB(channel);
}
