"""kaictl package build, sign, verify: held to Debian's minisign and sha256sum, both ways, and to hostile archives."""

import base64
import functools
import hashlib
import io
import json
import os
import pathlib
import pty
import shutil
import subprocess
import tarfile
import tempfile
import termios
import unittest

import harness
import packages

PASSWORD = "correct horse"


class Key:
    """A key pair of minisign. Deriving one from its password takes seconds and 1 GB: they are made once."""

    def __init__(self, directory, name, password=None):
        self.public, self.secret, self.password = directory / f"{name}.pub", directory / f"{name}.key", password
        command = ["minisign", "-G", "-p", self.public, "-s", self.secret] + ([] if password else ["-W"])
        subprocess.run(command, input=f"{password}\n{password}\n" if password else "", text=True, check=True,
                       capture_output=True, timeout=harness.PATIENCE)
        self.line = self.public.read_text().splitlines()[1]

    def sign(self, package, *options):
        """As an operator without kaictl does it."""
        subprocess.run(["minisign", "-S", *options, "-s", self.secret, "-m", "SHA256SUMS"], cwd=package, check=True,
                       input=f"{self.password}\n" if self.password else "", text=True, capture_output=True,
                       timeout=harness.PATIENCE)

    def verifies(self, package):
        command = ["minisign", "-V", "-p", self.public, "-m", "SHA256SUMS"]
        return subprocess.run(command, cwd=package, check=False, capture_output=True, timeout=harness.PATIENCE).returncode == 0


@functools.cache
def keys():
    made = tempfile.TemporaryDirectory(prefix="kai-packages-")
    unittest.addModuleCleanup(made.cleanup)
    directory = pathlib.Path(made.name)
    return Key(directory, "plain"), Key(directory, "locked", PASSWORD), Key(directory, "foreign")


def sha256sum(package, symlinks=True):
    """SHA256SUMS as an operator without kaictl makes it."""
    subprocess.run("find . -type f ! -name 'SHA256SUMS*' -print0 | xargs -0 sha256sum > SHA256SUMS", shell=True, cwd=package,
                   check=True)
    if symlinks:
        subprocess.run(r"find . -type l -printf '# symlink %P -> %l\n' >> SHA256SUMS", shell=True, cwd=package, check=True)


def holds(package):
    """What sha256sum says of the files."""
    return subprocess.run(["sha256sum", "-c", "--strict", "--quiet", "SHA256SUMS"], cwd=package, check=False,
                          capture_output=True).returncode == 0


class PackageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.plain, cls.locked, cls.foreign = keys()

    def setUp(self):
        made = tempfile.TemporaryDirectory(prefix="kai-packages-")
        self.addCleanup(made.cleanup)
        self.scratch = pathlib.Path(made.name)

    def package(self, name="agent", files=None):
        root = packages.package(self.scratch, name, "main.py", "print('hello')\n", mode=0o644)
        for path, content in (files or {"lib/tool.sh": "#!/bin/sh\n", "data/empty": ""}).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(content)
        if not files:
            (root / "lib/tool.sh").chmod(0o755)
            (root / "lib/link").symlink_to("../data/empty")
        return root

    def ctl(self, *arguments, text_mode=False, environment=None, **options):
        command = [str(harness.BIN / "kaictl"), "--socket", "/nowhere/there/is/no/kaid"]
        command += [] if text_mode else ["-o", "json"]
        command += ["package"] + [str(argument) for argument in arguments]
        variables = {name: value for name, value in os.environ.items()
                     if name not in ("KAI_MINISIGN_PASSWORD", "SOURCE_DATE_EPOCH")}
        completed = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                                   timeout=harness.PATIENCE * 2, check=False, env=variables | (environment or {}), **options)
        return harness.Outcome(arguments, completed)

    def ok(self, *arguments, **options):
        outcome = self.ctl(*arguments, **options)
        self.assertEqual(outcome.code, 0, outcome)
        return outcome

    def fails(self, exit_code, *arguments, **options):
        """The message of a command that must fail so."""
        outcome = self.ctl(*arguments, **options)
        self.assertEqual(outcome.code, exit_code, outcome)
        self.assertEqual((outcome.stdout, len(outcome.stderr.splitlines())), ("", 1), outcome)
        return outcome.error["message"]

    def build(self, root, **options):
        archive = self.scratch / f"{root.name}.tar.gz"
        return archive, self.ok("build", root, "-o", archive, **options).document

    def sign(self, path, key=None, **options):
        key = key or self.plain
        environment = {"KAI_MINISIGN_PASSWORD": key.password} if key.password else {}
        return self.ok("sign", path, "--secret-key", key.secret, environment=environment, **options).document

    def unpacked(self, archive):
        target = pathlib.Path(tempfile.mkdtemp(dir=self.scratch))
        said = subprocess.run(["tar", "xzf", archive, "-C", target], check=True, capture_output=True, text=True)
        self.assertEqual(said.stderr, "", "GNU tar has nothing to remark")
        return target


