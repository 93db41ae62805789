"""Egress by name: real clients inside agents, what they reach and what they are refused, and what an operator sees of it.

The Internet of these tests is hosts.py's: every address answers, so whatever is not refused arrives somewhere.
"""

import json
import os
import pathlib
import socket
import subprocess
import unittest

import harness
import network_agents
from hosts import METADATA4, OTHER4, PRIVATE4, PUBLIC4, PUBLIC6
from network_case import FAST, NetworkTest

GOOD = "good.example.com"
LAN4 = "10.9.9.9"
POLICIES = """policies:
- name: client
  agentId: "client*"
  quarantine: {denials: 100000}
  networkLimit: {maxConnections: 1000}
  network:
    allowedDomains:
    - good.example.com
    - only4.example.com
    - only6.example.com
    - "*.wild.example.org"
    - ported.example.com:8080
    - mapped.example.com
    - lan.example.com
    - private.example.com
    - nothing.example.com
    - bücher.example.com
    - "*.banned.example.net"
    blockedDomains:
    - blocked.wild.example.org
    allowedCidrs:
    - 10.9.0.0/16
    hosts: {mapped.example.com: 93.184.216.34}
- name: narrow
  agentId: "narrow*"
  network: {allowedDomains: [good.example.com]}
- name: none
  agentId: "none*"
  network: {allowedDomains: ["*"]}
"""
BOTH = {"addresses": [PUBLIC4, PUBLIC6]}
NAMES = {
    GOOD: BOTH, "only4.example.com": {"addresses": [PUBLIC4]}, "only6.example.com": {"addresses": [PUBLIC6]},
    "other.example.com": {"addresses": [OTHER4]}, "wild.example.org": BOTH, "*.wild.example.org": BOTH,
    "ported.example.com": BOTH, "lan.example.com": {"addresses": [LAN4]}, "private.example.com": {"addresses": [PRIVATE4]},
    "xn--bcher-kva.example.com": BOTH, "*.banned.example.net": BOTH,
}
ASKED = [GOOD, "only4.example.com", "only6.example.com", "*.wild.example.org", "ported.example.com", "mapped.example.com",
         "lan.example.com", "private.example.com", "nothing.example.com", "xn--bcher-kva.example.com", "*.banned.example.net"]


class Egress(NetworkTest):
    NAMES, POLICIES = NAMES, POLICIES
    CERTIFIED = ["mapped.example.com"]
    SETTINGS = 'blockedDomains: ["bad.banned.example.net"]\n'
    AGENTS = {"client": ASKED}

    @classmethod
    def prepare_client(cls):
        cls.begin("client-declines", ASKED, blocked=["declined.wild.example.org"])


