"""The inside of the escape suite: a kaid started by launcher.py, and the probe in its sandboxes, of every kind."""

import json
import os
import pathlib
import pwd
import shutil
import subprocess

import attacks
import harness
import packages
import world as worlds

HERE = pathlib.Path(__file__).resolve().parent


class EscapeDaemon(harness.Daemon):
    """kaid, and kaictl for it, as one user or the other."""

    def __init__(self, bin_directory, user=None):
        self.user = user
        super().__init__(bin_directory)
        if user:
            os.chown(self.directory, user.pw_uid, user.pw_gid)

    def identity(self):
        return ["setpriv", f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", f"--groups={worlds.GROUP}",
                "--inh-caps=-all", "env", f"HOME={self.directory}", f"XDG_RUNTIME_DIR={self.directory}"] if self.user else []

    def started_by(self, world):
        self.prefix = [*self.identity(), *world.launcher("--terminal", world.terminal(self.user))]

    def ctl(self, *arguments, stdin=None, timeout=harness.PATIENCE, text_mode=False, terminal=None):
        command = [*self.identity(), str(self.bin / "kaictl"), "--socket", str(self.socket)]
        command += [] if text_mode else ["-o", "json"]
        stdin = os.open(terminal or "/dev/null", os.O_RDWR | os.O_NOCTTY)
        try:
            completed = subprocess.run(command + [str(argument) for argument in arguments], stdin=stdin,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                                       timeout=timeout, check=False)
        finally:
            os.close(stdin)
        return harness.Outcome(arguments, completed)

    def ctl_process(self, *arguments, **options):
        command = [*self.identity(), str(self.bin / "kaictl"), "--socket", str(self.socket)]
        return subprocess.Popen(command + [str(argument) for argument in arguments], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", **options)


def user_of(who):
    """The user whose kaid it is (None: we are), and its name when it was made for that."""
    if who == "root" or os.geteuid() != 0:
        return None, None
    name = f"kaiescape{os.getpid()}"
    subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/bin/sh", name], check=True)
    return pwd.getpwnam(name), name


def remove_user(name):
    subprocess.run(["userdel", name], check=False, stderr=subprocess.DEVNULL)


class Scene:
    """World and kaid, from the first attempt to the check that nothing is left."""

    def __init__(self, bin_directory, who):
        self.bin = pathlib.Path(bin_directory).resolve()
        self.user, self.made_user = user_of(who)
        self.daemon = self.world = None
        self.ended = []

    def __enter__(self):
        harness.adopt_orphans()
        try:
            self.daemon = EscapeDaemon(self.bin, self.user)
            self.world = worlds.World(self.bin, self.daemon.state, self.daemon.socket)
            self.daemon.started_by(self.world)
            self.daemon.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.world:
            self.world.close()
        if self.daemon:
            self.daemon.clean_up()
        if self.made_user:
            remove_user(self.made_user)

    def settings(self):
        return {**self.world.settings, "WRITABLE": "/tmp", "INSIDE": "1"}

    def run(self, rows):
        import run
        of_program = [row for row in rows if "driver" not in row.needs]
        work = [(self._as_run, group) for group in run.groups_of(of_program)]
        harmless = [row for row in of_program if not {"alone", "pty", "console"} & set(row.needs)]
        if harmless:
            work += [(self._as_agent, kind, harmless) for kind in run.KINDS]
        run.in_parallel(work)
        # These attack kaid as a whole, so one after another.
        for row in rows:
            if "driver" in row.needs:
                try:
                    row.control, row.inside["kaid"] = attacks.make(row.name, self.world, self.daemon)
                except (AssertionError, OSError, subprocess.SubprocessError) as error:
                    row.inside["kaid"] = None
                    self.ended.append(f"{row.name}: {error}")

    def _as_run(self, group):
        terminal = self.world.terminal() if "pty" in group[0].needs else None
        options = [word for name, value in self.settings().items() for word in ("--env", f"ESCAPE_{name}={value}")]
        outcome = self.daemon.ctl("run", *options, "--", self.world.probe, "run", *[row.name for row in group],
                                  text_mode=True, terminal=terminal)
        found = worlds.answers(outcome.stdout)
        for row in group:
            answer = found.get(row.name)
            if answer is None and outcome.code > 128 and len(group) == 1:
                # The whole sandbox ended, as it should for memory; kaictl says by what.
                answer = f"refused SIG{harness.signal.Signals(outcome.code - 128).name[3:]} {outcome.stderr.strip()[-200:]}"
            row.inside["run"] = answer
            if answer is None or answer.startswith("broken"):
                self.ended.append(f"{row.name} (run): {answer or 'no answer'}; {outcome}")
                row.inside["run"] = None

    def _as_agent(self, kind, rows):
        agent = f"escape-{kind}"
        directory = self.daemon.directory / "packages"
        root = directory / agent
        environment = {f"ESCAPE_{name}": value for name, value in self.settings().items()}
        names = [row.name for row in rows]
        package = {"exec": exec_package, "node": node_package, "python": python_package, "native": native_package}[kind]
        package(directory, agent, environment, names, self.bin)
        shutil.copy(self.world.probe, root / "probe")
        for command in (["register", root], ["start", agent]):
            outcome = self.daemon.ctl(*command)
            if outcome.code != 0:
                self.ended.append(f"agent {kind}: {outcome}")
                break
        found = worlds.answers(self._output(kind, agent))
        for row in rows:
            row.inside[kind] = found.get(row.name)
        self.daemon.ctl("stop", agent)

    def _output(self, kind, agent):
        if kind != "exec":
            outcome = self.daemon.ctl("send", agent, "attempt", "{}")
            return outcome.document["payload"]["output"] if outcome.code == 0 else str(outcome)
        harness.wait_until(lambda: self.daemon.status(agent).get("state") in ("stopped", "backoff"), f"{agent} to end")
        records = self.daemon.ctl("logs", agent, "-n", "1000").records
        return "\n".join(record["message"] for record in records if record["event"] == "stdout")

    def degraded(self):
        """The layers that kaid said it goes without."""
        return {record.get("layer") for record in self.daemon.ctl("logs", "-n", "5000").records if record["event"] == "kai.degraded"}

    def faults(self):
        """What is wrong beside the rows: kaid, the host, what is left of the suite."""
        faults = list(self.ended) + [f"host: {fault}" for fault in self.world.untouched()]
        self.world.end_target()
        try:
            self.daemon.stop()
        except AssertionError as error:
            faults.append(f"kaid: {error}")
        return faults


def exec_package(directory, agent, environment, names, _):
    script = "".join(f"/agent/probe run {name}; " for name in names)
    packages.script(directory, agent, script + "exit 0\n", runtime={"kind": "exec", "env": environment})


NODE = """
import { spawnSync } from "node:child_process";
export default class Escape {
  onInit() {} onStart() {} onShutdown() {}
  onMessage() {
    return { output: spawnSync("/agent/probe", ["run", ...%s], { encoding: "utf8" }).stdout };
  }
}
"""


def node_package(directory, agent, environment, names, _):
    packages.package(directory, agent, "main.mjs", NODE % json.dumps(names), mode=0o644, capabilities=["attempt"],
                     runtime={"kind": "node", "env": environment})


PYTHON = """
import subprocess
from kai import Agent

class Escape(Agent):
    def on_message(self, msg):
        done = subprocess.run(["/agent/probe", "run", *%s], stdout=subprocess.PIPE, text=True, errors="replace")
        return {"output": done.stdout}
"""


def python_package(directory, agent, environment, names, _):
    packages.package(directory, agent, "main.py", PYTHON % json.dumps(names), mode=0o644, capabilities=["attempt"],
                     runtime={"kind": "python", "env": environment})


def native_package(directory, agent, environment, names, bin_directory):
    root = packages.package(directory, agent, "escape.so", "", capabilities=["attempt"],
                            runtime={"kind": "native", "env": {**environment, "ESCAPE_ATTEMPTS": " ".join(names)}})
    shutil.copy(bin_directory / "escape.so", root / "escape.so")
