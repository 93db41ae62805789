"""What agents try in order to reach more than they may: each attack of the threat model's network part, with its control
run. A control run makes the same attack where nothing guards: from the machine itself (`unguarded`), or from an agent
whose policy opens what is attacked (`open`: every name and any protocol). It has to succeed, or the refusal proves
nothing.
"""

import collections
import json
import os
import struct
import subprocess
import time
import unittest

import client_hello
import harness
import network_dns
from hosts import MACHINE4, MACHINE6, METADATA4, OTHER4, PRIVATE4, PUBLIC4, PUBLIC6
from network_agents import hexed, request
from network_case import NetworkTest

GOOD, OTHER = "good.example.com", "other.example.com"
POLICIES = """policies:
- name: attacker
  agentId: "attacker*"
  quarantine: {denials: 100000}
  networkLimit: {maxConnections: 1000}
  network:
    allowedDomains: ["good.example.com", "*.wild.example.org", "*.trap.example.net"]
- name: open
  agentId: "open*"
  networkLimit: {allowedProtocols: [tcp], maxConnections: 1000}
  network: {allowedDomains: ["*"], allowedCidrs: [10.0.0.0/8, 169.254.0.0/16, "fd00::/8"]}
"""
BOTH = {"addresses": [PUBLIC4, PUBLIC6]}
# Where an allowed name may not lead to, in all the ways in which an address can be said to be that.
SPECIAL = {
    "private": PRIVATE4, "shared": "100.64.1.1", "metadata": METADATA4, "loopback": "127.0.0.1", "loopback-far": "127.9.9.9",
    "unspecified": "0.0.0.0", "this-network": "0.1.2.3", "multicast": "224.0.0.251", "broadcast": "255.255.255.255",
    "benchmark": "198.18.0.1", "own": MACHINE4, "own6": MACHINE6, "loopback6": "::1", "unspecified6": "::",
    "unique-local": "fd00::1", "link-local6": "fe80::1", "multicast6": "ff02::1", "metadata6": "fd00:ec2::254",
    "mapped": f"::ffff:{PRIVATE4}", "mapped-loopback": "::ffff:127.0.0.1", "compatible": f"::{PRIVATE4}",
    "nat64": "64:ff9b::a01:203", "nat64-metadata": "64:ff9b::a9fe:a9fe", "6to4": "2002:a01:203::1",
    "6to4-loopback": "2002:7f00:1::",
}
LOOKALIKES = ["evilgood.example.com", "good.example.com.evil.example.net", "xgood.example.com", "sub.good.example.com",
              "good.example.co", "example.com", "good-example.com", "wild.example.org", "evilwild.example.org",
              "www.wild.example.org.evil.example.net", "xn--gd-fmca.example.com", "xn--gd-jbca.example.com"]
NAMES = {
    GOOD: BOTH, OTHER: {"addresses": [OTHER4]}, "*.wild.example.org": BOTH,
    **{name: {"addresses": [OTHER4]} for name in LOOKALIKES},
    **{f"{word}.trap.example.net": {"addresses": [address]} for word, address in SPECIAL.items()},
    "rebinding.trap.example.net": {"turns": [[PUBLIC4], [PRIVATE4]], "ttl": 0},
    "both.trap.example.net": {"addresses": [PRIVATE4, METADATA4]},
    "cname.trap.example.net": {"cname": "internal.example.lan"}, "internal.example.lan": {"addresses": [PRIVATE4]},
    "chain.trap.example.net": {"cname": "one.example.lan"}, "one.example.lan": {"cname": "two.example.lan"},
    "two.example.lan": BOTH, "circle.trap.example.net": {"cname": "circle.example.lan"},
    "circle.example.lan": {"cname": "circle.trap.example.net"},
    "garbage.trap.example.net": {"lie": "garbage"}, "wrong-id.trap.example.net": {**BOTH, "lie": "id"},
    "wrong-question.trap.example.net": {**BOTH, "lie": "question"}, "pointer-loop.trap.example.net": {**BOTH, "lie": "loop"},
    "silent.trap.example.net": {"delay": -1}, "slow.trap.example.net": {**BOTH, "delay": 0.5},
    "truncated.trap.example.net": {**BOTH, "truncated": True}, "broken.trap.example.net": {"rcode": 2},
}
TUNNEL = """
import os, socket
passed = 0
for _ in range(300):
    try:
        socket.getaddrinfo(f"{os.urandom(30).hex()}.{os.urandom(30).hex()}.wild.example.org", 80)
        passed += 1
    except OSError:
        pass
print(passed)
"""
UNGUARDED = """
import json, sys
source, what, asked = sys.argv[1:]
sys.modules["kai"] = type(sys)("kai")
sys.modules["kai"].Agent = object
space = {"__file__": source}
exec(open(source).read(), space)
print(json.dumps(space[what](json.loads(asked))))
"""


