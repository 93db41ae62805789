"""The audit's acceptance: whatever is done to a record in STATE/audit/audit.db, with kaid stopped or under its nose,
`kaictl audit verify` exits 1 and names the record; untouched it exits 0, with kaid and from an export alone."""

import base64
import collections
import hashlib
import shutil
import sqlite3
import unittest

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import harness
import packages

SENDS = 5


def body(database, seq):
    return bytes(database.execute("SELECT body FROM records WHERE seq = ?", (seq,)).fetchone()[0])


def put_body(database, seq, data):
    database.execute("UPDATE records SET body = ? WHERE seq = ?", (data, seq))


# Each changes one record of the open database, or those from it on, and returns the numbers of which the check must
# name one.

def edit(database, seq):
    changed = body(database, seq).replace(b'"agentId":"talker"', b'"agentId":"walker"')
    assert changed != body(database, seq)
    put_body(database, seq, changed)
    return {seq}


def delete(database, seq):
    database.execute("DELETE FROM records WHERE seq = ?", (seq,))
    return {seq}


def reorder(database, seq):
    first, second = body(database, seq), body(database, seq + 1)
    put_body(database, seq, second)
    put_body(database, seq + 1, first)
    return {seq, seq + 1}


def truncate(database, seq):
    """The tail of the log goes with everything that is known of it in the database."""
    database.execute("DELETE FROM records WHERE seq >= ?", (seq,))
    database.execute("DELETE FROM agent_records WHERE seq >= ?", (seq,))
    database.execute("DELETE FROM checkpoints WHERE size >= ?", (seq,))
    return set(range(seq - 1, seq + 2))


