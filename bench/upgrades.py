#!/usr/bin/python3
"""Figures of upgrades: the pause that a client sees which sends 1,000 messages a second, while agents in C++, Python and
Node are upgraded softly and hard, beside the same without an upgrade; how long each step takes; how long it takes to
register a package of many files, beside tar and sync.

usage: bench/upgrades.py [--bin DIRECTORY] [--turns N] [--seconds S] [--files N]

In turns: S seconds without an upgrade, with a soft one, with a hard one, one after the other, each to a version that is
new. The sender does not wait for answers (bench/steady.cc). A gap is the time from one answer to the next, whichever
message it is for; latency counts from when the message was due. The agent counts what it was asked: all counts of all
versions together have to be those from 1 to the number of messages, each once. Needs the targets programs, kai-steady and
bench_counter of a build (default: build/release). About two minutes, on an idle machine.
"""

import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import tempfile
import time

from command_line import must, parse

RATE = 1000
AIM_MS = {"soft": 50, "hard": 100}  # longest gap, of a native and a Python agent
AIM_FOR = ("native", "python")
KINDS = ("steady", "soft", "hard")
BEFORE = 0.3    # seconds of a turn before its upgrade begins
PATIENCE = 60   # seconds for the last answers

PYTHON = '''
from kai import Agent

class Counter(Agent):
    def on_init(self):
        self.version, self.count = self.manifest["version"], 0

    def save_state(self):
        return {"count": self.count}

    def restore_state(self, state):
        self.count = state["count"]

    def on_message(self, msg):
        self.count += 1
        return {"count": self.count, "version": self.version}
'''
NODE = '''
export default class Counter {
  constructor(ctx) { this.version = ctx.manifest.version; this.count = 0; }
  onInit() {}
  onStart() {}
  onShutdown() {}
  saveState() { return { count: this.count }; }
  restoreState(state) { this.count = state.count; }
  onMessage() { return { count: ++this.count, version: this.version }; }
}
'''


class Packages:
    """An agent's versions, each the same program by another number."""

    def __init__(self, scratch, packages, programs, language):
        self.scratch, self.packages, self.made = scratch, packages, 0
        self.agent = f"{language}Counter"
        self.entry, self.program = {
            "native": ("libcounter.so", programs.parent / "bench/libbench_counter.so"),
            "python": ("main.py", PYTHON),
            "node": ("main.mjs", NODE),
        }[language]

    def next(self):
        """The directory of a new version, and its number."""
        number = f"1.{self.made}.0"
        self.made += 1
        root = pathlib.Path(self.scratch, f"{self.agent}-{number}")
        root.mkdir()
        manifest = self.packages.manifest(self.agent, self.entry, version=number, capabilities=["count"])
        (root / "manifest.json").write_text(json.dumps(manifest))
        if isinstance(self.program, pathlib.Path):
            shutil.copy(self.program, root / self.entry)
        else:
            (root / self.entry).write_text(self.program)
        return root, number


class Sender:
    """kai-steady, from `with` to its end; then `messages` has what became of each."""

    def __init__(self, daemon, programs, agent):
        self.command = [str(programs / "kai-steady"), str(daemon.socket), agent, "count", str(RATE)]
        self.messages = None

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_):
        try:
            output, _ = self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise SystemExit(f"upgrades.py: messages were lost: no answer after {PATIENCE} s") from None
        if self.process.returncode != 0:
            raise SystemExit(f"upgrades.py: kai-steady ended with {self.process.returncode}")
        self.messages = [json.loads(line) for line in output.splitlines()]


class Turns:
    """What was done when, to one agent."""

    def __init__(self):
        self.windows = {kind: [] for kind in KINDS}  # (begin, end), nanoseconds of CLOCK_MONOTONIC
        self.results = {kind: [] for kind in KINDS}  # UpgradeResult

    def add(self, kind, seconds, upgrade=None):
        began = time.monotonic_ns()
        time.sleep(BEFORE)
        if upgrade:
            result = upgrade()
            if result["type"] != kind:
                raise SystemExit(f"upgrades.py: not what was asked for: {result}")
            self.results[kind].append(result)
        time.sleep(max(seconds - (time.monotonic_ns() - began) / 1e9, BEFORE))
        self.windows[kind].append((began, time.monotonic_ns()))


