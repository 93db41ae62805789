"""The host's end of the runner protocol, as kai-agent-host holds it, for tests that drive a real runner."""

import itertools
import json
import os
import select
import socket
import subprocess
import tempfile

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("KAI_BUILD", os.path.join(SOURCE, "build", "dev"))
SDK = os.path.join(BUILD, "sdk")
NODE = os.environ.get("KAI_NODE", "/usr/bin/node")
PYTHON = "/usr/bin/python3"
ESBUILD = os.environ.get("KAI_ESBUILD", "esbuild")
AGENTS = os.path.join(SOURCE, "tests", "sdk", "agents")
BUILT_AGENTS = os.path.join(BUILD, "tests", "sdk")

# Puts the channel where it is inside the sandbox, then becomes the runner. subprocess can pass descriptors on only
# under the numbers that they have.
ON_DESCRIPTOR_3 = [
    PYTHON,
    "-I",
    "-S",
    "-c",
    "import os, sys; fd = int(sys.argv[1]); os.dup2(fd, 3); fd == 3 or os.close(fd); "
    "os.execv(sys.argv[2], sys.argv[2:])",
]

DEADLINE = 20  # seconds that any one answer may take, on a loaded machine with a sanitizer

INIT = {
    "agent": {"id": "probe", "name": "Probe", "version": "1.2.3"},
    "capabilities": ["do"],
    "manifest": {"id": "probe", "name": "Probe", "version": "1.2.3"},
    "permissions": [{"resource": "calendar", "actions": ["read"]}],
    "limits": {"messageMs": 30000, "inFlight": 64, "frameBytes": 1 << 20},
    "protocol": 1,
}


def node_command(entry):
    return [NODE, os.path.join(SDK, "node", "runner.mjs"), entry]


def python_command(entry):
    return [PYTHON, "-P", "-m", "kai.runner", entry]


def native_command(entry):
    return [os.path.join(BUILD, "bin", "kai-native-runner"), entry]


class RunnerError(Exception):
    """The runner answered with a JSON-RPC error."""

    def __init__(self, body):
        super().__init__(body["message"])
        self.code = body["code"]
        self.message = body["message"]
        self.data = body.get("data", {})