def sign_anew(database, seq):
    """The newest checkpoint signed by a key of the attacker's, under the name and the key hash of the real one."""
    size, note = database.execute("SELECT size, note FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
    text, _, signature = bytes(note).decode().rpartition("\n\n")
    name, encoded = signature.strip().removeprefix("— ").rsplit(" ", 1)
    forged = base64.b64decode(encoded)[:4] + Ed25519PrivateKey.generate().sign(text.encode() + b"\n")
    note = f"{text}\n\n— {name} {base64.b64encode(forged).decode()}\n".encode()
    database.execute("UPDATE checkpoints SET note = ? WHERE size = ?", (note, size))
    return {size}


def edit_and_sign_anew(database, seq):
    """What the database knows of the record is made to fit, but for the signature, which cannot be."""
    named = edit(database, seq)
    changed = hashlib.sha256(b"\x00" + body(database, seq)).digest()
    size, leaves = database.execute("SELECT size, leaves FROM checkpoints WHERE size >= ? ORDER BY size LIMIT 1",
                                    (seq,)).fetchone()
    at = len(leaves) - 32 * (size - seq + 1)
    database.execute("UPDATE checkpoints SET leaves = ? WHERE size = ?", (leaves[:at] + changed + leaves[at + 32:], size))
    return named | sign_anew(database, seq) | {size}


ATTACKS = [edit, delete, reorder, truncate, sign_anew, edit_and_sign_anew]


class Audit(harness.DaemonTest):
    """One log with an agent's life and messages in it."""

    @classmethod
    def prepare(cls):
        path = packages.probe(cls.daemon.directory / "prepared", "talker")
        for command in [["register", path], ["start", "talker"]] + [["send", "talker", "echo", str(n)] for n in range(SENDS)]:
            outcome = cls.daemon.ctl(*command)
            assert outcome.code == 0, f"{outcome}\nlog:\n{cls.daemon.log[-4000:]}"

    @property
    def files(self):
        return self.daemon.state / "audit"

    def database(self):
        database = sqlite3.connect(self.files / "audit.db", timeout=harness.PATIENCE)
        self.addCleanup(database.close)
        return database

    def target(self):
        """A record of a message, with others of the same agent on both sides."""
        records = [record for record in self.ok("audit", "list", "talker").records if record["event"] == "message_received"]
        return records[1]["seq"]

    def assert_valid(self, *options):
        outcome = self.daemon.ctl("audit", "verify", *options)
        self.assertEqual(outcome.code, 0, outcome)
        self.assertEqual((outcome.document["valid"], outcome.document["findings"]), (True, []))
        return outcome.document

    def assert_found(self, named, *options, what=""):
        outcome = self.daemon.ctl("audit", "verify", *options)
        self.assertEqual(outcome.code, 1, f"{what}: {outcome}")
        findings = outcome.document["findings"]
        self.assertTrue({finding["seq"] for finding in findings} & named, f"{what}: one of {named} is named: {findings}")
        text = self.daemon.ctl("audit", "verify", *options, text_mode=True)
        self.assertEqual(text.code, 1, f"{what}: {text}")
        self.assertTrue(any(f"record {seq}" in text.stdout + text.stderr for seq in named), f"{what}: {text}")


class Untouched(Audit):
    def test_it_verifies_and_goes_on_to_after_more_and_after_a_restart(self):
        first = self.assert_valid()
        self.send("talker", "echo", "more")
        self.assertGreater(self.assert_valid()["records"], first["records"])
        self.daemon.stop()
        self.daemon.start()
        self.daemon.wait_for_state("talker", "running")
        self.assert_valid()

    def test_numbers_are_dense_and_every_send_has_its_two_records(self):
        answers = [self.ok("send", "talker", "echo", str(number)).document for number in range(3)]
        records = self.ok("audit", "list").records
        self.assertEqual([record["seq"] for record in records], list(range(1, len(records) + 1)))
        numbers = collections.defaultdict(list)
        for record in records:
            self.assert_keys(record, ["seq", "agentSeq", "id", "agentId", "event", "timestamp", "metadata", "signature"])
            numbers[record["agentId"]].append(record["agentSeq"])
        for agent, found in numbers.items():
            self.assertEqual(found, list(range(1, len(found) + 1)), agent)
        messages = [record for record in records if record["event"].startswith("message_")]
        for answer in answers:
            received = [m for m in messages if m["metadata"].get("messageId") == answer["correlationId"]]
            sent = [m for m in messages if m["metadata"].get("correlationId") == answer["correlationId"]]
            self.assertEqual([m["event"] for m in received + sent], ["message_received", "message_sent"], answer)

    def test_an_export_verifies_without_a_daemon_and_not_when_edited(self):
        for agent in ([], ["talker"]):
            path = self.scratch / f"{len(agent)}.json"
            self.ok("audit", "export", *agent, "--file", path)
            nobody = harness.Daemon(self.daemon.bin)  # never started
            self.addCleanup(shutil.rmtree, nobody.directory)
            key = self.files / "key.pub"
            self.assertEqual(nobody.ctl("audit", "verify", "--file", path, "--key", key).code, 0)
            lines = path.read_text().splitlines(keepends=True)
            at = next(number for number, line in enumerate(lines) if '"message_received"' in line)
            edited = lines[:at] + [lines[at].replace('"talker"', '"walker"', 1)] + lines[at + 1:]
            for name, changed in (("edited", edited), ("without", lines[:at] + lines[at + 2:])):
                path.write_text("".join(changed))
                outcome = nobody.ctl("audit", "verify", "--file", path, "--key", key)
                self.assertEqual(outcome.code, 1, f"{name}: {outcome}")


class WhileStopped(Audit):
    def stopped_copy(self):
        self.daemon.stop()
        copy = self.scratch / "audit"
        shutil.copytree(self.files, copy)
        return copy

    def put_back(self, copy):
        """The same files with other bytes: whose they are and who may read them stays."""
        for path in self.files.iterdir():
            if not (copy / path.name).exists():
                path.unlink()
        for path in copy.iterdir():
            (self.files / path.name).write_bytes(path.read_bytes())

    def test_every_change_of_one_record_is_found(self):
        seq = self.target()
        copy = self.stopped_copy()
        for attack in ATTACKS:
            with self.subTest(attack=attack.__name__):
                database = self.database()
                with database:
                    named = attack(database, seq)
                database.close()
                self.daemon.start()
                self.assert_found(named, what=attack.__name__)
                self.daemon.wait_for_state("talker", "running")  # a spoilt audit stops no agent
                self.daemon.stop()
                self.put_back(copy)
        self.daemon.start()
        self.assert_valid()

    def test_an_older_database_put_back_is_found(self):
        copy = self.stopped_copy()
        records = sqlite3.connect(copy / "audit.db").execute("SELECT max(seq) FROM records").fetchone()[0]
        self.daemon.start()
        self.daemon.wait_for_state("talker", "running")
        self.send("talker", "echo", "after the copy")
        self.daemon.stop()
        newer = self.scratch / "newer"
        shutil.copytree(self.files, newer)
        for suffix in ("-wal", "-shm"):
            (self.files / f"audit.db{suffix}").unlink(missing_ok=True)
        (self.files / "audit.db").write_bytes((copy / "audit.db").read_bytes())
        self.daemon.start()
        self.assert_found({records + 1}, what="rolled back")
        self.daemon.stop()
        self.put_back(newer)
        self.daemon.start()
        self.assert_valid()

    def test_another_log_under_another_key_is_found_by_a_remembered_checkpoint(self):
        remembered = self.scratch / "checkpoint"
        remembered.write_text(self.ok("audit", "checkpoint", text_mode=True).stdout)
        self.assert_valid("--checkpoint", remembered)
        copy = self.stopped_copy()
        for path in self.files.iterdir():
            path.unlink()
        self.daemon.start()
        outcome = self.daemon.ctl("audit", "verify", "--checkpoint", remembered)
        self.assertEqual(outcome.code, 1, outcome)
        self.assertTrue(outcome.document["findings"])
        self.daemon.stop()
        self.put_back(copy)
        self.daemon.start()
        self.assert_valid("--checkpoint", remembered)


class WhileRunning(Audit):
    def mended(self, copy):
        """The rows as they were, written by somebody else as well."""
        database = self.database()
        with database:
            for table in ("records", "agent_records", "checkpoints"):
                kept = copy[table]
                for row in kept:
                    marks = ",".join("?" * len(row))
                    database.execute(f"INSERT OR REPLACE INTO {table} VALUES({marks})", row)

    def test_every_change_of_one_record_is_found(self):
        seq = self.target()
        for attack in ATTACKS:
            with self.subTest(attack=attack.__name__):
                self.ok("audit", "checkpoint")
                database = self.database()
                copy = {table: database.execute(f"SELECT * FROM {table}").fetchall()
                        for table in ("records", "agent_records", "checkpoints")}
                with database:
                    named = attack(database, seq)
                self.assert_found(named, what=attack.__name__)
                self.assertEqual(self.send("talker", "echo", 1), 1)  # goes on
                self.mended(copy)
                self.assert_valid()

    def test_an_older_database_put_back_is_found(self):
        older = sqlite3.connect(":memory:")
        self.addCleanup(older.close)
        database = self.database()
        database.backup(older)
        records = older.execute("SELECT max(seq) FROM records").fetchone()[0]
        self.send("talker", "echo", "after the copy")
        self.ok("audit", "checkpoint")
        newer = sqlite3.connect(":memory:")
        self.addCleanup(newer.close)
        database.backup(newer)
        older.backup(database)
        self.assert_found({records, records + 1}, what="rolled back")
        newer.backup(database)
        self.assert_valid()


if __name__ == "__main__":
    unittest.main()
