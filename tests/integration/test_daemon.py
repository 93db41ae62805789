"""The daemon itself: its processes, its start and its end."""

import os
import pathlib
import shutil
import signal
import subprocess
import unittest

import harness
import packages


class Processes(harness.DaemonTest):
    @harness.needs_root
    def test_agents_are_in_groups_that_the_tests_can_find(self):
        """What every class checks at its end is worth something only if it is seen while it is there."""
        self.assertTrue(self.daemon.traces.own)
        self.assertTrue(any(line.startswith("socket") for line in self.daemon.traces.left()))

    @harness.needs_root
    def test_control_runs_without_privilege_under_an_own_user(self):
        status = harness.status_of(self.daemon.control_pid())
        self.assertNotIn("0", status["Uid"].split())
        self.assertNotIn("0", status["Gid"].split())
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            self.assertEqual(int(status[name], 16), 0, name)
        self.assertEqual(status["NoNewPrivs"], "1")
        self.assertEqual(set(status.get("Groups", "").split()) & {"0"}, set())

    def test_control_is_a_process_of_its_own_below_the_keeper(self):
        self.assertNotEqual(self.daemon.control_pid(), self.daemon.process.pid)

    def test_a_second_kaid_on_the_same_state_directory_is_refused(self):
        second = subprocess.run(self.daemon.command(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                timeout=harness.PATIENCE, check=False)
        self.assertEqual(second.returncode, 1, second)
        said = second.stdout + second.stderr
        self.assertEqual(len(said.splitlines()), 1, said)
        self.assertIn(str(self.daemon.state), said)
        self.ok("version")

    def test_usage_and_config_errors_end_kaid_with_2(self):
        broken = self.scratch / "kaid.yaml"
        broken.write_text("no-such-key: [\n")
        for arguments in (["--no-such-option"], ["--config", str(broken)], ["--config", "/no/such/file"]):
            with self.subTest(arguments=arguments):
                ended = subprocess.run(self.daemon.command() + arguments, stdin=subprocess.DEVNULL, capture_output=True,
                                       text=True, timeout=harness.PATIENCE, check=False)
                self.assertEqual(ended.returncode, 2, ended)
                self.assertTrue(ended.stderr, "it says why")

    def test_version_and_doctor_answer_json(self):
        self.assertEqual(set(self.ok("version").document), {"kaictl", "kaid"})
        doctor = self.daemon.ctl("doctor")
        self.assertIn(doctor.code, (0, 1), doctor)
        self.assertTrue(doctor.document)

    def test_the_socket_lets_operators_in_and_nobody_else(self):
        mode = self.daemon.socket.stat().st_mode & 0o777
        self.assertEqual(mode & 0o007, 0, oct(mode))

    @harness.needs_root
    def test_another_user_is_refused(self):
        outcome = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(self.daemon.bin / "kaictl"), "--socket",
             str(self.daemon.socket), "list"], capture_output=True, text=True, timeout=harness.PATIENCE, check=False)
        self.assertIn(outcome.returncode, (3, 5), outcome)
        self.assertEqual(outcome.stdout, "")


