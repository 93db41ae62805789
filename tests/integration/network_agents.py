"""An agent that uses the network as a test says, and what it is asked with. Everything that it does is done by ordinary
clients: curl, node's fetch, python's urllib and plain sockets, none of which knows of egress.
"""

import json
import shutil

import packages

# Answers say what happened in the client's own words: errno names, exit codes, and how many seconds it took.
CLIENT = r'''
import asyncio, errno, os, socket, ssl, struct, sys, time
from kai import Agent

HERE = os.path.dirname(os.path.abspath(__file__))
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6, 0: socket.AF_UNSPEC}

def name_of(error):
    if isinstance(error, socket.gaierror):
        return {value: name for name, value in vars(socket).items() if name.startswith("EAI_")}.get(error.errno, str(error))
    if isinstance(error, ssl.SSLError):
        return "ssl:" + (error.reason or str(error))
    if isinstance(error, TimeoutError):
        return "timeout"
    return errno.errorcode.get(error.errno, str(error)) if isinstance(error, OSError) and error.errno else repr(error)

def connect(asked):
    """A TCP connection to asked: host, port, family; tls: the SNI, "" for none."""
    found = socket.getaddrinfo(asked["host"], asked["port"], FAMILIES[asked.get("family", 0)], socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    connection = socket.socket(family, kind, protocol)
    connection.settimeout(asked.get("timeout", 10))
    connection.connect(address)
    if "tls" in asked:
        context = ssl.create_default_context(cafile=os.path.join(HERE, "ca.pem"))
        context.check_hostname = False
        connection = context.wrap_socket(connection, server_hostname=asked["tls"] or None)
    return connection

def talk(asked):
    """connect(), then every part of `send` once the one before was answered; the answers, until it is closed or silent."""
    began, answers = time.monotonic(), []
    said = lambda **what: {**what, "answers": answers, "seconds": time.monotonic() - began}
    try:
        connection = connect(asked)
    except (OSError, UnicodeError) as error:  # Python itself refuses names with an empty label
        return said(error=name_of(error))
    with connection:
        try:
            peer = connection.getpeername()[0]
            for part in asked.get("send", []):
                connection.sendall(bytes.fromhex(part))
                answers.append(connection.recv(65536).decode("latin-1"))
            if asked.get("until_closed"):
                while data := connection.recv(65536):
                    answers.append(data.decode("latin-1"))
            return said(peer=peer)
        except OSError as error:
            return said(error=name_of(error))

def datagram(asked):
    """One datagram; the answer, or what the kernel said."""
    began = time.monotonic()
    with socket.socket(FAMILIES[asked["family"]], socket.SOCK_DGRAM) as sender:
        sender.settimeout(asked.get("timeout", 10))
        try:
            sender.connect((asked["host"], asked["port"]))
            sender.send(bytes.fromhex(asked["send"]))
            answer = sender.recv(65536).hex()
            return {"answer": answer, "seconds": time.monotonic() - began}
        except OSError as error:
            return {"error": name_of(error), "seconds": time.monotonic() - began}

def make_socket(asked):
    try:
        with socket.socket(asked["family"], asked["type"], asked["protocol"]):
            return {}
    except OSError as error:
        return {"error": name_of(error)}

def resolve(asked):
    began = time.monotonic()
    try:
        found = socket.getaddrinfo(asked["host"], None, FAMILIES[asked.get("family", 0)], socket.SOCK_STREAM)
        return {"addresses": [entry[4][0] for entry in found], "seconds": time.monotonic() - began}
    except (OSError, UnicodeError) as error:
        return {"error": name_of(error), "seconds": time.monotonic() - began}

class Client(Agent):
    async def on_init(self):
        self.held, self.children = {}, {}

    async def on_message(self, msg):
        asked = msg.payload
        if msg.capability in ("talk", "datagram", "resolve", "make_socket"):
            return await asyncio.to_thread(globals()[msg.capability], asked)
        return await getattr(self, msg.capability)(asked)

    async def run(self, asked):
        """A program; {ca} in its words is the tests' CA."""
        began = time.monotonic()
        words = [word.replace("{ca}", os.path.join(HERE, "ca.pem")) for word in asked["argv"]]
        environment = {**os.environ, "NODE_EXTRA_CA_CERTS": os.path.join(HERE, "ca.pem")}
        child = await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.DEVNULL, env=environment,
                                                     stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        out, err = await child.communicate()
        return {"code": child.returncode, "out": out.decode(errors="replace"), "err": err.decode(errors="replace"),
                "seconds": time.monotonic() - began}

    async def hold(self, asked):
        """Opens `count` connections at once and keeps what came of them under `key`."""
        attempts = [asyncio.to_thread(talk_once, asked) for _ in range(asked.get("count", 1))]
        held, refused = [], []
        for outcome in await asyncio.gather(*attempts):
            (refused if isinstance(outcome, str) else held).append(outcome)
        self.held[asked["key"]] = held
        return {"open": len(held), "refused": refused}

    async def held_answer(self, asked):
        """Whether each connection under `key` still answers what is sent on it."""
        def once(connection):
            try:
                connection.sendall(bytes.fromhex(asked["send"]))
                return connection.recv(65536).decode("latin-1") or "closed"
            except OSError as error:
                return name_of(error)
        return await asyncio.gather(*[asyncio.to_thread(once, each) for each in self.held[asked["key"]]])

    async def held_end(self, asked):
        """Waits for the end of the first connection under `key`: how it came, and when by the monotonic clock."""
        def wait():
            try:
                while self.held[asked["key"]][0].recv(65536):
                    pass
                return {"end": "closed", "at": time.monotonic()}
            except OSError as error:
                return {"end": name_of(error), "at": time.monotonic()}
        return await asyncio.to_thread(wait)

    async def let_go(self, asked):
        for connection in self.held.pop(asked["key"], []):
            connection.close()
        return {}

    async def many(self, asked):
        """`count` connections at the same time, one thread: each sends and is answered before any is closed."""
        address = (await asyncio.to_thread(resolve, asked))["addresses"][0]
        async def one():
            try:
                reader, writer = await asyncio.open_connection(address, asked["port"])
                writer.write(bytes.fromhex(asked["send"]))
                answer = await reader.read(65536)
                return "" if answer else "no answer", writer
            except OSError as error:
                return name_of(error), None
        began = time.monotonic()
        outcomes = await asyncio.gather(*[one() for _ in range(asked["count"])])
        for _, writer in outcomes:
            if writer:
                writer.close()
        errors = [error for error, _ in outcomes if error]
        return {"answered": len(outcomes) - len(errors), "errors": sorted(set(errors)), "seconds": time.monotonic() - began}

    async def transfer(self, asked):
        """`bytes` each way by HTTP: what arrived, and how long it took."""
        def fetch():
            down = f"GET /bytes/{asked['bytes']} HTTP/1.1", "Accept: */*"
            up = "POST / HTTP/1.1", f"Content-Length: {asked['bytes']}"
            request, field = down if asked["way"] == "down" else up
            text = f"{request}\r\nHost: {asked['host']}\r\n{field}\r\n\r\n"
            with connect(asked) as connection:
                began = time.monotonic()
                connection.sendall(text.encode())
                if asked["way"] == "up":
                    connection.sendall(bytes(asked["bytes"]))
                received = 0
                while received < (asked["bytes"] if asked["way"] == "down" else 1):
                    data = connection.recv(1 << 18)
                    if not data:
                        break
                    received += len(data)
            return {"received": received, "seconds": time.monotonic() - began}
        return await asyncio.to_thread(fetch)

def talk_once(asked):
    try:
        connection = connect(asked)
        for part in asked.get("send", []):
            connection.sendall(bytes.fromhex(part))
            if not connection.recv(65536):
                connection.close()
                return "closed"
        return connection
    except OSError as error:
        return name_of(error)
'''
CAPABILITIES = ["talk", "datagram", "resolve", "make_socket", "run", "hold", "held_answer", "held_end", "let_go", "many",
                "transfer"]

