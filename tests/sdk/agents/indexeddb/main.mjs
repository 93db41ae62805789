// An agent whose capabilities are the cases of cases/: listCases {} → {cases}, runCase {name} → {}, or the error of what
// did not hold.
import { cases, runCase } from './harness.mjs';

for (const area of [
  'cursor',
  'cursor_changes',
  'database',
  'events',
  'factory',
  'index',
  'key_generator',
  'key_path',
  'keys',
  'more',
  'object_store',
  'object_store_read',
  'structured_clone',
  'transaction',
  'transaction_commit',
  'upgrade',
]) {
  await import(`./cases/${area}.mjs`);
}

export default class IndexedDBCases {
  async onMessage({ capability, payload }) {
    if (capability === 'listCases') return { cases: [...cases.keys()] };
    await runCase(payload.name);
    return {};
  }
}