def dns_query(*labels, kind=network_dns.A):
    """A question with these labels, whatever is in them."""
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return struct.pack("!HHHHHH", 4242, 0x0100, 1, 0, 0, 0) + name + struct.pack("!HH", kind, 1)


def rcode(said):
    return bytes.fromhex(said["answer"])[3] & 15


def answers_of(said):
    return struct.unpack_from("!H", bytes.fromhex(said["answer"]), 6)[0]


class Evasion(NetworkTest):
    NAMES, POLICIES = NAMES, POLICIES
    AGENTS = {"attacker": [GOOD, "*.wild.example.org", "*.trap.example.net"],
              "open": [GOOD, OTHER, *LOOKALIKES, "*.trap.example.net"]}

    # 50 names a second are looked up for an agent: no attack shall wait for that.
    QUESTIONS_PER_SECOND = 40

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        most = cls.QUESTIONS_PER_SECOND
        cls.asked = collections.defaultdict(lambda: collections.deque([0.0] * most, most))

    def ask(self, agent, what, **asked):
        if what in ("talk", "resolve") and ":" not in asked["host"]:
            asked.setdefault("family", 4)  # one question, not two
        times = self.asked[agent]
        harness.wait_until(lambda: time.monotonic() - times[0] > 1, "the agent's next question to be within its limit")
        times.append(time.monotonic())
        return super().ask(agent, what, **asked)

    def unguarded(self, what, **asked):
        """The same by a process on the machine, which nothing guards."""
        source = self.daemon.directory / "prepared/open/main.py"
        command = [*self.hosts.enter, "/usr/bin/python3", "-c", UNGUARDED, str(source), what, json.dumps(asked)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=harness.PATIENCE, check=True)
        return json.loads(done.stdout)

    def unguarded_get(self, host, **asked):
        return self.unguarded("talk", host=host, port=80, send=[request(GOOD)], **asked)

    def nothing_arrived(self, what="", **wanted):
        self.assertEqual(self.hosts.connections(**wanted), [], what)


