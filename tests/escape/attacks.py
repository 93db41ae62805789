"""Attempts that are about kaid as a whole: what several processes or a package do together. Each function gives two
answers in the probe's words: that of its control, without a sandbox, and that of the attack.
"""

import os
import pathlib
import subprocess
import sys
import threading

import harness
import packages
import world as worlds

ATTACKS = {}


def attack(function):
    ATTACKS[function.__name__] = function
    return function


def make(name, world, daemon):
    return ATTACKS[name](world, daemon)


def escaped_if(condition, refusal, detail):
    return f"escaped {detail}" if condition else f"refused {refusal} {detail}"


# Takes all that it gets of one thing, says how many, and holds them.
HOLD_INOTIFY = """
import ctypes, signal
libc, count = ctypes.CDLL(None), 0
while count < 100000 and libc.inotify_init() >= 0: count += 1
print(count, flush=True)
signal.pause()
"""
HOLD_TIMERS = """
import ctypes, signal
libc, count, timer = ctypes.CDLL(None), 0, ctypes.c_void_p()
while count < 1000000 and libc.timer_create(1, None, ctypes.byref(timer)) == 0: count += 1
print(count, flush=True)
signal.pause()
"""
ONE_INOTIFY = "import ctypes, sys; sys.exit(ctypes.CDLL(None).inotify_init() < 0)"
ONE_TIMER = "import ctypes, sys; sys.exit(ctypes.CDLL(None).timer_create(1, None, ctypes.byref(ctypes.c_void_p())) != 0)"


