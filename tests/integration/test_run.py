"""kaictl run: an ephemeral agent in the foreground, and what a program sees of its sandbox."""

import json
import os
import signal
import socket
import subprocess
import unittest

import harness

LOOK_AROUND = 'id; ls /; cat /proc/self/status | grep -E "Cap|Seccomp|NoNew"; ls /proc | grep -c "^[0-9]"'


class Run(harness.DaemonTest):
    def run_program(self, *command, options=(), stdin=None):
        return self.daemon.ctl("run", *options, "--", *command, text_mode=True, stdin=stdin)

    def python(self, program, *arguments):
        """What a Python program printed as JSON inside the sandbox."""
        outcome = self.run_program("/usr/bin/python3", "-c", program, *arguments)
        self.assertEqual(outcome.code, 0, f"{outcome}\nlog:\n{self.daemon.log[-3000:]}")
        return json.loads(outcome.stdout)

    def test_no_capabilities_a_filter_no_new_privileges_and_only_its_own_processes(self):
        outcome = self.run_program("/bin/sh", "-c", LOOK_AROUND)
        self.assertEqual(outcome.code, 0, outcome)
        lines = outcome.stdout.splitlines()
        capabilities = [line for line in lines if line.startswith("Cap")]
        self.assertEqual(len(capabilities), 5, outcome)
        for line in capabilities:
            self.assertRegex(line, r"^Cap\w+:\s+0{16}$")
        self.assertIn("NoNewPrivs:\t1", lines)
        self.assertIn("Seccomp:\t2", lines)
        self.assertLessEqual(int(lines[-1]), 8, "only its own processes: agent-host, the shell and its pipeline")
        self.assertTrue(lines[0].startswith("uid="), outcome)
        for directory in ("home", "root", "srv", "boot", "sys", "work", "mnt"):
            self.assertNotIn(directory, lines)
        for directory in ("usr", "proc", "dev", "tmp"):
            self.assertIn(directory, lines)

    def test_exit_codes(self):
        for command, code in ((["/bin/true"], 0), (["/bin/sh", "-c", "exit 42"], 42), (["/bin/sh", "-c", "kill -9 $$"], 137),
                              (["/bin/sh", "-c", "kill -TERM $$"], 143), (["/no/such/program"], 127), (["/etc/passwd"], 126)):
            with self.subTest(command=command):
                self.assertEqual(self.run_program(*command).code, code)

    def test_output_goes_to_its_own_stream_and_input_comes_in(self):
        outcome = self.run_program("/bin/sh", "-c", "cat; echo err >&2", stdin="in\n")
        self.assertEqual((outcome.code, outcome.stdout), (0, "in\n"))
        self.assertIn("err\n", outcome.stderr)

    def test_large_output_arrives_whole(self):
        outcome = self.run_program("/bin/sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x")
        self.assertEqual((outcome.code, len(outcome.stdout)), (0, 5_000_000))

    def test_signals_are_passed_on(self):
        process = self.daemon.ctl_process("run", "--", "/bin/sh", "-c",
                                          'trap "echo got it; exit 7" TERM; echo ready; while :; do sleep 1000 & wait $!; done')
        self.assertEqual(process.stdout.readline(), "ready\n")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual((process.returncode, out), (7, "got it\n"), err)

    def test_a_client_that_disappears_takes_its_program_with_it(self):
        process = self.daemon.ctl_process("run", "--", "/bin/sh", "-c", "echo ready; exec sleep 98765")
        self.assertEqual(process.stdout.readline(), "ready\n")
        process.kill()
        process.communicate()
        harness.wait_until(lambda: not any("98765" in command for command in
                                           harness.descendants(self.daemon.process.pid).values()), "the program to end")

    def test_environment_is_clean_and_extended_by_env(self):
        outcome = self.run_program("/usr/bin/env", options=["--env", "GIVEN=yes"])
        names = {line.partition("=")[0] for line in outcome.stdout.splitlines()}
        self.assertIn("GIVEN=yes", outcome.stdout.splitlines())
        self.assertLessEqual(names, {"GIVEN", "PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "USER", "PWD", "SHLVL", "_", "KAI_AGENT_ID"})

    def test_a_host_program_runs_from_its_mount(self):
        program = self.scratch / "tool"
        program.write_text("#!/bin/sh\necho \"from $0\"\n")
        program.chmod(0o755)
        outcome = self.run_program(program)
        self.assertEqual((outcome.code, outcome.stdout), (0, "from /agent/tool\n"), outcome)

    def test_host_mounts_need_a_grant(self):
        outcome = self.run_program("/bin/true", options=["--mount", str(self.scratch)])
        self.assertEqual(outcome.code, 125, outcome)
        self.assertIn("hostMounts", outcome.stderr)

    def test_every_namespace_is_its_own(self):
        inside = self.python('import json,os;print(json.dumps({n:os.readlink("/proc/self/ns/"+n) for n in '
                             '["user","mnt","pid","net","ipc","uts","cgroup"]}))')
        for name, link in inside.items():
            self.assertNotEqual(link, os.readlink(f"/proc/self/ns/{name}"), name)

    NETWORK = """
import errno, json, socket, sys
def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.settimeout(5)
        return errno.errorcode.get(attempt.connect_ex(address), "connected")
own = socket.create_server(("127.0.0.1", 0))
port, directory = int(sys.argv[1]), sys.argv[2]
print(json.dumps({"own loopback": connect(socket.AF_INET, own.getsockname()),
    "loopback of the host": connect(socket.AF_INET, ("127.0.0.1", port)),
    "unix socket of the host": connect(socket.AF_UNIX, directory + "/socket"),
    "abstract socket of the host": connect(socket.AF_UNIX, "\\0" + directory),
    "elsewhere": connect(socket.AF_INET, ("192.0.2.1", 80)) if len(sys.argv) == 3 else ""}))"""

    def test_the_network_ends_at_its_own_loopback(self):
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix, \
                socket.socket(socket.AF_UNIX) as abstract:
            unix.bind(str(self.scratch / "socket"))
            abstract.bind("\0" + str(self.scratch))
            unix.listen()
            abstract.listen()
            arguments = [str(tcp.getsockname()[1]), str(self.scratch)]
            inside = self.python(self.NETWORK, *arguments)
            self.assertEqual(inside, {
                "own loopback": "connected", "loopback of the host": "ECONNREFUSED", "unix socket of the host": "ENOENT",
                "abstract socket of the host": "ECONNREFUSED", "elsewhere": "ENETUNREACH"})
            outside = json.loads(subprocess.run(["/usr/bin/python3", "-c", self.NETWORK, *arguments, "-"],
                                                capture_output=True, text=True, check=True).stdout)
            self.assertEqual([outside[name] for name in inside if name != "elsewhere"], ["connected"] * 4, outside)
        (self.scratch / "socket").unlink()

    def test_files_of_the_host_are_not_there_and_system_files_cannot_be_written(self):
        errors = self.python('''
import errno, json
def attempt(path, mode):
    try:
        open(path, mode).close()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "opened"
print(json.dumps({f"{m} {p}": attempt(p, m) for p, m in [("/etc/shadow", "r"), ("/root/.bashrc", "r"),
    ("/usr/bin/kai-test", "w"), ("/kai-test", "w"), ("/etc/passwd", "a"), ("/tmp/kai-test", "w"), ("/dev/kmsg", "r"),
    ("/dev/mem", "r"), ("/proc/sys/kernel/hostname", "w"), ("/proc/1/environ", "r"), ("/dev/null", "w")]}))''')
        self.assertIn(errors["r /etc/shadow"], ("ENOENT", "EACCES"))
        self.assertEqual(errors["r /root/.bashrc"], "ENOENT")
        for path in ("w /usr/bin/kai-test", "w /kai-test"):
            self.assertIn(errors[path], ("EROFS", "EACCES"))
        self.assertIn(errors["a /etc/passwd"], ("EROFS", "EACCES"))
        for path in ("r /dev/kmsg", "r /dev/mem"):
            self.assertIn(errors[path], ("ENOENT", "EACCES"))
        self.assertIn(errors["w /proc/sys/kernel/hostname"], ("ENOENT", "EACCES", "EROFS"))
        self.assertIn(errors["r /proc/1/environ"], ("EACCES", "EPERM", "ENOENT"))
        self.assertEqual((errors["w /tmp/kai-test"], errors["w /dev/null"]), ("opened", "opened"))

    def test_what_is_writable_cannot_be_executed(self):
        outcome = self.run_program("/bin/sh", "-c", "cp /bin/true /tmp/true && /tmp/true")
        self.assertEqual(outcome.code, 126, outcome)

    SYSTEM_CALLS = '''
import ctypes, errno, json
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in arguments])
    return "allowed" if result >= 0 else errno.errorcode[ctypes.get_errno()]
import platform
x86 = platform.machine() == "x86_64"
table = {"unshare_user": (272 if x86 else 97, 0x10000000), "keyctl": (250 if x86 else 219, 0, -3, 0),
         "bpf": (321 if x86 else 280, 0, 0, 0), "perf_event_open": (298 if x86 else 241, 0, 0, -1, -1, 0),
         "io_uring_setup": (425, 1, 0), "clone3": (435, 0, 0), "unknown_1000": (1000,),
         "socket_netlink": (41 if x86 else 198, 16, 3, 0), "socket_packet": (41 if x86 else 198, 17, 3, 0),
         "socket_alg": (41 if x86 else 198, 38, 5, 0), "personality": (135 if x86 else 92, 0x0040000),
         "socket_unix": (41 if x86 else 198, 1, 1, 0)}
print(json.dumps({name: call(*arguments) for name, arguments in table.items()}))'''

    def test_system_calls_outside_the_allowlist_are_refused_and_the_rest_is_not(self):
        inside = self.python(self.SYSTEM_CALLS)
        for name in ("unshare_user", "keyctl", "bpf", "perf_event_open", "personality"):
            self.assertEqual(inside[name], "EPERM", inside)
        for name in ("io_uring_setup", "clone3"):
            self.assertEqual(inside[name], "ENOSYS", inside)
        for name in ("socket_netlink", "socket_packet", "socket_alg"):
            self.assertIn(inside[name], ("EPERM", "EAFNOSUPPORT", "EACCES"), inside)
        self.assertIn(inside["unknown_1000"], ("ENOSYS", "EPERM"), inside)
        self.assertEqual(inside["socket_unix"], "allowed", inside)
        # The same program outside: what it is refused inside is the sandbox's doing.
        outside = json.loads(subprocess.run(["/usr/bin/python3", "-c", self.SYSTEM_CALLS], capture_output=True, text=True,
                                            check=True).stdout)
        for name in ("unshare_user", "keyctl", "socket_netlink", "personality"):
            self.assertEqual(outside[name], "allowed", outside)
        self.assertNotEqual(outside["io_uring_setup"], inside["io_uring_setup"], outside)
        self.assertNotEqual(outside["clone3"], inside["clone3"], outside)

    def test_resource_limits(self):
        limits = self.python('import json,resource as r;print(json.dumps({n:r.getrlimit(getattr(r,n)) for n in '
                             '["RLIMIT_CORE","RLIMIT_NOFILE","RLIMIT_AS"]}))')
        self.assertEqual(limits["RLIMIT_CORE"], [0, 0])
        self.assertEqual(limits["RLIMIT_NOFILE"], [1024, 1024])
        self.assertEqual(limits["RLIMIT_AS"], [-1, -1])

    def test_tmp_has_a_size(self):
        answer = self.python('''
import errno, json
written = 0
try:
    with open("/tmp/fill", "wb", buffering=0) as file:
        while written < 200 << 20:
            written += file.write(b"x" * 65536)
    refused = None
except OSError as error:
    refused = errno.errorcode[error.errno]
print(json.dumps([written >> 20, refused]))''')
        self.assertEqual(answer, [64, "ENOSPC"])

    def test_no_descriptor_of_the_daemon_is_open(self):
        descriptors = self.python('import json,os;print(json.dumps({f:os.readlink("/proc/self/fd/"+f) for f in '
                                  'os.listdir("/proc/self/fd") if os.path.lexists("/proc/self/fd/"+f)}))')
        self.assertLessEqual(set(descriptors), {"0", "1", "2"}, descriptors)

    def test_an_own_session_without_a_terminal(self):
        answer = self.python('import json,os;print(json.dumps([os.getpid()==os.getsid(0) or os.getsid(0), os.getppid()]))')
        self.assertTrue(answer[0] is True or answer[0] != 0, answer)
        outcome = self.run_program("/bin/sh", "-c", "echo forged > /dev/tty")
        self.assertNotEqual(outcome.code, 0)

    def test_an_unknown_option_is_125_or_2_and_starts_nothing(self):
        outcome = self.run_program("/bin/true", options=["--no-such-option"])
        self.assertIn(outcome.code, (2, 125), outcome)

    def test_a_run_leaves_no_agent_and_no_files_behind(self):
        before = self.ok("list").document
        self.assertEqual(self.run_program("/bin/sh", "-c", "echo x > /tmp/x").code, 0)
        self.assertEqual(self.ok("list").document, before)
        private = self.daemon.state / "private"
        if private.exists():
            self.assertEqual([path.name for path in private.iterdir()], [])


if __name__ == "__main__":
    unittest.main()
