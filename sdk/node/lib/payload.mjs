// Payloads and messages between their JSON-RPC form and what an agent sees.

/** {payload} or {payloadBase64} → JSON value or bytes. */
export function decodePayload(body) {
  return body.payloadBase64 === undefined ? body.payload : bytesOf(body.payloadBase64);
}

export function encodePayload(value, contentType) {
  if (value instanceof ArrayBuffer) value = new Uint8Array(value);
  if (!ArrayBuffer.isView(value)) return { payload: value ?? null };
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return { payloadBase64: bytes.toString('base64'), contentType: contentType ?? 'application/octet-stream' };
}

/** What `klp.emit` publishes: JSON is called `data` there. */
export function encodeData(value) {
  const { payload, ...bytes } = encodePayload(value);
  return bytes.payloadBase64 === undefined ? { data: payload } : bytes;
}

export function decodeValue(body) {
  return body.valueBase64 === undefined ? body.value : bytesOf(body.valueBase64);
}

export function encodeValue(value) {
  const { payload, payloadBase64 } = encodePayload(value);
  return payloadBase64 === undefined ? { value: payload } : { valueBase64: payloadBase64 };
}

/** The message of the protocol → KLPMessage. */
export function decodeMessage({ payloadBase64, metadata = {}, ...message }) {
  if (payloadBase64 !== undefined) message.payload = bytesOf(payloadBase64);
  return { ...message, metadata };
}

/** What onMessage returned → the result of `message`. */
export function encodeAnswer(value) {
  if (!isMessage(value)) return encodePayload(value);
  const { payload, contentType, ...rest } = value;
  return { message: { ...rest, ...encodePayload(payload, contentType) } };
}

export function isMessage(value) {
  return (
    value?.protocol === 'klp/1.0' &&
    ['id', 'from', 'to', 'type', 'timestamp'].every((field) => typeof value[field] === 'string')
  );
}

function bytesOf(base64) {
  return Buffer.from(base64, 'base64');
}