def shared(world, daemon, hold, one):
    """Whether the host's user still gets one, while an agent holds all that it could get."""
    def host_user_gets_one():
        return subprocess.run([*daemon.identity(), sys.executable, "-c", one], check=False).returncode == 0

    answers = []
    outside = subprocess.Popen([*daemon.identity(), sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    agent = None
    try:
        held = outside.stdout.readline().strip()
        answers.append(escaped_if(not host_user_gets_one(), "unchanged", f"{held} held"))
    finally:
        outside.kill()
        outside.communicate()
    agent = daemon.ctl_process("run", "--", "/usr/bin/python3", "-c", hold)
    try:
        held = agent.stdout.readline().strip()
        answers.append(escaped_if(not host_user_gets_one(), "unchanged", f"{held} held by the agent"))
    finally:
        agent.terminate()
        agent.communicate()
    return tuple(answers)


@attack
def inotify_shared(world, daemon):
    return shared(world, daemon, HOLD_INOTIFY, ONE_INOTIFY)


@attack
def timers_shared(world, daemon):
    return shared(world, daemon, HOLD_TIMERS, ONE_TIMER)


def register(daemon, path):
    outcome = daemon.ctl("register", path)
    if outcome.code != 0:
        raise AssertionError(str(outcome))


def output_of(daemon, agent):
    """Starts an exec agent; what it wrote until it ended, and how the start went."""
    started = daemon.ctl("start", agent)
    harness.wait_until(lambda: daemon.status(agent).get("state") in ("stopped", "backoff", "registered"), f"{agent} to end")
    daemon.ctl("stop", agent)
    records = daemon.ctl("logs", agent, "-n", "1000").records
    return started, "\n".join(record["message"] for record in records if record["event"] in ("stdout", "stderr"))


def script(daemon, agent, text, **changes):
    """A registered exec agent."""
    path = packages.script(daemon.directory / "attacks", agent, text, **changes)
    register(daemon, path)
    return path


def decoy(world, name):
    """A directory of the host that no agent was given."""
    directory = world.directory / name
    directory.mkdir()
    (directory / "main.sh").write_text("#!/bin/sh\necho DECOY\n")
    (directory / "main.sh").chmod(0o755)
    (directory / "DECOY").write_text("DECOY\n")
    return directory


@attack
def package_symlink(world, daemon):
    """While an agent is started again and again, its stored package is a symlink to a directory of the host every other
    moment."""
    script(daemon, "swapped", "echo PACKAGE\n")
    stored = next(path.parent for path in (daemon.state / "packages").glob("*/*/main.sh") if "PACKAGE" in path.read_text())
    target = decoy(world, "decoy-package")
    link = stored.with_name("swapped-link")
    link.symlink_to(target)
    over = threading.Event()

    def swap():
        spare = stored.with_name("swapped-spare")
        while not over.is_set():
            os.rename(stored, spare)
            os.rename(link, stored)
            os.rename(stored, link)
            os.rename(spare, stored)

    # The control starts it by its path, as a careless launcher would, while the symlink is there.
    os.rename(stored, stored.with_name("aside"))
    os.rename(link, stored)
    control = subprocess.run([str(stored / "main.sh")], stdout=subprocess.PIPE, text=True, check=False).stdout
    swapper = threading.Thread(target=swap)
    seen = output_of(daemon, "swapped")[1]
    os.rename(stored, link)
    os.rename(stored.with_name("aside"), stored)
    swapper.start()
    try:
        for _ in range(10):
            seen += output_of(daemon, "swapped")[1]
    finally:
        over.set()
        swapper.join()
        link.unlink()
    started, after = output_of(daemon, "swapped")
    if started.code != 0 or "PACKAGE" not in after:
        return None, None  # the agent itself is what it should see in the end
    return (escaped_if("DECOY" in control, "not-there", "by path"),
            escaped_if("DECOY" in seen, "not-there", "12 starts while the package was swapped"))


@attack
def private_symlink(world, daemon):
    """The agent's persistent directory is a symlink to a directory of the host when the agent starts again."""
    security = {**packages.CORRECT["security"], "fileAccess": {"allowedPaths": ["/data"], "readOnly": False, "tempFileAccess": True}}
    script(daemon, "persistent", "ls /data; echo x >/data/mine; echo ended\n", security=security,
           memory={"type": "persistent", "backend": "sqlite", "persistent": True})
    _, first = output_of(daemon, "persistent")
    if "ended" not in first:
        return None, None
    target = decoy(world, "decoy-data")
    replaced = replace_private_directory(world, daemon, "persistent", target)
    seen = output_of(daemon, "persistent")[1][len(first):]
    control = os.listdir(replaced) if replaced else []
    marks = ("DECOY", "shadow")
    return (escaped_if(bool(control), "not-there", "by path"),
            escaped_if(any(mark in seen for mark in marks), "not-there", "start after the exchange"))


def replace_private_directory(world, daemon, agent, target):
    """Puts a symlink in the place of the agent's private directory, where that is: below STATE, or in an image."""
    found = [path for path in daemon.state.rglob("mine") if agent in str(path)]
    if found:
        place = found[0].parent
        place.rename(place.with_name(place.name + "-aside"))
        place.symlink_to(target)
        return place
    images = [path for path in daemon.state.rglob("*") if path.is_file() and not path.is_symlink() and agent in str(path)
              and path.stat().st_size >= 1 << 20]
    if not images:
        raise AssertionError("its private data is nowhere below STATE")
    mounted = world.directory / "image"
    mounted.mkdir()
    subprocess.run(["mount", "-o", "loop", str(images[0]), str(mounted)], check=True)
    try:
        place = next(path for path in mounted.rglob("mine")).parent
        place.rename(place.with_name(place.name + "-aside"))
        place.symlink_to("/etc")
        return "/etc"
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


@attack
def target_over_proc(world, daemon):
    """allowedPaths that would cover, or reach through, what the sandbox makes itself."""
    control = subprocess.run([*(worlds.NAMESPACES if os.geteuid() == 0 else [*worlds.NAMESPACES, "--user", "--map-root-user"]),
                              "mount", "-t", "tmpfs", "tmpfs", "/proc/sys"], check=False).returncode == 0
    refused = set()
    for number, path in enumerate(("/proc/sys", "/proc", "/dev/null", "/dev", "/sys", "/etc/passwd", "/usr/bin", "/agent", "/",
                                   "/tmp/../etc", "/data/../../proc", "relative", "/a\nb", "/a\0b")):
        security = {**packages.CORRECT["security"], "fileAccess": {"allowedPaths": [path], "readOnly": False, "tempFileAccess": True}}
        package = packages.script(daemon.directory / "attacks", f"over{number}", "true\n", security=security)
        outcome = daemon.ctl("register", package)
        if outcome.code == 0:
            return escaped_if(control, "EPERM", "mounted over /proc/sys"), f"escaped allowedPaths {path!r} was registered"
        refused.add(outcome.error["code"])
    return escaped_if(control, "EPERM", "mounted over /proc/sys"), f"refused {'/'.join(sorted(refused))} 14 paths"


@attack
def strings_as_options(world, daemon):
    """Entries that are options of the interpreter that runs them."""
    options = {"node": "--eval=console.log('OPTION')", "python": "-cprint('OPTION')"}
    files = {"node": "console.log('FILE')\n", "python": "print('FILE')\n"}
    control = "".join(subprocess.run([f"/usr/bin/{kind if kind == 'node' else 'python3'}", entry], stdout=subprocess.PIPE,
                                     text=True, check=False).stdout for kind, entry in options.items())
    seen, details = "", []
    for kind, entry in options.items():
        package = packages.package(daemon.directory / "attacks", f"option-{kind}", entry, files[kind], runtime={"kind": kind})
        outcome = daemon.ctl("register", package)
        details.append(f"{kind}: {outcome.error['code'] if outcome.code else 'run as a file'}")
        if outcome.code == 0:
            seen += output_of(daemon, f"option-{kind}")[1]
    return (escaped_if(control.count("OPTION") == 2, "unchanged", "by name"),
            escaped_if("OPTION" in seen, "unchanged", ", ".join(details)))