class Clients(Egress):
    def curl(self, url, *options):
        said = self.ask("client", "run", argv=["curl", "-sS", "--max-time", "20", "--cacert", "{ca}", *options,
                                               "-w", "\n%{http_code} %{time_total}", url])
        text, _, figures = said["out"].rpartition("\n")
        status, seconds = figures.split()
        return {"status": int(status), "body": json.loads(text) if status == "200" else text, "code": said["code"],
                "error": said["err"].strip(), "seconds": float(seconds)}

    def program(self, *argv):
        said = self.ask("client", "run", argv=list(argv))
        self.assertEqual(said["code"], 0, said)
        return json.loads(said["out"])

    def node(self, url):
        return self.program("/usr/bin/node", "--input-type=module", "-e", network_agents.NODE_FETCH, url)

    def urllib(self, url):
        return self.program("/usr/bin/python3", "-c", network_agents.PYTHON_URLLIB, url, "{ca}")

    def test_real_clients_reach_an_allowed_name_over_both_families(self):
        for scheme, port in (("http", 80), ("https", 443)):
            url = f"{scheme}://{GOOD}/path"
            for client, fetch in (("curl -4", lambda: self.curl(url, "-4")), ("curl -6", lambda: self.curl(url, "-6")),
                                  ("node fetch", lambda: self.node(url)), ("python urllib", lambda: self.urllib(url))):
                with self.subTest(client=client, scheme=scheme):
                    self.hosts.clear()
                    said = fetch()
                    self.assertEqual(said.get("status"), 200, said)
                    body = said["body"]
                    self.assertEqual((body["host"], body["path"], body["port"]), (GOOD, "/path", port))
                    self.assertIn(body["address"], (PUBLIC4, PUBLIC6), "what was dialled is what the name leads to")
                    self.assertEqual(body["sni"], GOOD if scheme == "https" else None)
                    self.assertEqual(len(self.hosts.connections()), 1)

    def test_plain_sockets_reach_an_allowed_name_over_both_families(self):
        for family in (4, 6):
            for name in (GOOD, "only4.example.com", "only6.example.com", "sub.wild.example.org", "a.b.wild.example.org",
                         "mapped.example.com", "lan.example.com", "xn--bcher-kva.example.com", "GOOD.Example.COM",
                         GOOD + "."):
                with self.subTest(family=family, name=name):
                    self.assert_reached(self.get("client", name, family=family), name)
            tls = self.get("client", GOOD, 443, tls=GOOD, family=family)
            self.assert_reached(tls)
            self.assertEqual(network_agents.body(tls["answers"][0])["sni"], GOOD)
        self.assertEqual({entry["where"] for entry in self.hosts.connections()}, {"world"})
        self.assertIn(LAN4, {entry["address"] for entry in self.hosts.connections()})

    def test_real_clients_are_refused_another_name_with_a_clear_error_at_once(self):
        slowest = 0
        for scheme in ("http", "https"):
            url = f"{scheme}://other.example.com/"
            curled = self.curl(url)
            self.assertEqual(curled["code"], 6, curled)  # CURLE_COULDNT_RESOLVE_HOST
            self.assertIn("Could not resolve host: other.example.com", curled["error"])
            fetched, opened = self.node(url), self.urllib(url)
            self.assertIn(fetched.get("error"), ("ENOTFOUND", "EAI_AGAIN", "EREFUSED"), fetched)
            self.assertIn("name", opened.get("error", "").lower(), opened)
            slowest = max(slowest, *(said["seconds"] for said in (curled, fetched, opened)))
        for family in (4, 6):
            said = self.ask("client", "resolve", host="other.example.com", family=family)
            self.assertTrue(said["error"].startswith("EAI_"), said)
            slowest = max(slowest, said["seconds"])
        self.say(f"the slowest of 8 refusals of a name took {slowest * 1000:.0f} ms")
        self.assertLess(slowest, FAST)
        self.assertEqual(self.hosts.connections(), [])
        self.assertEqual(self.hosts.questions("other.example.com"), [], "nobody outside was asked for it")

    def test_real_clients_are_refused_an_address_at_once(self):
        for address in (f"http://{OTHER4}/", f"http://{METADATA4}/", "http://[2606:2800:220:1::99]/", f"https://{PUBLIC4}/"):
            curled, fetched, opened = self.curl(address), self.node(address), self.urllib(address)
            for said in (curled, fetched, opened):
                with self.subTest(address=address, said=said):
                    self.assertNotEqual(said.get("status"), 200)
                    self.assertTrue(said["error"])
                    self.assertLess(said["seconds"], FAST)
            self.assertNotEqual(curled["code"], 28, "a refusal is none of curl's timeouts")
        self.assertEqual(self.hosts.connections(), [])

    def test_the_name_is_all_that_matters_whatever_address_the_agent_uses_for_it(self):
        """A program that resolves first and connects to the address later, as many do."""
        for family in (4, 6):
            address = self.ask("client", "resolve", host=GOOD, family=family)["addresses"][0]
            self.assert_reached(self.get("client", address, name=GOOD, family=family))
            self.assertEqual(self.ask("client", "resolve", host=GOOD.upper(), family=family)["addresses"][0], address)
        self.assert_refused(self.get("client", "198.18.200.200"), "an address that stands for nothing")

    def test_a_name_that_leads_nowhere_fails_at_once(self):
        said = self.ask("client", "resolve", host="nothing.example.com")
        self.assertEqual(said["error"], "EAI_NONAME", said)
        self.assertLess(said["seconds"], FAST)

    def test_an_ordinary_program_by_kaictl_run(self):
        manifest = self.scratch / "manifest.json"
        document = json.loads((self.daemon.directory / "prepared/client/manifest.json").read_text())
        document.update(id="client-run")
        del document["entry"]
        manifest.write_text(json.dumps(document))
        command = ["run", "--manifest", manifest, "--", "curl", "-sS", "--max-time", "20"]
        reached = self.daemon.ctl(*command, f"http://{GOOD}/x", text_mode=True)
        self.assertEqual(reached.code, 0, reached)
        self.assertEqual(json.loads(reached.stdout)["host"], GOOD)
        refused = self.daemon.ctl(*command, "http://other.example.com/", text_mode=True)
        self.assertEqual(refused.code, 6, refused)
        without = self.daemon.ctl("run", "--", "curl", "-sS", "--max-time", "20", f"http://{GOOD}/", text_mode=True)
        self.assertEqual(without.code, 6, "without a manifest there is no network")


