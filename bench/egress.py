#!/usr/bin/python3
"""Figures of egress: bulk both ways, round trips and connections a second of an agent, beside direct loopback, pasta and
slirp4netns to the same server; what a network adds to an agent's start; kai-egress's memory; a small agent's traffic
beside a greedy and a slow one.

usage: bench/egress.py [--bin DIRECTORY] [--turns N] [--seconds S] [--agents N]

Measured in turns, one of each after the other, S seconds each; medians. The server listens on the host's loopback. pasta
and slirp4netns lead there by the address of their gateway, as any client's connection goes; "pasta -T" splices chosen
ports of the loopback alone. Needs the targets programs, kai-traffic, kai-starts and stamp of a build (default:
build/release). About four minutes, on an idle machine.
"""

import concurrent.futures
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import tempfile
import time

from command_line import must, parse
from processes import cpu_seconds, rss_kb
from traffic_sides import NETWORK, Agent, Direct, Server, peers, policy

MB = 1 << 20
CONNECTING = 8  # clients that connect at the same time
BURST = 12      # starts one right after the other: six times what stands ready
GREEDY, SLOW = 8, 64


class Table:
    """Samples by figure and side."""

    def __init__(self, sides):
        self.sides, self.samples = sides, {}

    def add(self, figure, side, value):
        self.samples.setdefault(figure, {}).setdefault(side, []).append(value)

    def median(self, figure, side):
        values = self.samples[figure].get(side)
        return statistics.median(values) if values else None

    def show(self):
        def cell(value, form):
            return format("-" if value is None else format(value, form), ">12")

        beside = [side for side in self.sides if side != "egress"]
        print(format("", "24") + "".join(format(side, ">12") for side in self.sides) +
              "".join(format(f"to {side}", ">16") for side in beside))
        for figure in self.samples:
            medians = {side: self.median(figure, side) for side in self.sides}
            line = format(figure, "24") + "".join(cell(medians[side], ",.2f") for side in self.sides)
            for side in beside:
                ratio = medians["egress"] / medians[side] if medians["egress"] and medians[side] else None
                line += " " * 4 + cell(ratio, ".2f")
            print(line, flush=True)


def bulk(table, side, direction, seconds):
    before = None if side.forwarder is None else cpu_seconds(side.forwarder)
    found = side.run(direction, seconds)
    if found is None:
        return
    table.add(f"{direction} MB/s", side.name, found["bytes"] / MB / found["seconds"])
    if before is not None:
        used = cpu_seconds(side.forwarder) - before
        table.add(f"cpu s/GB {direction}", side.name, used / (found["bytes"] / (1 << 30)))


def throughput(sides, turns, seconds):
    table = Table([side.name for side in sides])
    failed = 0
    for _ in range(turns):
        for side in sides:
            bulk(table, side, "upload", seconds)
            bulk(table, side, "download", seconds)
            if trips := side.run("round-trips", seconds):
                table.add("1 byte and back p50 us", side.name, trips["p50"])
                table.add("1 byte and back p99 us", side.name, trips["p99"])
            if made := side.run("connections", seconds, CONNECTING):
                table.add("connections/s", side.name, made["connections"] / made["seconds"])
                failed += made["failed"]
    print(f"medians of {turns} turns of {seconds:g} s; connections by {CONNECTING} clients, a byte each way, {failed} failed")
    table.show()


def start_times(daemon, programs, agents):
    done = subprocess.run([str(programs / "kai-starts"), str(daemon.socket), *agents], stdout=subprocess.PIPE, text=True,
                          check=True)
    return [float(line) for line in done.stdout.splitlines()]


def compare_starts(title, without, with_network):
    medians = statistics.median(without), statistics.median(with_network)
    print(f"{title}: {medians[0]:,.0f} us without a network (minimum {min(without):,.0f}), {medians[1]:,.0f} with (minimum "
          f"{min(with_network):,.0f}), {medians[1] - medians[0]:+,.0f} us, ratio {medians[1] / medians[0]:.2f}", flush=True)


