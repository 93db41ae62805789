// What an agent imports. CommonJS, because both module systems can load that: index.mjs re-exports it, so that
// AgentError is one class whichever way the agent and its libraries import it.
'use strict';

const { randomBytes } = require('node:crypto');

/** A call to the runtime that failed, and what an agent may throw to say more than a message. */
class AgentError extends Error {
  constructor(message, { code = 'AGENT_ERROR', details, retryable = false, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'AgentError';
    this.code = code;
    this.details = details;
    this.retryable = retryable;
  }
}

/** RFC 9562 version 7: 48 bits of milliseconds, then version, variant and random bits. */
function uuidv7() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  const hex = bytes.toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

/** The response to `msg` as a whole KLPMessage. The supervisor stamps `from` and the time again. */
function reply(msg, payload) {
  const response = {
    protocol: 'klp/1.0',
    id: uuidv7(),
    from: msg.to,
    to: msg.from,
    type: 'response',
    correlationId: msg.id,
    timestamp: new Date().toISOString(),
    payload,
  };
  if (msg.capability !== undefined) response.capability = msg.capability;
  return response;
}

module.exports = { AgentError, reply };