class Ends(unittest.TestCase):
    def daemon(self, **options):
        daemon = harness.Daemon(**options)
        self.addCleanup(daemon.clean_up)
        return daemon

    def test_no_daemon_is_3_and_125_for_run(self):
        daemon = self.daemon()
        outcome = daemon.ctl("list")
        self.assertEqual((outcome.code, outcome.stdout, len(outcome.stderr.splitlines())), (3, "", 1), outcome)
        self.assertEqual(daemon.ctl("run", "--", "/bin/true").code, 125)

    def test_sigterm_stops_agents_gracefully_and_leaves_nothing(self):
        daemon = self.daemon().start()
        marker = 'trap "echo told to stop; exit 0" TERM\necho ready\nwhile :; do sleep 1000 & wait $!; done\n'
        for path in (packages.script(daemon.directory, "graceful", marker),
                     packages.script(daemon.directory, "stubborn", 'trap "" TERM\nwhile :; do sleep 1000; done\n'),
                     packages.probe(daemon.directory)):
            self.assertEqual(daemon.ctl("register", path).code, 0)
            outcome = daemon.ctl("start", path.name)
            self.assertEqual(outcome.code, 0, f"{outcome}\n{daemon.log}")
        harness.wait_until(lambda: "ready" in daemon.ctl("logs", "graceful").stdout, "the script to run")
        pids = [daemon.status(agent)["pid"] for agent in ("graceful", "stubborn", "probe")]
        daemon.stop()
        self.assertIn("told to stop", daemon.log)
        for pid in pids:
            self.assertFalse(pathlib.Path(f"/proc/{pid}").exists())
        self.assertFalse(daemon.socket.exists())

    def test_sigint_is_sigterm(self):
        daemon = self.daemon().start()
        daemon.process.send_signal(signal.SIGINT)
        self.assertEqual(daemon.process.wait(timeout=harness.PATIENCE), 0)
        self.assertEqual(daemon.leftovers(), [])

    def test_asked_twice_at_once_it_still_stops_gracefully(self):
        # timeout(1) signals its child and then its own process group: the same stop arrives twice.
        daemon = self.daemon().start()
        marker = 'trap "echo told to stop; exit 0" TERM\necho ready\nwhile :; do sleep 1000 & wait $!; done\n'
        path = packages.script(daemon.directory, "graceful", marker)
        self.assertEqual(daemon.ctl("register", path).code, 0)
        self.assertEqual(daemon.ctl("start", path.name).code, 0)
        harness.wait_until(lambda: "ready" in daemon.ctl("logs", "graceful").stdout, "the script to run")
        daemon.process.send_signal(signal.SIGTERM)
        daemon.process.send_signal(signal.SIGINT)
        self.assertEqual(daemon.process.wait(timeout=harness.PATIENCE), 0)
        self.assertIn("told to stop", daemon.log)
        self.assertEqual(daemon.leftovers(), [])

    def test_a_signal_for_a_later_version_changes_nothing(self):
        daemon = self.daemon().start()
        daemon.process.send_signal(signal.SIGUSR2)
        harness.wait_until(lambda: "SIGUSR2" in daemon.log, "kaid to say what it did not do")
        self.assertEqual(daemon.ctl("version").code, 0)
        daemon.stop()

    def test_control_that_dies_is_not_the_end_of_the_service(self):
        daemon = self.daemon().start()
        os.kill(daemon.control_pid(), signal.SIGKILL)
        harness.wait_until(lambda: daemon.process.poll() is not None or daemon.ctl("version").code == 0,
                           "kaid to serve again or to say that it does not")
        if daemon.process.poll() is None:
            daemon.stop()
        else:
            self.assertNotEqual(daemon.process.returncode, 0)
            self.assertEqual(daemon.leftovers(), [])

    def test_a_missing_program_of_kai_itself_is_named(self):
        daemon = self.daemon()
        programs = daemon.directory / "bin"
        shutil.copytree(harness.BIN, programs, ignore=shutil.ignore_patterns("fuzz_*", "sandbox_*"))
        (programs / "kai-agent-host").unlink()
        (daemon.directory / "sdk").symlink_to(harness.BIN.parent / "sdk")
        daemon.bin = programs
        daemon.launch()
        harness.wait_until(lambda: daemon.process.poll() is not None or daemon.socket.exists(), "kaid to serve or to end")
        if daemon.process.poll() is None:
            outcome = daemon.ctl("run", "--", "/bin/true")
            self.assertEqual(outcome.code, 125, outcome)
            said = outcome.stderr
            daemon.terminate()
        else:
            self.assertNotEqual(daemon.process.returncode, 0)
            said = daemon.log
        self.assertIn("kai-agent-host", said)


if __name__ == "__main__":
    unittest.main()
