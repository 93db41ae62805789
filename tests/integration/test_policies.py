"""Operator policies on the real daemon: what they give, what they refuse, and that an operator can see why."""

import json
import os
import pathlib
import subprocess
import time
import unittest

import harness
import packages

POLICIES = """policies:
- name: small
  agentId: "small*"
  memoryLimit: 96
  limits: {disk: 16, tmp: 8, inodes: 256, openFiles: 64, processes: 32}
- name: mapped
  agentId: "mapped*"
  limits: {disk: 16}
  files:
    "/data/read": {host: %(host)s/read, write: false}
    "/data/write": {host: %(host)s/write, write: true}
  grants: [hostWrite]
- name: noGrant
  agentId: "nogrant*"
  files:
    "/data/write": {host: %(host)s/write, write: true}
- name: networked
  grants: [hostNetwork]
  agentId: "networked*"
  network: {allowedDomains: ["*"], ports: [443]}
- name: open
  agentId: "open*"
  sandbox: false
  grants: [unsandboxed]
- name: mounts
  agentId: "none-but-by-name"
  grants: [hostMounts, hostWrite, "syscalls:setpgid", "syscalls:sethostname"]
"""

FILES = '''
import errno, os
from kai import Agent

def attempt(action):
    try:
        return action()
    except OSError as error:
        return errno.errorcode[error.errno]

class Files(Agent):
    def on_message(self, msg):
        path = msg.payload.get("path")
        if msg.capability == "write":
            def write():
                with open(path, "a") as file:
                    file.write(msg.payload.get("text", "x"))
                return "ok"
            return attempt(write)
        if msg.capability == "read":
            return attempt(lambda: open(path).read())
        if msg.capability == "list":
            return attempt(lambda: sorted(os.listdir(path)))
        if msg.capability == "fill":
            return attempt(lambda: self.fill(path))
        if msg.capability == "many":
            return attempt(lambda: self.many(path, msg.payload["count"]))
        if msg.capability == "space":
            space = os.statvfs(path)
            return {"mb": space.f_blocks * space.f_frsize >> 20, "inodes": space.f_files}

    def fill(self, path):
        written, block = 0, b"x" * 65536
        fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            while written < 1 << 30:
                written += os.write(fd, block)
        except OSError as error:
            return {"mb": written >> 20, "error": errno.errorcode[error.errno]}
        finally:
            os.close(fd)
            os.unlink(path)
        return {"mb": written >> 20}

    def many(self, path, count):
        made = 0
        try:
            for made in range(count):
                os.close(os.open(f"{path}/file{made}", os.O_CREAT, 0o600))
        except OSError as error:
            return {"made": made, "error": errno.errorcode[error.errno]}
        finally:
            for name in os.listdir(path):
                if name.startswith("file"):
                    os.unlink(f"{path}/{name}")
        return {"made": made + 1}
'''
CAPABILITIES = ["write", "read", "list", "fill", "many", "space"]


def security(paths=(), read_only=False, sandbox=True, outbound=None):
    network = {"allowOutbound": False} if outbound is None else {"allowOutbound": True, "allowedDomains": outbound}
    return {"sandbox": sandbox, "permissions": [], "crypto": "none", "networkAccess": network,
            "fileAccess": {"allowedPaths": list(paths), "readOnly": read_only, "tempFileAccess": True}}


