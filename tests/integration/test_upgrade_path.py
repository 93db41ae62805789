"""Which version may follow which: what is refused, what needs --force, and what a dry run says of it all."""

import json
import os
import unittest

import harness
import upgrade_agents
from upgrade_case import UpgradeTest

NETWORK = {"networkAccess": {"allowOutbound": True, "allowedDomains": ["given.example", "asked.example"]}}


class Path(UpgradeTest):
    MORE_POLICIES = """- name: network
  agentId: "net*"
  network: {allowedDomains: [given.example], hosts: {given.example: 127.0.0.1}}
"""

    code = "INVALID"

    def refused(self, agent, what, says, kind="soft", *options):
        """Refused, whatever --force says; nothing is changed."""
        for force in ((), ("--force",)):
            self.check_refused(agent, what, says, kind, *options, *force)

    def check_refused(self, agent, what, says, kind, *options):
        before = self.versions(agent)
        error = self.fails(5, self.code, "upgrade", agent, what, "--type", kind, *options)
        self.assertRegex(error["message"] + json.dumps(error.get("details")), says)
        self.assertEqual(self.versions(agent), before)
        self.check_store(agent)
        return error

    def needs_force(self, agent, what, says, kind="soft"):
        """Refused without --force; with it done, and on record as such."""
        error = self.check_refused(agent, what, says, kind)
        self.assertIn("--force", error["hint"])
        result = self.upgrade(agent, what, kind, "--force")
        self.assertTrue(result["forced"])
        record = self.upgrades(agent)[-1]
        self.assertEqual((record["forced"], record["operatorUid"]), (True, os.geteuid()))
        return result

    def test_an_older_version(self):
        agent = self.begin("down", number="1.2.0")
        self.needs_force(agent, self.version(agent, "1.1.9"), "older")
        self.check_serves(agent, "1.1.9")

    def test_a_prerelease_is_older_than_its_release(self):
        agent = self.begin("pre", number="1.2.0")
        self.check_refused(agent, self.version(agent, "1.2.0-rc.1"), "older", "soft")

    def test_the_same_version(self):
        agent = self.begin("same")
        self.refused(agent, self.version(agent, "1.0.0"), "active already")
        self.refused(agent, self.version(agent, "1.0.0", name="Other bytes"), "other bytes")

    def test_another_id(self):
        agent = self.begin("one")
        package = self.version("two", "1.1.0")
        error = self.fails(5, "INVALID", "upgrade", agent, package, "--force")
        self.assertIn("two", error["message"] + json.dumps(error.get("details")))
        self.fails(4, "NOT_FOUND", "versions", "two")
        self.assertEqual(self.stored("two"), set())

    def test_who_is_not_there(self):
        agent = self.begin("here")
        self.fails(4, "NOT_FOUND", "upgrade", "nobody", self.version("nobody", "1.0.0"))
        self.fails(4, "NOT_FOUND", "upgrade", agent, "9.9.9")
        self.fails(4, "NOT_FOUND", "rollback", "nobody")
        self.fails(4, "NOT_FOUND", "rollback", agent, "9.9.9")
        self.fails(4, "NOT_FOUND", "rollback", agent)
        self.fails(4, "NOT_FOUND", "versions", "nobody")
        self.check_serves(agent, "1.0.0")

    def test_a_capability_that_others_count_on(self):
        agent = self.begin("relied")
        dependency = {"name": agent, "version": "^1.0.0", "type": "agent", "required": True}
        self.begin("relying", dependencies=[dependency])
        fewer = [each for each in upgrade_agents.CAPABILITIES if each != "sick"]
        self.needs_force(agent, self.version(agent, "1.1.0", capabilities=fewer), "no capability sick.*relying")
        self.fails(5, "UNKNOWN_CAPABILITY", "send", agent, "sick")
        self.needs_force(agent, self.version(agent, "2.0.0", capabilities=fewer), "relying depends on")

    def test_a_capability_that_nobody_counts_on(self):
        agent = self.begin("free")
        self.upgrade(agent, self.version(agent, "1.1.0", capabilities=["report"]))
        self.check_serves(agent, "1.1.0")
        self.fails(5, "UNKNOWN_CAPABILITY", "send", agent, "count", '{"number":1}')

    def test_more_than_the_policy_gives(self):
        self.code = "DENIED"
        agent = self.begin("netAgent")
        self.needs_force(agent, self.version(agent, "1.1.0", security=NETWORK), "asked.example", "hard")
        self.check_serves(agent, "1.1.0")

    def test_more_that_the_policy_gives(self):
        agent = self.begin("netGiven")
        given = {"networkAccess": {"allowOutbound": True, "allowedDomains": ["given.example"]}}
        package = self.version(agent, "1.1.0", security=given)
        plan = self.ok("upgrade", agent, package, "--type", "hard", "--dry-run").document
        self.assertIn("given.example", json.dumps(plan["findings"]))
        self.upgrade(agent, package, "hard")
        self.check_serves(agent, "1.1.0")

    def test_another_memory(self):
        def memory(backend):
            return {"type": "persistent", "backend": backend, "persistent": True}
        agent = self.begin("keeps", memory=memory("indexeddb"))
        self.needs_force(agent, self.version(agent, "1.1.0", memory=memory("sqlite")), "memory", "hard")
        self.check_serves(agent, "1.1.0")

    def test_what_needs_a_process_of_its_own_is_refused_softly_and_told_why(self):
        changes = {
            "another runtime": dict(language="node"),
            "runtime.env": dict(runtime={"env": {"MORE": "1"}}),
            "files": dict(security={"fileAccess": {"allowedPaths": [upgrade_agents.GATE, "/data"], "readOnly": False, "tempFileAccess": True}}),
            "network": dict(security={"networkAccess": {"allowOutbound": True, "allowedDomains": ["given.example"]}}),
        }
        for says, change in changes.items():
            with self.subTest(says=says):
                agent = self.begin("netProcess" + str(len(says)))
                process = self.process(agent)
                package = self.version(agent, "1.1.0", **change)
                self.refused(agent, package, says)
                self.assertEqual(self.process(agent), process)
                self.upgrade(agent, package, "hard")
                self.check_serves(agent, "1.1.0")

    def test_exec_agents_have_hard_upgrades_only(self):
        agent = self.begin_with("program", upgrade_agents.exec_version(self.scratch, "program", "1.0.0"))
        new = upgrade_agents.exec_version(self.scratch, agent, "1.1.0")
        self.refused(agent, new, "exec")
        result = self.upgrade(agent, new, "hard")
        self.assertEqual((result["type"], self.active(agent)), ("hard", "1.1.0"))
        harness.wait_until(lambda: "version 1.1.0 runs" in self.ok("logs", agent).stdout, "the new program's word")
        self.assertEqual(self.rollback(agent)["to"], "1.0.0")
        self.daemon.wait_for_state(agent, "running")
        self.assertEqual(self.active(agent), "1.0.0")

    def test_a_dry_run_changes_nothing_and_tells_all(self):
        agent = self.begin("dry")
        def everything():
            audit = self.ok("audit", "list", agent).records
            return self.versions(agent), self.stored(agent), self.process(agent), audit[-1]["seq"], self.report(agent)["hooks"]
        self.report(agent)
        before = everything()[:3]
        document = self.ok("upgrade", agent, self.version(agent, "1.1.0"), "--dry-run").document
        self.assertIn("1.1.0", json.dumps(document))
        self.assertEqual(everything()[:3], before)
        self.assertEqual(self.report(agent)["hooks"], ["onInit", "onStart"])
        self.assertEqual(self.upgrades(agent), [])
        plan = self.daemon.ctl("upgrade", agent, self.version(agent, "0.9.0"), "--dry-run")
        self.assertIn("older", plan.stdout + plan.stderr)
        self.assertEqual(everything()[:3], before)
        self.check_store(agent)
        text = self.ok("upgrade", agent, self.version(agent, "1.1.0"), "--dry-run", text_mode=True).stdout
        self.assertRegex(text, "1\\.0\\.0.*1\\.1\\.0")


if __name__ == "__main__":
    unittest.main()