class Seen:
    """What the client saw in the turns of one kind."""

    def __init__(self, messages, windows):
        self.gaps, latencies = [], []  # of each turn the longest, in ms; of all messages, in ms
        answered = sorted(message["answered"] for message in messages)
        for begin, end in windows:
            inside = [at for at in answered if begin <= at <= end]
            self.gaps.append(max(after - at for at, after in zip(inside, inside[1:])) / 1e6)
            latencies += [(message["answered"] - message["due"]) / 1e6 for message in messages if begin <= message["due"] <= end]
        latencies.sort()
        self.p50, self.p99 = (latencies[len(latencies) * percent // 100] for percent in (50, 99))
        self.longest = max(self.gaps)


def faults(messages):
    """Errors, lost and doubled messages."""
    errors = [message["error"] for message in messages if "error" in message]
    for said in errors[:3]:
        print(f"  error: {said}", flush=True)
    counts = [message["answer"]["count"] for message in messages if "answer" in message]
    expected = max((message["number"] for message in messages), default=-1) + 1
    without_answer = max(counts, default=0) - len(set(counts))  # what was given to the agent twice has counted twice
    twice = len(counts) - len(set(counts))  # two versions counted at the same time, or from the same state
    return len(errors), expected - len(messages), without_answer + twice


def show_pauses(language, messages, turns):
    seen = {kind: Seen(messages, turns.windows[kind]) for kind in KINDS}
    for kind in KINDS:
        each = seen[kind]
        line = (f"{language:8}{kind:8}longest gap {each.longest:7.1f} ms (median of turns {statistics.median(each.gaps):6.1f})   "
                f"latency p50 {each.p50:6.2f} ms, p99 {each.p99:7.2f}")
        if kind in AIM_MS:
            control = statistics.median(result["pauseMs"] for result in turns.results[kind])
            held = statistics.median(result["messagesHeld"] for result in turns.results[kind])
            line += f"   in control {control:6.1f} ms, {held:.0f} messages held"
        print(line, flush=True)
    return {kind: seen[kind].longest for kind in AIM_MS}


def show_steps(language, turns):
    for kind in AIM_MS:
        times = {}
        for result in turns.results[kind]:
            for step in result["steps"]:
                times.setdefault(step["step"], []).append(step["ms"])
        print(f"{language:8}{kind:8}steps, ms: " + ", ".join(
            f"{step} {statistics.median(values):.1f}" for step, values in times.items()), flush=True)


def verdict(language, longest, wrong):
    errors, lost, doubled = wrong
    said = [f"{errors} errors, {lost} lost, {doubled} doubled: {'met' if not any(wrong) else 'not met'}"]
    if language in AIM_FOR:
        said += [f"{kind} {longest[kind]:.1f} ms, aim below {aim}: {'met' if longest[kind] < aim else 'not met'}"
                 for kind, aim in AIM_MS.items()]
    print(f"{language:8}" + "; ".join(said), flush=True)


def measure(daemon, versions, programs, language, count, seconds):
    root, _ = versions.next()
    must(daemon, "register", root)
    must(daemon, "start", versions.agent)

    def upgrade(kind):
        root, number = versions.next()
        result = must(daemon, "upgrade", versions.agent, root, "--type", kind).document
        if result["to"] != number:
            raise SystemExit(f"upgrades.py: not what was asked for: {result}")
        return result

    turns = Turns()
    with Sender(daemon, programs, versions.agent) as sender:
        time.sleep(1)  # until everything has been used once
        for _ in range(count):
            for kind in KINDS:
                turns.add(kind, seconds, None if kind == "steady" else lambda kind=kind: upgrade(kind))
    wrong = faults(sender.messages)
    longest = show_pauses(language, sender.messages, turns)
    show_steps(language, turns)
    verdict(language, longest, wrong)
    must(daemon, "terminate", versions.agent)


class Key:
    """A key pair of minisign's, without a password."""

    def __init__(self, directory):
        self.secret, public = pathlib.Path(directory, "bench.key"), pathlib.Path(directory, "bench.pub")
        subprocess.run(["minisign", "-G", "-W", "-p", str(public), "-s", str(self.secret)], stdout=subprocess.DEVNULL, check=True)
        self.policy = f"policies:\n- name: bench\n  agentId: many*\n  trustedKeys: [{public.read_text().splitlines()[1]}]\n"


def many_files(daemon, packages, scratch, key, agent, files):
    """A package of so many files of about a KB, in directories of 100, signed: its directory, and its archive."""
    root = packages.package(scratch, agent, "main.py", "from kai import Agent\n\nclass Many(Agent):\n    pass\n")
    for number in range(files - 4):  # manifest.json, main.py, SHA256SUMS, SHA256SUMS.minisig
        path = root / f"{number // 100}/{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{agent} {number}\n" * 80)
    archive = pathlib.Path(scratch, f"{agent}.tar.gz")
    must(daemon, "package", "sign", root, "--secret-key", key.secret)
    must(daemon, "package", "build", root, "-o", archive)
    return root, archive


def registration(daemon, packages, scratch, key, turns, files):
    took = {}

    def timed(name, *commands):
        os.sync()  # what was written before is not this one's
        began = time.monotonic()
        for command in commands:
            command()
        took.setdefault(name, []).append(time.monotonic() - began)

    for turn in range(turns):
        root, archive = many_files(daemon, packages, scratch, key, f"many{turn}", files)
        place = daemon.directory / f"many{turn}"
        place.mkdir()
        timed("tar -x and sync", lambda: subprocess.run(["tar", "-C", str(place), "-xzf", str(archive)], check=True),
              lambda: subprocess.run(["sync", "-f", str(place)], check=True))
        timed("register .tar.gz", lambda: must(daemon, "register", archive))
        shutil.rmtree(place)
        shutil.rmtree(root)
        # Other bytes: those that are stored already are not stored again.
        root, _ = many_files(daemon, packages, scratch, key, f"many{turn}again", files)
        timed("register directory", lambda: must(daemon, "register", root))
        shutil.rmtree(root)
    floor = statistics.median(took["tar -x and sync"])
    print(f"a signed package of {files:,} files, medians of {turns}: " + ", ".join(
        f"{name} {statistics.median(values):.2f} s ({statistics.median(values) / floor:.2f})" for name, values in took.items()),
          flush=True)


def conditions():
    return f"load {' '.join(f'{load:.2f}' for load in os.getloadavg())}"


def main():
    arguments = parse(__doc__, turns=7, seconds=1.5, files=10_000)
    from harness import Daemon
    import packages

    print(f"upgrades: Linux {platform.release()}, {os.cpu_count()} CPUs, uid {os.geteuid()}, {conditions()} at the begin; "
          f"{RATE:,} messages a second, {arguments.turns} turns of {arguments.seconds:g} s", flush=True)
    daemon = Daemon(arguments.programs)
    try:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
            os.chmod(scratch, 0o755)
            key = Key(scratch)
            daemon.write_policies(**{"10-bench": key.policy})
            daemon.start()
            for language in ("native", "python", "node"):
                versions = Packages(scratch, packages, arguments.programs, language)
                measure(daemon, versions, arguments.programs, language, arguments.turns, arguments.seconds)
            registration(daemon, packages, scratch, key, min(arguments.turns, 3), arguments.files)
        print(f"{conditions()} at the end", flush=True)
        daemon.stop()
    finally:
        daemon.clean_up()


if __name__ == "__main__":
    main()
