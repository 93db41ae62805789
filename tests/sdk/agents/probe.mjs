// Every hook, and a capability for each thing that the tests ask of an agent. probe.py and probe.cc are the same.
import fs from 'node:fs';
import { AgentError, reply } from '@kai/agent';

const given = (value) => (value?.bytes ? Uint8Array.from(value.bytes) : value);
const shown = (value) => (value instanceof Uint8Array ? { bytes: [...value] } : value);

export default class Probe {
  #calls = ['constructor'];
  #state = null;
  #waiting = new Map();
  #throwIn = new Set();

  constructor(ctx) {
    this.ctx = ctx;
  }

  async onInit() {
    this.#called('onInit');
  }
  onStart() {
    this.#called('onStart');
  }
  async onUpgrade(oldVersion) {
    this.#called(`onUpgrade ${oldVersion}`);
  }
  async onShutdown() {
    this.#called('onShutdown');
    this.ctx.log.info('bye');
  }
  async onError(err) {
    this.#called(`onError ${err.name}: ${err.message}`);
    if (err.message === 'twice') throw new Error('and again');
  }
  onHealthCheck() {
    this.#called('onHealthCheck');
    return this.warn ? { status: 'warning' } : undefined;
  }
  saveState() {
    this.#called('saveState');
    return this.#state;
  }
  restoreState(state) {
    this.#called('restoreState');
    this.#state = state;
  }

  async onMessage(msg) {
    switch (msg.capability) {
      case 'calls':
        return this.#calls;
      case 'echo':
        return msg.payload;
      case 'fields':
        return { ...msg, payload: null };
      case 'whole':
        return { ...reply(msg, msg.payload), metadata: { priority: 'high' } };
      case 'context':
        return { agent: this.ctx.manifest.id, permissions: this.ctx.permissions, limits: this.ctx.limits };
      case 'bytes':
        return { length: msg.payload.length, isBytes: msg.payload instanceof Uint8Array, type: msg.contentType };
      case 'make-bytes':
        return Uint8Array.from({ length: msg.payload }, (_, i) => i % 256);
      case 'make-text':
        return 'x'.repeat(msg.payload);
      case 'not-json':
        return 1n;
      case 'throw':
        throw new TypeError(msg.payload);
      case 'throw-details':
        throw new AgentError('no room', { details: { left: 3 }, retryable: true });
      case 'throw-in':
        this.#throwIn.add(msg.payload);
        return null;
      case 'state':
        this.#state = msg.payload;
        return null;
      case 'warn':
        this.warn = true;
        return null;
      case 'hold':
        return new Promise((resolve) => this.#waiting.set(msg.payload, resolve));
      case 'release':
        this.#waiting.get(msg.payload)(`held ${msg.payload}`);
        return null;
      case 'event':
        this.ctx.log.info(`event ${JSON.stringify(msg.payload)} ${msg.type}`);
        return 'ignored';
      case 'log':
        this.ctx.log.warn('said', { why: msg.payload });
        return null;
      case 'log-many':
        for (let i = 0; i < msg.payload; i += 1) this.ctx.log.info('x'.repeat(1000));
        fs.writeSync(1, 'logged\n');
        return null;
      case 'print':
        console.log(msg.payload);
        return null;
      case 'crash':
        setImmediate(() => {
          throw new Error('out of the blue');
        });
        return null;
      case 'memory':
        return this.#memory();
      case 'memory-do':
        return this.#memoryDo(msg.payload);
      case 'memory-count':
        return this.#count(msg.payload);
      case 'send':
        return this.ctx.send('other', 'ask', msg.payload, { timeoutMs: 500 });
      case 'send-with':
        return this.ctx.send('other', 'ask', 'null', msg.payload);
      case 'emit-with':
        return this.ctx.emit('done', Uint8Array.of(0, 255), msg.payload);
      case 'got':
        this.ctx.log.info(`got ${msg.type} ${msg.payload.length} ${msg.contentType}`);
        return null;
      case 'emit':
        await this.ctx.emit('done', msg.payload);
        return 'emitted';
      case 'try-send':
        try {
          return await this.ctx.send('other', 'ask', msg.payload);
        } catch (error) {
          return { isAgentError: error instanceof AgentError, code: error.code, retryable: error.retryable };
        }
      default:
        throw new Error(`unknown capability ${msg.capability}`);
    }
  }

  async #memory() {
    const { memory } = this.ctx;
    return {
      set: (await memory.set('k', { a: 1 }, { ttl: 5, ifAbsent: true })).version,
      get: await memory.get('k'),
      missing: (await memory.get('missing')) ?? 'none',
      bytes: (await memory.get('bytes')).length,
      many: Object.fromEntries(await memory.getMany(['k', 'missing'])),
      setMany: (
        await memory.setMany([
          { key: 'm', value: 1 },
          { key: 'n', value: 2 },
        ])
      ).map(({ version }) => version),
      deleted: await memory.delete('k'),
      list: (await memory.list({ prefix: 'm' })).keys,
    };
  }

  /** One call, as the test says it; bytes are {bytes: [...]} in JSON. */
  async #memoryDo({ call, key, keys, entries, options }) {
    const { memory } = this.ctx;
    const calls = {
      get: async () => shown(await memory.get(key, options)),
      getEntry: async () => {
        const entry = await memory.getEntry(key, options);
        return entry && { ...entry, value: shown(entry.value) };
      },
      set: async () => memory.set(key, given(entries[0].value), options),
      getMany: async () => {
        const found = await memory.getMany(keys, options);
        return Object.fromEntries([...found].map(([name, value]) => [name, shown(value)]));
      },
      setMany: async () => memory.setMany(entries.map((entry) => ({ ...entry, value: given(entry.value) }))),
      delete: async () => memory.delete(key),
      list: async () => memory.list(options),
    };
    try {
      return { result: (await calls[call]()) ?? null };
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      return { code: error.code, details: error.details ?? null, retryable: error.retryable };
    }
  }

  /** Counts up `times`, against others that count too. */
  async #count(times) {
    const { memory } = this.ctx;
    for (let done = 0; done < times; ) {
      const entry = await memory.getEntry('count');
      const condition = entry ? { ifVersion: entry.version } : { ifAbsent: true };
      try {
        await memory.set('count', (entry?.value ?? 0) + 1, condition);
        done += 1;
      } catch (error) {
        if (error.code !== 'CONFLICT') throw error;
      }
    }
    return null;
  }

  #called(hook) {
    this.#calls.push(hook);
    if (this.#throwIn.has(hook)) throw new Error(`thrown in ${hook}`);
  }
}
