"""What agents' memory outlives: stop, crash, kill -9 of everything, damage to its file; and what it does not."""

import os
import pathlib
import unittest

import harness
import memory_agents
import packages
from memory_agents import BACKENDS, PERSISTENT, MemoryTest, config

EXAMPLES = harness.SOURCE / "examples"


class Lives(MemoryTest):
    """Agents of every type and backend, and everything that can happen to them."""

    @classmethod
    def prepare(cls):
        directory = cls.daemon.directory / "prepared"
        def workers(kind, backends):
            return cls.begin(*(memory_agents.worker(directory, f"{kind}-{backend}", memory=config(backend, kind))
                               for backend in backends))
        cls.volatile = workers("volatile", BACKENDS)
        cls.kept = workers("persistent", PERSISTENT) + workers("hybrid", PERSISTENT)
        cls.all = cls.volatile + cls.kept

    def write(self):
        """agent → (key, version) of an acknowledged write of this test's own."""
        key = self.id().rpartition(".")[2]
        return {agent: (key, self.done(agent, "set", key, {"of": agent})["version"]) for agent in self.all}

    def check_there(self, written, agents):
        for agent in agents:
            with self.subTest(agent=agent):
                key, version = written[agent]
                self.assertEqual(self.done(agent, "get_entry", key), {"value": {"of": agent}, "version": version})
                self.assertGreater(self.done(agent, "set", key, "next")["version"], version)
                self.assertEqual(self.done(agent, "get", key), "next")

    def check_gone(self, agents):
        for agent in agents:
            with self.subTest(agent=agent):
                self.assertEqual(self.done(agent, "list"), {"keys": []})

    def all_run(self):
        for agent in self.all:
            self.daemon.wait_for_state(agent, "running")

    def test_stop_and_start(self):
        written = self.write()
        for agent in self.all:
            self.ok("stop", agent)
            self.ok("start", agent)
        self.check_there(written, self.all)

    def test_a_crash(self):
        written = self.write()
        for agent in self.all:
            before = self.daemon.status(agent)["pid"]
            self.fails(1, "AGENT_CRASHED", "send", agent, "exit", '{"code":3}')
            self.wait_for_another(agent, before)
        self.check_there(written, self.all)

    def test_the_runner_killed(self):
        written = self.write()
        for agent in self.all:
            self.kill_in(agent, "runner")
        self.check_there(written, self.all)

    def test_the_host_killed(self):
        written = self.write()
        for agent in self.all:
            self.kill_in(agent, "host")
        self.check_there(written, self.all)

    def test_control_killed_and_the_agents_go_on(self):
        written = self.write()
        pids = {agent: self.daemon.status(agent)["pid"] for agent in self.all}
        self.daemon.kill_control()
        self.all_run()
        self.assertEqual({agent: self.daemon.status(agent)["pid"] for agent in self.all}, pids)
        self.check_there(written, self.all)

    def test_kaid_ended_and_began_anew(self):
        written = self.write()
        self.restart_kaid()
        self.all_run()
        self.check_there(written, self.kept)
        self.check_gone(self.volatile)

    def test_kaid_killed(self):
        written = self.write()
        self.kill_kaid()
        self.all_run()
        self.check_there(written, self.kept)
        self.check_gone(self.volatile)

    def test_terminate(self):
        written = self.write()
        for agent in self.all:
            self.ok("terminate", agent)
            self.ok("start", agent)
        self.check_there(written, self.kept)
        self.check_gone(self.volatile)

    def test_what_expires_expires_while_kaid_is_away(self):
        for agent in self.kept:
            self.done(agent, "set", "soon", 1, ttl=0.5)
        self.restart_kaid()
        for agent in self.kept:
            harness.wait_until(lambda: self.done(agent, "get_entry", "soon") is None, f"a key of {agent} to expire")