class Decisions(Egress):
    AGENTS = {}

    # (name, port, whether it passes, where the policy says so, or None).
    TABLE = [
        (GOOD, 80, True, "- good.example.com\n"), (GOOD, 443, True, "- good.example.com\n"), (GOOD, 8080, False, None),
        ("sub.wild.example.org", 443, True, '"*.wild'), ("wild.example.org", 443, False, None),
        ("blocked.wild.example.org", 443, False, "- blocked.wild"), ("deep.blocked.wild.example.org", 80, True, '"*.wild'),
        ("declined.wild.example.org", 80, False, None),
        ("ported.example.com", 8080, True, "ported.example.com:8080"), ("ported.example.com", 80, False, None),
        ("mapped.example.com", 80, True, "- mapped.example.com"), ("other.example.com", 443, False, None),
        ("evilgood.example.com", 443, False, None), ("good.example.com.other.example.com", 80, False, None),
        ("ok.banned.example.net", 80, True, '"*.banned'), ("bad.banned.example.net", 80, False, None),
        (LAN4, 80, True, "- 10.9.0.0/16"), (LAN4, 8080, False, None), (PRIVATE4, 80, False, None),
        (METADATA4, 80, False, None), (PUBLIC4, 443, False, None), ("2606:2800:220:1::34", 443, False, None),
    ]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.prepare_client()

    def rule(self, text):
        found = [n for n, line in enumerate(POLICIES.splitlines(keepends=True), start=1) if text in line]
        return f"10-tests.yaml:{found[0]}"

    def attempt(self, name, port):
        if port == 443:
            return self.get("client-declines", name, port, tls="" if name[0].isdigit() else name)
        return self.get("client-declines", name, port)

    def test_explain_agrees_with_what_happens(self):
        for name, port, passes, text in self.TABLE:
            with self.subTest(name=name, port=port):
                target = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
                explained = self.ok("policy", "explain", "client-declines", "--connect", target).document
                self.assertEqual(explained["verdict"] == "granted", passes, explained)
                self.assertTrue(explained["reason"])
                if text:
                    self.assertEqual(explained["rule"], self.rule(text), explained)
                said = self.attempt(name, port)
                if passes:
                    self.assert_reached(said, name)
                else:
                    self.assert_refused(said, name)

    def test_each_refusal_is_a_line_and_an_event_that_says_who_what_and_which_rule(self):
        for name, port, words in (("blocked.wild.example.org", 80, ["blocked.wild.example.org", self.rule("- blocked.wild")]),
                                  ("bad.banned.example.net", 80, ["bad.banned.example.net", "kaid.yaml:"]),
                                  (METADATA4, 80, [METADATA4, "80"]),
                                  ("private.example.com", 80, ["private.example.com", PRIVATE4, "80"]),
                                  (GOOD, 9999, [GOOD, "9999"])):
            with self.subTest(words=words):
                denial = self.wait_for_denial("client-declines", *words,
                                              again=lambda: self.assert_refused(self.get("client-declines", name, port)))
                self.assertEqual(denial["level"], "warn")
                self.assertEqual(denial["kind"], "network", denial)
                events = self.ok("audit", "list", "client-declines").records
                self.assertTrue(any(event["event"] == "kai.denied" and all(word in str(event["metadata"]) for word in words)
                                    for event in events), words)
        self.assertGreaterEqual(self.daemon.status("client-declines")["denials"], 5)

    def test_each_connection_is_a_line_when_it_opens_and_when_it_ends(self):
        self.assert_reached(self.get("client-declines", "logged.wild.example.org"))

        def lines():
            return [record for record in self.ok("logs", "client-declines", "-n", "1000").records
                    if "logged.wild.example.org" in str(record)]
        harness.wait_until(lambda: len(lines()) >= 2, "the lines of a connection")
        opened, closed = lines()[-2:]
        for record in (opened, closed):
            self.assertIn(record.get("address"), (PUBLIC4, PUBLIC6), record)
            self.assertEqual(record.get("port"), 80, record)
        self.assertEqual(opened.get("rule"), self.rule('"*.wild'), opened)
        self.assertGreater(closed.get("received", 0), 100, closed)
        self.assertGreater(closed.get("sent", 0), 20, closed)
        self.assertGreaterEqual(closed["durationMs"], 0)

    def test_net_shows_what_is_open_and_what_was_refused(self):
        self.ask("client-declines", "hold", key="net", host=GOOD, port=80, send=[network_agents.request(GOOD, "/hold")])
        self.assert_refused(self.get("client-declines", "netshows.example.com"))
        document = self.ok("net", "client-declines").document
        self.assertTrue(document["network"])
        self.assertEqual(document["policy"], "client")
        held = [entry for entry in document["connections"] if entry.get("name") == GOOD]
        self.assertEqual(len(held), 1, document)
        self.assertIn(held[0]["address"], (PUBLIC4, PUBLIC6))
        self.assertEqual((held[0]["port"], held[0]["protocol"], held[0]["state"]), (80, "http", "open"))
        self.assertGreater(held[0]["sent"], 20)
        self.assertIn(GOOD, [entry["name"] for entry in document["names"]])
        denied = [entry for entry in document["denials"] if entry.get("name") == "netshows.example.com"]
        self.assertEqual(len(denied), 1, document["denials"])
        self.assertTrue(denied[0]["reason"])
        self.assertEqual(document["limits"]["maxConnections"], 1000)
        text = self.daemon.ctl("net", "client-declines", text_mode=True)
        self.assertEqual(text.code, 0, text)
        for word in (GOOD, "netshows.example.com"):
            self.assertIn(word, text.stdout)
        self.ask("client-declines", "let_go", key="net")
        harness.wait_until(lambda: self.ok("net", "client-declines").document["open"] == 0, "the connection to be gone")
        self.fails(4, "NOT_FOUND", "net", "nobody")

    def test_nothing_asked_or_nothing_allowed_is_no_network(self):
        self.begin("none-outbound", [GOOD], allow=False)
        self.begin("none-empty", [])
        self.begin("none-absent", None)
        self.begin("narrow-trimmed", ["other.example.com"])
        for agent in ("none-outbound", "none-empty", "none-absent", "narrow-trimmed"):
            with self.subTest(agent=agent):
                self.assert_refused(self.ask(agent, "resolve", host=GOOD))
                self.assert_refused(self.get(agent, PUBLIC4))
                self.assert_refused(self.get(agent, "198.18.0.1"))
                self.assert_refused(self.get(agent, PUBLIC6, family=6))
                document = self.ok("net", agent).document
                self.assertEqual(document["connections"], [])
                explained = self.ok("policy", "explain", agent, "--connect", f"{GOOD}:443").document
                self.assertNotEqual(explained["verdict"], "granted")
        self.assertFalse(self.ok("net", "none-outbound").document["network"])
        self.assertEqual(self.hosts.connections(), [])


