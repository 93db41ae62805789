"""Egress under load and at its limits: connections, bandwidth, floods, and every byte that passes. What one agent does takes
nothing from another.
"""

import json
import time
import unittest

import harness
from hosts import PUBLIC4, PUBLIC6
from network_agents import request
from network_case import FAST, NetworkTest

GOOD = "good.example.com"
POLICIES = """policies:
- name: client
  agentId: "client*"
  networkLimit: {maxConnections: 1000}
  network: {allowedDomains: [good.example.com, only4.example.com, nothing.example.com]}
- name: raw
  agentId: "raw*"
  limits: {openFiles: 8192, processes: 256}
  networkLimit: {allowedProtocols: [tcp], maxConnections: 4000, bandwidthLimit: 102400}
  network: {allowedDomains: ["*"], ports: [80, 443, 7000, 7001]}
- name: narrow
  agentId: "narrow*"
  quarantine: {denials: 1000000}
  networkLimit:
    maxConnections: 8
    bandwidthLimit: 512
  network: {allowedDomains: [good.example.com]}
"""
NAMES = {GOOD: {"addresses": [PUBLIC4, PUBLIC6]}, "only4.example.com": {"addresses": [PUBLIC4]}}
FLOOD = """
import os, socket, threading, time
address = socket.getaddrinfo("good.example.com", 80, socket.AF_INET, socket.SOCK_STREAM)[0][4]
end = time.monotonic() + 3
made = [0, 0, 0]
def connections():
    while time.monotonic() < end:
        for host in (address, ("93.184.216.99", 80), ("93.184.216.99", 25)):
            with socket.socket() as connection:
                connection.settimeout(5)
                connection.connect_ex(host)
                made[0] += 1
def questions():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while time.monotonic() < end:
            name = b"\\x10" + os.urandom(8).hex().encode() + b"\\7example\\3com\\0"
            sender.sendto(b"\\1\\2\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + name + b"\\0\\1\\0\\1", ("127.0.0.1", 53))
            made[1] += 1
def datagrams():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        while time.monotonic() < end:
            sender.sendto(b"x", ("93.184.216.99", 443))
            made[2] += 1
threads = [threading.Thread(target=work) for work in (connections, questions, datagrams)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(made)
"""
ECHO = """
import hashlib, os, socket, sys, threading
connection = socket.create_connection((sys.argv[1], 7000))
sent, received = hashlib.sha256(), hashlib.sha256()
def send():
    for _ in range(256):
        data = os.urandom(65536)
        sent.update(data)
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
sender = threading.Thread(target=send)
sender.start()
while data := connection.recv(65536):
    received.update(data)
sender.join()
print("same" if sent.digest() == received.digest() else "different")
"""


class Loaded(NetworkTest):
    NAMES, POLICIES = NAMES, POLICIES

    def address(self, agent):
        """What stands for GOOD in the agent's network: connections without a question before each, which has its own limit."""
        return self.ask(agent, "resolve", host=GOOD, family=4)["addresses"][0]


