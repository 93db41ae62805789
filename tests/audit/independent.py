#!/usr/bin/python3
"""Another implementation of the audit's formats, written from RFC 9162, c2sp.org/signed-note, tlog-checkpoint and
tlog-proof: SHA-256 from hashlib, Ed25519 from Debian's python3-cryptography, the rest here. It shares no code with kAI.

usage: independent.py MAKE_LOG

MAKE_LOG writes a log with the real code; this checks its Merkle roots, signed notes, inclusion and consistency proofs,
key rotation and export file, and then that an edited copy of each is noticed.
"""

import base64
import hashlib
import json
import pathlib
import sqlite3
import subprocess
import sys
import tempfile

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Wrong(Exception):
    pass


def expect(condition, what):
    if not condition:
        raise Wrong(what)


def sha256(data):
    return hashlib.sha256(data).digest()


def leaf(record):
    return sha256(b"\x00" + record)


def node(left, right):
    return sha256(b"\x01" + left + right)


def split(count):
    """The largest power of two below count."""
    return 1 << (count - 1).bit_length() - 1


def root_of(leaves):
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return node(root_of(leaves[:k]), root_of(leaves[k:]))


def root_from_inclusion(hash_, index, size, path):
    """The root that the path leads to, by the recursion of PATH (RFC 9162, 2.1.3.1) run backwards."""
    if size == 1:
        expect(not path, "inclusion path is too long")
        return hash_
    expect(path, "inclusion path is too short")
    k = split(size)
    if index < k:
        return node(root_from_inclusion(hash_, index, k, path[:-1]), path[-1])
    return node(path[-1], root_from_inclusion(hash_, index - k, size - k, path[:-1]))


def roots_from_consistency(old_root, old_size, size, path, whole):
    """(old root, new root) by the recursion of SUBPROOF (RFC 9162, 2.1.4.1) run backwards."""
    if old_size == size:
        if whole:
            expect(not path, "consistency path is too long")
            return old_root, old_root
        expect(len(path) == 1, "consistency path has the wrong length")
        return path[0], path[0]
    expect(path, "consistency path is too short")
    k = split(size)
    if old_size <= k:
        old, new = roots_from_consistency(old_root, old_size, k, path[:-1], whole)
        return old, node(new, path[-1])
    old, new = roots_from_consistency(old_root, old_size - k, size - k, path[:-1], False)
    return node(path[-1], old), node(path[-1], new)


class Key:
    def __init__(self, text):
        self.text = text.strip()
        self.name, id_, data = self.text.split("+", 2)
        raw = base64.b64decode(data, validate=True)
        expect(raw[0] == 1 and len(raw) == 33, "not an Ed25519 key")
        self.id = bytes.fromhex(id_)
        expect(sha256(self.name.encode() + b"\n" + raw)[:4] == self.id, "the key's hash is not its own")
        self.key = Ed25519PublicKey.from_public_bytes(raw[1:])


def open_note(note, key):
    """(size, root) of a checkpoint that this key signed."""
    text, signatures = note.rsplit("\n\n", 1)
    text += "\n"
    for line in signatures.splitlines():
        dash, name, data = line.split(" ")
        expect(dash == "\u2014", "signature line without its dash")
        raw = base64.b64decode(data, validate=True)
        if name != key.name or raw[:4] != key.id:
            continue
        try:
            key.key.verify(raw[4:], text.encode())
        except InvalidSignature:
            raise Wrong("false signature") from None
        origin, size, root = text.splitlines()[:3]
        expect(origin == key.name, "another log's checkpoint")
        return int(size), base64.b64decode(root, validate=True)
    raise Wrong("not signed by this key")


def listed(line):
    """(stored bytes, index, path, note) of a listed record."""
    body, signature = line.rsplit(',"signature":"', 1)
    record = (body + "}").encode()
    proof = base64.b64decode(signature.removesuffix('"}'), validate=True).decode()
    head, note = proof.split("\n\n", 1)
    version, index, *path = head.split("\n")
    expect(version == "c2sp.org/tlog-proof@v1" and index.startswith("index "), "not a tlog-proof")
    return record, int(index[6:]), [base64.b64decode(hash_, validate=True) for hash_ in path], note


