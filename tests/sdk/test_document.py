"""docs/runner-protocol.md: its examples are what it says they are, and its smallest agent runs."""

import json
import os
import re
import unittest

from host import PYTHON, SOURCE, Package, Runner

HOST_METHODS = {
    "init", "start", "message", "upgrade", "shutdown", "error", "health", "saveState", "restoreState", "load", "commit",
    "discard",
}  # fmt: skip
AGENT_METHODS = {
    "hello", "log", "klp.send", "klp.emit",
    "memory.get", "memory.set", "memory.getMany", "memory.setMany", "memory.delete", "memory.list",
    "memory.indexedDb",
}  # fmt: skip


def read_document():
    with open(os.path.join(SOURCE, "docs", "runner-protocol.md"), encoding="utf-8") as file:
        return file.read()


class DocumentTest(unittest.TestCase):
    def test_every_example_is_json_rpc_in_the_right_direction(self):
        examples = re.findall(r"^([→←]) (.*)$", read_document(), re.MULTILINE)
        self.assertGreater(len(examples), 20)
        for arrow, line in examples:
            with self.subTest(line=line[:80]):
                document = json.loads(line)
                self.assertEqual(document["jsonrpc"], "2.0")
                if "method" in document:
                    self.assertIn(document["method"], HOST_METHODS if arrow == "→" else AGENT_METHODS)
                    self.assertIsInstance(document["params"], dict)
                else:
                    self.assertTrue(("result" in document) != ("error" in document))

    def test_every_method_is_described(self):
        text = read_document()
        for method in HOST_METHODS | AGENT_METHODS:
            self.assertRegex(text, rf"(###.*\b|\| ){re.escape(method)}\b", method)

    def test_the_smallest_agent_runs(self):
        program = re.search(r"```python\n(.*?)```", read_document(), re.DOTALL).group(1)
        with Package() as root:
            path = os.path.join(root, "echo")
            with open(path, "w", encoding="utf-8") as file:
                file.write(program)
            with Runner([PYTHON, path]) as runner:
                runner.call("init", {"protocol": 1})
                runner.call("start")
                self.assertEqual(runner.ask("echo", {"text": "hello"}), {"text": "hello"})
                runner.call("shutdown")
                self.assertEqual(runner.wait(), 0)


if __name__ == "__main__":
    unittest.main()
