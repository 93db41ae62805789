"""The ways from a client to the server of bench/egress.py: each runs kai-traffic and says what forwards its bytes."""

import json
import os
import pathlib
import shutil
import subprocess

NAME = "server.bench.test"
LOOPBACK = "127.0.0.1"
PATIENCE = 15  # seconds, for what takes one


class Server:
    """kai-traffic on the host's loopback."""

    def __init__(self, programs):
        self.process = subprocess.Popen([str(programs / "kai-traffic"), "serve", LOOPBACK, "0"], stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline())

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Direct:
    """No sandbox: the host's loopback."""

    name, forwarder = "direct", None

    def __init__(self, programs, port, prefix=(), address=LOOPBACK):
        self.command, self.where = [*prefix, str(programs / "kai-traffic")], [address, str(port)]

    def run(self, mode, *words):
        """What kai-traffic measured; None, with a line that says so, where its connection broke or stood still."""
        command = [*self.command, mode, *self.where, *map(str, words)]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=PATIENCE)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"{self.name}: no figure for {mode} in this turn: {error}", flush=True)
            return None
        return json.loads(done.stdout)

    def hold(self, mode, *words):
        """Goes on until release() of what this returns."""
        process = subprocess.Popen([*self.command, mode, *self.where, *map(str, words)], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE)
        process.stdout.readline()
        return process

    def release(self, held):
        held.stdin.close()
        held.wait()
        held.stdout.close()


class Namespace:
    """A user and network namespace that only `forwarder` connects with the host."""

    def __init__(self, wait_until, command):
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.holder = subprocess.Popen(["unshare", "-Urn", "sleep", "infinity"], **quiet)
        self.forwarder = None
        pid = self.holder.pid
        wait_until(lambda: os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net") and
                   "sleep" in pathlib.Path(f"/proc/{pid}/comm").read_text(), "a namespace")
        self.prefix = ["nsenter", "-t", str(pid), "-U", "-n", "--preserve-credentials"]
        self.forwarder = subprocess.Popen([str(pid) if word == "PID" else word for word in command], **quiet)

    def gateway(self):
        """The address of the default route; None before there is one."""
        table = subprocess.run([*self.prefix, "cat", "/proc/net/route"], stdout=subprocess.PIPE, text=True, check=True)
        for line in table.stdout.splitlines()[1:]:
            _, destination, gateway = line.split()[:3]
            if int(destination, 16) == 0:
                return ".".join(str(byte) for byte in int(gateway, 16).to_bytes(4, "little"))
        return None

    def end(self):
        for process in (self.forwarder, self.holder):
            if process is not None:
                process.kill()
                process.wait()


def peers(programs, port, wait_until):
    """The peers that this machine has: their namespaces, and their sides. What is missing is said."""
    # pasta would become nobody, who may not enter the namespace of root's process.
    as_root = ["--runas", "0"] if os.geteuid() == 0 else []
    commands = {
        "pasta": ["pasta", "--foreground", "--config-net", "--quiet", *as_root, "-T", str(port), "PID"],
        "slirp4netns": ["slirp4netns", "--configure", "--mtu=65520", "PID", "tap0"],
    }
    namespaces, sides = [], []
    for name, command in commands.items():
        if shutil.which(name) is None:
            print(f"{name} is not installed: no figure beside it")
            continue
        if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
            print(f"{name} needs /dev/net/tun, which this user may not open: no figure beside it")
            continue
        namespace = Namespace(wait_until, command)
        namespaces.append(namespace)

        def side(label, address, namespace=namespace):
            made = Direct(programs, port, namespace.prefix, address)
            made.name, made.forwarder = label, namespace.forwarder.pid
            sides.append(made)

        gateway = wait_until(namespace.gateway, f"{name} to configure its namespace")
        side(name, "10.0.2.2" if name == "slirp4netns" else gateway)  # what stands for the host's loopback
        if name == "pasta":
            side("pasta -T", LOOPBACK)  # its way around its own TCP, for chosen ports of the loopback alone
    return namespaces, sides


AGENT = '''
import asyncio, json, socket
from kai import Agent

class Traffic(Agent):
    held = None

    async def on_message(self, msg):
        asked = msg.payload
        if asked["do"] == "release":
            self.held.stdin.close()
            await self.held.wait()
            return {}
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo("server.bench.test", asked["port"], family=socket.AF_INET, type=socket.SOCK_STREAM)
        mode, *words = asked["words"]
        process = await asyncio.create_subprocess_exec(
            "/agent/kai-traffic", mode, found[0][4][0], str(asked["port"]), *words,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        if asked["do"] == "hold":
            self.held = process
            return {"said": (await process.stdout.readline()).decode()}
        out, _ = await process.communicate()
        return json.loads(out)
'''
NETWORK = {"allowOutbound": True, "allowedDomains": [NAME]}


def policy(port):
    return f"""
policies:
- name: bench
  agentId: "*"
  cpuLimit: 400
  limits: {{openFiles: 4096}}
  networkLimit: {{maxConnections: 65535, bandwidthLimit: 10485760, allowedProtocols: [tcp]}}
  network: {{allowedDomains: [{NAME}], allowedCidrs: [{LOOPBACK}/32], ports: [{port}], hosts: {{{NAME}: {LOOPBACK}}}}}
"""


class Agent:
    """An agent whose connections go through kai-egress."""

    def __init__(self, daemon, must, packages, programs, scratch, name, port):
        self.daemon, self.must, self.agent, self.port, self.name = daemon, must, name, port, "egress"
        security = {**packages.CORRECT["security"], "networkAccess": NETWORK}
        root = packages.package(scratch, name, "main.py", AGENT, mode=0o644, capabilities=["traffic"], security=security)
        shutil.copy(programs / "kai-traffic", root)
        must(daemon, "register", root)
        must(daemon, "start", name)

    @property
    def forwarder(self):
        from harness import descendants
        return next(pid for pid, command in descendants(self.daemon.process.pid).items()
                    if pathlib.Path(command.split()[0]).name == "kai-egress")

    def ask(self, do, *words):
        payload = json.dumps({"do": do, "port": self.port, "words": [str(word) for word in words]})
        return self.must(self.daemon, "send", "--timeout", "60", self.agent, "traffic", payload).document["payload"]

    def run(self, *words):
        return self.ask("run", *words)

    def hold(self, *words):
        self.ask("hold", *words)

    def release(self, held):
        del held
        self.ask("release")
