#!/usr/bin/python3
"""Holds our reading of PEP 440 to Python's own package `packaging`, which is asked now.

usage: pep440_differential.py VERSION_SPECIFIERS_PROGRAM [CASES] [SEED]

Makes CASES (default 8000) pairs of version specifiers and a version from a fixed seed: every operator, every part of a
version in every spelling, prefixes, sets, and texts that are none. The answers, and the versions' normal forms, have to
be the same. Where packaging 23.0, Debian 12's, does not follow PEP 440 it is asked so that it does:

- ~= splits the text that it is given, so that it is asked with the version's normal form;
- a prefix (==1.*, and so ~=) is padded with zeros beside an epoch's number, not behind it: left out are prefixes where
  the version has an epoch, and prefixes with an epoch.

Exit 1: an answer differs, or there is no package to ask.
"""

import random
import re
import subprocess
import sys

try:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version
except ImportError:
    print("Python's package packaging is not here: run scripts/bootstrap, or apt-get install python3-packaging",
          file=sys.stderr)
    sys.exit(1)

MINIMUM = 2000


class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, *choices):
        return self.random.choice(choices)

    def chance(self, share):
        return self.random.random() < share

    def number(self):
        return str(self.pick(0, 0, 0, 1, 1, 1, 2, 2, 3, 9, 10, "00", "01", self.random.randrange(30),
                             2 ** 64 + self.random.randrange(3)))

    def separator(self):
        return self.pick("", "", "", ".", "-", "_")

    def release(self, count=None):
        return ".".join(self.number() for _ in range(count or self.pick(1, 2, 2, 3, 3, 4)))

    def labelled(self, *labels):
        label = self.pick(*labels)
        if self.chance(0.1):
            label = self.pick(label.upper(), label.capitalize())
        return self.separator() + label + self.pick(self.separator() + self.number(), self.number(), "")

    def suffix(self):
        text = ""
        if self.chance(0.3):
            text += self.labelled("a", "b", "rc", "c", "alpha", "beta", "pre", "preview")
        if self.chance(0.2):
            text += self.pick(self.labelled("post", "post", "rev", "r"), "-" + self.number())
        if self.chance(0.2):
            text += self.labelled("dev")
        return text

    def local(self):
        parts = [self.pick("ubuntu", "1", "2", "10", "abc", "ABC", "1a", "007", "0") for _ in range(self.pick(1, 1, 2, 3))]
        return "+" + self.pick(".", "-", "_").join(parts)

    def stem(self, release=None):
        epoch = self.pick("0!", "1!", "2!", "01!") if self.chance(0.06) else ""
        return ("v" if self.chance(0.03) else "") + epoch + (release or self.release()) + self.suffix()

    def version(self):
        text = self.stem()
        if self.chance(0.15):
            text += self.local()
        if self.chance(0.12):
            text = self.pick(" " + text + " ", text + ".", "v" + text, text + "-", text + "+", text + "x", text + ".1",
                             "1.0..1", "a1", "", "1!", "!1", "1.0+a..b", "1.0+-a", "1.0 a1", "1.0.0-foo", "latest",
                             "1.0postt", "1.0devdev", "1.0-1-2", "1.0_1", "V1.0RC1", "1.0rcdev", "1.0aa", "1.0--1",
                             "1.0a--1", "1.0.-1", "1.0a.post", "1.0a-", "1.0.dev.", "1.0r-c1", "1.0+A_1-b")
        return text

    def specifier(self):
        if self.chance(0.02):
            return self.pick("", "1.2.3", "=1.2", "^1.2", "~1.2", "==", ">", "<1.*", ">=1.0.*", "~=1", "~=1.*", "===",
                             "=== 1.0 x", "===foo", "==1.0a1.*", "==1.0.dev1.*", "==1.0+x.*", "!=1.0 .*", "== 1.0.* ",
                             "==*", "== 1. 0", ">=1.0+x", "~=1.0+x", "<1+x", "= =1", "====1.0", "!==1", "<>1", "=>1",
                             "==1.*.*", "==1.0a-.*", "latest", "*", "1.*", "===1;0", "===(1)", ">= 1.0 <2", "==1!", "==v1.*")
        operator = self.pick("==", "==", "!=", "<=", ">=", ">=", "<", "<", ">", ">", "~=", "~=", "===")
        gap = self.pick("", "", "", " ", "  ")
        if operator in ("==", "!=") and self.chance(0.4):
            return operator + gap + ("v" if self.chance(0.05) else "") + self.release() + ".*"
        text = self.stem(self.release(self.pick(2, 2, 3, 3, 4)) if operator == "~=" and self.chance(0.95) else None)
        if operator in ("==", "!=", "===") and self.chance(0.15) or self.chance(0.01):
            text += self.local()
        if operator == "===" and self.chance(0.5):
            text = normal(text) or text
        return operator + gap + text

    def specifiers(self):
        made = [self.specifier() for _ in range(self.pick(1, 1, 1, 1, 1, 2, 2, 3))]
        # packaging takes ===1.0 and ===1.00 for one and the same, and keeps one of them.
        strict = [s for s in made if s.startswith("===")]
        made = [s for s in made if s not in strict[1:]]
        return self.pick(",", ", ", " , ", ",,").join(made)

    def near(self, text):
        """A version close to one that the specifiers name: bounds are where mistakes are."""
        named = re.findall(r"[^\s,~=!<>*]+(?:![^\s,]+)?", text.replace(".*", ""))
        named = [version for version in map(parse, named) if version]
        if not named or self.chance(0.2):
            return self.version()
        version = self.pick(*named)
        release = list(version.release)
        if self.chance(0.4):
            at = self.random.randrange(len(release))
            release[at] = max(0, release[at] + self.pick(-1, 1))
        release += [0] * self.pick(0, 0, 0, 1, 2)
        if self.chance(0.1):
            release.append(1)
        tail = str(version).partition("!")[2] or str(version)
        tail = re.sub(r"^[0-9.]*[0-9]", "", tail)
        near = f"{version.epoch}!" if version.epoch else ""
        near += ".".join(map(str, release)) + self.pick("", tail, tail, self.suffix())
        return near + (self.local() if "+" not in near and self.chance(0.1) else "")