class Policies(harness.DaemonTest):
    @classmethod
    def setUpClass(cls):
        cls.daemon = harness.Daemon()
        cls.addClassCleanup(cls.daemon.clean_up)
        cls.host = cls.daemon.directory / "host"
        cls.host.mkdir()
        if harness.IS_ROOT:
            # What root's kaid maps for writing has to be a file system that can be idmapped; overlayfs cannot.
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "kai-test", str(cls.host)], check=True)
            cls.addClassCleanup(subprocess.run, ["umount", "-l", str(cls.host)], check=True)
        for name in ("read", "write"):
            (cls.host / name).mkdir(parents=True)
        (cls.host / "read/note").write_text("from the host")
        (cls.host / "read/note").chmod(0o666)
        if harness.IS_ROOT:
            os.chown(cls.host / "write", 12345, 12345)
        cls.daemon.write_policies(**{"10-tests": POLICIES % {"host": cls.host}})
        cls.daemon.start()

    def agent(self, agent, **changes):
        changes.setdefault("capabilities", CAPABILITIES)
        path = packages.package(self.scratch, agent, "main.py", FILES, **changes)
        registered = self.ok("register", path).document
        self.ok("start", agent)
        self.addCleanup(self.daemon.ctl, "stop", agent)
        return registered

    def denials(self, agent):
        records = self.ok("logs", agent).records
        return [record for record in records if record["event"] == "kai.denied"]

    def wait_for_denial(self, agent, **wanted):
        def found():
            return [record for record in self.denials(agent) if all(record.get(key) == value for key, value in wanted.items())]
        return harness.wait_until(found, f"a denial {wanted} of {agent}; there are {self.denials(agent)}")[0]

    def test_the_first_policy_that_matches_decides_and_is_shown(self):
        self.agent("small-one")
        self.agent("other-one")
        self.assertEqual(self.daemon.status("small-one")["policy"], "small")
        self.assertEqual(self.daemon.status("other-one")["policy"], "builtin")

    def test_private_data_lasts_and_belongs_to_one_agent(self):
        self.agent("small-keeper", security=security(["/data/own", "/data/more"]))
        self.assertEqual(self.send("small-keeper", "write", {"path": "/data/own/file", "text": "kept"}), "ok")
        self.ok("restart", "small-keeper")
        self.assertEqual(self.send("small-keeper", "read", {"path": "/data/own/file"}), "kept")
        self.assertEqual(self.send("small-keeper", "list", {"path": "/data/more"}), [])
        self.agent("small-stranger", security=security(["/data/own"]))
        self.assertEqual(self.send("small-stranger", "list", {"path": "/data/own"}), [])
        self.ok("terminate", "small-keeper", "--purge")
        self.ok("start", "small-keeper")
        self.assertEqual(self.send("small-keeper", "list", {"path": "/data/own"}), [])

    def test_read_only_and_temporary_files(self):
        self.agent("small-reader", security=security(["/data/own"], read_only=True))
        self.assertEqual(self.send("small-reader", "write", {"path": "/data/own/file"}), "EROFS")
        self.assertEqual(self.send("small-reader", "write", {"path": "/tmp/file"}), "ok")
        self.assertEqual(self.send("small-reader", "write", {"path": "/usr/file"}), "EROFS")

    @harness.needs_root
    def test_private_data_has_a_size_and_a_number_of_files(self):
        self.agent("small-filler", security=security(["/data/own"]))
        space = self.send("small-filler", "space", {"path": "/data/own"})
        self.assertLessEqual(space["mb"], 16)
        self.assertGreaterEqual(space["mb"], 14)
        filled = self.send("small-filler", "fill", {"path": "/data/own/big"})
        self.assertEqual(filled["error"], "ENOSPC")
        self.assertLessEqual(filled["mb"], 16)
        self.assertGreaterEqual(filled["mb"], 12)
        many = self.send("small-filler", "many", {"path": "/data/own", "count": 400})
        self.assertEqual(many["error"], "ENOSPC", many)
        self.assertLessEqual(many["made"], 256)
        self.assertEqual(self.send("small-filler", "write", {"path": "/data/own/after"}), "ok")

    @harness.needs_root
    def test_full_private_data_is_a_line_of_the_log(self):
        self.agent("small-full", security=security(["/data/own"]))
        outcome = "ok"
        while outcome == "ok":
            outcome = self.send("small-full", "write", {"path": "/data/own/big", "text": "x" * 100_000})
        self.assertEqual(outcome, "ENOSPC")
        denial = self.wait_for_denial("small-full", kind="limit", what="limits.disk")
        self.assertEqual(denial["rule"], "10-tests.yaml:5", denial)

    def test_tmp_has_a_size(self):
        self.agent("small-tmp")
        filled = self.send("small-tmp", "fill", {"path": "/tmp/big"})
        self.assertEqual(filled, {"mb": 8, "error": "ENOSPC"} if filled["mb"] == 8 else {"mb": 7, "error": "ENOSPC"})

    def test_host_paths_are_mapped_as_the_policy_says(self):
        registered = self.agent("mapped-one", security=security(["/data/read", "/data/write", "/data/own"]))
        self.assertEqual(registered["warnings"], [] if not registered["warnings"] else registered["warnings"])
        self.assertEqual(self.send("mapped-one", "read", {"path": "/data/read/note"}), "from the host")
        self.assertEqual(self.send("mapped-one", "write", {"path": "/data/read/note"}), "EROFS")
        self.assertEqual(self.send("mapped-one", "write", {"path": "/data/write/made", "text": "by the agent"}), "ok")
        made = self.host / "write/made"
        self.assertEqual(made.read_text(), "by the agent")
        self.assertEqual(made.stat().st_uid, 12345 if harness.IS_ROOT else os.getuid())
        self.assertEqual(self.send("mapped-one", "list", {"path": "/data/own"}), [])
        self.assertIn("hostWrite", self.daemon.status("mapped-one")["grants"])
        granted = [record for record in self.ok("logs", "mapped-one").records if record["event"] == "kai.granted"]
        self.assertEqual([record["grant"] for record in granted], ["hostWrite"])

    def test_without_the_grant_a_writable_mapping_is_read_only(self):
        registered = self.agent("nogrant-one", security=security(["/data/write"]))
        self.assertTrue(any("hostWrite" in warning for warning in registered["warnings"]), registered)
        self.assertEqual(self.send("nogrant-one", "write", {"path": "/data/write/no"}), "EROFS")
        self.assertEqual(self.daemon.status("nogrant-one")["grants"], [])

    def test_a_link_in_the_way_of_a_mapping_refuses_the_start(self):
        away = self.host / "away"
        (self.host / "write").rename(away)
        try:
            os.symlink("/", self.host / "write")
            path = packages.package(self.scratch, "mapped-link", "main.py", FILES, capabilities=CAPABILITIES,
                                    security=security(["/data/write"]))
            self.ok("register", path)
            error = self.fails(1, "INTERNAL", "start", "mapped-link")
            self.assertIn("mounts", error["message"])
        finally:
            (self.host / "write").unlink()
            away.rename(self.host / "write")

    def test_unsandboxed_needs_the_policy_and_keeps_what_the_keeper_never_gives_up(self):
        path = packages.package(self.scratch, "closed", "main.py", FILES, security=security(sandbox=False))
        error = self.fails(5, "DENIED", "register", path)
        self.assertIn("sandbox", error["message"])
        self.agent("open-one", security=security(sandbox=False))
        status = self.daemon.status("open-one")
        self.assertEqual(status["grants"], ["unsandboxed"])
        inside = harness.status_of(status["pid"])
        self.assertEqual(inside["CapEff"], "0" * 16)
        self.assertEqual(inside["NoNewPrivs"], "1")
        if harness.IS_ROOT:  # its namespaces are hidden from others
            self.assertNotEqual(os.readlink(f"/proc/{status['pid']}/ns/user"), os.readlink("/proc/self/ns/user"))
        self.assertIn("home", self.send("open-one", "list", {"path": "/"}))
        closed = self.daemon.ctl("policy", "check", path)
        self.assertEqual((closed.code, closed.document["result"]), (5, "refused"), closed)

    def test_host_network_is_shown_and_has_its_ports(self):
        self.agent("networked-one", security=security(outbound=["example.com"]))
        status = self.daemon.status("networked-one")
        self.assertEqual(status["grants"], ["hostNetwork"])
        if harness.IS_ROOT:  # its namespaces are hidden from others
            self.assertEqual(os.readlink(f"/proc/{status['pid']}/ns/net"), os.readlink("/proc/self/ns/net"))
        self.assertGreater(status["exposure"]["score"], 0)

    def test_extra_system_calls_by_name(self):
        program = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); libc.sethostname(b'x', 1); print(ctypes.get_errno())"
        refused = self.daemon.ctl("run", "--", "/usr/bin/python3", "-c", program, text_mode=True)
        self.assertEqual(refused.stdout, "1\n", refused)  # EPERM, by the filter
        given = self.daemon.ctl("run", "--policy", "mounts", "--", "/usr/bin/python3", "-c", program, text_mode=True)
        self.assertEqual(given.stdout, "1\n", given)  # EPERM, by the kernel: no capability
        denials = [r for r in self.ok("logs").records if r["event"] == "kai.denied" and r.get("what") == "sethostname"]
        self.assertEqual(len(denials), 1, "the one that the filter refused")

    def test_mounts_by_grant(self):
        target = self.host / "write"
        command = ["--", "/bin/sh", "-c", "cat /mnt/in/note; echo new >/mnt/out/from-run"]
        mounts = ["--mount", f"{self.host}/read:/mnt/in", "--mount", f"{target}:/mnt/out:rw"]
        denied = self.daemon.ctl("run", *mounts, *command, text_mode=True)
        self.assertEqual(denied.code, 125, denied)
        given = self.daemon.ctl("run", "--policy", "mounts", *mounts, *command, text_mode=True)
        self.assertEqual((given.code, given.stdout), (0, "from the host"), given)
        self.assertEqual((target / "from-run").read_text(), "new\n")

    def test_policy_check_names_file_and_line(self):
        document = packages.manifest("calendar", "main.py", security=security(["/data/own"], outbound=["calendar.example.com"]))
        path = self.scratch / "manifest.json"
        path.write_text(json.dumps(document))
        outcome = self.ok("policy", "check", path)
        check = outcome.document
        self.assert_keys(check, ["valid", "result", "policy", "errors", "items"])
        self.assertEqual((check["valid"], check["result"], check["policy"]), (True, "trimmed", "builtin"))
        trimmed = [item for item in check["items"] if item["verdict"] == "trimmed"]
        self.assertIn("/security/networkAccess/allowedDomains/0", [item["pointer"] for item in trimmed])
        for item in check["items"]:
            self.assert_keys(item, ["pointer", "asked", "verdict", "reason", "rule"])
        small = self.scratch / "small.json"
        small.write_text(json.dumps(packages.manifest("mapped-x", "main.py", security=security(["/data/read"]))))
        check = self.ok("policy", "check", small).document
        self.assertEqual([item["rule"] for item in check["items"] if item["pointer"].endswith("allowedPaths/0")], ["10-tests.yaml:10"])
        text = self.daemon.ctl("policy", "check", small, text_mode=True).stdout
        self.assertIn("[10-tests.yaml:10]", text)

    def test_explain_and_exposure(self):
        self.agent("small-explained", security=security(["/data/own"]))
        explained = self.ok("policy", "explain", "small-explained").document
        self.assertEqual(explained["policy"], "small")
        text = self.daemon.ctl("policy", "explain", "small-explained", text_mode=True).stdout
        for word in ("landlock", "seccomp", "namespaces", "/data/own", "10-tests.yaml"):
            self.assertIn(word, text)
        exposure = self.daemon.status("small-explained")["exposure"]
        self.assertAlmostEqual(exposure["score"], sum(item["points"] for item in exposure["items"]), places=1)
        connect = self.ok("policy", "explain", "small-explained", "--connect", "example.com:443").document
        self.assertNotEqual(connect["verdict"], "granted")
        self.fails(4, "NOT_FOUND", "policy", "explain", "nobody")
        self.assertEqual(self.daemon.ctl("policy", "explain", "x", "--connect", "nonsense").code, 2)


