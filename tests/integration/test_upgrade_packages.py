"""Packages that nobody should trust, and those that may be: check sums, signatures by Debian's minisign and by kaictl, and
what the operator's policy says of them. Each is offered to register and to upgrade."""

import pathlib
import shutil
import subprocess
import tarfile

import harness
import unittest

from upgrade_case import UpgradeTest


class Signer:
    """A key pair of minisign's."""

    def __init__(self, directory, name):
        self.secret, self.public = pathlib.Path(directory) / f"{name}.key", pathlib.Path(directory) / f"{name}.pub"
        run("minisign", "-G", "-W", "-p", self.public, "-s", self.secret)
        self.text = self.public.read_text().splitlines()[1]

    def sign(self, package, *options):
        """The package, with sums and signature as Debian's own programs make them."""
        sum_up(package)
        run("minisign", "-S", *options, "-s", self.secret, "-m", package / "SHA256SUMS", "-x", package / "SHA256SUMS.minisig")
        return package


def run(*command, **options):
    return subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=True, timeout=harness.PATIENCE, **options).stdout


def sum_up(package):
    names = sorted(path.name for path in package.iterdir() if not path.name.startswith("SHA256SUMS"))
    (package / "SHA256SUMS").write_text(run("sha256sum", *names, cwd=package))


def archive(package):
    path = package.with_suffix(".tar.gz")
    with tarfile.open(path, "w:gz") as tar:
        tar.add(package, ".")
    return path


