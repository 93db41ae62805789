// AgentContext: what the runtime does for an agent, each a call or a notification to the host.
import { AgentError } from '../index.mjs';
import { decodePayload, decodeValue, encodeData, encodePayload, encodeValue } from './payload.mjs';

/** The channel as one version of the agent has it, until that version is dropped. */
export class InstanceChannel {
  #channel;
  #isOpen = true;

  constructor(channel) {
    this.#channel = channel;
  }

  async call(method, params) {
    if (!this.#isOpen) {
      const message = `${method}: another version of the agent has taken over from this one`;
      throw new AgentError(message, { code: 'NOT_RUNNING' });
    }
    return this.#channel.call(method, params);
  }

  /** What has to be said to the host after close() too. */
  undo(method, params) {
    return this.#channel.call(method, params);
  }

  notifyLog(level, message, fields) {
    if (this.#isOpen) this.#channel.notifyLog(level, message, fields);
  }

  close() {
    this.#isOpen = false;
  }
}

/** indexedDB: undefined where the manifest's backend is another. */
export function createContext(channel, { agent, manifest, capabilities, permissions, limits }, indexedDB) {
  return Object.freeze({
    agent,
    manifest,
    capabilities,
    permissions,
    limits,
    memory: createMemory(channel),
    ...(indexedDB && { indexedDB }),
    log: createLog(channel),
    async send(to, capability, payload = {}, options = {}) {
      const { timeoutMs } = options;
      const params = { to, capability, ...encodePayload(payload), metadata: metadataOf(options), timeoutMs };
      return decodePayload(await channel.call('klp.send', params));
    },
    async emit(name, data = null, options = {}) {
      await channel.call('klp.emit', { name, ...encodeData(data), metadata: metadataOf(options) });
    },
  });
}

/** undefined, which is left out, where nothing of it is given. */
function metadataOf({ priority, ttl, traceparent }) {
  if (priority === undefined && ttl === undefined && traceparent === undefined) return undefined;
  return { priority, ttl, traceparent };
}

function createMemory(channel) {
  return Object.freeze({
    async get(key, { agent } = {}) {
      const result = await channel.call('memory.get', { key: wellFormed(key), agent });
      return result.found ? decodeValue(result) : undefined;
    },
    async getEntry(key, { agent } = {}) {
      const result = await channel.call('memory.get', { key: wellFormed(key), agent });
      return result.found ? { value: decodeValue(result), version: result.version } : undefined;
    },
    async set(key, value, options = {}) {
      const { version } = await channel.call('memory.set', encodeEntry({ ...options, key, value }));
      return { version };
    },
    async getMany(keys, { agent } = {}) {
      const { entries } = await channel.call('memory.getMany', { keys: keys.map(wellFormed), agent });
      return new Map(entries.map((entry) => [entry.key, decodeValue(entry)]));
    },
    async setMany(entries) {
      const { versions } = await channel.call('memory.setMany', { entries: entries.map(encodeEntry) });
      return versions.map((version) => ({ version }));
    },
    async delete(key) {
      return (await channel.call('memory.delete', { key: wellFormed(key) })).deleted;
    },
    async list({ prefix, limit, cursor, agent } = {}) {
      return channel.call('memory.list', { prefix: wellFormed(prefix), limit, cursor, agent });
    },
  });
}

function encodeEntry({ key, value, ttl, ifAbsent, ifVersion }) {
  return { key: wellFormed(key), ...encodeValue(value), ttl, ifAbsent, ifVersion };
}

/** What UTF-8 cannot say would be sent as U+FFFD: two keys would be one. */
function wellFormed(key) {
  if (typeof key === 'string' && /\p{Surrogate}/u.test(key)) {
    throw new AgentError(`the key ${JSON.stringify(key)} has half of a surrogate pair`, { code: 'INVALID' });
  }
  return key;
}

const MAX_LOG_TEXT = 64 << 10; // characters

function createLog(channel) {
  const at = (level) => (message, fields) => {
    const text = String(message).slice(0, MAX_LOG_TEXT);
    try {
      channel.notifyLog(level, text, fields);
    } catch (error) {
      // Logging never throws into the agent: the record goes without the fields that are no JSON or too long.
      channel.notifyLog(level, text, { fieldsLost: error.message });
    }
  };
  return Object.freeze({ debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') });
}