class Calendar(MemoryTest):
    @classmethod
    def prepare(cls):
        cls.begin(EXAMPLES / "calendar")

    def events(self):
        """Ids, in order of time; asked again while whoever is in between is not there."""
        asked = '{"from":"2026-05-04T00:00:00.000Z","to":"2026-05-05T00:00:00.000Z"}'

        def answered():
            outcome = self.daemon.ctl("send", "calendarAgent", "queryAvailability", asked)
            self.assertTrue(outcome.code == 0 or outcome.error["retryable"], outcome)
            return outcome.document["payload"] if outcome.code == 0 else None
        return [event["id"] for event in harness.wait_until(answered, "the calendar to answer")["busy"]]

    def test_an_event_outlives_everything(self):
        def restart():
            self.ok("stop", "calendarAgent")
            self.ok("start", "calendarAgent")
        ends = [restart, lambda: self.kill_in("calendarAgent", "runner"), lambda: self.kill_in("calendarAgent", "host"),
                self.daemon.kill_control, self.restart_kaid, self.kill_kaid]
        expected = []
        for hour, end in enumerate(ends):
            event = {"title": f"Event {hour}", "start": f"2026-05-04T{hour:02}:00:00.000Z",
                     "end": f"2026-05-04T{hour:02}:30:00.000Z"}
            expected.append(self.send("calendarAgent", "scheduleEvent", event)["id"])
            end()
            self.daemon.wait_for_state("calendarAgent", "running")
            self.assertEqual(self.events(), expected)


