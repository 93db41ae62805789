#!/usr/bin/python3
"""Figures of supervision: SIGKILL of an agent to its replacement's first instruction, beside runit's runsv on the same
program; kill -9 of control to the next answer; agent to agent; memory and idle cpu with many agents.

usage: bench/supervision.py [--bin DIRECTORY] [--turns N] [--agents N]

Restarts are measured in turns, one of each after the other; runsv waits a second before it starts again what lived less,
so each life lasts longer than that. Needs the targets programs and stamp of a build (default: build/release), runsv
(Debian: runit), and root. About two minutes, on an idle machine.
"""

import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

from command_line import parse
from processes import cpu_seconds, pss_kb

LIFE = 1.2  # seconds, for runsv
POLICY = """
policies:
- name: bench
  agentId: "*"
  maxCrashes: 1000
  backoff: {initial: 0s, base: 1ms, max: 1ms, jitter: 0, resetAfter: 1ms}
  permissions: [{resource: agent, scope: "*", actions: [execute]}]
"""
CALLER = '''
import time
from kai import Agent

class Caller(Agent):
    async def on_message(self, msg):
        took = []
        for _ in range(msg.payload):
            began = time.perf_counter_ns()
            await self.send("benchCallee", "echo", "x" * 200)
            took.append(time.perf_counter_ns() - began)
        return took
'''
CALLEE = '''
from kai import Agent

class Callee(Agent):
    async def on_message(self, msg):
        return msg.payload
'''


def ms(nanoseconds):
    return f"{statistics.median(nanoseconds) / 1e6:.2f} ms (minimum {min(nanoseconds) / 1e6:.2f})"


class Runsv:
    """The program under runsv, its output a pipe of ours."""

    def __init__(self, directory, program):
        service = pathlib.Path(directory, "service")
        service.mkdir()
        shutil.copy(program, service / "run")
        self.pid_file = service / "supervise/pid"
        self.process = subprocess.Popen(["runsv", str(service)], stdout=subprocess.PIPE)
        self.stamp()

    def stamp(self):
        return int(self.process.stdout.readline())

    def restart(self):
        began = time.monotonic_ns()
        os.kill(int(self.pid_file.read_text()), signal.SIGKILL)
        return self.stamp() - began

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self.process.stdout.close()


class Kaid:
    """The same as an exec agent of kaid."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.logs = daemon.ctl_process("logs", "-f", "-n", "0", "-o", "json", "benchStamp")
        daemon.ctl("start", "benchStamp")
        self.stamp()

    def stamp(self):
        while True:
            record = json.loads(self.logs.stdout.readline())
            if record["event"] == "stdout":
                return int(record["message"])

    def restart(self):
        pid = self.daemon.status("benchStamp")["pid"]
        began = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        return self.stamp() - began

    def end(self):
        self.logs.terminate()
        self.logs.wait()
        self.logs.stdout.close()


def restarts(daemon, programs, scratch, turns):
    kaid, runsv = Kaid(daemon), Runsv(scratch, programs / "stamp")
    ours, theirs = [], []
    for _ in range(turns):
        time.sleep(LIFE)
        ours.append(kaid.restart())
        theirs.append(runsv.restart())
    kaid.end()
    runsv.end()
    print(f"SIGKILL to the replacement's first instruction: kaid {ms(ours)}, runsv {ms(theirs)}, ratio of medians "
          f"{statistics.median(ours) / statistics.median(theirs):.2f}", flush=True)


def control_restarts(daemon):
    took = []
    for _ in range(5):
        began = time.monotonic_ns()
        os.kill(daemon.control_pid(), signal.SIGKILL)
        while daemon.ctl("status", "benchStamp").code != 0:
            pass
        took.append(time.monotonic_ns() - began)
    print(f"kill -9 of control to the next answer of kaictl status: {ms(took)}", flush=True)


def agent_to_agent(daemon):
    for agent in ("benchCallee", "benchCaller"):
        daemon.ctl("start", agent)
    took = daemon.ctl("send", "benchCaller", "bench", "500").document["payload"]
    print(f"agent to agent and back, 200 bytes, Python both: {statistics.median(took) / 1e3:.0f} us "
          f"(minimum {min(took) / 1e3:.0f})", flush=True)


def many(daemon, packages, programs, scratch, count):
    for number in range(count):
        agent = f"idle{number}"
        packages.package(scratch, agent, "stamp", "", runtime={"kind": "exec"})
        shutil.copy(programs / "stamp", pathlib.Path(scratch, agent, "stamp"))
        daemon.ctl("register", str(pathlib.Path(scratch, agent)))
        daemon.ctl("start", agent)
    kaid, control = daemon.process.pid, daemon.control_pid()
    time.sleep(5)
    before, seconds = [cpu_seconds(pid) for pid in (kaid, control)], 20
    time.sleep(seconds)
    cpu = [(cpu_seconds(pid) - was) / seconds * 100 for pid, was in zip((kaid, control), before)]
    print(f"{count} idle agents, health every 5 s: kaid {pss_kb(kaid) / 1024:.1f} MB PSS, {cpu[0]:.1f} % of a cpu; "
          f"control {pss_kb(control) / 1024:.1f} MB, {cpu[1]:.1f} %", flush=True)


def main():
    arguments = parse(__doc__, turns=20, agents=500)
    programs = arguments.programs
    from harness import Daemon
    import packages

    daemon = Daemon(programs)
    daemon.write_policies(**{"10-bench": POLICY})
    daemon.start()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        os.chmod(scratch, 0o755)
        packages.package(scratch, "benchStamp", "stamp", "", runtime={"kind": "exec"})
        shutil.copy(programs / "stamp", pathlib.Path(scratch, "benchStamp/stamp"))
        allowed = [{"resource": "agent", "scope": "*", "actions": ["execute"]}]
        security = {**packages.CORRECT["security"], "permissions": allowed}
        packages.package(scratch, "benchCaller", "main.py", CALLER, capabilities=["bench"], security=security)
        packages.package(scratch, "benchCallee", "main.py", CALLEE, capabilities=["echo"])
        try:
            for agent in ("benchStamp", "benchCaller", "benchCallee"):
                daemon.ctl("register", str(pathlib.Path(scratch, agent)))
            restarts(daemon, programs, scratch, arguments.turns)
            control_restarts(daemon)
            agent_to_agent(daemon)
            many(daemon, packages, programs, scratch, arguments.agents)
        finally:
            daemon.stop()
            daemon.clean_up()


if __name__ == "__main__":
    main()