NODE_FETCH = """
const began = performance.now(), word = process.argv[1];
let said;
try {
  const answer = await fetch(word);
  said = {status: answer.status, body: await answer.json()};
} catch (error) {
  let cause = error;
  while (cause.cause) cause = cause.cause;
  said = {error: cause.code ?? cause.errors?.[0]?.code ?? String(cause)};
}
console.log(JSON.stringify({...said, seconds: (performance.now() - began) / 1000}));
"""
PYTHON_URLLIB = """
import json, ssl, sys, time, urllib.error, urllib.request
began = time.monotonic()
try:
    with urllib.request.urlopen(sys.argv[1], timeout=10, context=ssl.create_default_context(cafile=sys.argv[2])) as answer:
        said = {"status": answer.status, "body": json.load(answer)}
except OSError as error:
    said = {"error": str(getattr(error, "reason", error))}
print(json.dumps({**said, "seconds": time.monotonic() - began}))
"""


def security(names, allow=True, blocked=None):
    network = {"allowOutbound": allow}
    if names is not None:
        network["allowedDomains"] = list(names)
    if blocked:
        network["blockedDomains"] = list(blocked)
    return {"sandbox": True, "permissions": [], "crypto": "none", "networkAccess": network,
            "fileAccess": {"allowedPaths": [], "readOnly": True, "tempFileAccess": True}}


def client(directory, agent, ca, names, allow=True, blocked=None, **changes):
    """A package of the agent above, which asks for `names`."""
    root = packages.package(directory, agent, "main.py", CLIENT, mode=0o644, capabilities=CAPABILITIES,
                            security=security(names, allow, blocked), **changes)
    shutil.copy(ca, root / "ca.pem")
    return root


def request(host, path="/", method="GET", **headers):
    """An HTTP/1.1 request in hex, as talk() sends it."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
    return hexed("\r\n".join(lines) + "\r\n\r\n")


def hexed(text):
    return text.encode("latin-1").hex()


def body(answer):
    """The JSON body of an HTTP answer that came in one piece."""
    return json.loads(answer.partition("\r\n\r\n")[2])
