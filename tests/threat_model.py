#!/usr/bin/python3
"""Holds docs/threat-model.md: every test that it names is there, no row is without one, and every attempt of the escape
suite is in a row.

usage: threat_model.py [SOURCE_DIRECTORY]
"""

import pathlib
import re
import sys


def named_tests(root):
    """What tests are called: doctest cases, unittest methods, fuzz targets, attempts of the escape suite."""
    names = attempts(root)
    for path in sorted((root / "tests").rglob("*")):
        if path.suffix == ".cc":
            names |= set(re.findall(r'TEST_CASE(?:_FIXTURE)?\((?:\w+, )?"([^"]+)"', path.read_text(encoding="utf-8")))
        elif path.suffix == ".py":
            names |= set(re.findall(r"def (test_\w+)\(", path.read_text(encoding="utf-8")))
        elif path.name == "CMakeLists.txt":
            names |= set(re.findall(r"kai_fuzz_target\((\w+)", path.read_text(encoding="utf-8")))
    return names


def attempts(root):
    return set(re.findall(r"^ATTEMPT\((\w+),", (root / "tests/escape/attempts.def").read_text(encoding="utf-8"), re.M))


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent)
    names = named_tests(root)
    document = root / "docs/threat-model.md"
    faults, rows, named = [], 0, set()
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), start=1):
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if len(cells) != 3 or cells[0] == "Class of attack" or set(cells[0]) == {"-"}:
            continue
        rows += 1
        tests = re.findall(r"`([^`]+)`", cells[2])
        if not tests:
            faults.append(f"{document.name}:{number}: no test for: {cells[0]}")
        named |= set(tests)
        faults += [f"{document.name}:{number}: there is no test called `{test}`" for test in tests if test not in names]
    faults += [f"{document.name}: no row names the attempt `{name}`" for name in sorted(attempts(root) - named)]
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{rows} claims, {len(faults)} faults")
    return 1 if faults or rows == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
