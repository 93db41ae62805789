#!/usr/bin/python3
"""Echo latency of an agent while another uses up what it can: p50 and p99, unloaded and during each flood, in turns.

usage: bench/neighbour.py [--bin DIRECTORY] [--as root|user] [--turns N] [--seconds N] [FLOOD...]

Turns of N seconds, unloaded and beside the flood one after the other; figures are the medians over the turns. The ratio is
p99 beside the flood by p99 unloaded; the aim is 2. Needs the targets programs, kai-neighbour
and example-echo-cpp of a build (default: build/release). On an idle machine only; it takes about four minutes.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests/escape"), str(HERE.parent / "tests/integration")]

FLOODS = {"fork bomb": "FORK_BOMB", "memory": "MEMORY", "tmp bytes": "BYTES", "tmp inodes": "INODES", "descriptors": "DESCRIPTORS",
          "fd passing": "PASSED", "log flood": "LOG", "one byte a second": "TRICKLE", "cpu spin": "SPIN", "denied calls": "DENIALS",
          "stopped process": "STOPPED"}
# What is over in a moment is begun again and again for as long as it is measured.
REPEATED = {"memory", "tmp bytes", "tmp inodes"}
AIM = 2.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=HERE.parent / "build/release/bin")
    parser.add_argument("--as", dest="who", choices=("root", "user"), default="root" if os.geteuid() == 0 else "user")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("floods", nargs="*")
    arguments = parser.parse_args()
    programs = pathlib.Path(arguments.bin).resolve()
    os.environ["KAI_BIN"] = str(programs)

    import floods
    import inside
    import packages

    user, made = inside.user_of(arguments.who)
    daemon = inside.EscapeDaemon(programs, user)
    daemon.prefix = daemon.identity()

    def echo():
        done = subprocess.run([*daemon.identity(), str(programs / "kai-neighbour"), str(daemon.socket), "echoCpp",
                               str(arguments.seconds)], stdout=subprocess.PIPE, text=True, check=True)
        _, p50, p99 = done.stdout.split()
        return float(p50), float(p99)

    def must(*words):
        outcome = daemon.ctl(*words)
        if outcome.code != 0:
            sys.exit(f"neighbour.py: {outcome}")

    def during(name, turn):
        """The echo beside a registered agent that floods."""
        agent = f"flood-{name.replace(' ', '-')}-{turn}"
        flood = "/usr/bin/python3 /agent/flood.py /tmp"
        command = f"while :; do timeout 1 {flood}; done" if name in REPEATED else f"exec {flood}"
        path = packages.script(daemon.directory / "floods", agent, command + "\n")
        (path / "flood.py").write_text(getattr(floods, FLOODS[name]))
        must("register", path)
        must("start", agent)
        time.sleep(0.5)  # the flood shall be at its height; nothing says when
        try:
            return echo()
        finally:
            daemon.ctl("terminate", agent, "--purge")
            daemon.ctl("unregister", agent)

    def medians(pairs):
        return [statistics.median(values) for values in zip(*pairs)]

    try:
        daemon.start()
        must("register", programs.parent / "examples/echo-cpp")
        must("start", "echoCpp")
        echo()  # warm
        print(f"{'flood':20} {'p50 us':>9} {'p99 us':>9}   unloaded {'p50':>7} {'p99':>7}   p99 ratio (aim {AIM:g})")
        worst = 0.0
        for name in arguments.floods or FLOODS:
            turns = [(echo(), during(name, turn)) for turn in range(arguments.turns)]
            idle, loaded = medians(turn[0] for turn in turns), medians(turn[1] for turn in turns)
            ratio = loaded[1] / idle[1]
            worst = max(worst, ratio)
            print(f"{name:20} {loaded[0]:9.1f} {loaded[1]:9.1f}            {idle[0]:7.1f} {idle[1]:7.1f}   {ratio:9.2f}", flush=True)
        print(f"worst ratio {worst:.2f}")
        daemon.stop()
    finally:
        daemon.clean_up()
        if made:
            inside.remove_user(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
