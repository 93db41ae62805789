"""The Node SDK's indexedDB: the cases of agents/indexeddb, against the engine that control has, and what agents/ cannot
check from inside."""

import collections
import json
import os
import re
import tempfile
import unittest

from host import AGENTS, INIT, SOURCE, MemoryHost, Package, Runner, RunnerError, node_command

CASES = os.path.join(AGENTS, "indexeddb")
with open(os.path.join(CASES, "manifest.json"), encoding="utf-8") as file:
    MANIFEST = json.load(file)

DOCUMENT = os.path.join(SOURCE, "docs", "indexeddb.md")
TABLE_ROW = re.compile(r"^\| (?P<subject>\S+\.any\.js|kAI sizes) \| (?P<cases>\d+) \|$", re.MULTILINE)

# Answers the name of the error, if there is one.
PLAIN = """
const result = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});
let db;
export default {
  async onMessage({ capability, payload }, ctx) {
    try {
      if (capability === 'globals') return [typeof indexedDB, typeof IDBKeyRange, ctx.indexedDB === globalThis.indexedDB];
      if (capability === 'open') {
        const request = indexedDB.open('db');
        request.onupgradeneeded = () => request.result.createObjectStore('store');
        db = await result(request);
      }
      if (capability === 'hold') { // a transaction that never ends by itself
        const store = db.transaction('store', 'readwrite').objectStore('store');
        const again = () => { store.get('key').onsuccess = again; };
        again();
      }
      if (capability === 'put') {
        const transaction = db.transaction('store', 'readwrite');
        transaction.objectStore('store').put(payload, 'key');
        await new Promise((resolve, reject) => {
          transaction.oncomplete = resolve;
          transaction.onabort = () => reject(transaction.error);
        });
      }
      if (capability === 'get') return { value: await result(db.transaction('store').objectStore('store').get('key')) };
      return {};
    } catch ({ name, retryable = null }) {
      return { name, retryable };
    }
  },
};
"""


class IndexedDBTest(unittest.TestCase):
    def setUp(self):
        self.package = Package()
        self.addCleanup(self.package.cleanup)
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)

    def memory(self, *options):
        memory = MemoryHost(self.directory.name, "--max-bytes", str(50_000_000), "--indexeddb", *options)
        self.addCleanup(memory.kill)
        return memory

    def runner(self, entry, memory=None, manifest=None):
        runner = Runner(node_command(entry))
        self.addCleanup(runner.__exit__)
        runner.memory = memory
        return runner.start(manifest=manifest or MANIFEST)

    def plain(self, memory=None, manifest=None):
        return self.runner(self.package.write("main.mjs", PLAIN), memory, manifest)

    def test_cases(self):
        # Hundreds of commits: on a busy machine waiting for the disk each time is most of it, and not what they are about.
        runner = self.runner(os.path.join(CASES, "main.mjs"), self.memory("--volatile"))
        names = runner.ask("listCases", {})["cases"]
        with open(DOCUMENT, encoding="utf-8") as file:
            table = {row["subject"]: int(row["cases"]) for row in TABLE_ROW.finditer(file.read())}
        self.assertEqual(table, collections.Counter(name.split(": ")[0] for name in names), "the table of docs/indexeddb.md")
        for name in names:
            with self.subTest(case=name):
                try:
                    runner.ask("runCase", {"name": name})
                except RunnerError as error:
                    self.fail(f"{error.message}\n{error.data.get('stack', '')}")

    def test_an_agent_with_another_backend_has_no_indexeddb(self):
        manifest = {**MANIFEST, "memory": {**MANIFEST["memory"], "backend": "sqlite"}}
        self.assertEqual(self.plain(manifest=manifest).ask("globals"), ["undefined", "undefined", True])
        self.assertEqual(self.plain().ask("globals"), ["object", "function", True])

    def test_what_is_complete_survives_the_kill_of_the_host_and_of_the_agent(self):
        memory = self.memory()
        runner = self.plain(memory)
        self.assertEqual(runner.ask("open"), {})
        self.assertEqual(runner.ask("put", "kept"), {})
        memory.kill()
        runner.process.kill()
        runner = self.plain(self.memory())
        self.assertEqual(runner.ask("open"), {})
        self.assertEqual(runner.ask("get"), {"value": "kept"})

    def test_while_the_host_is_away_requests_fail_and_may_be_tried_again(self):
        memory = self.memory()
        runner = self.plain(memory)
        self.assertEqual(runner.ask("open"), {})
        self.assertEqual(runner.ask("put", "before"), {})
        runner.memory = None  # what is asked is answered UNAVAILABLE now
        self.assertEqual(runner.ask("put", "lost"), {"name": "UnknownError", "retryable": True})
        self.assertEqual(runner.ask("open"), {"name": "UnknownError", "retryable": True})
        memory.close()
        runner.memory = self.memory()
        self.assertEqual(runner.ask("get"), {"value": "before"})
        self.assertEqual(runner.ask("put", "after"), {})
        self.assertEqual(runner.ask("get"), {"value": "after"})

    def test_a_full_quota_is_an_error_and_what_was_there_stays(self):
        memory = MemoryHost(self.directory.name, "--max-bytes", "100000", "--indexeddb")
        self.addCleanup(memory.kill)
        runner = self.plain(memory)
        runner.ask("open")
        self.assertEqual(runner.ask("put", "small"), {})
        self.assertEqual(runner.ask("put", "x" * 200_000), {"name": "QuotaExceededError", "retryable": None})
        self.assertEqual(runner.ask("get"), {"value": "small"})

    def test_a_soft_upgrade_takes_the_database_over_and_ends_the_transactions_of_the_old_version(self):
        runner = self.plain(self.memory())
        self.assertEqual([runner.ask("open"), runner.ask("put", "old"), runner.ask("hold")], [{}, {}, {}])
        load = {"root": self.package.path, "entry": "next.mjs"}
        self.package.write("next.mjs", PLAIN)
        for end in ("discard", "commit"):
            runner.call("load", load)
            runner.call("init", {**INIT, "manifest": MANIFEST, "next": True})
            runner.call(end)
            self.assertEqual(runner.ask("globals"), ["object", "function", True])
            if end == "discard":
                self.assertEqual(runner.ask("hold"), {})
        self.assertEqual(runner.ask("open"), {})
        self.assertEqual(runner.ask("get"), {"value": "old"})
        self.assertEqual(runner.ask("put", "new"), {})
        self.assertEqual(runner.ask("get"), {"value": "new"})


if __name__ == "__main__":
    unittest.main()
