"""What only the Node SDK has to do: both module systems, shapes of an entry, crashes, processors, bounds."""

import os
import subprocess
import unittest

from host import AGENTS, ESBUILD, INIT, NODE, SDK, Package, Runner, RunnerError, node_command

ECHO = "export default class { onMessage(msg) { return msg.payload; } }"


class NodeTest(unittest.TestCase):
    def setUp(self):
        self.package = Package()
        self.addCleanup(self.package.cleanup)

    def runner(self, entry, environment=None):
        runner = Runner(node_command(entry), environment)
        self.addCleanup(runner.__exit__)
        return runner

    def entry(self, name, text):
        return self.package.write(name, text)

    def evaluate(self, name, text):
        return subprocess.run(
            [NODE, self.entry(name, text)], capture_output=True, text=True, check=True, timeout=60
        ).stdout.strip()

    def echoes(self, name, text):
        runner = self.runner(self.entry(name, text)).start()
        self.assertEqual(runner.ask("echo", {"a": 1}), {"a": 1})
        return runner

    # ---- entries

    def test_the_entry_may_be_a_class_an_object_or_a_module_in_either_system(self):
        entries = {
            "class.mjs": ECHO,
            "object.mjs": "export default { onMessage: (msg) => msg.payload };",
            "module.mjs": "export async function onMessage(msg) { return msg.payload; }",
            "class.cjs": "module.exports = class { onMessage(msg) { return msg.payload; } };",
            "object.cjs": "module.exports = { onMessage(msg) { return msg.payload; } };",
            "module.cjs": "exports.onMessage = (msg) => msg.payload;",
            "transpiled.cjs": "Object.defineProperty(exports, '__esModule', { value: true });"
            "exports.default = class { onMessage(msg) { return msg.payload; } };",
            "plain.js": "module.exports = { onMessage: (msg) => msg.payload };",
            "function.cjs": "function A() {} A.prototype.onMessage = (msg) => msg.payload; module.exports = A;",
        }
        for name, text in entries.items():
            with self.subTest(entry=name):
                self.echoes(name, text)

    def test_hooks_of_an_object_get_the_context(self):
        text = "export default { onMessage: (msg, ctx) => ctx.manifest.id, onInit: (ctx) => ctx.log.info('init') };"
        runner = self.runner(self.entry("object.mjs", text)).start()
        self.assertEqual(runner.ask("id"), "probe")
        runner.wait_log("init")

    def test_an_entry_without_hooks_is_an_error_of_init(self):
        for text in ("", "export default 7;", "export default class {}", "export default () => {};"):
            with self.subTest(text=text):
                runner = self.runner(self.entry("none.mjs", text))
                runner.hello()
                with self.assertRaisesRegex(RunnerError, "neither a class nor an object"):
                    runner.call("init", INIT)

    def test_an_entry_that_cannot_be_loaded_is_an_error_of_init(self):
        for text, expected in (
            ("throw new Error('at the top');", "at the top"),
            ("this is no JavaScript", "Unexpected identifier"),
            ("import 'nowhere-to-be-found';", "nowhere-to-be-found"),
            ("export default class { constructor() { throw new Error('in the constructor'); } }", "in the constructor"),
        ):
            with self.subTest(text=text):
                runner = self.runner(self.entry("broken.mjs", text))
                runner.hello()
                with self.assertRaises(RunnerError) as caught:
                    runner.call("init", INIT)
                self.assertIn(expected, caught.exception.message)
                self.assertEqual(caught.exception.data["code"], "AGENT_ERROR")

    def test_an_agent_without_on_message(self):
        runner = self.runner(self.entry("mute.mjs", "export default { onInit() {} };")).start()
        with self.assertRaises(RunnerError) as caught:
            runner.ask("echo")
        self.assertEqual(caught.exception.data["code"], "UNKNOWN_CAPABILITY")

    def test_both_module_systems_get_the_same_sdk(self):
        text = """
            import { createRequire } from 'node:module';
            import { AgentError, reply } from '@kai/agent';
            const required = createRequire(import.meta.url)('@kai/agent');
            console.log(required.AgentError === AgentError, required.reply === reply);
        """
        self.assertEqual(self.evaluate("both.mjs", text), "true true")

    def test_reply_answers_the_message(self):
        text = """
            const { reply } = require('@kai/agent');
            console.log(JSON.stringify(reply({ id: 'i', from: 'a', to: 'b', capability: 'c' }, 5)));
        """
        answer = self.evaluate("reply.cjs", text)
        self.assertRegex(answer, r'"from":"b","to":"a","type":"response","correlationId":"i"')
        self.assertRegex(answer, r'"id":"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"')

    def test_a_whole_message_may_be_the_answer(self):
        runner = self.runner(self.package.copy(os.path.join(AGENTS, "probe.mjs"))).start()
        answer = runner.call("message", runner.message("whole", payload={"a": 1}))["message"]
        self.assertEqual((answer["payload"], answer["metadata"]), ({"a": 1}, {"priority": "high"}))
        self.assertEqual((answer["type"], answer["to"]), ("response", "operator"))
        # A payload that only looks a little like a message is a payload.
        self.assertEqual(runner.ask("echo", {"protocol": "klp/1.0", "id": "x"}), {"protocol": "klp/1.0", "id": "x"})

    def test_half_of_a_surrogate_pair_becomes_valid_json(self):
        text = "export default { onMessage: () => ['\\ud800', '\\\\ud800', '🦊'] };"
        self.assertEqual(self.runner(self.entry("half.mjs", text)).start().ask("half"), ["\ufffd", "\\ud800", "🦊"])

    # ---- TypeScript

    def test_stacks_name_lines_of_the_typescript_source(self):
        source = self.entry(
            "main.ts",
            "import type { KLPMessage } from '@kai/agent';\n\ninterface Unused { a: string }\n\n"
            "export default class {\n  onMessage(m: KLPMessage): never {\n    throw new Error('on line 7');\n  }\n}\n",
        )
        compiled = os.path.join(self.package.path, ".kai", "main.mjs")
        options = ["--bundle", "--platform=node", "--format=esm", "--packages=external", "--sourcemap=inline"]
        options += [f"--outfile={compiled}", "--log-level=error"]
        subprocess.run([ESBUILD, source, *options], check=True, timeout=60)
        runner = self.runner(compiled).start()
        with self.assertRaises(RunnerError) as caught:
            runner.ask("throw")
        self.assertIn("main.ts:7:11", caught.exception.data["stack"])

    # ---- concurrency, bounds, crashes

    def test_messages_overtake_each_other(self):
        runner = self.runner(self.package.copy(os.path.join(AGENTS, "probe.mjs"))).start()
        held = runner.request("message", runner.message("hold", payload="a"))
        self.assertEqual(runner.ask("echo", 1), 1)
        self.assertEqual(runner.call("health")["status"], "healthy")
        runner.ask("release", "a")
        self.assertEqual(runner.answer(held)["payload"], "held a")

    def test_more_messages_than_the_limit_are_refused(self):
        runner = self.runner(self.package.copy(os.path.join(AGENTS, "probe.mjs")))
        runner.start(limits={"messageMs": 1000, "inFlight": 2, "frameBytes": 1 << 20})
        held = [runner.request("message", runner.message("hold", payload=n)) for n in range(2)]
        with self.assertRaises(RunnerError) as caught:
            runner.ask("echo", 1)
        self.assertEqual((caught.exception.data["code"], caught.exception.data["retryable"]), ("BUSY", True))
        runner.close()
        self.assertEqual(runner.wait(), 0)
        self.assertEqual(len(held), 2)

    def test_log_records_give_way_when_the_host_does_not_read(self):
        runner = self.runner(self.package.copy(os.path.join(AGENTS, "probe.mjs"))).start()
        asked = runner.request("message", runner.message("log-many", payload=100000))  # 100 MB of records
        self.assertEqual(runner.process.stdout.readline(), b"logged\n")  # all said while nothing was read
        runner.answer(asked)
        runner.ask("log", "after")
        dropped = runner.wait_log("log records were dropped")
        self.assertGreater(int(dropped["params"]["message"].split()[0]), 90000)
        self.assertLess(runner.resident_megabytes(), 250)

    def test_answers_that_the_host_does_not_read_cost_bounded_memory(self):
        # 60 MiB of answers: beyond 16 the runner stops reading. The requests that wait then fit the socket's buffer.
        runner = self.runner(self.package.copy(os.path.join(AGENTS, "probe.mjs"))).start()
        asked = [runner.request("message", runner.message("make-text", payload=1 << 20)) for _ in range(60)]
        self.assertEqual({len(runner.answer(one)["payload"]) for one in asked}, {1 << 20})
        self.assertLess(runner.resident_megabytes(), 300)

    def test_an_uncaught_exception_is_a_crash(self):
        runner = self.runner(self.package.copy(os.path.join(AGENTS, "probe.mjs"))).start()
        runner.request("message", runner.message("crash"))
        self.assertEqual(runner.wait(), 1)
        self.assertIn("out of the blue", runner.stderr())

    def test_an_unhandled_rejection_is_a_crash(self):
        text = "export default { onMessage() { Promise.reject(new Error('left alone')); } };"
        runner = self.runner(self.entry("reject.mjs", text)).start()
        runner.request("message", runner.message("do"))
        self.assertEqual(runner.wait(), 1)
        self.assertIn("left alone", runner.stderr())

    def test_what_is_thrown_need_not_be_an_error(self):
        shown = {"'text'": "text", "{ a: 1 }": '{"a":1}', "undefined": "undefined", "null": "null"}
        for thrown, expected in shown.items():
            with self.subTest(thrown=thrown):
                runner = self.runner(self.entry("odd.mjs", f"export default {{ onMessage() {{ throw {thrown}; }} }};"))
                with self.assertRaises(RunnerError) as caught:
                    runner.start().ask("throw")
                self.assertEqual(caught.exception.message, expected)

    # ---- soft upgrades

    def begin(self, runner, root, entry):
        runner.call("load", {"root": root, "entry": entry})
        runner.call("init", {**INIT, "next": True})

    def test_a_bundle_and_its_packages_are_fresh(self):
        # As the keeper makes it of main.ts: local modules are in it, those of node_modules are not.
        bundle = """
            import { count } from 'counts';
            import { AgentError } from '@kai/agent';
            export default class { onMessage() { return [count(), import.meta.url, AgentError.name]; } };
        """
        root = self.package.path
        self.entry(".kai/main.mjs", bundle)
        self.entry("node_modules/counts/package.json", '{"name": "counts", "type": "module", "exports": "./index.js"}')
        module = "import inner from './inner.cjs'; export const count = () => inner.next();"
        self.entry("node_modules/counts/index.js", module)
        self.entry("node_modules/counts/inner.cjs", "let n = 0; exports.next = () => ++n;")
        runner = self.runner(os.path.join(root, ".kai", "main.mjs")).start()
        for _ in range(3):
            self.assertEqual([runner.ask("count")[0] for _ in range(3)], [1, 2, 3])
            self.begin(runner, root, ".kai/main.mjs")
            runner.call("discard")
            self.assertEqual(runner.ask("count")[0], 4)
            self.begin(runner, root, ".kai/main.mjs")
            runner.call("commit")

    def test_discard_leaves_the_serving_versions_late_requires(self):
        # The same package: of CommonJS modules there is one cache.
        self.entry("part.cjs", "let n = 0; exports.next = () => ++n;")
        entry = self.entry("main.cjs", "require('./part.cjs'); exports.onMessage = () => require('./part.cjs').next();")
        runner = self.runner(entry).start()
        self.assertEqual(runner.ask("count"), 1)
        self.begin(runner, self.package.path, "main.cjs")
        runner.call("discard")
        self.assertEqual(runner.ask("count"), 2)

    def test_an_es_module_that_was_required_is_not_loaded_again(self):
        # Node 20.19 can require() one, and has no way to forget it; earlier ones cannot.
        self.entry("part.mjs", "export const name = 'part';")
        text = "let part; try { part = require('./part.mjs'); } catch {} exports.onMessage = () => part?.name ?? null;"
        runner = self.runner(self.entry("main.cjs", text)).start()
        if runner.ask("name") is None:
            self.begin(runner, self.package.path, "main.cjs")
            return
        with self.assertRaisesRegex(RunnerError, "loaded by require.*upgrade hard"):
            runner.call("load", {"root": self.package.path, "entry": "main.cjs"})
        self.assertEqual(runner.ask("name"), "part")

    def test_code_that_never_ends_to_load_is_discarded(self):
        runner = self.runner(self.entry("main.mjs", ECHO)).start()
        self.entry("next.mjs", "await new Promise((resolve) => setTimeout(resolve, 2 ** 30)); export default class {}")
        loading = runner.request("load", {"root": self.package.path, "entry": "next.mjs"})
        self.assertEqual(runner.ask("echo", 1), 1)
        self.assertEqual(runner.call("discard"), {})
        with self.assertRaises(RunnerError) as caught:
            runner.answer(loading)
        self.assertEqual(caught.exception.data["code"], "NOT_RUNNING")
        self.assertEqual(runner.ask("echo", 2), 2)

    def test_an_agent_that_is_an_object(self):
        text = "let n = 0; export default { onMessage: (msg, ctx) => [ctx.manifest.version, ++n] };"
        runner = self.runner(self.entry("main.mjs", text)).start()
        self.assertEqual(runner.ask("which"), ["1.2.3", 1])
        runner.call("load", {"root": self.package.path, "entry": "main.mjs"})
        runner.call("init", {**INIT, "manifest": {"version": "2.0.0"}, "next": True})
        runner.call("commit")
        self.assertEqual(runner.ask("which"), ["2.0.0", 1])

    # ---- surroundings

    def test_the_programs_that_an_agent_starts_have_no_channel(self):
        text = """
            import { execFileSync } from 'node:child_process';
            const run = (command) => execFileSync('/bin/sh', ['-c', command]).toString().trim();
            const ask = () => [run('readlink /proc/self/fd/3 || echo none'), run('echo "$KAI_RUNNER_FD"')];
            export default { onMessage: ask };
        """
        self.assertEqual(self.runner(self.entry("child.mjs", text)).start().ask("child"), ["none", ""])

    def test_processors_are_known_without_proc(self):
        text = """
            import os, { cpus } from 'node:os';
            const ask = () => [cpus().length, os.cpus().length, os.availableParallelism(), typeof cpus()[0].model];
            export default { onMessage: ask };
        """
        entry = self.entry("cpus.mjs", text)
        self.assertEqual(self.runner(entry, {"KAI_CPUS": "3"}).start().ask("cpus"), [3, 3, 3, "string"])
        usable = len(os.sched_getaffinity(0))
        self.assertEqual(self.runner(entry).start().ask("cpus")[2], usable)

    def test_processors_are_known_where_node_finds_none(self):
        # What Node sees under subset=pid, which takes a mount namespace to make: os.cpus() finds nothing.
        text = f"""
            import os from 'node:os';
            os.cpus = () => [];
            const {{ supplyCpus }} = await import('{SDK}/node/lib/cpus.mjs');
            supplyCpus(undefined);
            console.log(os.cpus().length === os.availableParallelism() && os.cpus().length > 0);
        """
        self.assertEqual(self.evaluate("none.mjs", text), "true")

    def test_without_an_entry_usage_is_told(self):
        ended = subprocess.run(
            [NODE, os.path.join(SDK, "node", "runner.mjs")], capture_output=True, text=True, check=False, timeout=60
        )
        self.assertEqual(ended.returncode, 2)
        self.assertIn("usage", ended.stderr)


if __name__ == "__main__":
    unittest.main()