class Damage(MemoryTest):
    """SQLite files that were overwritten while kaid was away."""

    def overwrite(self, path, at, content):
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(content)

    def test_its_agent_is_refused_with_the_cause_and_nobody_else(self):
        damaged = {"header": lambda size: (0, os.urandom(100)), "middle": lambda size: (size // 3, os.urandom(size // 3)),
                   "all": lambda size: (0, b"not a database" * (size // 14))}
        agents = self.begin(*(memory_agents.worker(self.scratch, name, memory=config(backend))
                              for name, backend in {"header": "sqlite", "middle": "sqlite", "all": "indexeddb",
                                                    "sound": "sqlite", "asleep": "sqlite"}.items()))
        for agent in agents:
            self.done(agent, "set_many", {f"key/{number}": "x" * 2000 for number in range(100)})
            self.ok("memory", "export", agent, self.scratch / f"{agent}.export")
        self.ok("stop", "asleep")
        self.daemon.stop()
        memory = pathlib.Path(self.daemon.state, "memory")
        for agent in [*damaged, "asleep"]:
            path = memory / f"{agent}.db"
            self.overwrite(path, *damaged.get(agent, damaged["middle"])(path.stat().st_size))
        self.daemon.start()
        self.daemon.wait_for_state("sound", "running")
        self.assertEqual(len(self.done("sound", "list")["keys"]), 100)
        error = self.daemon.ctl("start", "asleep")
        self.assertNotEqual(error.code, 0, error)
        self.assertIn("damaged", error.error["message"], error)
        for agent in damaged:
            status = harness.wait_until(
                lambda: (s := self.daemon.status(agent)) and s["state"] != "starting" and s, f"{agent} to be refused")
            self.assertNotEqual(status["state"], "running", status)
            self.assertIn("damaged", status["lastEnd"]["message"], status)
        for agent in [*damaged, "asleep"]:
            with self.subTest(agent=agent):
                aside = list(memory.glob(f"{agent}.db.damaged-*"))
                self.assertEqual(len([path for path in aside if not path.name.endswith(("-wal", "-shm"))]), 1, aside)
                self.assertFalse((memory / f"{agent}.db").exists())
                self.check_begins_anew(agent)

    def check_begins_anew(self, agent):
        # kaid's own starts of it were refused; so is the first of an operator, who is told by it.
        if agent != "asleep":
            refused = self.daemon.ctl("start", agent)
            self.assertEqual((refused.code, refused.error["code"]), (1, "INTERNAL"), refused)
        self.ok("start", agent)
        self.daemon.wait_for_state(agent, "running")
        self.assertEqual(self.done(agent, "list"), {"keys": []})
        self.ok("stop", agent)
        self.assertEqual(self.ok("memory", "import", agent, self.scratch / f"{agent}.export").document["entries"], 100)
        self.ok("start", agent)
        self.assertEqual(self.done(agent, "get", "key/99"), "x" * 2000)


# IndexedDB's records are values too.
RECORDS = '''
export default class Records {
  #database;
  constructor(ctx) { this.ctx = ctx; }
  async onInit() {
    this.#database = await new Promise((resolve, reject) => {
      const request = indexedDB.open('notes', 1);
      request.onupgradeneeded = () => request.result.createObjectStore('notes');
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  }
  async onMessage(msg) {
    const transaction = this.#database.transaction('notes', msg.capability === 'put' ? 'readwrite' : 'readonly');
    const notes = transaction.objectStore('notes');
    const request = msg.capability === 'put' ? notes.put(msg.payload.value, msg.payload.key) : notes.get(msg.payload.key);
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  }
}
'''


class Encryption(MemoryTest):
    POLICIES = MemoryTest.POLICIES.replace("policies:\n", """policies:
- name: sealed
  agentId: "sealed*"
  memoryEncryption: true
""")
    SECRET = "what nobody else may read, 0123456789abcdef"

    def found(self, secret):
        """Files below STATE and RUNTIME that have it."""
        return sorted(str(path.relative_to(self.daemon.directory)) for top in (self.daemon.state, self.daemon.runtime)
                      for path in top.rglob("*") if path.is_file() and secret.encode() in path.read_bytes())

    def records(self, agent):
        return packages.package(self.scratch, agent, "main.mjs", RECORDS, mode=0o644, capabilities=["put", "get"],
                                memory=config("indexeddb"))

    def in_redis(self, secret):
        self.redis.ask("SAVE")
        return secret.encode() in (self.redis.directory / "dump.rdb").read_bytes()

    def test_no_file_has_a_value_in_plain_text(self):
        self.redis.ask("CONFIG", "SET", "rdbcompression", "no")
        for prefix in ("plain", "sealed"):
            agents = self.begin(*(memory_agents.worker(self.scratch, f"{prefix}-{backend}", memory=config(backend))
                                  for backend in BACKENDS))
            database = self.begin(self.records(f"{prefix}-database"))[0]
            secrets = {agent: f"{self.SECRET} {agent}" for agent in [*agents, database]}
            for agent in agents:
                self.done(agent, "set", "key", secrets[agent])
            self.send(database, "put", {"key": "k", "value": secrets[database]})
            for agent, secret in secrets.items():
                with self.subTest(agent=agent):
                    found = self.in_redis(secret) if agent.endswith("redis") else self.found(secret)
                    self.assertEqual(bool(found), prefix == "plain", found)
            self.check_readable(agents, database, secrets)
        self.assertEqual(pathlib.Path(self.daemon.state, "memory", "node.key").stat().st_mode & 0o777, 0o600)
        self.assertTrue(self.stats("sealed-sqlite")["encrypted"])

    def check_readable(self, agents, database, secrets):
        self.restart_kaid()
        for agent in [*agents, database]:
            self.daemon.wait_for_state(agent, "running")
            if agent == database:
                self.assertEqual(self.send(agent, "get", {"key": "k"}), secrets[agent])
            elif not agent.endswith("-memory"):
                self.assertEqual(self.done(agent, "get", "key"), secrets[agent])
                self.assertEqual(self.ok("memory", "get", agent, "key").document["value"], secrets[agent])

    def test_turned_on_and_off_it_converts_what_is_there(self):
        agents = self.begin(*(memory_agents.worker(self.scratch, f"turned-{backend}", memory=config(backend))
                              for backend in PERSISTENT))
        secrets = {agent: f"{self.SECRET} {agent}" for agent in agents}
        for agent in agents:
            self.done(agent, "set", "key", secrets[agent])
        for sealed in (True, False):
            self.daemon.write_policies(**{"05-turned": "policies:\n- name: turned\n  agentId: 'turned*'\n"
                                                       f"  memoryEncryption: {str(sealed).lower()}\n"})
            self.ok("reload")
            for agent in agents:
                self.ok("stop", agent)
                self.ok("start", agent)
                self.assertEqual(self.done(agent, "get", "key"), secrets[agent])
                self.assertEqual(self.stats(agent)["encrypted"], sealed)
                if not agent.endswith("redis"):
                    self.ok("stop", agent)
                    self.assertEqual(bool(self.found(secrets[agent])), not sealed, agent)
                    self.ok("start", agent)


if __name__ == "__main__":
    unittest.main()
