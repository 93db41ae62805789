"""What the programs of this directory that drive a kaid have in common: their arguments, and where the tests' daemon is."""

import argparse
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests/integration"))


def parse(document, **counts):
    """Arguments of a program whose docstring is `document`: --bin (a resolved path, as `programs`), and a number for each
    of `counts`, with its default. After this, the tests' harness can be imported."""
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=HERE.parent / "build/release/bin")
    for name, default in counts.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    arguments = parser.parse_args()
    arguments.programs = pathlib.Path(arguments.bin).resolve()
    os.environ["KAI_BIN"] = str(arguments.programs)  # the harness reads it when it is loaded
    return arguments


def must(daemon, *words):
    """The outcome of a kaictl without which there is nothing to measure."""
    outcome = daemon.ctl(*words)
    if outcome.code != 0:
        raise SystemExit(f"{outcome}\n{daemon.log[-4000:]}")
    return outcome
