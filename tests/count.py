#!/usr/bin/python3
"""Counts the single test cases behind ctest's JUnit reports, and says the result in one line.

usage: count.py REPORT [--again REPORT]...

A ctest test is often a whole program: doctest, unittest, node --test and the fuzz corpora print how many cases they
ran, and those numbers count; any other test counts as one. A program that failed without a count of its own is one
failure. Skipped cases are named. What --again has was run once more, and counts as it ended then; what passed only
then is named. Status 1 on any failure, and where no case ran.
"""

import re
import sys
import xml.etree.ElementTree

DOCTEST = re.compile(r"^\[doctest\] test cases:\s*\d+ \|\s*(\d+) passed \|\s*(\d+) failed \|\s*(\d+) skipped", re.M)
UNITTEST = re.compile(r"^Ran (\d+) tests? in ", re.M)
UNITTEST_RESULT = re.compile(r"^(?:OK|FAILED)(?: \((.*)\))?$", re.M)
UNITTEST_SKIP = re.compile(r"^(.*) \.\.\. skipped (.*)$", re.M)
NODE = re.compile(r"^(?:#|\u2139) (pass|fail|skipped) (\d+)$", re.M)
FUZZ = re.compile(r"^(\d+) inputs$", re.M)


def own_counts(output):
    """(passed, failed, skipped) as the program printed them; None when it printed none."""
    totals = [0, 0, 0]
    found = False
    for numbers in DOCTEST.findall(output):
        found = True
        totals = [total + int(number) for total, number in zip(totals, numbers)]
    for ran, result in zip(UNITTEST.findall(output), UNITTEST_RESULT.findall(output)):
        found = True
        parts = dict(part.split("=") for part in result.split(", ")) if result else {}
        failed = sum(int(parts.get(key, 0)) for key in ("failures", "errors", "unexpected successes"))
        skipped = int(parts.get("skipped", 0))
        totals[0] += max(0, int(ran) - failed - skipped)
        totals[1] += failed
        totals[2] += skipped
    for key, number in NODE.findall(output):
        found = True
        totals[("pass", "fail", "skipped").index(key)] += int(number)
    for number in FUZZ.findall(output):
        found = True
        totals[0] += int(number)
    return totals if found else None


def skip_reason(case):
    skipped = case.find("skipped")
    return "" if skipped is None else skipped.get("message", "")


def count_case(case):
    """(passed, failed, skipped) of one ctest test."""
    status = case.get("status")
    if status == "disabled" or (status == "notrun" and "SKIP_" in skip_reason(case)):
        return [0, 0, 1]
    output = case.findtext("system-out") or ""
    counts = own_counts(output)
    if status == "run":
        return counts or [1, 0, 0]
    counts = counts or [0, 0, 0]  # failed, or could not even be run (its program was not built)
    counts[1] = max(1, counts[1])
    return counts


def read_cases(report):
    """The ctest tests of a report by name; None, and a line of error, where there is none."""
    try:
        root = xml.etree.ElementTree.parse(report).getroot()
    except (OSError, xml.etree.ElementTree.ParseError) as error:
        print(f"count.py: no report {report}: {error}", file=sys.stderr)
        return None
    return {case.get("name"): case for case in root.iter("testcase")}


def read_reports(arguments):
    """(report, its tests), with the later ends of those that were run again."""
    found = []
    arguments = iter(arguments)
    for argument in arguments:
        if argument != "--again":
            found.append((argument, read_cases(argument)))
            continue
        first = found[-1][1] or {}
        for name, case in (read_cases(next(arguments)) or {}).items():
            if not count_case(case)[1]:
                print(f"unstable: {name} failed beside other tests and passed alone, see above")
            first[name] = case
    return found


def main():
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    totals = [0, 0, 0]
    for report, cases in read_reports(sys.argv[1:]):
        if cases is None:
            totals[1] += 1
            continue
        for case in cases.values():
            counts = count_case(case)
            totals = [a + b for a, b in zip(totals, counts)]
            if counts[1]:
                print(f"failed: {case.get('name')} ({counts[1]} of {sum(counts)}) in {report}")
            if counts[2]:
                named = UNITTEST_SKIP.findall(case.findtext("system-out") or "")
                reasons = sorted({reason for _, reason in named}) or [skip_reason(case) or "they ask for root (doctest::skip)"]
                print(f"skipped: {counts[2]} of {case.get('name')}: {'; '.join(reasons)}")
    passed, failed, skipped = totals
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