class Build(PackageTest):
    def test_what_it_writes_is_what_sha256sum_writes(self):
        root = self.package()
        archive, document = self.build(root)
        self.assertEqual(document, {"id": "agent", "version": "1.0.0", "files": 4, "archive": str(archive),
                                    "bytes": archive.stat().st_size, "signed": False, "warnings": []})
        self.assertTrue(holds(root))
        expected = "".join(f"{hashlib.sha256((root / name).read_bytes()).hexdigest()}  {name}\n"
                           for name in ("data/empty", "lib/tool.sh", "main.py", "manifest.json"))
        expected += "# symlink lib/link -> ../data/empty\n"
        self.assertEqual((root / "SHA256SUMS").read_text(), expected)
        self.assertEqual((root / "SHA256SUMS").stat().st_mode & 0o777, 0o644)
        copy = self.unpacked(archive)
        self.assertTrue(holds(copy))
        self.assertEqual(os.readlink(copy / "lib/link"), "../data/empty")

    def test_the_same_files_give_the_same_bytes(self):
        root = self.package()
        first, _ = self.build(root)
        bytes_before = first.read_bytes()
        other = self.scratch / "copy"
        shutil.copytree(root, other, symlinks=True)
        (other / "SHA256SUMS").unlink()
        for path in [other, *other.rglob("*")]:
            os.utime(path, (1e9, 1e9), follow_symlinks=False)
            if path.is_file() and not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o700)
        second, _ = self.build(other)
        self.assertEqual(second.read_bytes(), bytes_before)
        with tarfile.open(first) as tar:
            members = tar.getmembers()
        names = [member.name for member in members]
        self.assertEqual(names, sorted(names))
        self.assertEqual({(member.uid, member.gid, member.mtime) for member in members}, {(0, 0, 0)})
        self.assertEqual({member.name: member.mode for member in members if not member.issym()},
                         {"SHA256SUMS": 0o644, "data": 0o755, "data/empty": 0o644, "lib": 0o755, "lib/tool.sh": 0o755,
                          "main.py": 0o644, "manifest.json": 0o644})
        # Of another time, where it is said (reproducible-builds.org).
        self.build(root, environment={"SOURCE_DATE_EPOCH": "1700000000"})
        with tarfile.open(first) as tar:
            self.assertEqual({member.mtime for member in tar.getmembers()}, {1700000000})
        self.assertIn("SOURCE_DATE_EPOCH", self.fails(5, "build", root, "-o", first,
                                                      environment={"SOURCE_DATE_EPOCH": "yesterday"}))

    def test_without_a_name_the_archive_is_called_after_the_agent(self):
        root = self.package()
        place = self.scratch / "place"
        place.mkdir()
        document = self.ok("build", root, cwd=place).document
        self.assertEqual(document["archive"], "agent-1.0.0.tar.gz")
        self.assertEqual([path.name for path in place.iterdir()], ["agent-1.0.0.tar.gz"])
        text = self.ok("build", f"{root}/", "-o", "a.tgz", cwd=place, text_mode=True).stdout
        self.assertRegex(text, r"^agent 1\.0\.0: 4 files in a\.tgz \(.* KB|B\), not signed yet\n$")

    def test_it_may_not_lie_in_what_it_is_made_of(self):
        root = self.package()
        self.assertIn("would lie in the package", self.fails(5, "build", ".", cwd=root))
        self.assertIn("would lie in the package", self.fails(5, "build", root, "-o", root / "lib/a.tar.gz"))
        self.assertFalse((root / "SHA256SUMS").exists(), "what is refused changes nothing")
        self.ok("build", ".", "-o", "../a.tar.gz", cwd=root)

    def test_names_with_odd_characters(self):
        names = [" leading", "trailing ", "two  spaces", "grüße/日本", "back\\slash", "\\n", "-o", "*", "$(touch x)", "'\"",
                 "x" * 255, "/".join(["deep" * 20] * 9)]
        root = self.package(files={name: name for name in names})
        (root / "verknüpft").symlink_to("grüße/日本")
        (root / "a -> b").symlink_to("back\\slash")
        archive, document = self.build(root)
        self.assertEqual(document["files"], len(names) + 2)
        self.assertTrue(holds(root))
        self.assertIn("\\" + hashlib.sha256(b"back\\slash").hexdigest() + "  back\\\\slash\n",
                      (root / "SHA256SUMS").read_text())
        self.assertIn("# symlink a -\\> b -> back\\\\slash\n", (root / "SHA256SUMS").read_text())
        self.sign(root)
        self.sign(archive)
        self.ok("verify", root, "--key", self.plain.line)
        self.ok("verify", archive, "--key", self.plain.line)
        copy = self.unpacked(archive)
        self.assertTrue(holds(copy))
        self.assertEqual(os.readlink(copy / "verknüpft"), "grüße/日本")
        (copy / "verknüpft").unlink()
        (copy / "a -> b").unlink()
        self.assertEqual({str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()},
                         set(names) | {"main.py", "manifest.json", "SHA256SUMS", "SHA256SUMS.minisig"})
        # Listed by sha256sum itself, with its own escapes; find has none for the arrow.
        (root / "a -> b").unlink()
        sha256sum(root)
        self.plain.sign(root)
        self.ok("verify", root, "--key", self.plain.line)

    def test_what_no_package_may_have_is_refused(self):
        def fifo(root):
            os.mkfifo(root / "fifo")

        cases = {
            "control character": lambda root: (root / "new\nline").write_text(""),
            "UTF-8": lambda root: open(os.fsencode(root) + b"/\xff", "w", encoding="utf-8").close(),
            "leaves the package": lambda root: (root / "out").symlink_to("../outside"),
            "absolute target": lambda root: (root / "out").symlink_to("/etc/passwd"),
            "FIFO": fifo,
            ".kai is kAI's own": lambda root: (root / ".kai").mkdir(),
            "no manifest.json": lambda root: (root / "manifest.json").unlink(),
            "agent's id": lambda root: (root / "manifest.json").write_text('{"id": "../x", "version": "1.0.0"}'),
            "has no version": lambda root: (root / "manifest.json").write_text('{"id": "agent", "version": "../1"}'),
            "SHA256SUMS: is not a regular file": lambda root: (root / "SHA256SUMS").symlink_to("main.py"),
        }
        for number, (why, spoil) in enumerate(cases.items()):
            with self.subTest(why):
                root = self.package(f"agent-{number}")
                spoil(root)
                for command in (["build", root, "-o", self.scratch / "none.tar.gz"],
                                ["sign", root, "--secret-key", self.plain.secret],
                                ["verify", root, "--key", self.plain.line]):
                    self.assertIn(why, self.fails(5, *command))
                self.assertFalse((self.scratch / "none.tar.gz").exists())

    def test_a_signature_that_holds_stays_and_one_that_does_not_goes(self):
        root = self.package()
        self.build(root)
        self.sign(root)
        signature = (root / "SHA256SUMS.minisig").read_bytes()
        archive, document = self.build(root)
        self.assertEqual((document["signed"], document["warnings"]), (True, []))
        self.assertEqual((root / "SHA256SUMS.minisig").read_bytes(), signature)
        self.ok("verify", archive, "--key", self.plain.line)
        # A list in another order, made by hand, is as good.
        sha256sum(root)
        self.plain.sign(root)
        listed = (root / "SHA256SUMS").read_bytes()
        self.assertTrue(self.build(root)[1]["signed"])
        self.assertEqual((root / "SHA256SUMS").read_bytes(), listed)

        (root / "main.py").write_text("changed")
        outcome = self.ok("build", root, "-o", archive, text_mode=True)
        self.assertIn("is removed; sign the package again", outcome.stderr)
        self.assertFalse((root / "SHA256SUMS.minisig").exists())
        self.assertTrue(holds(root))
        self.assertIn("not signed", self.fails(5, "verify", archive, "--key", self.plain.line))

    def test_mistakes_on_the_command_line(self):
        root = self.package()
        self.assertEqual(self.ctl().code, 2)
        self.assertEqual(self.ctl("build").code, 2)
        self.assertEqual(self.ctl("build", root, "-o", "a.zip").code, 2)
        self.assertEqual(self.ctl("sign", root).code, 2)
        self.assertEqual(self.ctl("verify", root).code, 2)
        self.fails(4, "build", self.scratch / "nothing")
        self.fails(5, "build", root / "main.py")
        self.fails(4, "verify", self.scratch / "nothing", "--key", self.plain.line)
        self.fails(4, "verify", root, "--key", self.scratch / "nothing")
        self.fails(5, "verify", root, "--key", root / "main.py")
        self.fails(4, "sign", root, "--secret-key", self.scratch / "nothing")
        self.assertIn("no minisign secret key", self.fails(5, "sign", root, "--secret-key", self.plain.public))
        self.fails(4, "build", root, "-o", self.scratch / "no/such/directory.tar.gz")


