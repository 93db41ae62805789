// JSON-RPC 2.0, one document a line, in both directions over one socket. Nothing here grows without bound.
import net from 'node:net';
import { INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR, RpcFault, SERVER_ERROR, fromErrorBody } from './faults.mjs';
import { AgentError } from '../index.mjs';

export const MAX_LINE = (1 << 20) + (64 << 10); // bytes, without the LF
const MAX_UNSENT = 16 << 20; // bytes of answers that the host has not taken: beyond it nothing more is read
const MAX_UNSENT_LOG = 1 << 20; // bytes: beyond it log records are dropped and counted
const MAX_CALLS = 256; // calls to the host that are waiting for their answer
const LF = 10;
const utf8 = new TextDecoder('utf-8', { fatal: true });

export class Channel {
  #socket;
  #handler;
  #line = []; // parts of the line that is being read
  #lineBytes = 0;
  #calls = new Map();
  #nextId = 1;
  #droppedLogs = 0;

  /**
   * handler: request(method, params) → {result: promise, fault(thrown) → promise of the error body},
   * notification(method, params), closed(), answered(method) once the answer has been handed to the kernel.
   */
  constructor(fd, handler) {
    this.#handler = handler;
    this.#socket = new net.Socket({ fd, readable: true, writable: true });
    this.#socket.on('data', (chunk) => this.#read(chunk));
    this.#socket.on('drain', () => this.#socket.resume());
    this.#socket.on('error', () => {}); // 'close' follows
    this.#socket.on('close', () => handler.closed());
  }

  notify(method, params) {
    this.#write(encode({ jsonrpc: '2.0', method, params }));
  }

  /** Log records give way: an agent that logs faster than the host reads loses records, not memory. */
  notifyLog(level, message, fields) {
    if (this.#socket.writableLength > MAX_UNSENT_LOG) {
      this.#droppedLogs += 1;
      return;
    }
    if (this.#droppedLogs > 0) {
      const dropped = this.#droppedLogs;
      this.#droppedLogs = 0;
      this.notify('log', { level: 'warn', message: `${dropped} log records were dropped: the agent logs too fast` });
    }
    this.notify('log', { level, message, fields });
  }

  call(method, params) {
    if (this.#calls.size >= MAX_CALLS) {
      const message = `${MAX_CALLS} calls are waiting for an answer; await some of them before the next`;
      return Promise.reject(new AgentError(message, { code: 'BUSY', retryable: true }));
    }
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      const line = encode({ jsonrpc: '2.0', id, method, params });
      this.#calls.set(id, { resolve, reject });
      this.#write(line);
    });
  }

  #write(line, done) {
    this.#socket.write(line, done);
    if (this.#socket.writableLength > MAX_UNSENT) this.#socket.pause();
  }

  #read(chunk) {
    let start = 0;
    for (let end; (end = chunk.indexOf(LF, start)) !== -1; start = end + 1) {
      this.#append(chunk.subarray(start, end));
      const bytes = this.#lineBytes;
      const line = bytes <= MAX_LINE ? Buffer.concat(this.#line, bytes) : undefined;
      this.#line = [];
      this.#lineBytes = 0;
      this.#take(line, bytes);
    }
    this.#append(chunk.subarray(start));
  }

  #append(part) {
    this.#lineBytes += part.length;
    if (this.#lineBytes > MAX_LINE)
      this.#line = []; // only counted on, up to its LF
    else this.#line.push(part);
  }

  #take(line, bytes) {
    if (line === undefined) {
      const message = `a line of ${bytes} bytes; the limit is ${MAX_LINE}`;
      return this.#refuse(null, new RpcFault(INVALID_REQUEST, message, { code: 'TOO_LARGE' }));
    }
    let document;
    try {
      document = JSON.parse(utf8.decode(line));
    } catch (error) {
      const message = `not a JSON document in UTF-8: ${error.message}`;
      return this.#refuse(null, new RpcFault(PARSE_ERROR, message, { code: 'INVALID' }));
    }
    this.#dispatch(document);
  }

  #dispatch(document) {
    const { jsonrpc, id, method, params = {} } = document ?? {};
    const answerable = typeof id === 'string' || typeof id === 'number';
    if (jsonrpc !== '2.0' || (id !== undefined && id !== null && !answerable)) return this.#refuseShape(null);
    if (typeof method !== 'string') {
      if (!('result' in document) && !('error' in document)) return this.#refuseShape(answerable ? id : null);
      return this.#settle(id, document);
    }
    if (typeof params !== 'object' || params === null || Array.isArray(params)) {
      const fault = new RpcFault(INVALID_PARAMS, `${method}: params is not an object`, { code: 'INVALID' });
      return answerable ? this.#refuse(id, fault) : undefined;
    }
    if (answerable) this.#serve(id, method, params);
    else this.#handler.notification(method, params);
  }

  async #serve(id, method, params) {
    const { result, fault } = this.#handler.request(method, params);
    let line;
    try {
      // Encoding is inside: a value that is not JSON is the agent's error like any other.
      line = encode({ jsonrpc: '2.0', id, result: await result }, `the answer to ${method}`);
    } catch (thrown) {
      line = encode({ jsonrpc: '2.0', id, error: await fault(thrown) });
    }
    this.#write(line, () => this.#handler.answered(method));
  }

  #settle(id, document) {
    const call = this.#calls.get(id);
    if (call === undefined) return; // also the error with id null by which the host answers garbage
    this.#calls.delete(id);
    if (document.error) call.reject(fromErrorBody(document.error));
    else call.resolve(document.result ?? {});
  }

  #refuse(id, fault) {
    this.#write(encode({ jsonrpc: '2.0', id, error: fault.toJSON() }));
  }

  #refuseShape(id) {
    this.#refuse(id, new RpcFault(INVALID_REQUEST, 'not a JSON-RPC 2.0 request or answer', { code: 'INVALID' }));
  }
}

/** One line. Throws for what is no JSON (a cycle, a BigInt), and for what is too long, which the error calls `what`. */
function encode(document, what = 'a message') {
  const text = wellFormed(JSON.stringify(document));
  const bytes = Buffer.byteLength(text);
  if (bytes > MAX_LINE) {
    const message = `${what} has ${bytes} bytes, over the limit of a line, ${MAX_LINE}: send less, or in parts`;
    throw document.method === undefined
      ? new RpcFault(SERVER_ERROR, message, { code: 'TOO_LARGE' })
      : new AgentError(message, { code: 'TOO_LARGE' });
  }
  return `${text}\n`;
}

// JSON.stringify escapes half of a surrogate pair, which strict parsers refuse: it becomes U+FFFD, as in UTF-8.
function wellFormed(json) {
  if (!json.includes('\\ud')) return json;
  return json.replace(/\\(?:u(d[89a-f][0-9a-f]{2})|.)/g, (escape, half) => (half ? '\ufffd' : escape));
}
