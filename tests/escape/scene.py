"""What limits.py and stress.py share: a kaid under the one user or the other, agents on it, and what must hold while it is
under attack.
"""

import argparse
import os
import pathlib
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "integration")]


def parse(documentation, *flags):
    """The arguments; afterwards harness may be imported."""
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--as", dest="who", choices=("root", "user"), required=True)
    for flag in flags:
        parser.add_argument(flag, action="store_true")
    arguments, rest = parser.parse_known_args()
    arguments.rest = rest
    os.environ["KAI_BIN"] = str(pathlib.Path(arguments.bin).resolve())
    os.environ["KAI_ESCAPE_AS"] = arguments.who
    skip_without_root(arguments.who, 1)
    return arguments


def skip_without_root(who, count):
    """Ends a run as root that an ordinary user started, in words that tests/count.py counts as skipped."""
    if who == "root" and os.geteuid() != 0:
        print(f"escape ... skipped 'needs root, and was started by an ordinary user'\nRan {count} tests in 0.000s\n\n"
              f"OK (skipped={count})")
        sys.exit(0)


def run_tests(rest):
    import harness
    harness.adopt_orphans()
    program = unittest.main(module="__main__", argv=[sys.argv[0], *rest], verbosity=2, exit=False)
    return 0 if program.result.wasSuccessful() else 1


def make_test_class():
    """The base class of the tests: one kaid for all of a class, and a neighbour agent that answers."""
    import harness
    import inside
    import packages

    class UnderAttack(harness.DaemonTest):
        as_root = False  # whether kaid is root's

        @classmethod
        def setUpClass(cls):
            cls.user, made = inside.user_of(os.environ["KAI_ESCAPE_AS"])
            cls.as_root = os.geteuid() == 0 and cls.user is None
            if made:
                cls.addClassCleanup(inside.remove_user, made)
            cls.daemon = inside.EscapeDaemon(harness.BIN, cls.user)
            cls.daemon.prefix = cls.daemon.identity()
            cls.addClassCleanup(cls.daemon.clean_up)
            cls.daemon.start()
            cls.start("neighbour", packages.probe(cls.daemon.directory / "prepared", "neighbour"))
            cls.quiet = len(harness.descendants(cls.daemon.process.pid))

        @classmethod
        def start(cls, agent, package):
            for command in (["register", package], ["start", agent]):
                outcome = cls.daemon.ctl(*command)
                assert outcome.code == 0, f"{outcome}\nlog:\n{cls.daemon.log[-4000:]}"

        def neighbour_answers(self, times=5):
            for number in range(times):
                self.assertEqual(self.send("neighbour", "echo", number), number)
            self.assertEqual(self.daemon.ctl("version").code, 0)

        def run_process(self, *command, options=()):
            return self.daemon.ctl_process("run", *options, "--", *command)

        def nothing_left(self):
            """As many processes as before the attack: kaid, control, its ready starters, the neighbour."""
            harness.wait_until(lambda: len(harness.descendants(self.daemon.process.pid)) <= self.quiet + 2,
                               f"the attack's processes to end, {self.quiet} were there before")

    return UnderAttack
