"""Agents whose memory is on a redis-server: apart from each other, and what they are told when it is down, talks
nonsense or says nothing."""

import os
import signal
import socket
import threading
import time
import unittest

import harness
import memory_agents
from memory_agents import MemoryTest, config

# redis_connection.h's kRedisDeadline, and what a loaded machine adds to it.
DEADLINE = 2
SLACK = 30 if harness.SANITIZED else 10


class NotRedis:
    """Listens where the server did. It says `greeting` to whoever connects, reads on, and answers with nothing else."""

    def __init__(self, path, greeting):
        path.unlink(missing_ok=True)
        self.greeting = greeting
        self.connections = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        path.chmod(0o777)
        self.listener.listen()
        self.path = path
        self.thread = threading.Thread(target=self.serve)

    def __enter__(self):
        self.thread.start()
        return self

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
                self.connections.append(connection)  # kept open: silence, not an end
                connection.sendall(self.greeting)
            except ConnectionError:
                continue
            except OSError:
                return

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        for connection in [self.listener, *self.connections]:
            connection.close()
        self.path.unlink()


class Redis(MemoryTest):
    REDIS_OPTIONS = ("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction")

    @classmethod
    def prepare(cls):
        directory = cls.daemon.directory / "prepared"
        cls.begin(memory_agents.worker(directory, "remote", memory=config("redis")),
                  memory_agents.worker(directory, "local", memory=config("sqlite")))

    def check_unavailable(self, agent, name, *args):
        began = time.monotonic()
        answer = self.call(agent, name, *args)
        self.assertEqual((answer.get("code"), answer.get("retryable")), ("UNAVAILABLE", True), answer)
        self.assertIn("redis", answer["message"])
        self.assertLess(time.monotonic() - began, DEADLINE + SLACK)

    def check_others(self):
        began = time.monotonic()
        self.done("local", "set", "k", 1)
        self.assertEqual(self.done("local", "get", "k"), 1)
        self.assertLess(time.monotonic() - began, SLACK)

    def check_back(self, key, value):
        self.start_redis()
        self.assertEqual(self.done("remote", "get", key), value)
        self.assertGreater(self.done("remote", "set", key, value)["version"], 0)

    def test_two_agents_do_not_see_each_other(self):
        ids = ["twin", "twin.a", "twi", "Twin", "twin-1"]
        agents = self.begin(*(memory_agents.worker(self.scratch, agent, memory=config("redis")) for agent in ids))
        for agent in agents:
            self.done(agent, "set_many", {"shared": agent, f"own/{agent}": 1, "kai:{twin}:v": 1, "*": 1})
        for agent in agents:
            self.assertEqual(self.done(agent, "get", "shared"), agent)
            self.assertEqual(self.done(agent, "list")["keys"], sorted(["*", "kai:{twin}:v", f"own/{agent}", "shared"]))
        names = self.redis.ask("KEYS", "*").splitlines()
        self.assertTrue(all(name.startswith("kai:{") for name in names), names)
        for agent in agents:
            self.assertTrue(any(name.startswith(f"kai:{{{agent}}}:") for name in names), (agent, names))
        self.ok("terminate", "twin", "--purge")
        for agent in agents[1:]:
            self.assertEqual(self.done(agent, "get", "shared"), agent)

    def test_killed_it_is_unavailable_and_back_it_works(self):
        self.done("remote", "set", "kept", "acknowledged")
        self.redis.kill()
        self.check_unavailable("remote", "get", "kept")
        self.check_unavailable("remote", "set", "kept", "other")
        self.check_unavailable("remote", "list")
        self.check_others()
        self.check_back("kept", "acknowledged")

    def test_a_start_while_it_is_down_says_so(self):
        agent = self.begin(memory_agents.worker(self.scratch, "starting", memory=config("redis")))[0]
        self.done(agent, "set", "a", 1)
        self.ok("stop", agent)
        self.redis.kill()
        outcome = self.daemon.ctl("memory", "get", agent, "a")
        self.assertEqual((outcome.code, outcome.error["code"], outcome.error["retryable"]), (1, "UNAVAILABLE", True), outcome)
        self.restart_kaid()
        outcome = self.daemon.ctl("start", agent)
        self.assertNotEqual(outcome.code, 0, outcome)
        self.assertIn("redis", outcome.error["message"], outcome)
        self.start_redis()
        self.ok("start", agent)
        self.assertEqual(self.done(agent, "get", "a"), 1)

    def test_kaids_own_start_waits_for_it(self):
        self.done("remote", "set", "waits", 1)
        self.redis.kill()
        self.restart_kaid()
        self.assertEqual(self.daemon.status("remote")["state"], "starting")
        self.check_others()
        self.start_redis()
        self.daemon.wait_for_state("remote", "running")
        self.assertEqual(self.done("remote", "get", "waits"), 1)

    def test_a_start_that_waits_for_it_can_be_stopped(self):
        agent = self.begin(memory_agents.worker(self.scratch, "patient", memory=config("redis")))[0]
        self.done(agent, "set", "a", 1)
        self.redis.kill()
        self.restart_kaid()
        self.assertEqual(self.daemon.status(agent)["state"], "starting")
        self.ok("stop", agent)
        self.assertEqual(self.daemon.status(agent)["state"], "stopped")
        outcome = self.daemon.ctl("terminate", agent, "--purge")
        self.assertNotEqual(outcome.code, 0, "what is on a server that is down cannot be removed")
        self.assertTrue(outcome.error["retryable"], outcome)
        outcome = self.daemon.ctl("unregister", agent)
        self.assertNotEqual(outcome.code, 0, outcome)
        self.start_redis()
        self.daemon.wait_for_state("remote", "running")
        self.assertEqual(self.ok("memory", "get", agent, "a").document["value"], 1)
        self.ok("terminate", agent, "--purge")
        self.ok("unregister", agent)
        self.assertEqual(self.redis.ask("KEYS", f"kai:{{{agent}}}:*"), "")

    def test_nonsense_and_silence_cost_only_a_deadline(self):
        greetings = {"silence": b"", "noise": os.urandom(4096), "text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
                     "unasked": b"+OK\r\n" * 100, "nested": b"*1\r\n" * 10_000, "huge": b"$999999999\r\n",
                     "many": b"*2147483647\r\n", "half": b"$10\r\nab", "error": b"-LOADING\r\n" * 3}
        for name, greeting in greetings.items():
            with self.subTest(greeting=name):
                self.done("remote", "set", "kept", name)
                self.redis.kill()
                with NotRedis(self.redis.socket, greeting):
                    self.check_unavailable("remote", "get", "kept")
                    self.check_others()
                self.check_back("kept", name)

    def test_a_server_that_stops_in_the_middle_costs_only_a_deadline(self):
        self.done("remote", "set", "kept", 1)
        os.kill(self.redis.process.pid, signal.SIGSTOP)
        try:
            self.check_unavailable("remote", "get", "kept")
            self.check_others()
        finally:
            os.kill(self.redis.process.pid, signal.SIGCONT)
        self.assertEqual(self.done("remote", "get", "kept"), 1)

    def test_what_the_server_lost_is_not_taken_for_an_empty_memory(self):
        agent = self.begin(memory_agents.worker(self.scratch, "robbed", memory=config("redis")))[0]
        self.done(agent, "set_many", {"a": 1, "b": 2})
        for name in self.redis.ask("KEYS", f"kai:{{{agent}}}:*").splitlines():
            self.redis.ask("DEL", name)
        self.assertEqual(self.call(agent, "get_many", ["a", "b"]).get("code"), "UNAVAILABLE")
        self.assertEqual(self.call(agent, "set", "a", 1).get("code"), "UNAVAILABLE")
        self.ok("terminate", agent, "--purge")
        self.ok("start", agent)
        self.assertEqual(self.done(agent, "list"), {"keys": []})

    def test_a_server_that_evicts_is_reported(self):
        self.redis.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        try:
            self.restart_kaid()
            self.done("remote", "list")
            harness.wait_until(lambda: "may evict" in self.daemon.log, "kaid to say that its server evicts")
        finally:
            self.redis.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


class NoServer(harness.DaemonTest):
    def test_without_a_server_in_kaid_yaml_the_start_says_so(self):
        self.ok("register", memory_agents.worker(self.scratch, "remote", memory=config("redis")))
        outcome = self.daemon.ctl("start", "remote")
        self.assertNotEqual(outcome.code, 0, outcome)
        self.assertIn("kaid.yaml", outcome.error["message"])


if __name__ == "__main__":
    unittest.main()
