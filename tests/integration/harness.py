"""The real daemon under test: started in a directory of its own, asked through kaictl, and gone without a trace.

KAI_BIN names the directory with the built programs. Nothing here waits for time: wait_until asks again until the
answer is right or a deadline, far beyond what a loaded machine needs, has passed.
"""

import ctypes
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("KAI_BIN", SOURCE / "build/dev/bin")).resolve()
IS_ROOT = os.geteuid() == 0
SANITIZED = os.environ.get("KAI_SANITIZED") == "1"
# How long anything may take before it counts as hung. Sanitizers and a loaded machine cost a factor of ten.
PATIENCE = 60


def needs_root(test):
    """Marks a test about what only root's kaid does. The ordinary user's run leaves it out; run.py says how many."""
    test.needs_root = True
    return test


def seed():
    """Of a test that chooses at random: said, so that it can be given again."""
    chosen = int(os.environ.get("KAI_FAULT_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"KAI_FAULT_SEED={chosen}", file=sys.stderr)
    return chosen


def wait_until(condition, what, seconds=PATIENCE):
    """condition()'s first true result."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.02)  # between two questions, not for an event


def adopt_orphans():
    """Makes this process the parent of whatever a dying daemon leaves behind, so that it can be found."""
    pr_set_child_subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl PR_SET_CHILD_SUBREAPER")


def process_table():
    """pid → (parent, state, command line) of all processes."""
    table = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            text = pathlib.Path("/proc", entry, "stat").read_text()
            command = pathlib.Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # ended in between
        fields = text[text.rindex(")") + 2:].split()
        table[int(entry)] = (int(fields[1]), fields[0], command.strip() or text)
    return table


def descendants(ancestor):
    """pid → command line of all living processes below `ancestor`."""
    table = process_table()
    found, front = {}, [ancestor]
    while front:
        parent = front.pop()
        for pid, (its_parent, state, command) in table.items():
            if its_parent == parent and pid not in found:
                front.append(pid)
                if state not in "ZX":
                    found[pid] = command
                else:
                    found.setdefault(pid, None)
    return {pid: command for pid, command in found.items() if command is not None}


def status_of(pid):
    """/proc/PID/status as a dictionary."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


class Traces:
    """What a daemon could leave on the machine: cgroups, mounts, sockets, loop devices. Made before it starts."""

    def __init__(self, directory):
        self.directory = str(directory)
        self.foreign = self._groups()
        self.own = set()
        self.mounts = self._mounts()

    @staticmethod
    def _groups():
        """The groups that kaids made for themselves, each with its agents' groups below it."""
        found = set()
        for path, directories, _ in os.walk("/sys/fs/cgroup"):
            ours = {name for name in directories if name.startswith("kai-")}
            found.update(os.path.join(path, name) for name in ours)
            directories[:] = [name for name in directories if name not in ours]
        return found

    def serving(self):
        """The daemon has started: the groups that are new are its own. Others may come and go beside it."""
        self.own = self._groups() - self.foreign

    def _mounts(self):
        lines = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
        return {line for line in lines if self.directory in line}

    def left(self):
        """What is still there, one line each."""
        found = [f"cgroup {path}" for path in sorted(self.own & self._groups())]
        found += [f"mount {line}" for line in sorted(self._mounts() - self.mounts)]
        for line in pathlib.Path("/proc/net/unix").read_text().splitlines():
            if self.directory in line:
                found.append(f"socket {line.split()[-1]}")
        for path in pathlib.Path(self.directory).rglob("*"):
            if stat.S_ISSOCK(path.lstat().st_mode):
                found.append(f"socket file {path}")
        for path in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
            try:
                if self.directory in path.read_text():
                    found.append(f"loop device {path.parts[3]}")
            except OSError:
                continue
        return found


class Outcome:
    """How a kaictl ended."""

    def __init__(self, arguments, completed):
        self.arguments = arguments
        self.code = completed.returncode
        self.stdout = completed.stdout
        self.stderr = completed.stderr

    def __str__(self):
        return (f"kaictl {' '.join(map(str, self.arguments))} ended with {self.code}\nstdout: {self.stdout[-4000:]!r}"
                f"\nstderr: {self.stderr[-4000:]!r}")

    @property
    def document(self):
        return json.loads(self.stdout)

    @property
    def records(self):
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def error(self):
        return json.loads(self.stderr)["error"]


class Daemon:
    """One kaid with its own state and runtime directory."""

    def __init__(self, bin_directory=BIN, prefix=()):
        self.bin = pathlib.Path(bin_directory)
        self.prefix = list(prefix)  # what starts kaid, for tests that put it into surroundings of its own
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="kai-test-"))
        self.directory.chmod(0o755)  # control is not root and has to get through
        self.state = self.directory / "state"
        self.runtime = self.directory / "run"
        self.log_path = self.directory / "kaid.log"
        self.config = None  # kaid.yaml, once there are policies
        self.settings = ""  # of kaid.yaml, beside the policies; before write_policies
        self.neighbours = set()  # processes of the test's own, which are no traces of the daemon
        self.process = None
        self.traces = None

    def write_policies(self, **files):
        """Operator policies, by the names of their files without .yaml; a file of None is removed."""
        directory = self.directory / "policies"
        directory.mkdir(mode=0o755, exist_ok=True)
        for name, text in files.items():
            path = directory / f"{name}.yaml"
            if text is None:
                path.unlink()
            else:
                path.write_text(text)
                path.chmod(0o644)
        self.config = self.directory / "kaid.yaml"
        self.config.write_text(f"policies: {directory}\n{self.settings}")
        self.config.chmod(0o644)

    @property
    def socket(self):
        return self.runtime / "kaid.sock"

    @property
    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def command(self):
        return self.prefix + [str(self.bin / "kaid"), "--state-dir", str(self.state), "--runtime-dir", str(self.runtime)] + ([] if self.config is None else ["--config", str(self.config)])

    def launch(self):
        """Starts kaid without waiting for it."""
        self.traces = Traces(self.directory)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True)

    def start(self):
        self.launch()
        wait_until(self._serves, f"kaid to serve; its log:\n{self.log[-4000:]}")
        self.traces.serving()
        return self

    def _serves(self):
        if self.process.poll() is not None:
            raise AssertionError(f"kaid ended with {self.process.returncode} instead of serving:\n{self.log[-4000:]}")
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(self.socket))
            except OSError:
                return False
            # Who listens: the last threads of a control that was killed may still hold the socket of before.
            peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return struct.unpack("3i", peer)[0] in descendants(self.process.pid)

    def ctl(self, *arguments, stdin=None, timeout=PATIENCE * 2, text_mode=False):
        command = [str(self.bin / "kaictl"), "--socket", str(self.socket)]
        command += [] if text_mode else ["-o", "json"]
        command += [str(argument) for argument in arguments]
        completed = subprocess.run(command, input=stdin, stdin=subprocess.DEVNULL if stdin is None else None,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                                   timeout=timeout, check=False)
        return Outcome(arguments, completed)

    def ctl_process(self, *arguments, **options):
        """A kaictl that goes on running; the caller ends it."""
        command = [str(self.bin / "kaictl"), "--socket", str(self.socket)] + [str(argument) for argument in arguments]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, errors="replace", **options)

    def status(self, agent):
        asked = self.ctl("status", agent)
        if not asked.stdout:
            raise AssertionError(f"{asked}; kaid's log ended with:\n{self.log[-4000:]}")
        return asked.document

    def wait_for_state(self, agent, state, seconds=PATIENCE):
        def reached():
            document = self.status(agent)
            return document if document.get("state") == state else None
        try:
            return wait_until(reached, f"{agent} to be {state}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; status: {self.status(agent)}\nlog:\n{self.log[-4000:]}") from None

    def control_pid(self):
        """The process id of control."""
        for pid, command in descendants(self.process.pid).items():
            if pid != self.process.pid and pathlib.Path(command.split()[0]).name == "kai-control":
                return pid
        raise AssertionError(f"kaid has no kai-control below it: {descendants(self.process.pid)}")

    def controls(self):
        """The process ids of control: none while the next one is being started."""
        found = descendants(self.process.pid)
        return {pid for pid, command in found.items() if pathlib.Path(command.split()[0]).name == "kai-control"}

    def wait_for_another_control(self, before):
        wait_until(lambda: self.controls() - {before} and self.ctl("list").code == 0,
                   f"another control than {before} to serve; kaid's log:\n{self.log[-4000:]}")

    def kill_control(self):
        """SIGKILL to control; returns when the next one serves."""
        before = self.control_pid()
        os.kill(before, signal.SIGKILL)
        self.wait_for_another_control(before)

    def terminate(self):
        """SIGTERM; kaid's exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"kaid did not end within {PATIENCE} s of SIGTERM:\n{self.log[-4000:]}") from None

    def leftovers(self):
        """What is left of a kaid that ended: processes (adopted by this one), cgroups, mounts, sockets."""
        found = [f"process {pid}: {command}" for pid, command in descendants(os.getpid()).items()
                 if pid not in self.neighbours]
        return found + self.traces.left()

    def stop(self):
        """Ends kaid as an operator does and holds it to what it promises then."""
        faults = []
        if self.process is not None:
            code = self.process.poll()
            if code is not None:
                faults.append(f"kaid was gone before it was stopped, with status {code}")
            else:
                code = self.terminate()
                if code != 0:
                    faults.append(f"kaid ended with {code} after SIGTERM")
            faults += [f"left behind: {trace}" for trace in self.leftovers()]
        if faults:
            raise AssertionError("\n".join(faults) + f"\nlog:\n{self.log[-6000:]}")

    def clean_up(self):
        """Removes everything, whatever state it is in; holds nobody to anything."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for path, directories, _ in os.walk(self.directory):
            for name in directories:
                child = os.path.join(path, name)
                if not os.path.islink(child):
                    os.chmod(child, 0o700)  # packages are read-only
        shutil.rmtree(self.directory, ignore_errors=True)


