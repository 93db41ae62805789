// The host's requests: each goes to the version of the agent that it is meant for. The host decides the order.
import { INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, notRunning, RpcFault } from './faults.mjs';
import { Instance } from './instance.mjs';
import { Code } from './load.mjs';

const HOOKS = ['start', 'message', 'upgrade', 'shutdown', 'error', 'health', 'saveState', 'restoreState'];
/** Requests that may say `next`: they are meant for the version that was loaded beside the serving one. */
const OF_NEXT = ['init', 'restoreState', 'upgrade', 'start', 'health'];

export class Session {
  #entry;
  #channel;
  #serving;
  #loaded;

  constructor(entry) {
    this.#entry = entry;
  }

  attach(channel) {
    this.#channel = channel;
    this.#serving = new Instance(Code.own(this.#entry), channel);
  }

  // ---- the channel's side

  /** {result: promise, fault(thrown) → promise of the error body} */
  request(method, params) {
    try {
      return this.#request(method, params);
    } catch (thrown) {
      return { result: Promise.reject(thrown), fault: (error) => this.#serving.fault(error) };
    }
  }

  #request(method, params) {
    if (method === 'load') return this.#load(params);
    if (method === 'commit') return own(() => this.#commit());
    if (method === 'discard') return own(() => this.#discard());
    if (method !== 'init' && !HOOKS.includes(method)) {
      throw new RpcFault(METHOD_NOT_FOUND, `no method ${method}`, { code: 'INVALID' });
    }
    const isOfNext = params.next === true && OF_NEXT.includes(method);
    const instance = isOfNext ? this.#loaded : this.#serving;
    if (instance === undefined) throw notRunning(`${method} of the next version: none is loaded`);
    if (method !== 'init' && !instance.running) throw notRunning(`${method} before init was answered`);
    return isOfNext ? bounded(instance, instance[method](params)) : plain(instance, instance[method](params));
  }

  /** Events come as `message` without an id. */
  async notification(method, params) {
    if (method !== 'message') return;
    const instance = this.#serving;
    const { result, fault } = this.request(method, params);
    try {
      await result;
    } catch (thrown) {
      const { message } = await fault(thrown);
      instance.log('error', `an event was not handled: ${message}`);
    }
  }

  /** Called once the answer has been handed to the kernel. */
  answered(method) {
    if (method === 'shutdown') process.exit(0);
  }

  closed() {
    process.exit(0);
  }

  // ---- another version beside the one that serves

  #load({ root, entry }) {
    if (root === undefined && entry === undefined) return plain(this.#serving, this.#serving.load());
    if (typeof root !== 'string' || typeof entry !== 'string') {
      throw new RpcFault(INVALID_PARAMS, 'load: root and entry are not both strings', { code: 'INVALID' });
    }
    if (!this.#serving.running) throw notRunning('load of another version before init was answered');
    if (this.#loaded !== undefined) {
      const text = 'load: another version is loaded; commit or discard it first';
      throw new RpcFault(INVALID_REQUEST, text, { code: 'CONFLICT' });
    }
    const instance = new Instance(Code.of(root, entry), this.#channel);
    this.#loaded = instance;
    const { result, fault } = bounded(instance, instance.load());
    const failed = (thrown) => fault(thrown).finally(() => this.#forget(instance));
    return { result, fault: failed };
  }

  #commit() {
    const next = this.#loaded;
    if (!next?.running) throw notRunning('commit: no version is loaded whose init was answered');
    process.chdir(next.code.root);
    this.#serving.drop();
    this.#serving = next;
    this.#loaded = undefined;
  }

  #discard() {
    if (this.#loaded !== undefined) this.#forget(this.#loaded);
  }

  #forget(instance) {
    if (this.#loaded !== instance) return;
    this.#loaded = undefined;
    instance.drop();
    instance.code.unload();
    this.#serving.showGlobals();
  }
}

function plain(instance, result) {
  return { result, fault: (thrown) => instance.fault(thrown) };
}

/** For a version that may be discarded while its hook, or its onError, has not returned. */
function bounded(instance, work) {
  return {
    result: instance.untilDropped(work),
    fault: (thrown) => instance.untilDropped(instance.fault(thrown)).catch((dropped) => dropped.toJSON()),
  };
}

/** The session's own doing: no hook is called for what it throws. */
function own(work) {
  const failed = (thrown) =>
    thrown instanceof RpcFault ? thrown : new RpcFault(INVALID_REQUEST, thrown.message, { code: 'INTERNAL' });
  return { result: (async () => (work(), {}))(), fault: async (thrown) => failed(thrown).toJSON() };
}
