"""Limits that hold: memory, processes, cpu; and that one agent's trouble is no other's."""

import json
import os
import pathlib
import unittest

import harness
import packages

NAMESPACES = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"]


class Neighbours(harness.DaemonTest):
    @classmethod
    def prepare(cls):
        directory = cls.daemon.directory / "prepared"
        for agent in ("greedy", "neighbour"):
            path = packages.probe(directory, agent)
            for command in (["register", path], ["start", agent]):
                outcome = cls.daemon.ctl(*command)
                assert outcome.code == 0, f"{outcome}\nlog:\n{cls.daemon.log[-4000:]}"

    def restarted(self, agent, before):
        return harness.wait_until(
            lambda: (s := self.daemon.status(agent)).get("state") == "running" and s["pid"] != before and s, "the restart")

    @harness.needs_root
    def test_memory_beyond_the_limit_ends_the_agent_and_says_oom(self):
        before = self.daemon.status("greedy")["pid"]
        untouched = self.daemon.status("neighbour")["pid"]
        self.assertEqual(self.send("greedy", "allocate", {"mb": 100}), {"held": 100 << 20})
        self.fails(1, "AGENT_CRASHED", "send", "greedy", "allocate", json.dumps({"mb": 700}))
        status = self.restarted("greedy", before)
        self.assertEqual(status["lastEnd"]["cause"], "oom", status)
        self.assertEqual(self.daemon.status("neighbour")["pid"], untouched)
        self.assertEqual(self.send("neighbour", "echo", [1]), [1])

    def test_a_run_beyond_the_memory_limit_says_why_it_ended(self):
        # As an ordinary user's the watchdog looks from time to time: so the memory is held.
        outcome = self.daemon.ctl("run", "--", "/usr/bin/python3", "-c", """
import signal
held = bytearray(700 << 20)
for at in range(0, len(held), 4096): held[at] = 1
signal.pause()""", text_mode=True)
        self.assertEqual(outcome.code, 137, outcome)
        self.assertRegex(outcome.stderr, "(?i)memory|oom")

    def test_memory_split_over_children_counts_together(self):
        outcome = self.daemon.ctl("run", "--", "/usr/bin/python3", "-c", '''
import os, signal
reading, writing = os.pipe()
for _ in range(8):
    if os.fork() == 0:
        held = bytearray(100 << 20)
        for at in range(0, len(held), 4096): held[at] = 1
        os.write(writing, b"x")
        signal.pause()
os.close(writing)
while os.read(reading, 1):  # until the end of all of them
    pass
print("some ended, and it lives on")
''', text_mode=True)
        self.assertEqual((outcome.code, outcome.stdout), (137, ""), outcome)
        self.assertRegex(outcome.stderr, "(?i)memory|oom")

    def test_a_fork_bomb_stops_at_the_limit_and_others_answer_meanwhile(self):
        bomb = self.daemon.ctl_process("-o", "json", "send", "greedy", "fork", "{}")
        for number in range(5):
            self.assertEqual(self.send("neighbour", "echo", number), number)
        out, err = bomb.communicate(timeout=harness.PATIENCE)
        self.assertEqual(bomb.returncode, 0, err)
        answer = json.loads(out)["payload"]
        self.assertEqual(answer["refused"], "EAGAIN", answer)
        self.assertLessEqual(answer["children"], 128)
        self.assertGreaterEqual(answer["children"], 100)

    @harness.needs_root
    def test_cpu_is_limited_to_one_core_over_all_processes(self):
        outcome = self.daemon.ctl("run", "--", "/usr/bin/python3", "-c", '''
import json, os, time
end = time.monotonic() + 2
for _ in range(2):
    if os.fork() == 0:
        while time.monotonic() < end: pass
        os._exit(0)
os.wait(); os.wait()
times = os.times()
print(json.dumps(times.children_user + times.children_system))
''', text_mode=True)
        self.assertEqual(outcome.code, 0, outcome)
        self.assertLessEqual(float(outcome.stdout), 2 * 1.25, "seconds of cpu in two seconds, two processes")

    def test_each_agent_has_all_seven_namespaces_for_itself(self):
        # The runner's: agent-host lets nobody of its user look.
        pids = [next(iter(harness.descendants(self.daemon.status(agent)["pid"]))) for agent in ("greedy", "neighbour")]
        for name in NAMESPACES:
            links = [os.readlink(f"/proc/{pid}/ns/{name}") for pid in pids + ["self"]]
            self.assertEqual(len(set(links)), 3, f"{name}: {links}")

    def test_only_lo_in_the_agents_network(self):
        lines = pathlib.Path(f"/proc/{self.daemon.status('greedy')['pid']}/net/dev").read_text().splitlines()
        self.assertEqual([line.split(":")[0].strip() for line in lines[2:]], ["lo"])

    @harness.needs_root
    def test_each_agent_has_an_id_range_of_its_own_without_host_root(self):
        ranges = []
        for agent in ("greedy", "neighbour"):
            pid = self.daemon.status(agent)["pid"]
            for name in ("uid_map", "gid_map"):
                for line in pathlib.Path(f"/proc/{pid}/{name}").read_text().splitlines():
                    _, outside, count = map(int, line.split())
                    self.assertGreaterEqual(outside, 65536, f"{agent} {name}: {line}")
                    if name == "uid_map":
                        ranges.append((outside, outside + count))
            self.assertGreaterEqual(int(harness.status_of(pid)["Uid"].split()[0]), 65536)
        for number, (start, end) in enumerate(sorted(ranges)[1:]):
            self.assertGreaterEqual(start, sorted(ranges)[number][1], f"ranges overlap: {ranges}")

    def test_the_agents_processes_are_confined_as_seen_from_outside(self):
        for pid in harness.descendants(self.daemon.status("neighbour")["pid"]) | {self.daemon.status("neighbour")["pid"]: ""}:
            status = harness.status_of(pid)
            self.assertEqual((status["Seccomp"], status["NoNewPrivs"]), ("2", "1"), status)
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                self.assertEqual(int(status[name], 16), 0, f"{name} of {status['Name']}")

    def test_an_agent_cannot_read_the_daemons_state_or_another_agents_files(self):
        for path in (self.daemon.state, self.daemon.socket, "/etc/shadow"):
            self.assertIn(self.send("greedy", "open", {"path": str(path)}).get("refused"), ("ENOENT", "EACCES"), path)


