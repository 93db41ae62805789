// Values: the structured clone of an agent's value, and its bytes in the store (V8's serialization, which newer
// versions of Node read and older ones may not).
import v8 from 'node:v8';
import { domException } from './errors.mjs';

/** So that a record with its keys fits one line of the runner protocol. */
export const MAX_VALUE = 768 << 10; // bytes

class Writer extends v8.Serializer {
  _writeHostObject(object) {
    throw notCloneable(`${object?.constructor?.name ?? 'a host object'} could not be cloned.`);
  }

  _getSharedArrayBufferId() {
    throw notCloneable('A SharedArrayBuffer cannot be stored.');
  }
}

function notCloneable(message) {
  return domException('DataCloneError', message);
}

/** A clone that nobody else has, without getters. Throws DataCloneError, or what a getter of the value throws. */
export function clone(value) {
  if (typeof value !== 'object' && typeof value !== 'function' && typeof value !== 'symbol') return value;
  return structuredClone(value);
}

export function serialize(cloned) {
  const writer = new Writer();
  writer.writeHeader();
  try {
    writer.writeValue(cloned);
  } catch (error) {
    throw error instanceof DOMException ? error : notCloneable(error.message);
  }
  const bytes = writer.releaseBuffer();
  if (bytes.length > MAX_VALUE) {
    throw domException('UnknownError', `The serialized value has ${bytes.length} bytes; the limit is ${MAX_VALUE}.`);
  }
  return bytes;
}

export function deserialize(bytes) {
  try {
    const reader = new v8.Deserializer(bytes);
    reader.readHeader();
    return reader.readValue();
  } catch (error) {
    const hint = `this Node (${process.version}) cannot read it; a newer one may have written it`;
    throw domException('UnknownError', `The stored value is not readable: ${error.message} (${hint}).`);
  }
}