class MemoryHost:
    """A real store for the runner's memory.*: tests/sdk/memory_host.cc, on a directory that may be used again."""

    def __init__(self, directory, *options):
        self.socket, theirs = socket.socketpair()
        command = [os.path.join(BUILD, "bin", "memory_host"), directory, *options]
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs)
        theirs.close()
        self._buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def ask(self, document):
        self.socket.sendall(json.dumps(document, ensure_ascii=False).encode() + b"\n")

    def lines(self):
        """The whole lines that have come; waits for at least some bytes."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise EOFError("memory_host has ended")
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return lines

    def close(self):
        """Ends it in order: what was asked is answered first."""
        self.socket.close()
        status = self.process.wait(timeout=DEADLINE)
        assert status == 0, f"memory_host ended with {status}"

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=DEADLINE)
        self.socket.close()


class Runner:
    """A runner process and the host's end of its channel."""

    def __init__(self, command, environment=None, directory=None):
        self._host, agent = socket.socketpair()
        self._host.settimeout(DEADLINE)
        self._ids = itertools.count(1)
        self._buffer = b""
        self._answers = {}
        self.seen = []  # requests and notifications of the agent, in order
        self.answer_calls = None  # (method, params) → result, or raises RunnerError; None: UNAVAILABLE
        self.held_calls = None  # a list: calls go there, and nobody answers them
        self.memory = None  # a MemoryHost that answers memory.*
        self._stderr = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [*ON_DESCRIPTOR_3, str(agent.fileno()), *command],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.path.join(SDK, "python"), **(environment or {})},
            pass_fds=[agent.fileno()],
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        agent.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._host.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self._stderr.close()

    # ---- lines

    def send_line(self, line):
        self._host.sendall(line + b"\n")

    def send_bytes(self, data):
        self._host.sendall(data)

    def send(self, document):
        self.send_line(json.dumps(document, ensure_ascii=False).encode())

    def read_document(self):
        """The next line of the runner; None when it has closed the channel."""
        while b"\n" not in self._buffer:
            self._wait_readable()
            data = self._host.recv(1 << 20)
            if not data:
                return None
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return json.loads(line)

    def _wait_readable(self):
        """Until the runner has said something; what the memory answers meanwhile goes to the runner."""
        while self.memory is not None:
            readable = select.select([self._host, self.memory.socket], [], [], DEADLINE)[0]
            if not readable:
                raise TimeoutError("neither the runner nor its memory says anything")
            if self.memory.socket in readable:
                for line in self.memory.lines():
                    self.send_line(line)
            if self._host in readable:
                return

    # ---- JSON-RPC

    def request(self, method, params=None, request_id=None):
        """Sends; the answer is got by answer()."""
        request_id = next(self._ids) if request_id is None else request_id
        self.send({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params or {}})
        return request_id

    def answer(self, request_id):
        while request_id not in self._answers:
            self.take(self.read_document())
        answer = self._answers.pop(request_id)
        if "error" in answer:
            raise RunnerError(answer["error"])
        return answer["result"]

    def take(self, document):
        if document is None:
            raise EOFError(f"the runner closed the channel; stderr: {self.stderr()}")
        assert document["jsonrpc"] == "2.0", document
        if "method" not in document:
            self._answers[document["id"]] = document
            return
        self.seen.append(document)
        if "id" not in document:
            return
        if self.memory is not None and document["method"].startswith("memory."):
            self.memory.ask(document)
        elif self.held_calls is not None:
            self.held_calls.append(document)
        else:
            self._serve(document)

    def _serve(self, document):
        answer = {"jsonrpc": "2.0", "id": document["id"]}
        try:
            if self.answer_calls is None:
                data = {"code": "UNAVAILABLE", "retryable": True}
                raise RunnerError({"code": -32000, "message": f"{document['method']} is not there", "data": data})
            answer["result"] = self.answer_calls(document["method"], document["params"])
        except RunnerError as error:
            answer["error"] = {"code": error.code, "message": error.message, "data": error.data}
        self.send(answer)

    def call(self, method, params=None):
        return self.answer(self.request(method, params))

    def notify(self, method, params):
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def wait_seen(self, matches):
        """The first notification or request of the agent, past or to come, for which matches(document)."""
        while True:
            for document in self.seen:
                if matches(document):
                    return document
            self.take(self.read_document())

    def wait_log(self, text):
        return self.wait_seen(lambda seen: seen["method"] == "log" and text in seen["params"]["message"])

    # ---- as the host does

    def hello(self):
        document = self.read_document()
        assert document is not None, f"no hello; stderr: {self.stderr()}"
        return document

    def start(self, **init):
        self.hello()
        self.call("init", {**INIT, **init})
        self.call("start")
        return self

    def message(self, capability="do", **fields):
        message = {
            "protocol": "klp/1.0",
            "id": "019a0000-0000-7000-8000-000000000001",
            "from": "operator",
            "to": "probe",
            "type": "request",
            "capability": capability,
            "timestamp": "2026-05-04T13:00:00.000Z",
            **fields,
        }
        return {"message": message}

    def ask(self, capability, payload=None):
        return self.call("message", self.message(capability, payload=payload))["payload"]

    def close(self):
        self._host.close()

    def shut_for_writing(self):
        self._host.shutdown(socket.SHUT_WR)

    # ---- the process

    def wait(self):
        return self.process.wait(timeout=DEADLINE)

    def stderr(self):
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")

    def resident_megabytes(self):
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


class Package(tempfile.TemporaryDirectory):
    """A root directory as the sandbox has it: the package in /agent, the Node SDK in /node_modules/@kai/agent."""

    def __init__(self):
        super().__init__(prefix="kai-sdk-test.")
        modules = os.path.join(self.name, "node_modules", "@kai")
        os.makedirs(modules)
        os.symlink(os.path.join(SDK, "node"), os.path.join(modules, "agent"))
        self.path = os.path.join(self.name, "agent")
        os.mkdir(self.path)

    def write(self, name, text):
        path = os.path.join(self.path, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def copy(self, source):
        with open(source, encoding="utf-8") as file:
            return self.write(os.path.basename(source), file.read())