class Sign(PackageTest):
    def test_minisign_accepts_what_kaictl_signs(self):
        for key in (self.plain, self.locked):
            with self.subTest(key=key.secret.name):
                root = self.package(key.secret.stem)
                archive, _ = self.build(root)
                document = self.sign(root, key)
                self.assertEqual((document["publicKey"], document["files"], document["path"]), (key.line, 4, str(root)))
                self.assertRegex(document["trustedComment"], r"^timestamp:\d+\tfile:SHA256SUMS\thashed$")
                self.sign(archive, key)
                for signed in (root, self.unpacked(archive)):
                    self.assertTrue(key.verifies(signed))
                    self.assertFalse(self.foreign.verifies(signed))
                    self.assertTrue(holds(signed))

    def test_kaictl_accepts_what_minisign_signs(self):
        for key, options in ((self.plain, []), (self.plain, ["-l"]), (self.locked, []), (self.locked, ["-l", "-t", "of mine"])):
            with self.subTest(key=key.secret.name, options=options):
                root = self.package(f"{key.secret.stem}{len(options)}")
                sha256sum(root)
                key.sign(root, *options)
                archive = self.scratch / "by-hand.tar.gz"
                # With "./" before every name; with the directory at the top.
                for command in (["-C", root, "."], ["-C", self.scratch, root.name]):
                    subprocess.run(["tar", "czf", archive, *command], check=True)
                    for path, trusted in ((root, key.line), (archive, key.public)):
                        document = self.ok("verify", path, "--key", trusted).document
                        self.assertEqual((document["valid"], document["publicKey"], document["files"], document["hashed"]),
                                         (True, key.line, 4, "-l" not in options))
                        if "-t" in options:
                            self.assertEqual(document["trustedComment"], "of mine")
                text = self.ok("verify", root, "--key", key.line, text_mode=True).stdout
                self.assertIn(key.line, text)
                self.assertIn("4 files, all as they were signed", text)

    def test_symlinks_that_only_sha256sum_has_seen_are_not_signed(self):
        root = self.package()
        sha256sum(root, symlinks=False)
        self.assertIn("the symlink lib/link is in the package but is not listed",
                      self.fails(5, "sign", root, "--secret-key", self.plain.secret))
        self.plain.sign(root)
        self.assertIn("the symlink lib/link is in the package but is not listed",
                      self.fails(5, "verify", root, "--key", self.plain.line))
        archive, document = self.build(root)
        self.assertEqual((document["signed"], len(document["warnings"])), (False, 1))
        self.assertFalse((root / "SHA256SUMS.minisig").exists())
        self.assertIn("# symlink lib/link -> ../data/empty\n", (root / "SHA256SUMS").read_text())
        self.sign(archive)
        self.ok("verify", archive, "--key", self.plain.line)
        # Without symlinks, sha256sum and minisign are all that it takes.
        (root / "lib/link").unlink()
        sha256sum(root, symlinks=False)
        self.plain.sign(root)
        self.ok("verify", root, "--key", self.plain.line)

    def test_an_archive_of_any_tar_can_be_signed_and_stays_what_it_was(self):
        root = self.package()
        archive = self.scratch / "by-hand.tar.gz"
        subprocess.run(["tar", "czf", archive, "-C", self.scratch, root.name], check=True)
        archive.chmod(0o640)
        link = self.scratch / "link.tar.gz"
        link.symlink_to("by-hand.tar.gz")
        self.sign(link)
        self.assertTrue(link.is_symlink())
        self.assertEqual(archive.stat().st_mode & 0o777, 0o640)
        inside = self.unpacked(archive) / root.name
        self.assertTrue(self.plain.verifies(inside) and holds(inside))
        self.assertTrue(os.access(inside / "lib/tool.sh", os.X_OK))
        self.ok("verify", link, "--key", self.plain.line)
        once = archive.read_bytes()
        self.sign(archive, self.foreign)  # again, by somebody else
        self.assertNotEqual(archive.read_bytes(), once)
        self.ok("verify", archive, "--key", self.foreign.line)
        self.assertEqual({path.name for path in self.scratch.iterdir() if path.is_file()}, {"by-hand.tar.gz", "link.tar.gz"})

    def test_a_list_that_is_not_of_the_files_is_not_signed(self):
        root = self.package()
        archive, _ = self.build(root)
        (root / "main.py").write_text("changed")
        outcome = self.ctl("sign", root, "--secret-key", self.plain.secret)
        self.assertIn("main.py does not have the check sum", outcome.error["message"])
        self.assertIn("kaictl package build", outcome.error["hint"])
        self.assertFalse((root / "SHA256SUMS.minisig").exists())

    def test_a_wrong_password_signs_nothing(self):
        root = self.package()
        archive, _ = self.build(root)
        before = archive.read_bytes()
        for path in (root, archive):
            for password in ("wrong", ""):
                self.assertIn("password", self.fails(5, "sign", path, "--secret-key", self.locked.secret,
                                                     environment={"KAI_MINISIGN_PASSWORD": password}))
        self.assertFalse((root / "SHA256SUMS.minisig").exists())
        self.assertEqual(archive.read_bytes(), before)
        # Nobody to ask.
        self.assertIn("no terminal", self.fails(1, "sign", root, "--secret-key", self.locked.secret, start_new_session=True))