class Trust(UpgradeTest):
    @classmethod
    def setUpClass(cls):
        keys = harness.Daemon()  # for its directory alone
        cls.addClassCleanup(keys.clean_up)
        cls.trusted, cls.other, cls.foreign = (Signer(keys.directory, name) for name in ("trusted", "other", "foreign"))
        both = f"trustedKeys: [{cls.trusted.text}, {cls.other.text}]"
        cls.MORE_POLICIES = f"""- name: strict
  agentId: "strict*"
  {both}
  allowUnsigned: never
- name: changing
  agentId: "changing*"
  {both}
  grants: [signerChange]
- name: signed
  agentId: "signed*"
  {both}
"""
        super().setUpClass()

    def refused(self, code, says, package, agent=None):
        """To register and, where the agent runs, to upgrade by; nothing of it stays."""
        commands = [["register", package]] if agent is None else [["upgrade", agent, package], ["upgrade", agent, package, "--force"]]
        for command in commands:
            with self.subTest(command=command[0]):
                error = self.fails(5, code, *command)
                self.assertRegex(error["message"] + str(error.get("details")), says)
        if agent is not None:
            self.assertEqual(self.active(agent), "1.0.0")
            self.check_store(agent)
            self.assertEqual(set(self.versions(agent)), {"1.0.0"})

    def signer_of(self, agent, number):
        return self.versions(agent)[number].get("signer")

    def test_a_signed_package_is_taken_whoever_of_the_trusted_signed_it_and_in_whichever_form(self):
        agent = self.begin_with("strictAgent", self.trusted.sign(self.version("strictAgent", "1.0.0")))
        self.assertEqual(self.signer_of(agent, "1.0.0"), self.trusted.text)
        self.upgrade(agent, self.trusted.sign(self.version(agent, "1.1.0"), "-l"))
        self.upgrade(agent, archive(self.trusted.sign(self.version(agent, "1.2.0"))))
        self.check_serves(agent, "1.2.0")
        self.assertEqual({self.signer_of(agent, each) for each in self.versions(agent)}, {self.trusted.text})
        self.rollback(agent, "1.0.0")
        self.check_serves(agent, "1.0.0")

    def test_what_kaictl_signs_minisign_verifies_and_the_other_way_round(self):
        agent = "strictBuilt"
        package = self.version(agent, "1.0.0")
        self.ok("package", "build", package, "-o", self.scratch / "built.tar.gz")
        self.ok("package", "sign", package, "--secret-key", self.trusted.secret)
        run("minisign", "-V", "-p", self.trusted.public, "-m", package / "SHA256SUMS", "-x", package / "SHA256SUMS.minisig")
        run("sha256sum", "-c", "--strict", "SHA256SUMS", cwd=package)
        self.begin_with(agent, package)
        by_minisign = self.trusted.sign(self.version(agent, "1.1.0"))
        self.ok("package", "verify", by_minisign, "--key", self.trusted.public)
        self.ok("package", "verify", by_minisign, "--key", self.trusted.text)
        self.upgrade(agent, by_minisign)
        self.check_serves(agent, "1.1.0")

    def test_sums_that_do_not_hold(self):
        agent = self.begin("signedSums")
        def changed(package):
            (package / "main.py").write_text("changed = True\n")
        def more(package):
            (package / "more.py").write_text("")
        def less(package):
            with (package / "SHA256SUMS").open("a") as sums:
                sums.write(f"{'0' * 64}  gone.py\n")
        def odd(package):
            (package / "SHA256SUMS").write_text("these are no sums\n")
        def escape(package):
            with (package / "SHA256SUMS").open("a") as sums:
                sums.write(f"{'0' * 64}  ../main.py\n")
        for spoil, says in ((changed, "main.py"), (more, "more.py"), (less, "gone.py"), (odd, "SHA256SUMS"), (escape, "SHA256SUMS")):
            with self.subTest(spoil=spoil.__name__):
                package = self.version(agent, "1.1.0")
                sum_up(package)
                spoil(package)
                self.refused("INVALID", says, package, agent)
                package = self.version("signedOther", "1.0.0")
                sum_up(package)
                spoil(package)
                self.refused("INVALID", says, package)
                self.fails(4, "NOT_FOUND", "versions", "signedOther")

    def test_a_signed_package_that_was_changed(self):
        agent = self.begin_with("signedChanged", self.trusted.sign(self.version("signedChanged", "1.0.0")))
        package = self.trusted.sign(self.version(agent, "1.1.0"))
        (package / "json.py").symlink_to("main.py")
        self.refused("INVALID", "json.py", package, agent)
        (package / "json.py").unlink()
        (package / "main.py").write_text("changed = True\n")
        self.refused("INVALID", "main.py", package, agent)
        sum_up(package)
        self.refused("DENIED", "does not hold", package, agent)
        (package / "SHA256SUMS.minisig").write_text("untrusted comment: none\nabc\n")
        self.refused("INVALID", "minisig", package, agent)

    def test_a_foreign_signature(self):
        agent = self.begin_with("signedForeign", self.trusted.sign(self.version("signedForeign", "1.0.0")))
        self.refused("DENIED", "does not trust", self.foreign.sign(self.version(agent, "1.1.0")), agent)
        self.refused("DENIED", "does not trust", self.foreign.sign(self.version("signedNew", "1.0.0")))

    def test_a_stripped_signature(self):
        agent = self.begin_with("signedStripped", self.trusted.sign(self.version("signedStripped", "1.0.0")))
        package = self.trusted.sign(self.version(agent, "1.1.0"))
        (package / "SHA256SUMS.minisig").unlink()
        self.refused("DENIED", "not signed", package, agent)
        (package / "SHA256SUMS").unlink()
        self.refused("DENIED", "not signed", package, agent)

    def test_another_signer(self):
        agent = self.begin_with("signedTwice", self.trusted.sign(self.version("signedTwice", "1.0.0")))
        self.refused("DENIED", "signed by", self.other.sign(self.version(agent, "1.1.0")), agent)

    def test_another_signer_by_grant(self):
        agent = self.begin_with("changingAgent", self.trusted.sign(self.version("changingAgent", "1.0.0")))
        self.upgrade(agent, self.other.sign(self.version(agent, "1.1.0")))
        self.assertEqual(self.signer_of(agent, "1.1.0"), self.other.text)
        self.upgrade(agent, self.version(agent, "1.2.0"))
        self.assertIsNone(self.signer_of(agent, "1.2.0"))

    def test_unsigned_packages_come_from_local_directories_and_policy_may_forbid_that_too(self):
        agent = self.begin("signedLater")
        said = [each for each in self.ok("logs", agent).records if each["level"] == "warn" and "signed" in each["message"]]
        self.assertTrue(said, "the log has a warning")
        self.refused("DENIED", "archive", archive(self.version(agent, "1.1.0")), agent)
        self.refused("DENIED", "never", self.version("strictUnsigned", "1.0.0"))
        self.upgrade(agent, self.trusted.sign(self.version(agent, "1.1.0")))
        self.assertEqual(self.signer_of(agent, "1.1.0"), self.trusted.text)
        self.assertEqual(self.rollback(agent)["to"], "1.0.0")

    def test_a_copy_in_the_store_is_what_was_signed(self):
        agent = self.begin_with("strictStored", self.trusted.sign(self.version("strictStored", "1.0.0")))
        stored = self.daemon.state / "packages" / agent / self.versions(agent)["1.0.0"]["package"]
        copy = shutil.copytree(stored, self.scratch / "copy")
        run("sha256sum", "-c", "--strict", "SHA256SUMS", cwd=copy)
        run("minisign", "-V", "-p", self.trusted.public, "-m", copy / "SHA256SUMS")


if __name__ == "__main__":
    unittest.main()