class DaemonTest(unittest.TestCase):
    """Tests that share one daemon; its end is checked after the last of them."""

    maxDiff = None
    daemon = None

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon()
        cls.addClassCleanup(cls.daemon.clean_up)
        cls.daemon.start()
        cls.prepare()

    @classmethod
    def prepare(cls):
        """What the tests of the class share beside the daemon."""

    @classmethod
    def tearDownClass(cls):
        cls.daemon.stop()

    @property
    def scratch(self):
        """A directory for this test's packages and files, inside the daemon's and gone with it."""
        path = self.daemon.directory / "tests" / self.id().rpartition(".")[2]
        path.mkdir(parents=True, exist_ok=True)
        return path

    def ok(self, *arguments, **options):
        """The outcome of a kaictl that must succeed."""
        outcome = self.daemon.ctl(*arguments, **options)
        self.assertEqual(outcome.code, 0, f"{outcome}\nlog:\n{self.daemon.log[-3000:]}")
        return outcome

    def fails(self, exit_code, error_code, *arguments, **options):
        """The error of a kaictl that must fail in exactly this way."""
        outcome = self.daemon.ctl(*arguments, **options)
        self.assertEqual(outcome.code, exit_code, f"{outcome}\nlog:\n{self.daemon.log[-3000:]}")
        self.assertEqual(outcome.stdout, "", f"a failure leaves standard output empty: {outcome}")
        self.assertEqual(len(outcome.stderr.splitlines()), 1, f"a failure is one line: {outcome}")
        error = outcome.error
        self.assertEqual(error["code"], error_code, outcome)
        self.assertTrue(error["message"], outcome)
        return error

    def send(self, agent, capability, payload=None, **options):
        """The payload of the answer to a message that must succeed."""
        arguments = ["send", agent, capability] + ([] if payload is None else [json.dumps(payload)])
        answer = self.ok(*arguments, **options).document
        return answer["payload"]

    def assert_keys(self, document, required, optional=()):
        """Exactly these keys, none of them null (contracts.md: absent rather than null)."""
        keys = set(document)
        self.assertLessEqual(set(required), keys, f"missing keys in {document}")
        self.assertLessEqual(keys, set(required) | set(optional), f"keys beyond the contract in {document}")
        self.assertNotIn(None, document.values(), document)