class Limits(Loaded):
    AGENTS = {"narrow": [GOOD], "raw": [GOOD], "client": [GOOD]}

    def open_now(self, agent):
        return self.ok("net", agent).document["open"]

    def test_no_more_connections_than_allowed_are_open(self):
        held = self.ask("narrow", "hold", key="many", host=self.address("narrow"), port=80, count=12,
                        send=[request(GOOD, "/hold")])
        self.assertEqual((held["open"], len(held["refused"])), (8, 4), held)
        self.assertLessEqual(set(held["refused"]), {"ECONNRESET", "closed", "EPIPE", "ECONNREFUSED"})
        self.assertEqual(self.open_now("narrow"), 8)
        self.wait_for_denial("narrow", "maxConnections", self.rule("maxConnections: 8"))
        self.assert_reached(self.get("client", GOOD), "another agent's are its own")
        self.ask("narrow", "let_go", key="many")
        harness.wait_until(lambda: self.open_now("narrow") == 0, "the connections to be gone")
        address = self.address("narrow")
        harness.wait_until(lambda: "error" not in self.get("narrow", address, name=GOOD), "another to be let through")

    def test_bandwidth_is_held_each_way_and_takes_nothing_from_others(self):
        size = 1 << 20  # at 512 KB/s: 2 s, less what a bucket may hold
        least = 1.4
        address = self.address("client")
        for way in ("down", "up"):
            with self.subTest(way=way):
                began = time.monotonic()
                child = self.daemon.ctl_process("-o", "json", "send", "narrow", "transfer", json.dumps(
                    {"host": GOOD, "port": 80, "bytes": size, "way": way}))
                others = []
                while child.poll() is None:
                    others.append(self.get("client", address, name=GOOD)["seconds"])
                out, err = child.communicate()
                self.assertEqual(child.returncode, 0, err)
                said = json.loads(out)["payload"]
                rate = size / said["seconds"] / 1024
                self.say(f"{way}: {size >> 10} KB in {said['seconds']:.2f} s, {rate:.0f} KB/s of 512; "
                         f"beside it another agent's request took {sorted(others)[len(others) // 2] * 1000:.0f} ms")
                self.assertGreater(said["seconds"], least)
                self.assertLess(time.monotonic() - began, harness.PATIENCE)
                self.assertLess(sorted(others)[len(others) // 2], FAST)
        unheld = self.ask("raw", "transfer", host=GOOD, port=80, bytes=size, way="down")
        self.assertLess(unheld["seconds"], least, "the control run: without the limit it is fast")

    def test_a_flood_of_what_is_refused_costs_no_other_agent_anything(self):
        self.begin("narrow-flood", [GOOD])
        pid, address = self.egress_pid(), self.address("client")
        flood = json.dumps({"argv": ["/usr/bin/python3", "-c", FLOOD]})
        child = self.daemon.ctl_process("-o", "json", "send", "narrow-flood", "run", flood)
        others = []
        while child.poll() is None:
            others.append(self.get("client", address, name=GOOD))
        out, err = child.communicate()
        self.assertEqual(child.returncode, 0, err)
        for said in others:
            self.assert_reached(said)
        seconds = sorted(said["seconds"] for said in others)
        resident = int(harness.status_of(pid)["VmRSS"].split()[0]) if not harness.SANITIZED else 0
        self.say(f"connections, questions and datagrams in 3 s: {json.loads(out)['payload']['out'].strip()}; beside them "
                 f"another agent's request took {seconds[len(seconds) // 2] * 1000:.0f} ms, {seconds[-1] * 1000:.0f} at "
                 f"worst; egress has {resident} KB")
        self.assertLess(seconds[len(seconds) // 2], FAST)
        self.assertLess(resident, 64 << 10)
        self.assertEqual(self.egress_pids(), {pid})
        self.assertLess(len(self.denials("narrow-flood")), 1000, "lines are limited")
        self.assertGreater(self.daemon.status("narrow-flood")["denials"], 1000, "and every refusal is counted")

    def test_a_thousand_connections_at_the_same_time(self):
        said = self.ask("raw", "many", host=GOOD, port=7000, count=1000, send=b"hello".hex())
        self.assertEqual((said["answered"], said["errors"]), (1000, []), said)
        self.say(f"1000 connections answered in {said['seconds']:.2f} s")
        self.assertEqual(len(self.hosts.connections(port=7000)), 1000)
        harness.wait_until(lambda: self.open_now("raw") == 0, "all of them to be gone")
        self.assertEqual(len(self.egress_pids()), 1)


class Streams(Loaded):
    AGENTS = {"raw": [GOOD], "client": [GOOD, "nothing.example.com"], "narrow": [GOOD]}

    def test_every_byte_arrives_both_ways_and_the_end_of_each_way_by_itself(self):
        said = self.ask("raw", "run", argv=["/usr/bin/python3", "-c", ECHO, GOOD])
        self.assertEqual(said["out"], "same\n", said)
        self.say(f"16 MB there and back in {said['seconds']:.2f} s")
        self.assertEqual([entry["bytes"] for entry in self.hosts.connections()], [16 << 20])

    def test_an_address_stands_for_a_name_in_one_agents_network_alone(self):
        self.begin("client-other", ["only4.example.com"])
        for family in (4, 6):
            address = self.ask("client-other", "resolve", host="only4.example.com", family=family)["addresses"][0]
            self.assert_reached(self.get("client-other", address, name="only4.example.com", family=family), "control")
            self.assert_refused(self.get("client", address, name="only4.example.com", family=family))

    def test_what_is_allowed_and_nobody_answers_fails_at_once_and_is_no_denial(self):
        before = self.daemon.status("raw")["denials"]
        said = self.get("raw", GOOD, 7001)  # allowed, and nobody listens there
        self.assert_refused(said, "a port on which nobody listens")
        harness.wait_until(lambda: self.records("raw", "kai.not_connected"), "the line that says so")
        line = self.records("raw", "kai.not_connected")[0]
        self.assertEqual((line["name"], line["port"]), (GOOD, 7001), line)
        self.assertIn("refused", line["message"])
        self.ask("client", "resolve", host="nothing.example.com")
        self.assertEqual(self.daemon.status("raw")["denials"], before)


if __name__ == "__main__":
    unittest.main()
