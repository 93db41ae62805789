#!/usr/bin/python3
"""Holds count.py, which decides whether all tests passed, to what it promises."""

import contextlib
import io
import pathlib
import sys
import tempfile
import unittest
from unittest import mock
from xml.sax.saxutils import escape

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import count

DOCTEST = "[doctest] test cases:     26 |     25 passed | 1 failed | 2 skipped\n[doctest] assertions: 9 | 9 passed |\n"
UNITTEST = "test_a (m.C.test_a) ... skipped 'needs root'\n\nRan 7 tests in 0.1s\n\nFAILED (failures=1, errors=1, skipped=2)\n"
NODE = "# tests 5\n# pass 4\n# fail 1\n# cancelled 0\n# skipped 0\n"


class Count(unittest.TestCase):
    def report(self, *cases):
        body = "".join(f'<testcase name="{name}" status="{status}"><skipped message="{output if status == "notrun" else ""}"/>'
                       f'<system-out>{escape(output)}</system-out></testcase>' for name, status, output in cases)
        file = tempfile.NamedTemporaryFile("w", suffix=".xml")
        self.addCleanup(file.close)
        file.write(f"<testsuite>{body}</testsuite>")
        file.flush()
        return file.name

    def run_on(self, *reports):
        """(status, last line, everything that was printed)"""
        out = io.StringIO()
        with mock.patch.object(sys, "argv", ["count.py", *reports]), contextlib.redirect_stdout(out), \
                contextlib.redirect_stderr(out):
            status = count.main()
        return status, out.getvalue().splitlines()[-1], out.getvalue()

    def test_programs_counts_are_taken(self):
        self.assertEqual(count.own_counts(DOCTEST), [25, 1, 2])
        self.assertEqual(count.own_counts(UNITTEST), [3, 2, 2])
        self.assertEqual(count.own_counts("Ran 3 tests in 0.1s\n\nOK\n"), [3, 0, 0])
        self.assertEqual(count.own_counts(NODE), [4, 1, 0])
        self.assertEqual(count.own_counts("12 inputs\n"), [12, 0, 0])
        self.assertIsNone(count.own_counts("nothing of the kind\n"))

    def test_all_passed(self):
        report = self.report(("a", "run", "[doctest] test cases: 3 | 3 passed | 0 failed | 0 skipped\n"), ("b", "run", ""))
        self.assertEqual(self.run_on(report, report)[:2], (0, "8 passed, 0 failed"))

    def test_a_failure_without_a_count_is_one(self):
        status, last, _ = self.run_on(self.report(("crashed", "fail", "Segmentation fault"), ("b", "run", "")))
        self.assertEqual((status, last), (1, "1 passed, 1 failed"))

    def test_a_failed_program_whose_own_count_says_that_all_passed_still_failed(self):
        status, last, _ = self.run_on(self.report(("leaks", "fail", "5 inputs\nLeakSanitizer: detected memory leaks")))
        self.assertEqual((status, last), (1, "5 passed, 1 failed"))

    def test_skips_are_counted_and_named(self):
        status, last, text = self.run_on(self.report(("root", "run", UNITTEST.replace("failures=1, errors=1, ", "")),
                                                     ("other", "notrun", "SKIP_RETURN_CODE=77")))
        self.assertIn("needs root", text)
        self.assertEqual((status, last), (0, "5 passed, 0 failed, 3 skipped"))

    def test_a_program_that_was_not_built_is_a_failure(self):
        status, last, _ = self.run_on(self.report(("gone", "notrun", "Unable to find executable"), ("b", "run", "")))
        self.assertEqual((status, last), (1, "1 passed, 1 failed"))

    def test_what_was_run_again_counts_as_it_ended_then(self):
        first = self.report(("racing", "fail", DOCTEST), ("broken", "fail", ""), ("b", "run", ""))
        again = self.report(("racing", "run", ""), ("broken", "fail", ""))
        status, last, text = self.run_on(first, "--again", again)
        self.assertEqual((status, last), (1, "2 passed, 1 failed"))
        self.assertIn("unstable: racing", text)
        self.assertNotIn("unstable: broken", text)
        self.assertEqual(self.run_on(first, "--again", "/no/such/report")[:2], (1, "26 passed, 2 failed, 2 skipped"))

    def test_no_report_and_no_test_are_failures(self):
        self.assertEqual(self.run_on("/no/such/report")[0], 1)
        self.assertEqual(self.run_on(self.report())[:2], (1, "0 passed, 0 failed"))


if __name__ == "__main__":
    unittest.main()