class OtherTraffic(Egress):
    def test_datagrams_are_refused_at_once(self):
        """QUIC too: so browsers and curl fall back to TCP."""
        quic = bytes([0xc0, 0, 0, 0, 1, 8]) + bytes(1194)
        good = self.ask("client", "resolve", host=GOOD, family=4)["addresses"][0]
        good6 = self.ask("client", "resolve", host=GOOD, family=6)["addresses"][0]
        for family, host, port in ((4, PUBLIC4, 443), (6, PUBLIC6, 443), (4, good, 443), (6, good6, 443), (4, "8.8.8.8", 123),
                                   (4, LAN4, 7), (6, "ff02::fb%lo", 5353)):
            with self.subTest(host=host, port=port):
                said = self.ask("client", "datagram", family=family, host=host, port=port, send=quic.hex(), timeout=5)
                if not host.startswith("ff"):  # nobody answers to a group
                    self.assert_refused(said, host, ["ECONNREFUSED"])
                self.assertIn("error", said)
        self.assertEqual(self.hosts.datagrams(), [])
        self.wait_for_denial("client", "443", "UDP", again=lambda: self.ask("client", "datagram", family=4, host=PUBLIC4,
                                                                            port=443, send="00", timeout=5))

    def test_ports_without_a_listener_are_refused_at_once_and_seen(self):
        for family, host in ((4, PUBLIC4), (6, PUBLIC6)):
            self.assert_refused(self.get("client", host, 25, family=family), host, ["ECONNREFUSED"])
            self.wait_for_denial("client", host, "25", again=lambda: self.get("client", host, 25, family=family))
            denied = [(entry.get("name"), entry.get("port")) for entry in self.ok("net", "client").document["denials"]]
            self.assertIn((host, 25), denied)

    def test_no_raw_sockets_and_no_icmp(self):
        for family, protocol in ((socket.AF_INET, socket.IPPROTO_ICMP), (socket.AF_INET, socket.IPPROTO_RAW),
                                 (socket.AF_INET6, socket.IPPROTO_ICMPV6)):
            said = self.ask("client", "make_socket", family=family, type=socket.SOCK_RAW, protocol=protocol)
            self.assertIn(said.get("error"), ("EPERM", "EACCES", "EAFNOSUPPORT", "EPROTONOSUPPORT"), said)
        for family, kind in ((socket.AF_PACKET, socket.SOCK_RAW), (socket.AF_NETLINK, socket.SOCK_RAW)):
            said = self.ask("client", "make_socket", family=family, type=kind, protocol=0)
            self.assertIn("error", said)
        said = self.ask("client", "make_socket", family=socket.AF_INET, type=socket.SOCK_DGRAM, protocol=socket.IPPROTO_ICMP)
        self.assertIn("error", said)

    def test_the_agents_own_loopback_is_its_own(self):
        for family, host in ((4, "127.0.0.1"), (4, "127.9.9.9"), (6, "::1"), (6, "::ffff:127.0.0.1")):
            for port in (80, 443, 7000):
                self.assert_refused(self.get("client", host, port, family=family), f"{host} {port}")
        self.assertEqual(self.hosts.connections(), [])
        with socket.create_server(("127.0.0.1", 0)) as own:  # the honest use of it
            self.assertTrue(own)
        said = self.ask("client", "run", argv=["/usr/bin/python3", "-c", """
import socket
with socket.create_server(("127.0.0.1", 0)) as own, socket.create_connection(own.getsockname()) as connection:
    connection.sendall(b"own")
    print(own.accept()[0].recv(3).decode())
"""])
        self.assertEqual(said["out"], "own\n", said)