class Terminal(PackageTest):
    def begin(self, root):
        """kaictl package sign on a terminal of its own: (pid, the terminal's other side)."""
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ.pop("KAI_MINISIGN_PASSWORD", None)
            os.execv(harness.BIN / "kaictl", ["kaictl", "package", "sign", str(root), "--secret-key", str(self.locked.secret)])
        self.addCleanup(os.close, terminal)
        return pid, terminal

    @staticmethod
    def read_until(terminal, text):
        shown = ""
        while text not in shown:
            try:
                shown += os.read(terminal, 4096).decode()
            except OSError:  # closed on the other side
                break
        return shown

    def end(self, pid, terminal):
        rest = self.read_until(terminal, "\0")
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), rest

    def test_the_password_is_asked_for_and_not_shown(self):
        root = self.package()
        self.build(root)
        pid, terminal = self.begin(root)
        self.assertIn("Password of", self.read_until(terminal, "locked.key: "))
        os.write(terminal, PASSWORD.encode() + b"\n")
        code, shown = self.end(pid, terminal)
        self.assertEqual(code, 0, shown)
        self.assertNotIn(PASSWORD, shown)
        self.assertTrue(self.locked.verifies(root))

    def test_an_interrupt_leaves_a_terminal_with_echo(self):
        root = self.package()
        self.build(root)
        # The terminal is looked at while this process holds its side too: it is gone with its last holder.
        pid, terminal = self.begin(root)
        self.read_until(terminal, "locked.key: ")
        held = os.open(os.readlink(f"/proc/{pid}/fd/0"), os.O_RDWR | os.O_NOCTTY)
        self.addCleanup(os.close, held)
        self.assertFalse(termios.tcgetattr(held)[3] & termios.ECHO)
        os.write(terminal, b"half\x03")
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), -2)
        self.assertTrue(termios.tcgetattr(held)[3] & termios.ECHO)
        self.assertFalse((root / "SHA256SUMS.minisig").exists())