class Names(Evasion):
    def test_names_that_look_like_an_allowed_one(self):
        """Suffix, prefix, the parent, another top level, IDN homographs."""
        self.begin("attacker-greedy", [GOOD, *LOOKALIKES])  # asks for them, and its policy does not have them
        for name in LOOKALIKES:
            with self.subTest(name=name):
                for agent in ("attacker", "attacker-greedy"):
                    self.assert_refused(self.get(agent, name), agent)
                self.nothing_arrived(name)
                self.assertEqual(self.hosts.questions(name), [], "nor is anybody asked about it")
        self.assert_reached(self.get("attacker-greedy", GOOD), "control: what manifest and policy have")
        for name in LOOKALIKES:
            self.assert_reached(self.get("open", name), f"control: {name}")

    def test_case_and_the_dot_at_the_end_change_nothing(self):
        for name in ("GOOD.EXAMPLE.COM", "gOOd.example.com.", "A.Wild.Example.Org."):
            self.assert_reached(self.get("attacker", name), f"control: {name}")
        for name in ("OTHER.EXAMPLE.COM", "other.example.com.", "WILD.example.org.", "good.example.com..",
                     ".good.example.com"):
            self.assert_refused(self.get("attacker", name), name)
        self.nothing_arrived(address=OTHER4)

    def test_labels_that_other_readers_cut_short(self):
        """NUL, dots and the like inside of a label."""
        server = {"family": 4, "host": "127.0.0.1", "port": 53}
        honest = self.ask("attacker", "datagram", **server, send=dns_query(b"good", b"example", b"com").hex())
        self.assertEqual((rcode(honest), answers_of(honest)), (0, 1), "control: the honest question")
        self.hosts.clear()
        for labels in ((b"good.example.com\0", b"evil", b"example", b"net"), (b"good.example.com",),
                       (b"good.example", b"com"),
                       (b"good\0", b"example", b"com"), (b"good", b"example", b"com\0evil"),
                       (b"x\\.wild", b"example", b"org"),
                       (b"a b", b"wild", b"example", b"org"), (b"a@b", b"wild", b"example", b"org"),
                       (b"\xff\xfe", b"wild", b"example", b"org")):
            with self.subTest(labels=labels):
                said = self.ask("attacker", "datagram", **server, send=dns_query(*labels).hex())
                self.assertIn(rcode(said), (1, 3, 5), "FORMERR, NXDOMAIN or REFUSED")
                self.assertEqual(answers_of(said), 0)
        self.assertEqual(self.hosts.questions(), [])

    def test_host_header_tricks_around_the_name(self):
        for host in (f"{GOOD}@{OTHER}", f"{GOOD}\0.{OTHER}", f"{OTHER}:80", f"{GOOD}:80:80", f"{GOOD}:443", f"{GOOD}/{OTHER}",
                     f"{GOOD} {OTHER}", f"x{GOOD}", f"{GOOD}.{OTHER}", f"{GOOD}#", "", f"[{GOOD}]"):
            with self.subTest(host=host):
                self.assert_refused(self.get("attacker", GOOD, name=host), host)
                self.nothing_arrived(host)
                self.hosts.clear()
        for host in (GOOD, GOOD.upper(), f"{GOOD}:80", f"{GOOD}."):
            self.assert_reached(self.get("attacker", GOOD, name=host), f"control: {host}")
        self.assert_reached(self.get("open", GOOD, name=OTHER), "control: the bytes arrive where nobody reads them")


class Addresses(Evasion):
    def test_addresses_in_every_spelling(self):
        spellings = [PRIVATE4, "167838211", "0x0a010203", "012.1.2.3", "0xa.1.2.3", "10.1.515", "10.66051", METADATA4,
                     "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", OTHER4, "1572395107"]
        for spelling in spellings:
            with self.subTest(spelling=spelling):
                self.assert_refused(self.get("attacker", spelling), spelling)
                self.nothing_arrived(spelling)
                self.assert_reached(self.unguarded_get(spelling), f"control: {spelling}")
                self.hosts.clear()

    def test_ipv6_addresses_and_what_hides_ipv4_in_them(self):
        for address in (PUBLIC6, "fd00::1", "64:ff9b::a01:203", "2002:a01:203::1", f"::ffff:{PRIVATE4}", "::ffff:a9fe:a9fe",
                        f"::ffff:{OTHER4}", "fd00:ec2::254"):
            with self.subTest(address=address):
                self.assert_refused(self.get("attacker", address, family=6), address)
                self.nothing_arrived(address)
                self.assert_reached(self.unguarded_get(address, family=6), f"control: {address}")
                self.hosts.clear()

    def test_link_local_addresses_and_zones(self):
        for address in ("fe80::1%lo", "fe80::1%1", "ff02::1%lo"):
            self.assert_refused(self.get("attacker", address, family=6), address)
        self.nothing_arrived()
        self.assert_reached(self.unguarded_get("fe80::1%machine", family=6), "control")

    def test_a_literal_in_the_place_of_a_name(self):
        """In the Host of an allowed connection, and as SNI."""
        for host in (PRIVATE4, METADATA4, f"[{PUBLIC6}]", "198.18.0.1"):
            self.assert_refused(self.get("attacker", GOOD, name=host), host)
        self.assert_refused(self.get("attacker", GOOD, 443, tls=PUBLIC4))
        self.nothing_arrived()

    def test_an_allowed_name_that_leads_to_what_is_no_public_address(self):
        for word, address in SPECIAL.items():
            with self.subTest(word=word, address=address):
                self.assert_refused(self.get("attacker", f"{word}.trap.example.net"), address)
        self.assert_refused(self.get("attacker", "both.trap.example.net"))
        self.nothing_arrived()
        self.assertEqual(self.hosts.datagrams(), [])
        self.wait_for_denial("attacker", "metadata.trap.example.net", METADATA4,
                             again=lambda: self.get("attacker", "metadata.trap.example.net"))
        for word in ("private", "metadata", "unique-local"):  # control: with the CIDR in its policy an agent gets there
            self.assert_reached(self.get("open", f"{word}.trap.example.net"), word)
        for address in ("127.0.0.1", MACHINE4):  # control: something answers there
            self.assert_reached(self.unguarded_get(address), address)

    def test_the_machines_own_services_are_not_reached_by_any_name(self):
        for word in ("loopback", "loopback6", "own", "own6", "mapped-loopback", "unspecified", "unspecified6"):
            for port in (80, 443):
                asked = {"tls": f"{word}.trap.example.net"} if port == 443 else {}
                self.assert_refused(self.get("attacker", f"{word}.trap.example.net", port, **asked), f"{word} {port}")
        self.nothing_arrived(where="machine")