def parse(text):
    try:
        return Version(text)
    except InvalidVersion:
        return None


def normal(text):
    version = parse(text)
    return str(version) if version else None


def is_left_out(text, version):
    prefixes = [part.strip() for part in text.split(",") if ".*" in part or part.strip().startswith("~=")]
    parsed = parse(version)
    return prefixes and (any("!" in part[2:] for part in prefixes) or parsed and parsed.epoch != 0)


def compatible_in_normal_form(match):
    return "~=" + (normal(match.group(1)) or match.group(1))


def answer(case):
    text, version = case
    try:
        SpecifierSet(text)
        specifiers = SpecifierSet(re.sub(r"~=([^,]*)", compatible_in_normal_form, text))
    except InvalidSpecifier:
        return "invalid"
    if not parse(version):
        return "no version"
    try:
        return "yes" if specifiers.contains(version) else "no"
    except InvalidVersion:  # ===TEXT where TEXT is no version: nothing that is one is equal to it
        return "no"


def main():
    if not 2 <= len(sys.argv) <= 4:
        print(__doc__, file=sys.stderr)
        return 2
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 8000
    maker = Maker(int(sys.argv[3]) if len(sys.argv) > 3 else 20261122)
    cases = []
    while len(cases) < count:
        text = maker.specifiers()
        version = maker.near(text)
        if not is_left_out(text, version):
            cases.append((text, version))
    theirs = [(answer(case), normal(case[1]) or "") for case in cases]
    lines = "".join(f"{text}\t{version}\n" for text, version in cases)
    run = subprocess.run([sys.argv[1]], input=lines, capture_output=True, text=True, check=True)
    ours = [tuple(line.split("\t")) for line in run.stdout.splitlines()]
    if len(ours) != len(cases):
        print(f"{len(cases)} cases, {len(ours)} answers of ours", file=sys.stderr)
        return 1
    different = [(case, a, b) for case, a, b in zip(cases, theirs, ours) if a != b]
    for (text, version), packaging, kai in different[:40]:
        print(f"{version!r} in {text!r}: packaging says {packaging}, we say {kai}", file=sys.stderr)
    answers = [kind for kind, _ in theirs]
    kinds = {kind: answers.count(kind) for kind in sorted(set(answers))}
    # A generator that makes only one kind of answer would prove nothing.
    thin = [kind for kind in ("yes", "no", "invalid", "no version") if kinds.get(kind, 0) < count // 100]
    if different or thin or count < MINIMUM:
        print(f"{len(different)} of {count} answers differ; kinds {kinds}", file=sys.stderr)
        return 1
    print(f"{count} answers, all the same as packaging's: {kinds}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
