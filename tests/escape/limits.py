#!/usr/bin/python3
"""Agents that use up what they can: each is held at its limit, kaid and a neighbour answer meanwhile, nothing is left.

usage: limits.py --bin DIRECTORY --as root|user [TEST...]
"""

import json
import os
import resource
import signal
import socket
import sys

import scene

ARGUMENTS = scene.parse(__doc__)

import floods  # noqa: E402  (after the path is set)
import harness  # noqa: E402
import packages  # noqa: E402

UnderAttack = scene.make_test_class()

PROCESSES, FILES, TMP_MB, DISK_MB, INODES = 128, 1024, 64, 256, 16384  # the built-in policy


class Limits(UnderAttack):
    def attack(self, program, *arguments):
        """Runs a flood until it says what it got; (how it was refused, how much it had). It goes on until the test's end."""
        process = self.run_process("/usr/bin/python3", "-c", program, *arguments)
        self.addCleanup(self.nothing_left)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        words = process.stdout.readline().split()
        self.assertEqual(words[:1], ["ready"], f"{words}\n{self.daemon.log[-3000:]}")
        self.neighbour_answers()
        return words[1], int(words[2])

    def test_a_fork_bomb_stops_at_the_limit_of_processes(self):
        how, count = self.attack(floods.FORK_BOMB)
        self.assertEqual(how, "EAGAIN")
        self.assertTrue(PROCESSES // 2 < count <= PROCESSES, count)

    def test_daemons_of_daemons_count_too(self):
        how, count = self.attack(floods.DAEMONS)
        self.assertEqual(how, "EAGAIN")
        self.assertTrue(PROCESSES // 2 < count <= PROCESSES, count)

    def test_memory_over_children_ends_all_of_them(self):
        process = self.run_process("/usr/bin/python3", "-c", floods.MEMORY)
        self.neighbour_answers()
        _, errors = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, 128 + signal.SIGKILL, errors)
        self.assertRegex(errors, "(?i)memory|oom")
        self.nothing_left()

    def test_tmp_ends_at_its_bytes(self):
        self.assertEqual(self.attack(floods.BYTES, "/tmp"), ("ENOSPC", TMP_MB))

    def test_tmp_ends_at_its_files(self):
        how, count = self.attack(floods.INODES, "/tmp")
        self.assertEqual(how, "ENOSPC")
        self.assertTrue(INODES - 16 < count < INODES, count)

    def test_descriptors_end_at_their_limit(self):
        how, count = self.attack(floods.DESCRIPTORS)
        self.assertEqual(how, "EMFILE")
        self.assertTrue(FILES - 16 < count < FILES, count)

    def test_descriptors_in_flight_end_at_their_limit(self):
        how, count = self.attack(floods.PASSED)
        self.assertEqual(how, "ETOOMANYREFS")
        self.assertLessEqual(count * 250, FILES + 250)

    def agent(self, name, program, *arguments, **changes):
        """A registered exec agent that runs a flood, started and at its limit; its first line."""
        words = " ".join(arguments)
        path = packages.script(self.daemon.directory / "prepared", name,
                               f"exec /usr/bin/python3 /agent/flood.py {words}\n", **changes)
        (path / "flood.py").write_text(program)
        self.start(name, path)
        self.addCleanup(self.nothing_left)
        self.addCleanup(self.daemon.ctl, "terminate", name, "--purge")

        def first_line():
            return next((record["message"] for record in self.ok("logs", name, "-n", "1000").records
                         if record["event"] == "stdout" and record["message"].startswith("ready")), None)
        line = harness.wait_until(first_line, f"{name} to be at its limit; its log:\n{self.daemon.log[-2000:]}")
        self.neighbour_answers()
        return line.split()[1:]

    PERSISTENT = {
        "memory": {"type": "persistent", "backend": "sqlite", "persistent": True},
        "security": {**packages.CORRECT["security"],
                     "fileAccess": {"allowedPaths": ["/data"], "readOnly": False, "tempFileAccess": True}}}

    def test_private_data_ends_at_its_bytes(self):
        if not self.as_root:
            return self.held_by_measuring("diskbytes", floods.BYTES, "limits.disk")
        how, count = self.agent("diskbytes", floods.BYTES, "/data", **self.PERSISTENT)
        self.assertEqual(how, "ENOSPC")
        self.assertTrue(DISK_MB * 0.8 < int(count) <= DISK_MB, count)
        return None

    def test_private_data_ends_at_its_files(self):
        if not self.as_root:
            return self.held_by_measuring("diskinodes", floods.INODES, "limits.inodes")
        how, count = self.agent("diskinodes", floods.INODES, "/data", **self.PERSISTENT)
        self.assertEqual(how, "ENOSPC")
        self.assertTrue(INODES - 64 < int(count) <= INODES + 32, f"{count}: ext4 rounds up to whole blocks of inodes")
        return None

    def held_by_measuring(self, name, program, limit):
        """An ordinary user's kaid measures private data from time to time and ends an agent above its limit."""
        path = packages.script(self.daemon.directory / "prepared", name, "exec /usr/bin/python3 /agent/flood.py /data\n",
                               **self.PERSISTENT)
        (path / "flood.py").write_text(program)
        self.start(name, path)
        self.addCleanup(self.nothing_left)
        self.addCleanup(self.daemon.ctl, "terminate", name, "--purge")

        def held():
            return any(record["event"] == "kai.denied" and record["what"] == limit for record in
                       self.ok("logs", name, "-n", "1000").records) and "SIGKILL" in json.dumps(self.daemon.status(name))
        harness.wait_until(held, f"{name} to be ended; its log:\n{self.daemon.log[-2000:]}")
        self.neighbour_answers()

    def test_a_log_flood_is_dropped_and_counted(self):
        self.agent("logflood", floods.LOG)
        harness.wait_until(lambda: any("dropped" in json.dumps(record) for record in self.ok("logs", "logflood").records),
                           "a record that counts what was dropped")
        self.neighbour_answers()
        size = sum(path.stat().st_size for path in self.daemon.state.rglob("*.log*") if path.is_file())
        self.assertLess(size, 64 << 20)

    def test_a_byte_at_a_time_costs_nothing(self):
        self.agent("trickle", floods.TRICKLE)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.daemon.socket))
            for byte in (0, 0, 0, 64):  # of a frame that never ends
                connection.send(bytes([byte]))
                self.neighbour_answers(1)

    def test_a_stopped_process_stops_nobody_else(self):
        self.agent("stopped", floods.STOPPED)
        self.neighbour_answers()
        self.assertEqual(self.daemon.ctl("stop", "stopped").code, 0)  # by SIGKILL, which stopping does not hold off

    def test_descriptors_sent_to_kaid_are_closed(self):
        control = self.daemon.control_pid()
        before = len(os.listdir(f"/proc/{control}/fd")) if os.geteuid() == 0 else None
        connections = []
        for _ in range(32):
            connection = socket.socket(socket.AF_UNIX)
            self.addCleanup(connection.close)
            connection.connect(str(self.daemon.socket))
            connections.append(connection)
            try:
                for _ in range(8):
                    socket.send_fds(connection, [b"\0"], [0] * 250)
            except OSError:
                pass  # it hung up
        self.neighbour_answers()
        for connection in connections:
            connection.close()
        if before is not None:
            harness.wait_until(lambda: len(os.listdir(f"/proc/{control}/fd")) <= before + 2, "control to close them")

    def test_a_client_that_never_reads_holds_nobody_up(self):
        self.agent("talker", floods.LOG)
        reader = self.daemon.ctl_process("logs", "-f")
        self.addCleanup(reader.communicate)
        self.addCleanup(reader.kill)
        self.assertTrue(reader.stdout.readline())
        reader.send_signal(signal.SIGSTOP)
        self.neighbour_answers(20)
        held = int(harness.status_of(self.daemon.control_pid())["VmRSS"].split()[0])
        self.assertLess(held, 150 << 10, "KiB in control's memory")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    sys.exit(scene.run_tests(ARGUMENTS.rest))