def check_export(text, key):
    """All that docs/audit.md asks of a verifier that has a public key and nothing else."""
    document = json.loads(text)
    lines = [line for line in text.split("\n") if line.startswith('{"seq":')]
    expect(len(lines) == len(document["records"]), "not one record a line")
    for rotation in document["keyRotations"]:
        record, index, path, note = listed(rotation)
        fields = json.loads(record)
        if fields["metadata"]["oldKey"] != key.text:
            continue
        size, root = open_note(note, key)
        expect(fields["event"] == "kai.key_rotated" and fields["agentId"] == "kaid", "not a rotation")
        expect(fields["seq"] == index + 1 and root_from_inclusion(leaf(record), index, size, path) == root, "rotation")
        if size < int(document["checkpoint"].split("\n")[1]):
            key = Key(fields["metadata"]["newKey"])
    size, root = open_note(document["checkpoint"], key)
    last = 0
    for number, line in enumerate(lines, start=1):
        record, index, path, note = listed(line)
        fields = json.loads(record)
        expect(note == document["checkpoint"], f"record {fields['seq']}: another checkpoint")
        expect(root_from_inclusion(leaf(record), index, size, path) == root, f"record {fields['seq']}: inclusion")
        expect(fields["agentSeq"] == number and fields["agentId"] == document["agentId"], f"agentSeq {number}: gap")
        expect(fields["seq"] == index + 1 > last, f"record {fields['seq']}: order")
        last = fields["seq"]
    expect(fields["event"] == "kai.exported" and fields["metadata"] == {"agentSeq": number}, "closing record")
    expect(fields["timestamp"] == document["exportedAt"], "exportedAt")
    checksum = hashlib.sha256("".join(line + "\n" for line in lines).encode()).hexdigest()
    expect(checksum == document["checksum"], "checksum")
    return len(lines)


def must_fail(what, check):
    try:
        check()
    except (Wrong, ValueError, KeyError):
        return
    raise Wrong(f"{what} was not noticed")


def check_log(directory):
    database = sqlite3.connect(f"file:{directory}/audit/audit.db?mode=ro", uri=True)
    rows = database.execute("SELECT seq, body FROM records ORDER BY seq").fetchall()
    expect([row[0] for row in rows] == list(range(1, len(rows) + 1)), "seq has gaps")
    leaves = [leaf(body) for _, body in rows]
    keys = [Key((directory / name).read_text()) for name in ("first-key.pub", "audit/key.pub")]
    expect(keys[0].text != keys[1].text, "the key was not rotated")

    notes = (directory / "notes").read_text().split("--\n")
    signed = [0, 0]
    for note in notes:
        by = 0 if f" {base64.b64encode(keys[0].id).decode()[:5]}" in note else 1
        size, root = open_note(note, keys[by])
        expect(root_of(leaves[:size]) == root, f"root of the first {size} records")
        signed[by] += 1
    expect(min(signed) > 1, "both keys signed")
    size, root = open_note(notes[-1], keys[1])
    expect(size == len(rows), "the last checkpoint covers everything")
    tampered = notes[-1].replace(f"\n{size}\n", f"\n{size - 1}\n")
    must_fail("an edited note", lambda: open_note(tampered, keys[1]))

    proofs = 0
    for line in (directory / "consistency").read_text().splitlines():
        old_size, *path = line.split(" ")
        path = [base64.b64decode(hash_, validate=True) for hash_ in path]
        old_root = root_of(leaves[: int(old_size)])
        found = roots_from_consistency(old_root, int(old_size), size, path, True)
        expect(found == (old_root, root), f"consistency with the first {old_size}")
        proofs += 1

    export = (directory / "export.json").read_text()
    records = check_export(export, keys[0])
    expect(check_export(export, keys[1]) == records, "export by the newest key")
    must_fail("an edited export", lambda: check_export(export.replace('\\"size\\":3', '"size":4').replace('"size":3', '"size":4', 1), keys[1]))
    lines = export.split("\n")
    must_fail("a removed record", lambda: check_export("\n".join(lines[:3] + lines[5:]), keys[1]))
    return f"{len(rows)} records, {len(notes)} notes, {proofs} consistency proofs, {records} exported records"


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([sys.argv[1], directory], check=True)
        try:
            print(check_log(pathlib.Path(directory)))
        except Wrong as wrong:
            print(f"independent.py: {wrong}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