class Resolution(Evasion):
    def test_rebinding(self):
        """Public when it was asked first, private when it is dialled again."""
        name = "rebinding.trap.example.net"
        address = self.ask("attacker", "resolve", host=name, family=4)["addresses"][0]
        # An answer may be kept for a moment, whatever its server says of its time.
        harness.wait_until(lambda: "error" in self.get("attacker", address, name=name), "the name to lead elsewhere")
        self.assert_refused(self.get("attacker", address, name=name))
        self.nothing_arrived(address=PRIVATE4)
        for _ in range(3):  # control: an agent whose policy has the private network gets there
            self.get("open", name)
        self.assertTrue(self.hosts.connections(address=PRIVATE4))

    def test_cnames(self):
        self.assert_refused(self.get("attacker", "cname.trap.example.net"))
        self.nothing_arrived()
        self.assert_refused(self.get("attacker", "internal.example.lan"), "what a CNAME points at is not allowed by that")
        self.assert_reached(self.get("attacker", "chain.trap.example.net"), "control: a chain to a public address")
        self.assert_refused(self.get("attacker", "circle.trap.example.net"))
        answer = self.ask("attacker", "datagram", family=4, host="127.0.0.1", port=53,
                          send=dns_query(b"chain", b"trap", b"example", b"net").hex())["answer"]
        self.assertNotIn(b"lan".hex(), answer, "the chain stays hidden")

    def test_servers_that_lie_or_babble_harm_nothing(self):
        for word in ("garbage", "wrong-id", "wrong-question", "pointer-loop", "silent", "broken"):
            began = self.ask("attacker", "resolve", host=f"{word}.trap.example.net", family=4)
            self.assertIn("error", began, word)
            self.assert_reached(self.get("attacker", GOOD), f"after {word}")
        for word in ("slow", "truncated"):
            self.assert_reached(self.get("attacker", f"{word}.trap.example.net"), f"control: {word}")
        self.assertIn("tcp", [entry[2] for entry in self.hosts.questions("truncated.trap.example.net")])
        self.assertEqual(len(self.egress_pids()), 1)

    def test_other_servers_and_other_questions(self):
        """DNS to whomever the agent likes is answered by the same rules, and nothing but addresses is told."""
        other = dns_query(b"other", b"example", b"com")
        for host in ("8.8.8.8", "127.0.0.1", "9.9.9.53", "10.1.2.3"):
            said = self.ask("attacker", "datagram", family=4, host=host, port=53, send=other.hex())
            self.assertEqual((rcode(said), answers_of(said)), (5, 0), host)
        for kind in (16, 15, 2, 6, 65, 64, 255, 252, 12):  # TXT MX NS SOA HTTPS SVCB ANY AXFR PTR
            said = self.ask("attacker", "datagram", family=4, host="127.0.0.1", port=53,
                            send=dns_query(b"good", b"example", b"com", kind=kind).hex())
            self.assertEqual(answers_of(said), 0, kind)
        asked = {(entry[0], entry[1]) for entry in self.hosts.questions()}
        self.assertLessEqual(asked, {(GOOD, network_dns.A), (GOOD, network_dns.AAAA)})
        over_tcp = struct.pack("!H", len(other)) + other
        said = self.ask("attacker", "talk", host="9.9.9.53", port=53, send=[over_tcp.hex()])
        self.assertEqual(ord(said["answers"][0][5]) & 15, 5, said)
        self.nothing_arrived()

    def test_a_tunnel_through_names(self):
        self.begin("attacker-tunnel", [GOOD, "*.wild.example.org"])  # its budget of new names is used up afterwards
        for number in range(3):
            said = self.ask("attacker-tunnel", "resolve", host=f"host{number}.wild.example.org")
            self.assertIn("addresses", said, "control")
        self.hosts.clear()
        said = self.ask("attacker-tunnel", "run", argv=["/usr/bin/python3", "-c", TUNNEL])
        names = {entry[0] for entry in self.hosts.questions()}
        self.say(f"of 300 names of 480 bits each {len(names)} got out ({said['out'].strip()} answered)")
        self.assertLess(len(names), 30)
        self.wait_for_denial("attacker-tunnel", "wild.example.org",
                             again=lambda: self.ask("attacker-tunnel", "resolve",
                                                    host=f"{os.urandom(30).hex()}.wild.example.org"))
        self.assert_reached(self.get("attacker-tunnel", GOOD), "names that the rules say go on")


