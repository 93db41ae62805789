#!/usr/bin/python3
"""The test hosts: a network of its own in which every address of the Internet is this one process, joined by a veth pair
to a second network, that of the "machine" on which the tests start kaid. hosts.py starts it and says what it is asked.

usage: network_servers.py DIRECTORY     (in a network namespace of its own, with CAP_NET_ADMIN and CAP_SYS_ADMIN there)

DIRECTORY holds server.pem, the certificate with its key. Requests and answers are JSON, one a line, on standard input and
output; the first line of the output says the process whose network namespace the machine is.
"""

import asyncio
import ctypes
import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import time

import network_dns

# Names, so that nobody has to know which number is what (hosts.py).
GATEWAY4, GATEWAY6 = "93.184.216.254", "2606:2800:220:1::fe"
MACHINE4, MACHINE6 = "93.184.216.1", "2606:2800:220:1::1"
DNS = "9.9.9.53"  # answers to datagrams have to come from where they were sent to
HTTP, HTTPS, RAW = (80, 8080), (443, 8443), (7, 22, 7000)
DATAGRAMS = (7, 123, 443, 5353)
CLONE_NEWNET = 0x40000000


def run(*command):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def join_networks():
    """The machine's network and the way from it to this one. The process that holds it, which ends with its input."""
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "ip link set lo up; echo ready; exec cat"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if holder.stdout.readline() != b"ready\n":
        raise OSError("no network namespace for the machine")
    machine = ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{DNS}/32", "dev", "lo")
    run("ip", "link", "add", "world", "type", "veth", "peer", "name", "machine", "netns", str(holder.pid))
    for prefix, device, own, peer in (([], "world", (GATEWAY4, GATEWAY6), (MACHINE4, MACHINE6)),
                                      (machine, "machine", (MACHINE4, MACHINE6), (GATEWAY4, GATEWAY6))):
        run(*prefix, "ip", "link", "set", device, "up")
        for family, mine, theirs, options in (("-4", own[0], peer[0], []), ("-6", own[1], peer[1], ["nodad"])):
            run(*prefix, "ip", family, "address", "add", mine, "dev", device, *options)
            run(*prefix, "ip", family, "route", "add", theirs, "dev", device)
    run("ip", "-6", "address", "add", "fe80::1/64", "dev", "world", "nodad")
    for family, gateway in (("-4", GATEWAY4), ("-6", GATEWAY6)):
        run(*machine, "ip", family, "route", "add", "default", "via", gateway)
        # Whatever the machine sends out is for us, but for the answers to it.
        run("ip", family, "route", "add", "local", "default", "dev", "lo", "table", "main")
    return holder


class In:
    """While it lasts, sockets are made in the network namespace of `pid`."""

    def __init__(self, pid):
        self.there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        self.here = os.open("/proc/self/ns/net", os.O_RDONLY)

    @staticmethod
    def enter(namespace):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")

    def __enter__(self):
        self.enter(self.there)

    def __exit__(self, *_):
        self.enter(self.here)
        os.close(self.there)
        os.close(self.here)


def listener(port):
    made = socket.create_server(("::", port), family=socket.AF_INET6, backlog=4096, dualstack_ipv6=True)
    made.setblocking(False)
    return made


def plain(address):
    return address[7:] if address.startswith("::ffff:") else address


