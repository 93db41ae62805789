// IDBFactory: indexedDB itself.
import { encodeKey } from './keys.mjs';
import { Opening } from './opening.mjs';
import { IDBOpenDBRequest } from './request.mjs';
import { checkArguments, checkConstructor, defineInterface, enforceRange, internal, slots } from './web_idl.mjs';

const MAX_VERSION = Number.MAX_SAFE_INTEGER;

export class IDBFactory {
  constructor(token, host) {
    checkConstructor(token);
    Object.defineProperty(this, slots, { value: new Opening(host) });
  }

  open(name, version) {
    checkArguments(arguments, 1, 'IDBFactory.open');
    const opening = this[slots];
    const text = String(name);
    const asked = version === undefined ? undefined : enforceRange(version, 'version', MAX_VERSION);
    if (asked === 0) throw new TypeError('version is 0');
    const request = new IDBOpenDBRequest(internal);
    opening.open(request, text, asked);
    return request;
  }

  deleteDatabase(name) {
    checkArguments(arguments, 1, 'IDBFactory.deleteDatabase');
    const opening = this[slots];
    const text = String(name);
    const request = new IDBOpenDBRequest(internal);
    opening.delete(request, text);
    return request;
  }

  async databases() {
    return this[slots].databases();
  }

  cmp(first, second) {
    checkArguments(arguments, 2, 'IDBFactory.cmp');
    return Buffer.compare(encodeKey(first), encodeKey(second));
  }
}
defineInterface(IDBFactory, 'IDBFactory');
