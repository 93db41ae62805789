"""Runs one agent: python3 -P -m kai.runner ENTRY, with the runner protocol on descriptor 3.

The protocol: docs/runner-protocol.md.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

import kai

HELLO = b'{"jsonrpc":"2.0","method":"hello","params":{"sdk":"python/%s","protocol":1}}\n'


def main() -> int:
    if len(sys.argv) != 2:
        return _fail("usage: python3 -P -m kai.runner ENTRY")
    # Programs that the agent starts have no runner channel: neither its number nor the descriptor.
    fd = int(os.environ.pop("KAI_RUNNER_FD", "3"))
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
        os.set_inheritable(fd, False)
        os.write(fd, HELLO % kai.__version__.encode())
    except OSError as error:
        return _fail(f"descriptor {fd} is not a runner channel ({error.strerror}); agents are started by kaictl start")
    # A line that the agent prints is a line of its log at once, not when a buffer is full.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]

    # Only now: these take longer than all before, and the host already knows that the runner lives.
    import asyncio
    import socket

    from kai._session import serve

    asyncio.run(serve(socket.socket(fileno=fd), sys.argv[1]))
    return 0


def _fail(message: str) -> int:
    print(f"kai runner: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