def starts(daemon, programs, networked, plain, turns):
    ready, drained = {True: [], False: []}, {True: [], False: []}
    for _ in range(turns * 4):
        for network, agents in ((False, plain), (True, networked)):
            time.sleep(0.3)  # until the keeper has made new starters: nothing says when
            ready[network] += start_times(daemon, programs, agents[:1])
    for _ in range(turns):
        for network, agents in ((False, plain), (True, networked)):
            drained[network] += start_times(daemon, programs, agents)[BURST // 3:]
    compare_starts("start with ready starters", ready[False], ready[True])
    compare_starts(f"start {BURST // 3 + 1} to {BURST} one right after the other", drained[False], drained[True])


def memory(daemon, traffic, idle, pid):
    def shown():
        return rss_kb(pid()) / 1024

    before, began, lines = shown(), 1, []
    for count in sorted({1, min(100, len(idle)), len(idle)}):
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda agent: must(daemon, "start", agent), idle[began - 1:count]))
        began = count + 1
        lines.append(f"{shown():.1f} MB after {count}")
    print(f"kai-egress RSS: {before:.1f} MB with three agents, then idle ones with a network: {', '.join(lines)}; "
          f"{(shown() - before) * 1024 / len(idle):.1f} KB each", flush=True)
    before = shown()
    held = traffic.hold("idle", 1000)
    print(f"kai-egress RSS with 1,000 idle connections: {shown():.1f} MB, {(shown() - before) * 1024 / 1000:.2f} KB each",
          flush=True)
    traffic.release(held)
    for agent in idle:
        must(daemon, "stop", agent)


def fairness(label, small, greedy, slow, turns, seconds):
    """A small client alone, beside GREEDY uploads of another, and beside SLOW downloads that another never reads."""
    table = Table(["alone", "beside slow", "beside greedy"])

    def measure(column):
        trips, found = small.run("round-trips", seconds), small.run("download", seconds)
        table.add("p50 us", column, trips["p50"])
        table.add("p99 us", column, trips["p99"])
        table.add("download MB/s", column, found["bytes"] / MB / found["seconds"])

    for _ in range(turns):
        measure("alone")
        for column, side, mode, count in (("beside slow", slow, "slow", SLOW), ("beside greedy", greedy, "greedy", GREEDY)):
            held = side.hold(mode, count)
            time.sleep(1)  # until every buffer on the way of what is never read is full: nothing says when
            measure(column)
            side.release(held)
    print(f"a small client, {label}: " + "; ".join(
        f"{figure} " + ", ".join(f"{table.median(figure, column):,.1f} {column}" for column in table.sides)
        for figure in table.samples), flush=True)


def register(daemon, packages, programs, scratch, name, network):
    """An exec agent that does nothing."""
    security = {**packages.CORRECT["security"], "networkAccess": NETWORK if network else {"allowOutbound": False}}
    root = packages.package(scratch, name, "stamp", "", runtime={"kind": "exec"}, security=security)
    shutil.copy(programs / "stamp", root / "stamp")
    must(daemon, "register", root)
    return name


def conditions():
    return f"load {' '.join(f'{load:.2f}' for load in os.getloadavg())}"


def measure(arguments, daemon, server, beside, scratch):
    import packages

    programs, turns, seconds = arguments.programs, arguments.turns, arguments.seconds
    small, greedy, slow = (Agent(daemon, must, packages, programs, scratch, name, server.port)
                           for name in ("small", "greedy", "slow"))
    direct = Direct(programs, server.port)
    throughput([direct, small, *beside], turns, seconds)
    fairness("through egress", small, greedy, slow, turns, seconds)
    fairness("direct, for comparison", direct, direct, direct, turns, seconds)

    plain = [register(daemon, packages, programs, scratch, f"plain{number}", False) for number in range(BURST)]
    idle = [register(daemon, packages, programs, scratch, f"idle{number}", True)
            for number in range(max(arguments.agents, BURST))]
    starts(daemon, programs, idle[:BURST], plain, turns)
    memory(daemon, small, idle[:arguments.agents], lambda: small.forwarder)


def main():
    arguments = parse(__doc__, turns=5, seconds=1.0, agents=500)
    from harness import Daemon, wait_until

    print(f"egress: Linux {platform.release()}, {os.cpu_count()} CPUs, uid {os.geteuid()}, {conditions()} at the begin",
          flush=True)
    server = Server(arguments.programs)
    daemon, namespaces = Daemon(arguments.programs), []
    daemon.neighbours.add(server.process.pid)
    try:
        namespaces, beside = peers(arguments.programs, server.port, wait_until)
        daemon.neighbours.update(pid for each in namespaces for pid in (each.holder.pid, each.forwarder.pid))
        daemon.write_policies(**{"10-bench": policy(server.port)})
        daemon.start()
        with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
            pathlib.Path(scratch).chmod(0o755)
            measure(arguments, daemon, server, beside, scratch)
        print(f"{conditions()} at the end", flush=True)
        daemon.stop()
    finally:
        for namespace in namespaces:
            namespace.end()
        server.end()
        daemon.clean_up()


if __name__ == "__main__":
    main()
