// Errors as they travel: JSON-RPC error objects.
import { AgentError } from '../index.mjs';

export const PARSE_ERROR = -32700;
export const INVALID_REQUEST = -32600;
export const METHOD_NOT_FOUND = -32601;
export const INVALID_PARAMS = -32602;
export const SERVER_ERROR = -32000;

// The error has to fit a line whatever the agent threw.
const MAX_TEXT = 16 << 10; // characters

/** An answer that the SDK itself gives: not an error of the agent's code, so onError does not see it. */
export class RpcFault extends Error {
  constructor(code, message, data) {
    super(message);
    this.code = code;
    this.data = data;
  }

  toJSON() {
    return { code: this.code, message: this.message, data: this.data };
  }
}

/** For a request to a version of the agent that is not there yet, or no longer. */
export function notRunning(message) {
  return new RpcFault(INVALID_REQUEST, message, { code: 'NOT_RUNNING' });
}

/** Whatever was thrown, as an Error. */
export function asError(thrown) {
  if (thrown instanceof Error) return thrown;
  // Another realm's Error (node:vm) fails instanceof.
  if (typeof thrown?.message === 'string') {
    return Object.assign(new Error(thrown.message), { name: String(thrown.name ?? 'Error'), stack: thrown.stack });
  }
  return new Error(describe(thrown));
}

function describe(value) {
  try {
    return typeof value === 'object' ? JSON.stringify(value) : String(value);
  } catch {
    return 'a value that cannot be shown';
  }
}

/** An error of the agent's code as the error object of an answer. */
export function agentErrorBody(error) {
  const data = { code: 'AGENT_ERROR', name: clip(error.name), stack: clip(error.stack) };
  if (error instanceof AgentError) {
    if (fits(error.details)) data.details = error.details;
    if (error.retryable) data.retryable = true;
  }
  return { code: SERVER_ERROR, message: clip(error.message) ?? '', data };
}

/** The error of an answer from the host as an AgentError. */
export function fromErrorBody(body) {
  const { code = 'INTERNAL', details, retryable = false } = body.data ?? {};
  return new AgentError(String(body.message), { code, details, retryable });
}

function clip(text) {
  if (text === undefined) return undefined;
  const whole = String(text);
  return whole.length <= MAX_TEXT ? whole : `${whole.slice(0, MAX_TEXT)}…`;
}

function fits(details) {
  if (details === undefined) return false;
  try {
    return JSON.stringify(details).length <= MAX_TEXT;
  } catch {
    return false;
  }
}