class SetUpFailures(unittest.TestCase):
    """A start that fails because the machine does not give a layer names that layer, and the service goes on."""

    def check_namespace(self, name, expected):
        limit = f"/proc/sys/user/max_{name}_namespaces"
        # The limit holds for this user namespace and what is below it: the machine itself does not notice.
        daemon = harness.Daemon(prefix=[
            "unshare", "--user", "--map-root-user", "--", "/bin/sh", "-c",
            f'echo {0 if name != "user" else 1} > {limit} && exec unshare --user --map-user=1000 --map-group=1000 -- "$@"', "sh"])
        self.addCleanup(daemon.clean_up)
        daemon.start()
        outcome = daemon.ctl("run", "--", "/bin/true")
        self.assertEqual(outcome.code, 125, f"{outcome}\n{daemon.log}")
        self.assertRegex(outcome.stderr, expected)
        self.assertRegex(daemon.log, expected)
        self.assertEqual(daemon.ctl("version").code, 0)

    def test_no_network_namespace(self):
        self.check_namespace("net", "step starter namespaces")

    def test_no_pid_namespace(self):
        self.check_namespace("pid", "step clone3")

    def test_no_cgroup_namespace(self):
        self.check_namespace("cgroup", "step cgroup")


if __name__ == "__main__":
    unittest.main()
