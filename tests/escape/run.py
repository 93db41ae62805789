#!/usr/bin/python3
"""The escape suite: every attempt of attempts.def, inside a sandbox of a real kaid and without one; one table.

usage: run.py --bin DIRECTORY --as root|user [--only NAME...]

An attempt counts when it got inside exactly the refusal that its row expects, and succeeded outside: what is refused
everywhere would prove nothing. Where kaid itself says that this machine does not give a layer (`degraded`), the rows that
expect that (`user:degraded:LAYER`) are printed as such. As root, `--as user` runs kaid as an ordinary user that is made for it, the control runs
as root. Status 1 on any escape, other refusal, or attempt that could not be made.
"""

import argparse
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "integration")]

import scene  # noqa: E402  (after the path is set)
import world as worlds  # noqa: E402

KINDS = ("exec", "node", "python", "native")


class Row:
    def __init__(self, line, who):
        self.name, self.attack, inside, self.outside, needs, self.layer = line.split("|")
        self.needs = needs.split()
        of_user = [word[5:] for word in inside.split() if word.startswith("user:")]
        self.expected = of_user[0] if who == "user" and of_user else inside.split()[0]
        self.inside = {}  # where → answer
        self.control = None

    def is_degraded(self, degraded):
        """Whether the layer that should refuse is one that kaid says this machine does not give."""
        return self.expected.startswith("degraded:") and self.expected[9:] in degraded

    def faults(self, degraded):
        """What is wrong with this row, one line each."""
        found = []
        for where, answer in sorted(self.inside.items()):
            if answer is None:
                found.append(f"{self.name} ({where}): could not be made")
            elif self.is_degraded(degraded):
                continue
            elif answer.startswith("escaped"):
                found.append(f"{self.name} ({where}): ESCAPED: {answer[8:]}; {self.layer} should refuse {self.expected}")
            elif answer.split()[1] != self.expected and not self.unproved():
                found.append(f"{self.name} ({where}): {answer}; expected {self.expected} of {self.layer}")
        if not self.control_is_right() and not self.unproved():
            found.append(f"{self.name} (outside): {self.control or 'could not be made'}; expected {self.outside}")
        return found

    def unproved(self):
        """Whether the control lacks root: the row is skipped."""
        return os.geteuid() != 0 and not self.control_is_right()

    def control_is_right(self):
        if self.control is None:
            return False
        return self.control.startswith("escaped") or self.refused_by_kernel()

    def refused_by_kernel(self):
        return bool(self.control) and self.outside.startswith("kernel:") and \
            self.control.split()[:2] == ["refused", self.outside[7:]]


def table(bin_directory, who):
    text = subprocess.run([str(pathlib.Path(bin_directory) / "escape-probe"), "list"], stdout=subprocess.PIPE, text=True,
                          check=True).stdout
    return [Row(line, who) for line in text.splitlines()]


def in_parallel(work):
    """Two at a time, as the build machines have two processors."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(*piece) for piece in work]:
            future.result()


def groups_of(rows):
    """The rows that can share one run of the probe."""
    groups = {}
    for row in rows:
        alone = {"alone", "namespaces", "pty"} & set(row.needs)
        groups.setdefault((" ".join(row.needs), row.name if alone else ""), []).append(row)
    return list(groups.values())


def run_controls(world, rows):
    def one(group):
        found = world.control([row.name for row in group], group[0].needs)
        for row in group:
            row.control = found.get(row.name)
            if row.control is None and row.outside == "kernel:SIGSEGV":
                row.control = "refused SIGSEGV"
    in_parallel([(one, group) for group in groups_of([row for row in rows if "driver" not in row.needs])])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--as", dest="who", choices=("root", "user"), required=True)
    parser.add_argument("--only", nargs="*")
    arguments = parser.parse_args()
    os.environ["KAI_BIN"] = str(pathlib.Path(arguments.bin).resolve())
    scene.skip_without_root(arguments.who, len(table(arguments.bin, arguments.who)))
    worlds.enter_own_mounts()
    started = time.monotonic()

    import inside  # after KAI_BIN is known and in the mount namespace that kaid shall see
    rows = [row for row in table(arguments.bin, arguments.who) if not arguments.only or row.name in arguments.only]
    with inside.Scene(arguments.bin, arguments.who) as stage:
        run_controls(stage.world, rows)
        stage.run(rows)
        degraded = stage.degraded()
        faults = stage.faults()
    return report(rows, faults, degraded, time.monotonic() - started)


def short(answer):
    words = (answer or "not made").split()
    return "escaped" if words[0] == "escaped" else words[1]


def report(rows, faults, degraded, seconds):
    width = max(len(row.name) for row in rows)
    attack = max(len(row.attack) for row in rows)
    print(f"{'attempt':{width}}  {'class':{attack}}  {'inside':13}  outside")
    for row in rows:
        inside = sorted({short(answer) for answer in row.inside.values()}) or ["not made"]
        outside = short(row.control) + (" (this kernel, to everybody)" if row.refused_by_kernel() else "")
        note = f" (degraded: {row.expected[9:]})" if row.is_degraded(degraded) else ""
        print(f"{row.name:{width}}  {row.attack:{attack}}  {' '.join(inside):13}  {outside}{note}")
    wrong = [fault for row in rows for fault in row.faults(degraded)] + faults
    for fault in wrong:
        print(f"wrong: {fault}")
    made = [answer for row in rows for answer in row.inside.values()]
    unproved = [row.name for row in rows if row.unproved()]
    skips = sum(answer is None for answer in made) + sum(not row.inside for row in rows) + len(unproved)
    escapes = sum(answer is not None and answer.startswith("escaped") for row in rows if not row.is_degraded(degraded)
                  for answer in row.inside.values())
    of_kernel = [row.name for row in rows if row.refused_by_kernel()]
    print(f"refused by this kernel to everybody: {len(of_kernel)}: {' '.join(of_kernel)}")
    if unproved:
        print(f"escape ... skipped 'their control needs root': {' '.join(unproved)}")
    print(f"{len(rows)} attempts, made {len(made)} times in {len({where for row in rows for where in row.inside})} kinds of sandbox")
    print(f"escapes {escapes}, skips {skips}")
    # tests/count.py reads these as it reads unittest's.
    failed = len({fault.split()[0] for fault in wrong})
    result = f"FAILED (failures={failed})" if wrong else f"OK (skipped={len(unproved)})" if unproved else "OK"
    print(f"Ran {len(rows)} tests in {seconds:.3f}s\n\n{result}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
