#!/usr/bin/python3
"""Holds the include graph of docs/architecture.md: which room may include which, and which outside library.

usage: include_graph.py [SOURCE_DIRECTORY]

Prints each edge that is not allowed with its file:line and exits 1. Before that it plants forbidden edges in a
scratch tree and expects to find exactly those: a check that cannot fail is no check.
"""

import pathlib
import re
import sys
import tempfile

# Room → rooms whose headers it may include, beside its own. A room is the longest key that its path starts with.
ROOMS = {
    "base": [],
    "audit": ["base"],
    "package": ["base"],
    "proto": ["base"],
    "policies": ["proto", "base"],
    "sandbox": ["proto", "base"],
    "agent-host": ["sandbox", "proto", "base"],
    "supervisor/keeper": ["policies", "sandbox", "proto", "base"],
    "supervisor/loop": ["base"],
    "supervisor/database": ["base"],
    "supervisor/memory": ["supervisor/loop", "supervisor/database", "proto", "base"],
    "supervisor/control": ["supervisor/memory", "supervisor/loop", "supervisor/database", "policies", "audit", "package", "proto",
                           "base"],
    "supervisor/egress": ["policies", "sandbox", "proto", "base"],
    "supervisor/doctor": ["sandbox", "base"],
    "kaictl": ["audit", "package", "proto", "base"],  # doctor is a program of its own
    "sdk": [],
    "examples": ["sdk"],
    "bench": ["supervisor/control", "supervisor/memory", "supervisor/loop", "supervisor/database", "policies", "proto", "base"],
    "tests": None,  # tests may look at everything
}

# Outside library → how its headers begin.
LIBRARIES = {
    "tl-expected": ("tl/",),
    "protobuf": ("google/protobuf/",),
    "yaml-cpp": ("yaml-cpp/",),
    "nlohmann-json": ("nlohmann/",),
    "libseccomp": ("seccomp.h",),
    "libcap": ("sys/capability.h",),
    "libuv": ("uv.h", "uv/"),
    "sqlite": ("sqlite3.h",),
    "hiredis": ("hiredis/",),
    "ldns": ("ldns/",),
    "libidn2": ("idn2.h",),
    "libsodium": ("sodium.h", "sodium/"),
    "libsecp256k1": ("secp256k1.h",),
    "libarchive": ("archive.h", "archive_entry.h"),
    "CLI11": ("CLI/",),
    "doctest": ("doctest/",),
    "valijson": ("valijson/",),
}

# Room → the libraries that it may use. What is missing here is missing on purpose: no event loop and no database in
# anything that runs beside an agent, and no general JSON parser in agent-host.
ROOM_LIBRARIES = {
    "base": {"tl-expected"},
    "audit": {"tl-expected", "libsodium", "nlohmann-json"},
    "package": {"tl-expected", "libsodium"},
    "proto": {"tl-expected", "protobuf"},
    "policies": {"tl-expected", "protobuf", "yaml-cpp", "nlohmann-json", "libseccomp", "libidn2"},
    "sandbox": {"tl-expected", "protobuf", "libcap"},
    "agent-host": {"tl-expected", "protobuf", "libsodium", "libsecp256k1"},
    "supervisor/keeper": {"tl-expected", "protobuf", "libcap", "yaml-cpp"},
    "supervisor/loop": {"libuv"},
    "supervisor/database": {"tl-expected", "sqlite"},
    "supervisor/memory": {"tl-expected", "protobuf", "nlohmann-json", "libuv", "libsodium", "hiredis"},
    "supervisor/control": {"tl-expected", "protobuf", "nlohmann-json", "libuv", "sqlite", "libsodium", "libsecp256k1",
                           "libarchive"},
    "supervisor/egress": {"tl-expected", "protobuf", "libseccomp"},
    "supervisor/doctor": {"tl-expected", "nlohmann-json"},
    "kaictl": {"tl-expected", "protobuf", "nlohmann-json", "CLI11", "libarchive"},
    "sdk": {"nlohmann-json"},
    "examples": set(),
    "bench": {"tl-expected", "protobuf", "nlohmann-json"},
    "tests": set(LIBRARIES),
}