class Servers:
    def __init__(self, directory):
        self.zone = network_dns.Zone()
        self.connections = []
        self.datagrams = []
        self.held = set()
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(directory / "server.pem")
        self.tls.sni_callback = lambda link, name, _: setattr(link, "asked_for", name)

    async def start(self, where):
        """Listens on every port of the current network namespace; `where` names it in records."""
        for ports, serve, tls in ((HTTP, self.http, None), (HTTPS, self.http, self.tls), (RAW, self.raw, None)):
            for port in ports:
                self.spawn(self.accept(listener(port), where, serve, tls))
        for port in DATAGRAMS:
            made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            made.bind(("::", port))
            made.setblocking(False)
            self.spawn(self.receive(made, where, port))

    async def start_dns(self):
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: network_dns.Datagrams(self.zone), local_addr=(DNS, 53))
        await asyncio.start_server(lambda r, w: network_dns.serve_stream(self.zone, r, w), DNS, 53)

    def spawn(self, work):
        task = asyncio.ensure_future(work)
        self.held.add(task)
        task.add_done_callback(self.held.discard)

    async def receive(self, sock, where, port):
        while True:
            data = await asyncio.get_running_loop().sock_recv(sock, 65536)
            self.datagrams.append({"where": where, "port": port, "bytes": len(data)})

    async def accept(self, listening, where, serve, tls):
        while True:
            accepted, _ = await asyncio.get_running_loop().sock_accept(listening)
            address, port = accepted.getsockname()[:2]
            entry = {"where": where, "address": plain(address), "port": port, "opened": time.monotonic(), "sni": None,
                     "requests": [], "bytes": 0, "closed": None}
            self.connections.append(entry)
            self.spawn(self.serve(accepted, entry, serve, tls))

    async def serve(self, accepted, entry, serve, tls):
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 20)
        try:
            transport, protocol = await loop.connect_accepted_socket(lambda: asyncio.StreamReaderProtocol(reader), accepted,
                                                                     ssl=tls)
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            if tls:
                entry["sni"] = getattr(writer.get_extra_info("ssl_object"), "asked_for", None)
            try:
                await serve(reader, writer, entry)
            finally:
                writer.transport.abort() if entry.get("abort") else writer.close()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the other end's doing: a record without requests is what a test sees of it
        finally:
            entry["closed"] = time.monotonic()

    @staticmethod
    async def raw(reader, writer, entry):
        """An echo."""
        while data := await reader.read(65536):
            entry["bytes"] += len(data)
            writer.write(data)
            await writer.drain()

    async def http(self, reader, writer, entry):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            entry["requests"].append(head)
            length = re.search(r"(?im)^content-length:\s*(\d+)", head)
            left = int(length[1]) if length else 0
            while left:
                data = await reader.readexactly(min(left, 1 << 16))
                entry["bytes"] += len(data)
                left -= len(data)
            path = (head.split() + ["", ""])[1]
            await self.respond(path, head, reader, writer, entry)

    @staticmethod
    async def respond(path, head, reader, writer, entry):
        word, _, value = path.strip("/").partition("/")
        if word == "redirect":
            writer.write(f"HTTP/1.1 302 Found\r\nLocation: {value}\r\nContent-Length: 0\r\n\r\n".encode())
        elif word == "bytes":
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {value}\r\n\r\n".encode())
            left = int(value)
            while left:
                writer.write(bytes(min(left, 1 << 16)))
                left -= min(left, 1 << 16)
                await writer.drain()
        elif word == "hold":  # a body that goes on until somebody ends the connection
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nheld\n")
            await reader.read()
            raise ConnectionError
        else:
            host = re.search(r"(?im)^host:\s*(\S+)", head)
            body = json.dumps({"host": host and host[1], "path": path, "sni": entry["sni"], "bytes": entry["bytes"],
                               "address": entry["address"], "port": entry["port"]})
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(f"{head}{body}".encode())
        await writer.drain()

    def request(self, asked):
        if asked["do"] == "names":
            self.zone.entries.update(asked["names"])
            return {}
        if asked["do"] == "clear":
            self.connections, self.datagrams, self.zone.questions = [], [], []
            return {}
        if asked["do"] == "records":
            return {"connections": self.connections, "datagrams": self.datagrams, "questions": self.zone.questions}
        raise ValueError(asked)


async def main():
    servers = Servers(pathlib.Path(sys.argv[1]))
    holder = join_networks()
    await servers.start("world")
    await servers.start_dns()
    with In(holder.pid):
        await servers.start("machine")
    print(json.dumps({"machine": holder.pid}), flush=True)
    requests = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    while line := await requests.readline():
        print(json.dumps(servers.request(json.loads(line))), flush=True)
    holder.stdin.close()
    holder.wait()


if __name__ == "__main__":
    asyncio.run(main())
