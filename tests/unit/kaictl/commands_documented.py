#!/usr/bin/python3
"""Every command that `kaictl --help` lists has --help, a section of kaictl(1) with its exit status and an example, and
is completed, with all its options; and none is documented that is not there.

usage: commands_documented.py KAICTL SOURCE_DIRECTORY
"""

import pathlib
import re
import subprocess
import sys


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def words_below(kaictl, *command):
    """The commands that a --help lists; none where it lists none."""
    _, _, listed = run(kaictl, *command, "--help").partition("Subcommands:\n")
    return [line.split()[0] for line in listed.split("\n\n")[0].splitlines() if re.match(r"  \S", line)]


def commands_of(kaictl):
    """Every command with its whole name: "start", "policy check"; "quarantine" too, which takes an ID of its own."""
    commands = []
    for word in words_below(kaictl):
        below = [f"{word} {name}" for name in words_below(kaictl, word)]
        if not below or "Positionals:" in run(kaictl, word, "--help"):
            commands.append(word)
        commands += below
    return commands


def options_of(kaictl, command):
    """Long and short options of the command itself, as its --help lists them."""
    listed = re.findall(r"^  (-[\w,-]+)", run(kaictl, *command.split(), "--help"), re.MULTILINE)
    return {option for names in listed for option in names.split(",")} - {"-h", "--help"}


def sections_of(page):
    """The text of each .Ss below .Sh COMMANDS, by its name."""
    body = page.split(".Sh COMMANDS\n")[1].split("\n.Sh ")[0]
    parts = re.split(r"^\.Ss (.+)$", body, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2]))


def completed(script, line):
    words = line.split(" ")
    command = (f'source "{script}"; COMP_WORDS=({" ".join(words[:-1])} "{words[-1]}"); COMP_CWORD={len(words) - 1}; '
               'kaictl() { return 3; }; _kaictl; printf "%s\\n" "${COMPREPLY[@]}"')
    return set(run("bash", "-c", command).split())


def main():
    kaictl, source = sys.argv[1], pathlib.Path(sys.argv[2])
    page = (source / "packaging/man/kaictl.1").read_text(encoding="utf-8")
    script = source / "packaging/completion/kaictl.bash"
    commands, sections = commands_of(kaictl), sections_of(page)
    faults = []
    if set(sections) != set(commands):
        faults.append(f"kaictl(1) and --help differ in: {sorted(set(sections) ^ set(commands))}")
    offered = {word for word in completed(script, "kaictl ") if not word.startswith("-")}
    first_words = {command.split()[0] for command in commands}
    if offered != first_words:
        faults.append(f"the completion and --help differ in: {sorted(offered ^ first_words)}")
    for word in sorted({command.split()[0] for command in commands if " " in command}):
        below = {command.split()[1] for command in commands if command.startswith(word + " ")}
        if completed(script, f"kaictl {word} ") != below:
            faults.append(f"the completion of {word} lacks one of {sorted(below)}")
    shared = {"--socket", "--output", "-o", "--help", "--version", "--"}
    for command in commands:
        section = sections.get(command, "")
        if "Exit status:" not in section or ".Bd -literal" not in section:
            faults.append(f"kaictl(1): {command} lacks its exit status or an example")
        options = options_of(kaictl, command)
        for option in sorted(options):
            if not re.search(r"(?:Fl |, )" + re.escape(option[1:]) + r"\b", section):
                faults.append(f"kaictl(1): {command} lacks {option}")
        difference = (options - shared) ^ (completed(script, f"kaictl {command} -") - shared)
        if difference:
            faults.append(f"the completion of {command} and its --help differ in: {sorted(difference)}")
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{len(commands)} commands looked at, {len(faults)} faults")
    return 1 if faults or len(commands) < 13 else 0


if __name__ == "__main__":
    sys.exit(main())
