#!/usr/bin/python3
"""Runs a program with everything that a careless launcher leaves to it, and that an agent must not have: a terminal, open
descriptors, a directory, a secret in the environment, a key in the session keyring, a supplementary group.

usage: launcher.py --directory DIR [--terminal TTY] -- PROGRAM [ARGUMENT...]

kaid and the control run of tests/escape are started by it alike.
"""

import argparse
import ctypes
import os
import platform
import sys

SECRET = "KAI_TEST_SECRET"
KEY = b"kai-escape-key"
GROUP = 42424
ADD_KEY, KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}[platform.machine()]
JOIN_SESSION_KEYRING, SESSION_KEYRING = 1, -3


def call(libc, what, *arguments):
    if libc.syscall(*[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]) < 0:
        sys.exit(f"launcher.py: {what}: {os.strerror(ctypes.get_errno())}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", required=True)
    parser.add_argument("--terminal")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()

    libc = ctypes.CDLL(None, use_errno=True)
    call(libc, "keyctl", KEYCTL, JOIN_SESSION_KEYRING, None)
    call(libc, "add_key", ADD_KEY, b"user", KEY, b"x", 1, SESSION_KEYRING)
    if os.geteuid() == 0:
        os.setgroups([GROUP])
    if os.getsid(0) != os.getpid():
        os.setsid()
    if arguments.terminal:
        os.dup2(os.open(arguments.terminal, os.O_RDWR), 0)  # of a session leader without one: the controlling terminal
    for place, path in ((9, arguments.directory), (10, os.path.join(arguments.directory, "canary"))):
        os.dup2(os.open(path, os.O_RDONLY), place)  # dup2: inherited
    os.chdir(arguments.directory)
    os.environ[SECRET] = "of the launcher"
    os.execvp(arguments.command[0], arguments.command)


if __name__ == "__main__":
    main()