class Process(Egress):
    """kai-egress itself."""

    AGENTS = {"client": [GOOD]}

    def test_it_has_no_privileges_and_no_files(self):
        pid = self.egress_pid()
        status = harness.status_of(pid)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if harness.IS_ROOT else ("CapPrm", "CapEff", "CapAmb"):
            self.assertEqual(int(status[name], 16), 0, f"{name} {status[name]}")
        self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))
        if harness.IS_ROOT:
            uids = set(status["Uid"].split())
            self.assertEqual(len(uids), 1)
            self.assertNotIn("0", uids)
            self.assertNotEqual(uids, set(harness.status_of(self.daemon.control_pid())["Uid"].split()))
            links = {entry.name: os.readlink(entry) for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir()}
            # Its standard error is kaid's own.
            expected = ("/dev/null", "/memfd:", str(self.daemon.log_path))
            files = [link for link in links.values() if link.startswith("/") and not link.startswith(expected)]
            self.assertEqual(files, [])

    @harness.needs_root
    def test_its_user_sees_nothing_of_the_state(self):
        uid, gid = (harness.status_of(self.egress_pid())[key].split()[0] for key in ("Uid", "Gid"))
        as_it = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        asked = subprocess.run([*as_it, "find", str(self.daemon.state)],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        self.assertLessEqual(len(asked.stdout.splitlines()), 1, asked.stdout)
        self.assertIn("Permission denied", asked.stderr)


if __name__ == "__main__":
    unittest.main()
