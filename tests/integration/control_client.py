#!/usr/bin/python3
"""Speaks proto/control.proto to a daemon over its socket, with the standard library alone, so that no start of a kaictl
process stands between two messages; and a client that keeps sending.

usage: control_client.py SOCKET AGENT CAPABILITY JSON

Sends the same request again and again until standard input ends, then prints what came of it: sent, answered, errors,
longest gap. Status 0: every one was answered.
"""

import itertools
import json
import socket
import struct
import sys
import threading
import time

RETRY = 0.02  # seconds between two attempts to reach a daemon that is not there


def varint(number):
    out = bytearray()
    while number > 0x7f:
        out.append(number & 0x7f | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number, value):
    """One field of a protobuf message: a number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def fields(data):
    """number → value of a protobuf message that has each field once, numbers and bytes only."""
    found, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7f) << shift
            shift += 7
            if byte < 0x80:
                return value
    while at < len(data):
        tag = number()
        value = number()
        if tag & 7 == 2:
            value, at = data[at:at + value], at + value
        found[tag >> 3] = value
    return found


class Failed(Exception):
    """What the daemon said instead of an answer."""

    def __init__(self, failed):
        self.code = failed.get(1, b"").decode()
        self.retryable = bool(failed.get(5))
        super().__init__(f"{self.code}: {failed.get(2, b'').decode(errors='replace')}")


class ControlClient:
    """One connection. An OSError: the daemon is not there, or went away; connect anew."""

    def __init__(self, path, timeout):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self.stream = self.socket.makefile("rb")
        self.last_id = 0

    def close(self):
        self.stream.close()
        self.socket.close()

    def send(self, agent, capability, payload, timeout_ms):
        """The answer's payload."""
        self.last_id += 1
        asked = field(1, agent) + field(2, capability) + field(3, json.dumps(payload)) + field(4, timeout_ms)
        request = field(1, self.last_id) + field(10, asked)
        self.socket.sendall(struct.pack(">I", len(request)) + request)
        while True:
            response = fields(self._frame())
            if 3 in response:
                raise Failed(fields(response[3]))
            if 2 in response:
                return json.loads(fields(response[2])[1])["payload"]

    def _frame(self):
        header = self.stream.read(4)
        body = self.stream.read(struct.unpack(">I", header)[0]) if len(header) == 4 else b""
        if not body:
            raise ConnectionError("the daemon closed the connection")
        return body


class SteadyClient:
    """Threads that send one message after the other, each on a connection of its own, from `with` to its end.

    `payload(number)` makes the payload of message `number`; numbers are dense, and each is sent once. A daemon that is not
    there is tried again; what it had got may be lost with it, and counts as unknown.
    """

    THREADS = 3
    PAUSE = 0.002  # seconds between two messages of a thread: the machine has other things to do as well
    SILENCE = 120  # seconds after which a message that has no answer is one that will never have one

    def __init__(self, path, agent, capability, payload=lambda number: {"number": number}):
        self.path, self.agent, self.capability, self.payload = path, agent, capability, payload
        self.numbers = itertools.count(1)
        self.over = threading.Event()
        self.changed = threading.Condition()
        self.answers = []  # (number, answer, time when it came)
        self.errors = []  # (number, what was said)
        self.unknown = []  # numbers that were sent to a daemon that went away
        self.sent = 0
        self.threads = [threading.Thread(target=self._send_on) for _ in range(self.THREADS)]

    def __enter__(self):
        self.began = time.monotonic()
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()
        self.ended = time.monotonic()

    def _send_on(self):
        client = None
        while not self.over.wait(self.PAUSE):
            try:
                client = client or ControlClient(self.path, self.SILENCE)
            except OSError:
                self.over.wait(RETRY)
                continue
            with self.changed:
                number = next(self.numbers)
                self.sent += 1
            if not self._send_one(client, number):
                client.close()
                client = None
        if client:
            client.close()

    def _send_one(self, client, number):
        """false: the connection is gone."""
        try:
            answer = client.send(self.agent, self.capability, self.payload(number), self.SILENCE * 1000)
        except Failed as failed:
            self._note(self.errors, (number, failed))
        except TimeoutError:
            self._note(self.errors, (number, "silence"))
            return False
        except OSError:
            self._note(self.unknown, number)
            return False
        else:
            self._note(self.answers, (number, answer, time.monotonic()))
        return True

    def _note(self, where, what):
        with self.changed:
            where.append(what)
            self.changed.notify_all()

    def wait_for_answers(self, count, patience=60):
        """Until so many more messages were answered."""
        with self.changed:
            before = len(self.answers)
            if not self.changed.wait_for(lambda: len(self.answers) >= before + count, patience):
                raise AssertionError(f"no answer any more after {before}; the last errors: {self.errors[-3:]}")

    @property
    def longest_gap(self):
        """Seconds for which no answer came, at most."""
        times = sorted([self.began] + [when for _, _, when in self.answers] + [self.ended])
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    def __str__(self):
        return (f"sent {self.sent}, answered {len(self.answers)}, errors {len(self.errors) + len(self.unknown)}, "
                f"longest gap {self.longest_gap * 1000:.0f} ms")


def main():
    if len(sys.argv) != 5:
        print("\n".join(__doc__.splitlines()[3:]).strip(), file=sys.stderr)
        return 2
    path, agent, capability, text = sys.argv[1:]
    payload = json.loads(text)
    with SteadyClient(path, agent, capability, lambda number: payload) as client:
        client.wait_for_answers(1)
        print("sending", flush=True)
        sys.stdin.read()
        client.wait_for_answers(client.THREADS)
    print(client, flush=True)
    for number, said in client.errors[:3]:
        print(f"message {number}: {said}", file=sys.stderr)
    return 0 if len(client.answers) == client.sent else 1


if __name__ == "__main__":
    sys.exit(main())
