// Storing one record: its key (with the key generator's arithmetic), its value's bytes, and its keys in the indexes.
import { dataError, domException } from './errors.mjs';
import { canInjectKey, extractKey, indexKeys, injectKey } from './key_path.mjs';
import { encodeKey, numberOf } from './keys.mjs';
import { clone, serialize } from './values.mjs';

const MAX_GENERATED = 2 ** 53;
/** What stands for 2 ** 53 + 1, which is no double: the generator has given out all its numbers. */
const EXHAUSTED = MAX_GENERATED + 2;

/** A getter of the value that uses the transaction finds it inactive. */
export function cloneInactive(execution, value) {
  execution.state = 'inactive';
  try {
    return clone(value);
  } finally {
    if (execution.state === 'inactive') execution.state = 'active';
  }
}

/** The key by the store's key path; undefined where it is to be generated. */
export function keyWithin(cloned, { keyPath, autoIncrement }) {
  const extracted = extractKey(cloned, keyPath);
  if (extracted !== undefined) {
    if (extracted.key === undefined) throw dataError('What the keyPath leads to is not a valid key.');
    return extracted.key;
  }
  if (!autoIncrement) throw dataError('The keyPath leads nowhere in the value.');
  if (!canInjectKey(cloned, keyPath)) throw dataError('A generated key cannot be put where the keyPath leads.');
  return undefined;
}

export function placePut(execution, { request, store, cloned, key, noOverwrite, result }) {
  // The indexes as they are now: one that is made later is filled from the records.
  const indexes = [...store.indexes.values()];
  let value = serialize(cloned); // at once, because it may throw
  let entries = entriesOf(cloned, indexes);
  execution.place({
    request,
    async run() {
      const params = { store: store.id, noOverwrite };
      let primaryKey = key;
      if (store.autoIncrement) {
        const generators = execution.generators;
        if (key !== undefined) {
          generators.set(store.id, noticed(generators.get(store.id), key));
        } else {
          const generated = generate(generators, store.id);
          primaryKey = encodeKey(generated);
          if (store.keyPath !== null) {
            injectKey(cloned, store.keyPath, generated);
            value = serialize(cloned);
            entries = entriesOf(cloned, indexes);
          }
        }
        params.nextKey = generators.get(store.id);
      }
      const indexKeys = entries.map(({ index, key }) => ({ index: index.id, key }));
      execution.writes += 1;
      await execution.call('put', { ...params, key: primaryKey, value, indexKeys });
      return result(primaryKey);
    },
  });
}

function entriesOf(cloned, indexes) {
  return indexes.flatMap((index) => indexKeys(cloned, index).map((key) => ({ index, key })));
}

function generate(generators, id) {
  const current = generators.get(id);
  if (current > MAX_GENERATED) {
    throw domException('ConstraintError', 'The key generator has reached 2 to the power of 53.');
  }
  generators.set(id, after(current));
  return current;
}

/** The current number after a record with a key of its own. */
function noticed(current, key) {
  const number = numberOf(key);
  if (number === undefined) return current;
  const whole = Math.floor(Math.min(number, MAX_GENERATED));
  return whole >= current ? after(whole) : current;
}

function after(number) {
  return number >= MAX_GENERATED ? EXHAUSTED : number + 1;
}