class Verify(PackageTest):
    def tampered(self, why, change):
        """A signed package that was changed behind the signature: refused as a directory and as an archive."""
        root = self.package(f"agent-{len(list(self.scratch.iterdir()))}")
        self.build(root)
        self.sign(root)
        change(root)
        archive = self.scratch / "changed.tar.gz"
        subprocess.run(["tar", "czf", archive, "-C", root, "."], check=True)
        for path in (root, archive):
            with self.subTest(why, path=path.name):
                self.assertIn(why, self.fails(5, "verify", path, "--key", self.plain.line))

    def test_what_was_changed_is_named(self):
        def in_file(name, old, new):
            def change(root):
                text = (root / name).read_text()
                self.assertIn(old, text)
                (root / name).write_text(text.replace(old, new, 1))
            return change

        def led_elsewhere(root):
            (root / "lib/link").unlink()
            (root / "lib/link").symlink_to("../main.py")

        def listed_anew(root):
            (root / "main.py").write_text("changed")
            sha256sum(root)

        def signed_by_another(root):
            (root / "main.py").write_text("changed")
            sha256sum(root)
            self.foreign.sign(root)

        def by_another_under_our_id(root):
            signed_by_another(root)
            lines = (root / "SHA256SUMS.minisig").read_text().splitlines()
            raw = base64.b64decode(lines[1])
            lines[1] = base64.b64encode(raw[:2] + base64.b64decode(self.plain.line)[2:10] + raw[10:]).decode()
            (root / "SHA256SUMS.minisig").write_text("\n".join(lines) + "\n")

        self.tampered("main.py does not have the check sum", lambda root: (root / "main.py").write_text("changed"))
        self.tampered("extra is in the package but is not listed", lambda root: (root / "extra").write_text(""))
        self.tampered("lib/extra is in the package but is not listed", lambda root: (root / "lib/extra").write_text(""))
        self.tampered("data/empty is listed in SHA256SUMS but is not", lambda root: (root / "data/empty").unlink())
        self.tampered("the symlink json.py is in the package but is not listed",
                      lambda root: (root / "json.py").symlink_to("main.py"))
        self.tampered("the symlink lib/link is listed in SHA256SUMS but is not", lambda root: (root / "lib/link").unlink())
        self.tampered("the symlink lib/link does not lead where SHA256SUMS says", led_elsewhere)
        self.tampered("the signature does not hold", in_file("SHA256SUMS", "../data/empty", "../main.py"))
        self.tampered("has no SHA256SUMS.minisig", lambda root: (root / "SHA256SUMS.minisig").unlink())
        self.tampered("has no SHA256SUMS", lambda root: (root / "SHA256SUMS").unlink())
        self.tampered("the signature does not hold", listed_anew)
        self.tampered("the signature does not hold", in_file("SHA256SUMS", "main.py", "niam.py"))
        self.tampered("it was signed with the key", signed_by_another)
        self.tampered("the signature does not hold", by_another_under_our_id)
        self.tampered("trusted comment does not hold", in_file("SHA256SUMS.minisig", "file:SHA256SUMS", "file:other"))
        self.tampered("trusted comment has a control", in_file("SHA256SUMS.minisig", "file:", "\x1b[2J"))
        self.tampered("second line is not", in_file("SHA256SUMS.minisig", "\nRU", "\nR"))
        self.tampered("something follows", in_file("SHA256SUMS.minisig", "==\n", "==\nmore\n"))
        self.tampered("larger than 16 KB", lambda root: (root / "SHA256SUMS.minisig").write_text("x" * 20000))

    def test_a_list_that_is_signed_but_wrong_is_refused(self):
        def listed(text):
            def change(root):
                (root / "SHA256SUMS").write_text(text((root / "SHA256SUMS").read_text()))
                self.plain.sign(root)
            return change

        self.tampered("a second time", listed(lambda text: text + text.splitlines()[0] + "\n"))
        self.tampered("no path below", listed(lambda text: text.replace("  main.py", "  ../main.py")))
        self.tampered("is not of the form", listed(lambda text: "a comment\n" + text))
        self.tampered("begins as a symlink's", listed(lambda text: text.replace(" -> ../data", " => ../data")))
        self.tampered("cannot be listed", listed(lambda text: text + text.splitlines()[0][:66] + "SHA256SUMS\n"))
        self.tampered("is listed in SHA256SUMS but is not", listed(lambda text: text.replace("main.py", "main\x1b[2J")))

    def archive(self, *members):
        path = self.scratch / "hostile.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            text = json.dumps(packages.manifest("agent", "main.py")).encode()
            for name, changes in (("manifest.json", {"content": text}), *members):
                content = changes.pop("content", b"")
                member = tarfile.TarInfo(name)
                member.size = len(content)
                for attribute, value in changes.items():
                    setattr(member, attribute, value)
                tar.addfile(member, io.BytesIO(content))
        return path

    def test_hostile_archives_are_refused(self):
        link = {"type": tarfile.SYMTYPE, "linkname": "lib"}
        cases = {
            "leaves the package": [("../x", {})],
            "name is absolute": [("/x", {})],
            "is a hard link": [("x", {"type": tarfile.LNKTYPE, "linkname": "manifest.json"})],
            "device, fifo or socket": [("x", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})],
            "symlink that leaves": [("x", {"type": tarfile.SYMTYPE, "linkname": "../../x"})],
            "more than once": [("x", {}), ("./x", {"content": b"other"})],
            "which is no directory": [("lib", {"type": tarfile.DIRTYPE}), ("x", link), ("x/y", {})],
            "is kAI's own": [(".kai/x", {})],
            "control character": [("x\x1b[2J", {})],
            "nested deeper": [("/".join(["d"] * 70), {})],
        }
        for why, members in cases.items():
            with self.subTest(why):
                path = self.archive(*[(name, dict(changes)) for name, changes in members])
                before = path.read_bytes()
                self.assertIn(why, self.fails(5, "verify", path, "--key", self.plain.line))
                self.assertIn(why, self.fails(5, "sign", path, "--secret-key", self.plain.secret))
                self.assertEqual(path.read_bytes(), before)

    def test_bombs_are_refused(self):
        path = self.archive(("zeros", {"content": bytes(128 << 20)}))
        self.assertIn("100 times its size", self.fails(5, "verify", path, "--key", self.plain.line))
        root = self.package()
        (root / "zeros").write_bytes(bytes(128 << 20))
        self.assertIn("as a bomb", self.fails(5, "build", root, "-o", self.scratch / "zeros.tar.gz"))
        self.assertFalse((self.scratch / "zeros.tar.gz").exists())
        self.sign(root)
        self.ok("verify", root, "--key", self.plain.line)
        path = self.archive(("zeros", {"content": bytes(8 << 20)}))  # a small one may be as regular as it likes
        self.assertIn("not signed", self.fails(5, "verify", path, "--key", self.plain.line))
        self.sign(path)
        self.ok("verify", path, "--key", self.plain.line)

    def test_what_is_no_archive_is_refused(self):
        whole = self.archive(("x", {"content": os.urandom(1 << 16)})).read_bytes()
        path = self.scratch / "broken.tar.gz"
        for content in (b"", b"no tar at all", whole[:len(whole) // 2], b"\x1f\x8b" + bytes(100), bytes(100)):
            path.write_bytes(content)
            self.fails(5, "verify", path, "--key", self.plain.line)
        self.fails(5, "verify", "/dev/null", "--key", self.plain.line)


if __name__ == "__main__":
    unittest.main()