class Denials(harness.DaemonTest):
    def run_denied(self, program):
        before = len(self.ok("logs").records)
        outcome = self.daemon.ctl("run", "--", "/usr/bin/python3", "-c", program, text_mode=True)
        records = self.ok("logs").records[before:]
        return outcome, [record for record in records if record["event"] == "kai.denied"]

    def test_unshare_is_refused_and_seen_with_its_flags(self):
        outcome, denials = self.run_denied("import ctypes; ctypes.CDLL(None).unshare(0x10000000)")
        self.assertEqual(outcome.code, 0, outcome)
        self.assertEqual(len(denials), 1, denials)
        denial = denials[0]
        self.assertEqual(denial["detail"], "unshare(CLONE_NEWUSER)")
        self.assertEqual((denial["kind"], denial["error"], denial["process"]), ("syscall", "EPERM", "python3"))
        self.assertRegex(denial["rule"], r"^base\.yaml:\d+$")
        self.assertIn("unshare(CLONE_NEWUSER)", self.daemon.ctl("logs", text_mode=True).stdout)

    def test_ordinary_programs_make_no_denials(self):
        for command in (["/bin/sh", "-c", "ls -l / | grep usr; cp /etc/passwd /tmp/x; rm /tmp/x; date; sort /etc/passwd"],
                        ["/usr/bin/python3", "-c", "import json, socket, ssl, sqlite3, threading, subprocess; "
                                                   "subprocess.run(['true'])"],
                        ["/usr/bin/node", "-e", "require('fs').writeFileSync('/tmp/x', 'y'); setTimeout(() => {}, 10)"],
                        ["/usr/bin/git", "--version"]):
            with self.subTest(command=command):
                before = len(self.ok("logs").records)
                self.daemon.ctl("run", "--", *command, text_mode=True)
                denied = [r["message"] for r in self.ok("logs").records[before:] if r["event"] == "kai.denied"]
                self.assertEqual(denied, [])

    def test_a_flood_of_denials_is_counted_and_slows_nobody_else(self):
        path = packages.probe(self.scratch, "bystander")
        self.ok("register", path)
        self.ok("start", "bystander")
        flood = self.daemon.ctl_process("run", "--", "/usr/bin/python3", "-c", """
import ctypes, time
libc, end = ctypes.CDLL(None), time.monotonic() + 3
while time.monotonic() < end: libc.unshare(0x10000000)
""")
        times = []
        while flood.poll() is None:
            began = time.monotonic()
            self.assertEqual(self.send("bystander", "echo", 1), 1)
            times.append(time.monotonic() - began)
        self.assertEqual(flood.wait(), 0)
        flood.communicate()
        self.assertLess(sorted(times)[len(times) // 2], 2, "the neighbour answers meanwhile")
        lines = [r for r in self.ok("logs").records if r["event"] == "kai.denied" and r["agent"].startswith("run-")]
        self.assertLess(len(lines), 200)
        self.assertTrue(any(record.get("dropped", 0) > 100 for record in lines), lines[-3:])

    def test_a_limit_of_processes_is_a_line(self):
        outcome, denials = self.run_denied("""
import os, time
try:
    while True:
        if os.fork() == 0: time.sleep(1000)
except OSError as error:
    print(error.errno)
    time.sleep(2)
""")
        self.assertEqual(outcome.stdout, "11\n", outcome)
        if harness.IS_ROOT:  # as an ordinary user an rlimit holds them, which tells nobody
            limits = [denial for denial in denials if denial["kind"] == "limit"]
            self.assertEqual([denial["what"] for denial in limits], ["limits.processes"], denials)
            self.assertIn("128 processes", limits[0]["message"])

    def test_a_limit_of_open_files_is_a_line(self):
        outcome, denials = self.run_denied("""
import os, time
held = []
try:
    while True: held.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    time.sleep(3)
    os.write(1, b"%d\\n" % error.errno)
""")
        self.assertEqual(outcome.stdout, "24\n", outcome)
        self.assertIn("limits.openFiles", [denial["what"] for denial in denials])


class Mistakes(unittest.TestCase):
    """kaid does not start on policies that it cannot take, and says where the fault is."""

    def setUp(self):
        self.daemon = harness.Daemon()
        self.addCleanup(self.daemon.clean_up)

    def refused(self, code=2):
        self.daemon.launch()
        self.assertEqual(self.daemon.process.wait(timeout=harness.PATIENCE), code, self.daemon.log)
        self.assertEqual(self.daemon.leftovers(), [])
        return self.daemon.log

    def test_each_fault_is_named_with_its_place(self):
        for text, place, word in (
                ("policies:\n- name: x\n  memroyLimit: 3\n", "10-x.yaml:3:3:", "memoryLimit"),
                ("policies:\n- name: x\n  crashWindow: 10\n", "10-x.yaml:3:16:", "500ms"),
                ("policies:\n- name: x\n  memoryLimit: 99999999999999999999\n", "10-x.yaml:3:16:", ""),
                ("policies:\n- name: x\n  grants: [everything]\n", "10-x.yaml:3:12:", "everything"),
                ("policies:\n- name: x\n  network: {allowedDomains: [\"a.*.com\"]}\n", "10-x.yaml:3:30:", ""),
                ("policies:\n- name: x\n  files: {\"/a/../b\": {host: /srv}}\n", "10-x.yaml:3:11:", ""),
                ("policies: [\n", "10-x.yaml:", ""),
                ("policies:\n- name: x\n  backoff: {base: 2m, max: 1m}\n", "10-x.yaml:3:", "")):
            with self.subTest(text=text):
                self.daemon.write_policies(**{"10-x": text})
                log = self.refused()
                self.assertIn(place, log)
                self.assertIn(word, log)

    @harness.needs_root
    def test_what_others_may_write_is_refused(self):
        for path, mode in (("policies", 0o777), ("policies/10-x.yaml", 0o666)):
            with self.subTest(path=path):
                self.daemon.write_policies(**{"10-x": "policies: []\n"})
                changed = self.daemon.directory / path
                before = changed.stat().st_mode
                changed.chmod(mode)
                self.assertIn(str(changed), self.refused())
                changed.chmod(before)
        os.chown(self.daemon.directory / "policies/10-x.yaml", 65534, 65534)
        self.assertIn("10-x.yaml", self.refused())

    def test_reload_is_all_or_nothing(self):
        self.daemon.write_policies(**{"10-x": "policies:\n- name: first\n"})
        self.daemon.start()
        path = packages.probe(self.daemon.directory / "packages", "a1")
        self.assertEqual(self.daemon.ctl("register", path).code, 0)
        self.assertEqual(self.daemon.status("a1")["policy"], "first")
        self.daemon.write_policies(**{"20-y": "policies:\n- name: second\n  memoryLimit: 1 GB\n"})
        outcome = self.daemon.ctl("reload")
        self.assertEqual(outcome.code, 5, outcome)
        self.assertIn("20-y.yaml:3:16", outcome.error["message"])
        self.assertEqual(self.daemon.status("a1")["policy"], "first")
        self.daemon.write_policies(**{"10-x": "policies:\n- name: third\n", "20-y": None})
        outcome = self.daemon.ctl("reload")
        self.assertEqual((outcome.code, outcome.document["policies"]), (0, ["third", "builtin"]), outcome)
        self.assertEqual(self.daemon.status("a1")["policy"], "third")
        self.daemon.stop()


if __name__ == "__main__":
    unittest.main()
