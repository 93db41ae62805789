// The backing store as the host has it: one method of the runner protocol, memory.indexedDb (docs/runner-protocol.md).
// Keys and values travel as base64, names and key paths as JSON.
import { fromHostError } from './errors.mjs';

const METHOD = 'memory.indexedDb';
/** What the host may hold back until other transactions have ended: its own lane, so that those never wait for it. */
const TURNS = ['begin', 'databases', 'deleteDatabase', 'describe'];
const TURNS_IN_FLIGHT = 16;
const IN_FLIGHT = 32; // of the requests of all transactions that run
const BYTES_IN_FLIGHT = 4 << 20; // of their values, in base64; the last one may go beyond

/** The caller has it too. */
const ignore = () => {};

const BYTES = ['key', 'primaryKey', 'value', 'lower', 'upper'];

export class Host {
  #channel;
  #turns;
  #requests;
  #begun = new Set(); // transactions that have not ended
  #isClosed = false;

  constructor(channel) {
    this.#channel = channel;
    this.#turns = new Lane(channel, TURNS_IN_FLIGHT);
    this.#requests = new Lane(channel, IN_FLIGHT);
  }

  /** The result; rejects with the host's error, of which errors.mjs makes exceptions. */
  call(op, params = {}) {
    const lane = TURNS.includes(op) ? this.#turns : this.#requests;
    const asked = lane.call(encode(op, params));
    if (op === 'begin') asked.then(({ transaction }) => this.#begin(transaction), ignore);
    if (op === 'commit' || op === 'abort') asked.then(() => this.#begun.delete(params.transaction), ignore);
    return asked;
  }

  /** For a version of the agent that is dropped: others would wait for its transactions for ever. */
  close() {
    this.#isClosed = true;
    for (const transaction of this.#begun) this.#abandon(transaction);
  }

  #begin(transaction) {
    this.#begun.add(transaction);
    if (this.#isClosed) this.#abandon(transaction);
  }

  #abandon(transaction) {
    this.#channel.undo(METHOD, { op: 'abort', transaction }).catch(ignore);
  }

  async databases() {
    const { databases } = await this.#asked('databases');
    return databases.map(({ name, version }) => ({ name: unescapeName(name), version }));
  }

  /** undefined where there is no such database. */
  async describe(name) {
    return this.#describe('describe', name);
  }

  /** The database as it was; undefined where there was none. */
  async deleteDatabase(name) {
    return this.#describe('deleteDatabase', name);
  }

  async #describe(op, name) {
    const { database } = await this.#asked(op, { name: escapeName(name) });
    return database.version > 0 ? database : undefined;
  }

  async #asked(op, params) {
    try {
      return await this.call(op, params);
    } catch (error) {
      throw fromHostError(error);
    }
  }
}

/** Calls in order, so many at once; the others wait here, where they cost the agent's memory and nobody else's. */
class Lane {
  #channel;
  #free;
  #bytes = 0;
  #waiting = [];

  constructor(channel, width) {
    this.#channel = channel;
    this.#free = width;
  }

  call(params) {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ params, resolve, reject });
      this.#send();
    });
  }

  #send() {
    while (this.#free > 0 && this.#bytes < BYTES_IN_FLIGHT && this.#waiting.length > 0) {
      const { params, resolve, reject } = this.#waiting.shift();
      const bytes = params.value?.length ?? 0;
      this.#free -= 1;
      this.#bytes += bytes;
      const ended = () => {
        this.#free += 1;
        this.#bytes -= bytes;
        this.#send();
      };
      this.#channel.call(METHOD, params).finally(ended).then(resolve, reject);
    }
  }
}

function encode(op, params) {
  const encoded = { op, ...params };
  for (const name of BYTES) {
    if (encoded[name] !== undefined) encoded[name] = base64(encoded[name]);
  }
  if (encoded.keys !== undefined) encoded.keys = encoded.keys.map(base64);
  if (encoded.indexKeys !== undefined) {
    encoded.indexKeys = encoded.indexKeys.map(({ index, key }) => ({ index, key: base64(key) }));
  }
  return encoded;
}

function base64(bytes) {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64');
}

export function decodeRecord({ key, primaryKey, value }) {
  const decoded = { key: Buffer.from(key, 'base64') };
  decoded.primaryKey = primaryKey === undefined ? decoded.key : Buffer.from(primaryKey, 'base64');
  if (value !== undefined) decoded.value = Buffer.from(value, 'base64');
  return decoded;
}

// Half of a surrogate pair is legal in a name and no UTF-8: it travels as U+FFFF and four hexadecimal digits, as does
// U+FFFF itself. NUL too, at which a name would end for whoever holds it as a C string.
export function escapeName(name) {
  return name.replace(
    /[\0\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g,
    (unit) => `\uffff${unit.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

export function unescapeName(name) {
  return name.replace(/\uffff([0-9a-f]{4})/g, (_, digits) => String.fromCharCode(Number.parseInt(digits, 16)));
}
