"""What only the C++ SDK has to do: loading libraries, and building one by the documented command."""

import os
import shutil
import socket
import subprocess
import tempfile
import unittest

from host import BUILD, BUILT_AGENTS, INIT, SOURCE, Runner, RunnerError, native_command


class CppTest(unittest.TestCase):
    def start(self, library):
        runner = Runner(native_command(library))
        self.addCleanup(runner.__exit__)
        return runner

    def ends(self, library, status, *texts):
        runner = self.start(library)
        runner.hello()
        self.assertEqual(runner.wait(), status)
        for text in texts:
            self.assertIn(text, runner.stderr())

    def test_libraries_that_cannot_be_run(self):
        self.ends("/nowhere/libagent.so", 127, "/nowhere/libagent.so", "No such file")
        self.ends(__file__, 126, "cannot load the agent", "invalid ELF header")
        self.ends(os.path.join(BUILT_AGENTS, "libsdk_no_agent.so"), 126, "is not an agent", "KAI_AGENT(Class)")
        old = os.path.join(BUILT_AGENTS, "libsdk_old_abi.so")
        self.ends(old, 126, "agent ABI 2", "this runner has 1", "build it again")
        self.ends(os.path.join(BUILT_AGENTS, "libsdk_unresolved.so"), 126, "undefined symbol: missing_function")

    def test_a_whole_message_may_be_the_answer(self):
        runner = self.start(os.path.join(BUILT_AGENTS, "libsdk_probe.so")).start()
        answer = runner.call("message", runner.message("whole", payload={"a": 1}))["message"]
        self.assertEqual((answer["payload"], answer["metadata"]), ({"a": 1}, {"priority": "high"}))
        self.assertEqual((answer["type"], answer["to"]), ("response", "operator"))
        self.assertRegex(answer["id"], r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
        # A payload that only looks a little like a message is a payload.
        self.assertEqual(runner.ask("echo", {"protocol": "klp/1.0", "id": "x"}), {"protocol": "klp/1.0", "id": "x"})

    def test_usage(self):
        ended = subprocess.run(native_command("a") + ["b"], capture_output=True, text=True, check=False, timeout=60)
        self.assertEqual(ended.returncode, 2)
        self.assertIn("usage", ended.stderr)

    def test_only_the_border_is_exported(self):
        library = os.path.join(BUILT_AGENTS, "libsdk_probe.so")
        listed = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True)
        names = {line.split()[-1] for line in listed.stdout.splitlines()}
        self.assertLessEqual({"kai_agent_abi", "kai_agent_main", "kai_agent_library"}, names)
        self.assertEqual([name for name in names if "Probe" in name], [])

    def test_what_is_thrown_need_not_be_an_exception(self):
        runner = self.start(os.path.join(BUILT_AGENTS, "libsdk_probe.so")).start()
        with self.assertRaises(RunnerError) as caught:
            runner.ask("throw-int")
        self.assertIn("not a std::exception", caught.exception.message)
        self.assertEqual(runner.ask("echo", 1), 1)

    def test_deep_nesting_is_refused_not_recursed_over(self):
        runner = self.start(os.path.join(BUILT_AGENTS, "libsdk_probe.so")).start()
        deep = b'{"a":' * 150000 + b"1" + b"}" * 150000
        runner.send_line(b'{"jsonrpc":"2.0","id":1,"method":"message","params":' + deep + b"}")
        self.assertEqual(runner.read_document()["error"]["code"], -32700)
        self.assertEqual(runner.ask("echo", "[" * 1000), "[" * 1000)

    def test_the_documented_command_builds_an_agent_as_cpp_17(self):
        with tempfile.TemporaryDirectory(prefix="kai-sdk-test.") as directory:
            library = os.path.join(directory, "libecho.so")
            source = os.path.join(SOURCE, "examples", "echo-cpp", "echo.cc")
            include = os.path.join(SOURCE, "sdk", "cpp", "include")
            command = ["g++", "-std=c++17", "-O0", "-shared", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique"]
            command += ["-I", include]
            subprocess.run([*command, "-Wall", "-Wextra", "-Werror", source, "-o", library], check=True, timeout=300)
            runner = self.start(library).start()
            self.assertEqual(runner.ask("echo", {"a": [1]}), {"a": [1]})
            # Nothing of the build is needed to run this library but the runner.
            needed = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
            self.assertNotIn(BUILD, needed)
            # And it can make place for itself: the same file twice, with another version in between.
            others = [os.path.join(directory, name) for name in ("a", "b")]
            for other in others:
                os.mkdir(other)
                shutil.copy(library, os.path.join(other, "libagent.so"))
            for other in (*others, *others):
                self.swap(runner, other)
                self.assertEqual(runner.ask("echo", other), other)

    # ---- soft upgrades

    def packages(self, library, *others):
        """Two directories with the library under the same name, as the versions of one agent have it."""
        directory = tempfile.TemporaryDirectory(prefix="kai-sdk-test.")
        self.addCleanup(directory.cleanup)
        roots = [os.path.join(directory.name, name) for name in ("old", "new")]
        for root in roots:
            os.mkdir(root)
            shutil.copy(os.path.join(BUILT_AGENTS, library), os.path.join(root, "libagent.so"))
            for other in others:
                shutil.copy(os.path.join(BUILT_AGENTS, other), root)
        return roots

    def load_fails(self, runner, root, *texts):
        with self.assertRaises(RunnerError) as caught:
            runner.call("load", {"root": root, "entry": "libagent.so"})
        self.assertEqual(caught.exception.data["code"], "AGENT_ERROR")
        for text in texts:
            self.assertIn(text, caught.exception.message)
        self.assertEqual(runner.call("health")["status"], "healthy")

    def swap(self, runner, root):
        runner.call("load", {"root": root, "entry": "libagent.so"})
        runner.call("init", {**INIT, "next": True})
        runner.call("commit")

    def test_a_library_of_an_earlier_sdk_runs_and_gets_no_soft_upgrades(self):
        runner = self.start(os.path.join(BUILT_AGENTS, "libsdk_no_library.so"))
        runner.hello()
        runner.send_line(b"x")
        self.assertEqual(runner.wait(), 7)
        (root, _) = self.packages("libsdk_no_library.so")
        runner = self.start(os.path.join(BUILT_AGENTS, "libsdk_versions.so")).start()
        self.load_fails(runner, root, "an SDK that has no soft upgrades", "build it again, or upgrade hard")

    def test_versions_that_would_share_static_data_are_refused(self):
        old, new = self.packages("libsdk_shares_statics.so")
        runner = self.start(os.path.join(old, "libagent.so")).start()
        self.load_fails(runner, new, "-fvisibility=hidden", "upgrade hard")
        self.assertEqual(runner.ask("echo", 1), 1)

    def test_a_library_that_both_versions_bring_along_is_refused(self):
        old, new = self.packages("libsdk_brings_part.so", "libsdk_part.so")
        runner = self.start(os.path.join(old, "libagent.so")).start()
        self.load_fails(runner, new, os.path.join(old, "libsdk_part.so"), "upgrade hard")
        self.assertEqual(runner.ask("echo", 1), 1)

    def test_a_file_whose_threads_may_run_is_not_unloaded(self):
        old, new = self.packages("libsdk_versions.so")
        runner = self.start(os.path.join(old, "libagent.so")).start()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(os.path.join(new, "socket"))
            listening.listen()
            runner.ask("connect", listening.getsockname())
            connection, _ = listening.accept()
        self.swap(runner, new)
        self.load_fails(runner, old, "loaded before", "may still have threads", "upgrade hard")
        connection.close()

    def test_the_file_that_serves_is_not_loaded_again(self):
        old, _ = self.packages("libsdk_versions.so")
        runner = self.start(os.path.join(old, "libagent.so")).start()
        self.load_fails(runner, old, "is the version that serves")


if __name__ == "__main__":
    unittest.main()
