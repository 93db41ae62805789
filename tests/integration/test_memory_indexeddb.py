"""The web platform's IndexedDB cases (tests/sdk/agents/indexeddb, the table of docs/indexeddb.md) in a real sandbox, against
the real daemon: what sdk.indexeddb runs beside it."""

import json
import pathlib
import unittest

import harness

CASES = pathlib.Path(__file__).resolve().parents[1] / "sdk" / "agents" / "indexeddb"
AGENT = "indexeddbCases"


class IndexedDb(harness.DaemonTest):
    def test_the_cases_hold_in_a_sandbox(self):
        self.ok("register", CASES)
        self.ok("start", AGENT)
        names = self.ok("send", AGENT, "listCases").document["payload"]["cases"]
        self.assertGreater(len(names), 200)
        for name in names:
            with self.subTest(case=name):
                self.ok("send", AGENT, "runCase", json.dumps({"name": name}))


if __name__ == "__main__":
    unittest.main()
