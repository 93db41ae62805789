#!/usr/bin/python3
"""Holds our reading of npm's version ranges to npm's own package `semver`, which is asked now, with node.

usage: differential.py VERSION_RANGES_PROGRAM [CASES] [SEED]

Makes CASES (default 6000) pairs of a range and a version from a fixed seed: every operator, partial versions, x-ranges,
hyphens, alternatives, pre-releases, build metadata, stray blanks, and ranges that are none. The answers have to be the
same. Left out is a number behind an x (1.x.3), where npm's versions 7.3 and 7.8 differ. Exit 1: an answer differs, or
there is no package to ask.
"""

import json
import os
import random
import shutil
import subprocess
import sys

PLACES = ("/usr/share/nodejs/semver", "/usr/lib/node_modules/npm/node_modules/semver",
          "/usr/local/lib/node_modules/npm/node_modules/semver")
MINIMUM = 2000

ASK = """
const semver = require(process.argv[1]);
const cases = JSON.parse(require("fs").readFileSync(0, "utf8"));
const answer = ([range, version]) => {
  if (semver.validRange(range) === null) return "invalid";
  // Not valid(): some versions of it take white space around, some do not; what satisfies() makes of it is the same.
  try { new semver.SemVer(version); } catch { return "no version"; }
  return semver.satisfies(version, range) ? "yes" : "no";
};
process.stdout.write(JSON.stringify(cases.map(answer)));
"""


class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, *choices):
        return self.random.choice(choices)

    def number(self):
        return str(self.pick(0, 0, 0, 1, 1, 1, 2, 2, 3, 9, 10, self.random.randrange(30)))

    def pre_release(self):
        parts = [self.pick("alpha", "beta", "rc", "0", "1", "2", "10", "a-b", "-", "x", "1a")
                 for _ in range(self.random.randint(1, 3))]
        return "-" + ".".join(parts)

    def build(self):
        return self.pick("", "", "", "+build", "+1.2-x", "+001")

    def version(self):
        text = ".".join(self.number() for _ in range(3))
        if self.random.random() < 0.35:
            text += self.pre_release()
        if self.random.random() < 0.15:
            text += self.build()
        if self.random.random() < 0.03:
            text = self.pick("v" + text, " " + text + " ", "=" + text, text + ".1", "01." + text, text + "-01",
                             "9007199254740992.0.0", "9007199254740991.0.0")
        return text

    def partial(self):
        numbers = self.random.choices((1, 2, 3), (2, 3, 6))[0]
        parts = [self.number() for _ in range(numbers)]
        if self.random.random() < 0.15:
            first = self.random.randrange(numbers)
            parts[first:] = [self.pick("x", "X", "*") for _ in parts[first:]]
        text = ".".join(parts)
        if numbers == 3 and self.random.random() < 0.3:
            text += self.pre_release()
        if numbers == 3 and self.random.random() < 0.08:
            text += self.build()
        return ("v" if self.random.random() < 0.04 else "") + text

    def comparator(self):
        operator = self.pick("", "", "^", "^", "~", "~", "~>", ">", ">=", "<", "<=", "=", ">=", "<")
        gap = self.pick("", "", "", "", " ", "  ") if operator else ""
        return operator + gap + self.partial()

    def alternative(self):
        kind = self.random.random()
        if kind < 0.12:
            return self.partial() + " - " + self.partial()
        if kind < 0.15:
            return self.pick("", "*", "x", ">=0.0.0", "<0.0.0-0", "latest", ">", "1.2.3.4", "- 1", "1 -", "^^1", "~ ~1",
                             "=> 1", "1.2.3 -2", "!1", "a.b.c", "> = 1.2.3", "~ > 1.2", "~ = 1.2", ">x", "<*", "<=x",
                             "^x", "~*", "9007199254740991.x", "9007199254740992.0.0", "01.2.3", "1.02.3", "=v1.2.3",
                             "v=1.2.3", "==1.2.3", "== 1.2", "1.2.3-", "1.2.3-01", "1.2.3+", "^1.2-beta", "= 1.2 - 2",
                             "1..2", "1.2.", ".1", "1.2.3 - 2.0.0 <3", "*>1.2.3")
        return self.pick(" ", " ", "  ").join(self.comparator() for _ in range(self.pick(1, 1, 1, 2, 2, 3)))

    def range(self):
        separator = self.pick("||", " || ", " ||")
        return separator.join(self.alternative() for _ in range(self.pick(1, 1, 1, 1, 2, 3)))

    def near(self, text):
        """A version close to one that the range names: bounds are where mistakes are."""
        words = [w.lstrip("^~<>=v") for w in text.replace("||", " ").split()]
        words = [w for w in words if w[:1].isdigit() and all(p.isdigit() for p in w.split("+")[0].split("-")[0].split("."))]
        if not words or self.random.random() < 0.3:
            return self.version()
        numbers = self.pick(*words).split("+")[0]
        numbers, dash, tail = numbers.partition("-")
        parts = ([int(p) for p in numbers.split(".")] + [0, 0])[:3]
        at = self.random.randrange(3)
        parts[at] = max(0, parts[at] + self.pick(-1, 0, 0, 0, 1))
        text = ".".join(map(str, parts))
        return text + self.pick("", "", dash + tail if tail else "", "-0", self.pre_release())


def main():
    if not 2 <= len(sys.argv) <= 4:
        print(__doc__, file=sys.stderr)
        return 2
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 6000
    maker = Maker(int(sys.argv[3]) if len(sys.argv) > 3 else 20261122)
    package = next((place for place in PLACES if os.path.isdir(place)), None)
    node = shutil.which("node")
    if package is None or node is None:
        print("npm's package semver, or node, is not here: run scripts/bootstrap, or apt-get install nodejs node-semver "
              f"(looked in {', '.join(PLACES)})", file=sys.stderr)
        return 1
    cases = []
    while len(cases) < count:
        text = maker.range()
        cases.append((text, maker.near(text)))
    asked = subprocess.run([node, "-e", ASK, package], input=json.dumps(cases), capture_output=True, text=True, check=True)
    theirs = json.loads(asked.stdout)
    lines = "".join(f"{text}\t{version}\n" for text, version in cases)
    ours = subprocess.run([sys.argv[1]], input=lines, capture_output=True, text=True, check=True).stdout.splitlines()
    if len(ours) != len(cases) or len(theirs) != len(cases):
        print(f"{len(cases)} cases, {len(theirs)} answers of npm's, {len(ours)} of ours", file=sys.stderr)
        return 1
    different = [(case, a, b) for case, a, b in zip(cases, theirs, ours) if a != b]
    for (text, version), npm, kai in different[:40]:
        print(f"{version!r} in {text!r}: npm says {npm}, we say {kai}", file=sys.stderr)
    kinds = {answer: theirs.count(answer) for answer in sorted(set(theirs))}
    # A generator that makes only one kind of answer would prove nothing.
    thin = [kind for kind in ("yes", "no", "invalid") if kinds.get(kind, 0) < count // 50]
    if different or thin or count < MINIMUM:
        print(f"{len(different)} of {count} answers differ; kinds {kinds}", file=sys.stderr)
        return 1
    print(f"{count} answers, all the same as npm's ({package}): {kinds}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