class Tls(Evasion):
    def hello(self, agent, data, port=443):
        return self.ask(agent, "talk", host=GOOD, port=port, send=[data.hex()])

    def test_a_client_hello_that_says_another_name_or_none_or_hides_it(self):
        own = client_hello.server_name(GOOD)
        for what, extensions in (
                ("another name", [client_hello.server_name(OTHER)]), ("no name", []),
                ("two names", [client_hello.server_name(GOOD, OTHER)]),
                ("the extension twice", [own, client_hello.server_name(OTHER)]),
                ("the same twice", [own, own]), ("an empty name", [client_hello.server_name("")]),
                ("a NUL", [client_hello.server_name(f"{GOOD}\0.{OTHER}")]),
                ("an address", [client_hello.server_name(PUBLIC4)]),
                ("another kind of name", [client_hello.server_name(GOOD, kind=1)]),
                ("a longer name", [client_hello.server_name(f"x{GOOD}")]),
                ("ECH", [own, client_hello.encrypted_client_hello()])):
            with self.subTest(what=what):
                data = client_hello.records(client_hello.hello(*extensions))
                self.assert_refused(self.hello("attacker", data), what)
                self.nothing_arrived(what)
                self.hello("open", data)
                self.assertEqual(len(self.hosts.connections()), 1, f"control: {what} arrives where nobody looks")
                self.hosts.clear()
        other = client_hello.records(client_hello.hello(client_hello.server_name(OTHER)))
        self.wait_for_denial("attacker", OTHER, "443", again=lambda: self.hello("attacker", other))

    def test_a_client_hello_in_pieces_is_read_whole(self):
        message = client_hello.hello(client_hello.server_name(GOOD))
        for cuts in ((), (1,), (2, 3, 4, 5), (len(message) // 2,), tuple(range(60, len(message), 7))):
            said = self.hello("attacker", client_hello.records(message, *cuts))
            self.assertTrue(said.get("answers") and said["answers"][0].startswith("\x16"), f"control, cut at {cuts}: {said}")
        self.hosts.clear()
        message = client_hello.hello(client_hello.server_name(OTHER))
        name = message.index(OTHER.encode())
        for cuts in ((1,), (name + 3,), tuple(range(60, len(message), 7))):
            self.assert_refused(self.hello("attacker", client_hello.records(message, *cuts)), f"cut at {cuts}")
        self.nothing_arrived()

    def test_something_else_on_a_port_for_tls(self):
        for what, data in (("http", bytes.fromhex(request(GOOD))), ("ssh", b"SSH-2.0-OpenSSH_9.2\r\n"), ("zeros", bytes(64)),
                           ("an old hello", b"\x80\x2e\x01\x00\x02" + bytes(41)),
                           ("an alert", b"\x15\x03\x01\x00\x02\x01\x00"),
                           ("a record of application data", b"\x17\x03\x03\x00\x04abcd")):
            with self.subTest(what=what):
                self.assert_refused(self.hello("attacker", data), what)
                self.nothing_arrived(what)
        data = client_hello.records(client_hello.hello(client_hello.server_name(GOOD)))
        self.assert_refused(self.hello("attacker", data, port=80), "TLS on the port for HTTP")
        self.nothing_arrived()

    def test_honest_tls_with_other_certificates_is_the_clients_business(self):
        for family in (4, 6):
            self.assert_reached(self.get("attacker", GOOD, 443, tls=GOOD, family=family), "control")


CHUNKED = f"POST /1 HTTP/1.1\r\nHost: {GOOD}\r\nTransfer-Encoding: chunked\r\n\r\n"


class Http(Evasion):
    def talk(self, agent, *parts):
        # A server that was led to wait for more is silent, and a control run need not wait for it.
        timeout = 10 if agent == "attacker" else 1
        return self.ask(agent, "talk", host=GOOD, port=80, send=[hexed(part) for part in parts], timeout=timeout)

    def arrived(self, word):
        return [head for entry in self.hosts.connections() for head in entry["requests"] if word in head]

    def test_a_later_request_for_another_host(self):
        first, second = f"GET /1 HTTP/1.1\r\nHost: {GOOD}\r\n\r\n", f"GET /smuggled HTTP/1.1\r\nHost: {OTHER}\r\n\r\n"
        kept = self.talk("attacker", first, second)
        self.assertEqual(len(list(filter(None, kept["answers"]))), 1, "the first is answered, the second ends it")
        self.talk("attacker", first + second)  # in one go
        self.talk("attacker", f"POST /1 HTTP/1.1\r\nHost: {GOOD}\r\nContent-Length: 3\r\n\r\nabc" + second)
        self.talk("attacker", CHUNKED + "3\r\nabc\r\n0\r\n\r\n" + second)
        self.assertEqual(self.arrived("smuggled"), [])
        self.wait_for_denial("attacker", OTHER, again=lambda: self.talk("attacker", second))
        self.hosts.clear()
        self.talk("open", first, second)
        self.assertEqual(len(self.arrived("smuggled")), 1, "control")
        self.hosts.clear()
        honest = self.talk("attacker", first, first.replace("GET /1", "GET /2"), first.replace("GET /1", "GET /3"))
        self.assertEqual(len(honest["answers"]), 3, "control: a kept connection works")
        self.talk("attacker", first * 3)
        harness.wait_until(lambda: len(self.arrived("GET /1 ")) == 4, "control: pipelining works")

    def test_requests_that_name_no_host_or_two_or_another_in_their_target(self):
        for what, text in (
                ("CONNECT", f"CONNECT {OTHER}:443 HTTP/1.1\r\nHost: {GOOD}\r\n\r\n"),
                ("CONNECT to the same", f"CONNECT {GOOD}:443 HTTP/1.1\r\nHost: {GOOD}\r\n\r\n"),
                ("absolute form", f"GET http://{OTHER}/smuggled HTTP/1.1\r\nHost: {GOOD}\r\n\r\n"),
                ("absolute form of the same", f"GET http://{GOOD}/smuggled HTTP/1.1\r\nHost: {GOOD}\r\n\r\n"),
                ("no Host", "GET /smuggled HTTP/1.1\r\nAccept: */*\r\n\r\n"),
                ("HTTP/1.0 without", "GET /smuggled HTTP/1.0\r\n\r\n"),
                ("HTTP/0.9", "GET /smuggled\r\n\r\n"), ("another Host", f"GET /smuggled HTTP/1.1\r\nHost: {OTHER}\r\n\r\n"),
                ("two Hosts", f"GET /smuggled HTTP/1.1\r\nHost: {GOOD}\r\nHost: {OTHER}\r\n\r\n"),
                ("a folded Host", f"GET /smuggled HTTP/1.1\r\nHost: {GOOD}\r\n .{OTHER}\r\n\r\n"),
                ("a space before the colon", f"GET /smuggled HTTP/1.1\r\nHost: {GOOD}\r\nHost : {OTHER}\r\n\r\n"),
                ("a space before the name", f"GET /smuggled HTTP/1.1\r\n Host: {OTHER}\r\nHost: {GOOD}\r\n\r\n"),
                ("HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\0" * 9),
                ("lone line feeds", f"GET /smuggled HTTP/1.1\nHost: {GOOD}\nHost: {OTHER}\n\n\r\n\r\n"),
                ("a lone carriage return", f"GET /smuggled HTTP/1.1\r\nX: a\rHost: {OTHER}\r\nHost: {GOOD}\r\n\r\n"),
                ("a NUL", f"GET /smuggled HTTP/1.1\r\nHost: {GOOD}\r\nX: a\0b\r\n\r\n"),
                ("not HTTP", "EHLO smuggled\r\nMAIL FROM:<a@b>\r\n\r\n")):
            with self.subTest(what=what):
                self.assert_refused(self.talk("attacker", text), what)
                self.assertEqual(self.arrived(""), [], what)
                self.talk("open", text)
                self.assertTrue(self.arrived(""), f"control: {what}")
                self.hosts.clear()

    def test_bodies_of_doubtful_length(self):
        hidden = f"GET /smuggled HTTP/1.1\r\nHost: {OTHER}\r\n\r\n"
        for what, head in (
                ("length and chunks", f"Content-Length: {len(hidden) + 5}\r\nTransfer-Encoding: chunked"),
                ("chunks and length", f"Transfer-Encoding: chunked\r\nContent-Length: {len(hidden) + 5}"),
                ("two lengths", f"Content-Length: 0\r\nContent-Length: {len(hidden) + 5}"),
                ("a list of lengths", f"Content-Length: 5, {len(hidden) + 5}"),
                ("a sign", f"Content-Length: +{len(hidden) + 5}"),
                ("hexadecimal", "Content-Length: 0x50"), ("a negative length", "Content-Length: -1"),
                ("a length beyond numbers", "Content-Length: 99999999999999999999999"),
                ("another coding last", "Transfer-Encoding: chunked, identity"),
                ("an unknown coding", "Transfer-Encoding: xchunked"),
                ("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
                ("a space before the colon", f"Transfer-Encoding : chunked\r\nContent-Length: {len(hidden) + 5}"),
                ("a folded coding", f"Transfer-Encoding:\r\n chunked\r\nContent-Length: {len(hidden) + 5}")):
            with self.subTest(what=what):
                text = f"POST /1 HTTP/1.1\r\nHost: {GOOD}\r\n{head}\r\n\r\n0\r\n\r\n" + hidden
                self.assert_refused(self.talk("attacker", text), what)
                self.assertEqual(self.arrived("HTTP/1.1"), [], what)
                self.talk("open", text)
                self.assertTrue(self.arrived("POST /1"), f"control: {what}")
                self.hosts.clear()
        for chunk in ("0x5\r\nabcde\r\n", "-1\r\n", "5;a=\"\n\"\r\nabcde\r\n", "fffffffffffffffff\r\n", "5 \r\nabcde\r\n",
                      "\r\n"):
            with self.subTest(chunk=chunk):
                self.talk("attacker", f"{CHUNKED}{chunk}0\r\n\r\n{hidden}")
                self.assertEqual(self.arrived("smuggled"), [])
        honest = f"POST /1 HTTP/1.1\r\nHost: {GOOD}\r\nContent-Length: 3\r\n\r\nabc"
        self.assertEqual(len(self.talk("attacker", honest, honest)["answers"]), 2, "control: bodies of plain length pass")

    def test_an_upgrade_to_what_nobody_reads(self):
        """A connection that stops being HTTP could be anything."""
        for protocol in ("h2c", "websocket", "TLS/1.0"):
            head = f"GET /1 HTTP/1.1\r\nHost: {GOOD}\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
            second = f"GET /smuggled HTTP/1.1\r\nHost: {OTHER}\r\n\r\n"
            self.assert_refused(self.talk("attacker", head, second), protocol)
            self.nothing_arrived(protocol)
            self.talk("open", head, second)
            self.assertEqual(len(self.arrived("smuggled")), 1, f"control: {protocol}")
            self.hosts.clear()


if __name__ == "__main__":
    unittest.main()
