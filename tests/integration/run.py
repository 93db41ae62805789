#!/usr/bin/python3
"""Runs integration tests against the built programs, as root or as an ordinary user.

usage: run.py --bin DIRECTORY --as root|user [--in DIRECTORY] [TEST_MODULE...]

As root, `--as user` makes a system user for the run, with a home and a runtime directory of its own, and removes all of
it afterwards. Without root, `--as user` runs as who we are, and `--as root` counts every test as skipped.
"""

import argparse
import os
import pathlib
import pwd
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent


def all_tests(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from all_tests(test)
        else:
            yield test


def wants_root(test):
    method = getattr(test, test._testMethodName, None)
    return getattr(method, "needs_root", False) or getattr(type(test), "needs_root", False)


def run_tests(directory, modules, skipped_because=None):
    sys.path[:0] = [str(HERE), str(directory)]
    import harness  # after KAI_BIN is known

    harness.adopt_orphans()
    tests = list(all_tests(unittest.defaultTestLoader.loadTestsFromNames(modules)))
    if skipped_because:
        for test in tests:
            # Neither the method nor the class's daemon may run.
            setattr(type(test), "setUpClass", classmethod(lambda cls: None))
            setattr(type(test), "tearDownClass", classmethod(lambda cls: None))
            setattr(test, test._testMethodName, lambda: (_ for _ in ()).throw(unittest.SkipTest(skipped_because)))
    elif not harness.IS_ROOT:
        about_root = [test for test in tests if wants_root(test)]
        tests = [test for test in tests if not wants_root(test)]
        print(f"as an ordinary user: {len(tests)} tests; {len(about_root)} are about root's kaid and belong to the "
              "root run", file=sys.stderr)
    print(f"as uid {os.geteuid()}, programs of {os.environ['KAI_BIN']}", file=sys.stderr)
    result = unittest.TextTestRunner(verbosity=2).run(unittest.TestSuite(tests))
    return 0 if result.wasSuccessful() else 1


def as_made_user(arguments):
    """This script again, under a user that exists for as long as it takes."""
    name = f"kaitest{os.getpid()}"
    home = tempfile.mkdtemp(prefix="kai-user-")
    subprocess.run(["useradd", "--system", "--no-create-home", "--home-dir", home, "--shell", "/bin/sh", name], check=True)
    try:
        user = pwd.getpwnam(name)
        os.chown(home, user.pw_uid, user.pw_gid)
        runtime = pathlib.Path(home, "runtime")
        runtime.mkdir(mode=0o700)
        os.chown(runtime, user.pw_uid, user.pw_gid)
        environment = {"HOME": home, "USER": name, "LOGNAME": name, "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8",
                       "XDG_RUNTIME_DIR": str(runtime), "TMPDIR": home, "PYTHONDONTWRITEBYTECODE": "1",
                       **{key: value for key, value in os.environ.items() if key.startswith(("KAI_", "ASAN_", "UBSAN_"))}}
        probe = subprocess.run(["setpriv", f"--reuid={name}", f"--regid={name}", "--init-groups", "test", "-x",
                                str(pathlib.Path(arguments.bin, "kaid"))], check=False)
        if probe.returncode != 0:
            print(f"run.py: user {name} cannot run {arguments.bin}/kaid: give every directory above it mode o+x",
                  file=sys.stderr)
            return 1
        return subprocess.run(["setpriv", f"--reuid={name}", f"--regid={name}", "--init-groups", "--inh-caps=-all",
                               "/usr/bin/python3", str(HERE / "run.py"), "--bin", arguments.bin, "--as", "user",
                               "--in", str(arguments.directory), *arguments.modules], env=environment, cwd="/", check=False).returncode
    finally:
        subprocess.run(["userdel", name], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(home, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--as", dest="who", choices=("root", "user"), required=True)
    parser.add_argument("--in", dest="directory", type=pathlib.Path, default=HERE, help="where the modules are")
    parser.add_argument("modules", nargs="*")
    arguments = parser.parse_args()
    arguments.bin = str(pathlib.Path(arguments.bin).resolve())
    arguments.directory = arguments.directory.resolve()
    arguments.modules = arguments.modules or sorted(path.stem for path in arguments.directory.glob("test_*.py"))
    os.environ["KAI_BIN"] = arguments.bin
    if arguments.who == "user" and os.geteuid() == 0:
        return as_made_user(arguments)
    needs_root = arguments.who == "root" and os.geteuid() != 0
    return run_tests(arguments.directory, arguments.modules,
                     "needs root, and scripts/test was started by an ordinary user" if needs_root else None)


if __name__ == "__main__":
    sys.exit(main())
