#!/usr/bin/python3
"""stress-ng and a system call fuzzer as agents: they do their work, the host and kaid live on, nothing is left behind.

usage: stress.py --bin DIRECTORY --as root|user [--all] [TEST...]

Without --all a chosen list of stressors, a second each, two sandboxes at a time, about a minute; with it whole classes one
stressor after another, which takes a quarter of an hour.
"""

import os
import re
import sys

import scene

ARGUMENTS = scene.parse(__doc__, "--all")

import concurrent.futures  # noqa: E402  (after the path is set)

import harness  # noqa: E402

UnderAttack = scene.make_test_class()

CLASSES = ("vm", "cpu", "filesystem", "interrupt", "io", "memory", "network", "os", "pipe", "scheduler", "security")
# Of each class; those that need what the sandbox refuses altogether (modules, devices, /sys) would prove nothing here.
CHOSEN = ("brk mmap vm malloc mremap madvise mlock stack "                                  # vm
          "cpu matrix qsort hash "                                                          # cpu
          "dentry dir fallocate fstat getdent hdd link lockf rename symlink utime xattr "   # filesystem
          "itimer nanosleep sigpipe sigq signal timer timerfd "                             # interrupt
          "aio seek sync-file readahead "                                                   # io
          "memcpy membarrier mincore stream "                                               # memory
          "epoll sock sockpair udp sockfd "                                                 # network
          "clone exec fork futex inotify kill pthread sem eventfd dup "                     # os
          "pipe splice tee fifo "                                                           # pipe
          "switch yield wait "                                                              # scheduler
          "prctl urandom seccomp apparmor").split()                                         # security
AT_LEAST = 30
# Its own status is not asked: where a call is refused, stress-ng counts a stressor as failed or skipped, which is as it
# should be. What it did is in its metrics.
ONE_AFTER_ANOTHER = 'for name; do stress-ng --$name 1 --timeout 1 --metrics-brief --temp-path /tmp --oomable 2>&1; done'
METRIC = re.compile(r"metrc: \[\d+\] (\S+) +(\d+) +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+$", re.M)
KERNEL_FAULTS = re.compile(r"BUG:|Oops|general protection fault|kernel panic|hung task|soft lockup", re.I)


def operations(output):
    """stressor → bogo operations."""
    return {name: int(count) for name, count in METRIC.findall(output)}


class Stress(UnderAttack):
    def setUp(self):
        self.canary = self.daemon.directory / "canary"
        self.canary.write_text("untouched\n")

    def host_lives(self):
        self.assertEqual(self.canary.read_text(), "untouched\n")
        self.assertIsNone(self.daemon.process.poll(), "kaid lives")
        self.neighbour_answers()
        self.nothing_left()

    def stress(self, *command, seconds):
        return self.daemon.ctl("run", "--", *command, timeout=seconds, text_mode=True)

    def test_stressors_complete_operations_and_nothing_is_left(self):
        halves = (CHOSEN[::2], CHOSEN[1::2])
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            runs = [pool.submit(self.stress, "/bin/sh", "-c", ONE_AFTER_ANOTHER, "sh", *half, seconds=300) for half in halves]
            self.neighbour_answers()
            outcomes = [run.result() for run in runs]
        done = {}
        for outcome in outcomes:
            done.update(operations(outcome.stdout))
        working = sorted(name for name, count in done.items() if count > 0)
        print(f"{len(working)} of {len(CHOSEN)} stressors completed operations: "
              f"{' '.join(f'{name}:{done[name]}' for name in working)}", file=sys.stderr)
        self.assertGreaterEqual(len(working), AT_LEAST, f"{outcomes[0]}\n{outcomes[1]}")
        self.host_lives()

    def test_random_system_calls_change_nothing_outside(self):
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            runs = [pool.submit(self.stress, harness.BIN / "escape-fuzz", str(seed), "8", seconds=120) for seed in (1, 1_000_000)]
            self.neighbour_answers()
            outcomes = [run.result() for run in runs]
        for outcome in outcomes:
            found = re.search(r"calls (\d+) children (\d+) signals (\d+) blocked (\d+)", outcome.stdout)
            self.assertTrue(found, outcome)
            print(f"fuzzed: {found.group(0)}", file=sys.stderr)
            self.assertGreater(int(found.group(1)), 5_000, outcome)
        self.host_lives()

    def test_the_fuzzer_does_not_run_without_a_sandbox(self):
        self.assertEqual(os.spawnv(os.P_WAIT, str(harness.BIN / "escape-fuzz"), ["escape-fuzz", "1", "1"]), 2)


class WholeClasses(UnderAttack):
    """By hand, with --all."""

    def test_whole_classes(self):
        done = {}
        for name in CLASSES:
            outcome = self.daemon.ctl("run", "--", "/usr/bin/stress-ng", "--class", name, "--sequential", "1", "--timeout", "1s",
                                      "--metrics-brief", "--temp-path", "/tmp", "--oomable", timeout=1200, text_mode=True)
            found = operations(outcome.stdout + outcome.stderr)
            done.update(found)
            print(f"{name}: {len(found)} stressors with operations, status {outcome.code}", file=sys.stderr)
            self.neighbour_answers()
            self.nothing_left()
        self.assertGreaterEqual(len(done), AT_LEAST)


if __name__ == "__main__":
    if not ARGUMENTS.all:
        del WholeClasses
    sys.exit(scene.run_tests(ARGUMENTS.rest))