SKIPPED = {"build", "node_modules", ".git"}
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')


def room_of(path):
    """The room of a path from the project's root; None when it stands in none."""
    matching = [room for room in ROOMS if path == room or path.startswith(room + "/")]
    return max(matching, key=len, default=None)


def library_of(header):
    for library, beginnings in LIBRARIES.items():
        for beginning in beginnings:
            if header == beginning or (beginning.endswith("/") and header.startswith(beginning)):
                return library
    return None


def sources(root):
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.suffix in (".h", ".hpp", ".cc", ".cpp") and not SKIPPED & set(relative.parts):
            yield path, relative.as_posix()


def fault(room, quoted, system):
    """Why this include is not allowed; None when it is."""
    header = quoted or system
    library = library_of(header)
    if library is not None:
        return None if library in ROOM_LIBRARIES[room] else f"{room} may not use the library {library}"
    if system is not None:
        return None
    if ROOMS[room] is None:
        return None
    # The C++ SDK is used from outside this tree as <kai/...>, and by itself under the same name.
    target = "sdk" if header.startswith("kai/") else room_of(header)
    if target is None:
        return f'"{header}" is not a path from the project\'s root'
    if target != room and target not in ROOMS[room]:
        allowed = ", ".join(ROOMS[room]) or "nothing"
        return f"{room} → {target} is not an allowed edge ({room} may include {allowed})"
    return None


def check(root):
    """(number of includes looked at, list of "file:line: reason")."""
    looked_at, faults = 0, []
    for path, relative in sources(root):
        room = room_of(relative)
        if room is None:
            faults.append(f"{relative}:1: this folder is no room of docs/architecture.md")
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            match = INCLUDE.match(line)
            if not match:
                continue
            looked_at += 1
            reason = fault(room, match.group(1), match.group(2))
            if reason:
                faults.append(f"{relative}:{number}: {reason}")
    return looked_at, faults


def self_test():
    planted = {
        "base/a.cc": ('#include "proto/frame.h"', "base → proto"),
        "agent-host/b.cc": ("#include <uv.h>", "agent-host may not use the library libuv"),
        "sandbox/c.h": ("#  include <sqlite3.h>", "sandbox may not use the library sqlite"),
        "supervisor/control/d.cc": ('#include "supervisor/keeper/check.h"', "supervisor/control → supervisor/keeper"),
        "policies/e.cc": ('#include "manifest.h"', "is not a path from the project's root"),
        "attic/f.cc": ("", "no room"),
    }
    allowed = {
        "supervisor/keeper/g.cc": '#include "sandbox/apply.h"',
        "agent-host/h.cc": '#include "proto/klp.pb.h"',
        "tests/unit/i.cc": '#include "supervisor/control/lifecycle.h"',
        "base/j.cc": "#include <sys/socket.h>",
    }
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        for name, line in [(n, p[0]) for n, p in planted.items()] + list(allowed.items()):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(f"// planted\n{line}\n", encoding="utf-8")
        _, faults = check(root)
    for name, (_, reason) in planted.items():
        found = [fault for fault in faults if fault.startswith(name + ":") and reason in fault]
        if len(found) != 1:
            return f"the forbidden include planted in {name} was not found; found: {faults}"
    if len(faults) != len(planted):
        return f"an allowed include was reported: {faults}"
    return None


def main():
    if len(sys.argv) > 2:
        print(__doc__, file=sys.stderr)
        return 2
    root = pathlib.Path(sys.argv[1] if len(sys.argv) == 2 else pathlib.Path(__file__).parent.parent).resolve()
    broken = self_test()
    if broken:
        print(f"include_graph.py: self-test: {broken}", file=sys.stderr)
        return 1
    looked_at, faults = check(root)
    for line in faults:
        print(line, file=sys.stderr)
    if faults or looked_at == 0:
        print(f"{len(faults)} forbidden includes of {looked_at}", file=sys.stderr)
        return 1
    print(f"{looked_at} includes, all allowed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
