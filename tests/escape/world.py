"""The host that the escape suite attacks: what there is to be reached, read, used up or left behind, arranged so that every
attempt succeeds without a sandbox. As root all of it lies in a mount namespace of this run's own, so that the machine's
/run and /usr stay as they are.
"""

import os
import pathlib
import pty
import shutil
import socket
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
NAMESPACES = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--net",
              "--cgroup", "--mount-proc"]
SUID_DIRECTORY = "/usr/local/games"  # of Debian, empty; seen inside as part of /usr
GROUP = 42424  # of nobody; what launchers leave to whom they start
IN_OWN_MOUNTS = "KAI_ESCAPE_WORLD"


def enter_own_mounts():
    """As root: this program again, in a mount namespace of its own."""
    if os.geteuid() != 0 or os.environ.get(IN_OWN_MOUNTS):
        return
    os.environ[IN_OWN_MOUNTS] = "1"
    os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv])


def mount_tmpfs(path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", path], check=True)


def root_disk():
    """A block device of the host."""
    for name in sorted(os.listdir("/dev")):
        path = pathlib.Path("/dev", name)
        if path.is_block_device():
            return str(path)
    return "/dev/no-block-device"


class World:
    """Made by whoever runs the suite; given to both runs as ESCAPE_* settings."""

    def __init__(self, bin_directory, state, kaid_socket):
        self.as_root = os.geteuid() == 0
        self.bin = pathlib.Path(bin_directory)
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="kai-escape-"))
        self.directory.chmod(0o755)
        self.listeners = []
        self.masters = []
        self.cgroup = None
        self.canary = self.directory / "canary"
        self.canary.write_text("untouched\n")
        writable = self.directory / "writable"
        writable.mkdir()
        # Not beside the mounts below: as an ordinary user kaid could not hide where such a directory lies.
        self.probe = self.directory / "bin" / "probe"
        self.probe.parent.mkdir()
        shutil.copy(self.bin / "escape-probe", self.probe)
        abstract = f"{self.directory}/abstract"
        self._listen(socket.AF_UNIX, "\0" + abstract)
        tcp = self._listen(socket.AF_INET6, ("::", 0))
        self.target = subprocess.Popen(["/usr/bin/sleep", "100000"], stdin=subprocess.DEVNULL, start_new_session=True)
        self.settings = {
            "DIRECTORY": str(self.directory), "FILE": str(self.canary), "ABSTRACT": abstract, "PORT": str(tcp.getsockname()[1]),
            "TARGET": str(self.target.pid), "STATE": str(state), "SOCKET": str(kaid_socket), "DISK": root_disk(),
            "UID": str(os.geteuid()), "SWAP": str(self.directory / "swap"), "ADDRESS": self._address_in_target(),
            "CGROUP": "/sys/fs/cgroup", "WRITABLE": str(writable), "INSIDE": "0"}
        if self.as_root:
            self._arrange_as_root()

    def _listen(self, family, address):
        listener = socket.socket(family)
        listener.bind(address)
        listener.listen(64)
        self.listeners.append(listener)
        return listener

    def _address_in_target(self):
        """Where a byte of the victim's heap lies; its last one, which nobody uses."""
        path = pathlib.Path(f"/proc/{self.target.pid}/maps")
        while True:
            for line in path.read_text().splitlines():
                if line.endswith("[heap]") and b"sleep" in pathlib.Path(f"/proc/{self.target.pid}/cmdline").read_bytes():
                    return hex(int(line.split()[0].split("-")[1], 16) - 1)

    def _arrange_as_root(self):
        mount_tmpfs("/run")
        os.mkdir("/run/dbus")
        for path in ("/run/docker.sock", "/run/dbus/system_bus_socket"):
            self._listen(socket.AF_UNIX, path)
            os.chmod(path, 0o666)
        mount_tmpfs(SUID_DIRECTORY)
        set_id = pathlib.Path(SUID_DIRECTORY, "kai-escape-suid")
        shutil.copy(self.probe, set_id)
        set_id.chmod(0o4755)
        mounted = self.directory / "mounted"
        mounted.mkdir()
        mount_tmpfs(mounted)
        swap = self.directory / "swap"
        swap.write_bytes(bytes(1 << 20))
        swap.chmod(0o600)
        subprocess.run(["mkswap", str(swap)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        v2 = pathlib.Path("/sys/fs/cgroup/unified" if os.path.isdir("/sys/fs/cgroup/unified") else "/sys/fs/cgroup")
        self.cgroup = v2 / self.directory.name
        self.cgroup.mkdir()
        self.settings["CGROUP"] = str(self.cgroup)

    def terminal(self, user=None):
        """The path of a new terminal of `user`, whose other end stays open here."""
        master, slave = pty.openpty()
        self.masters.append(master)
        path = os.ttyname(slave)
        os.close(slave)
        if user:
            os.chown(path, user.pw_uid, user.pw_gid)
        return path

    def launcher(self, *options):
        return ["/usr/bin/python3", str(HERE / "launcher.py"), "--directory", str(self.directory), *options, "--"]

    def environment(self):
        return {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", **{f"ESCAPE_{name}": value for name, value in self.settings.items()}}

    def untouched(self):
        """What attempts changed on the host, one line each."""
        faults = []
        if self.canary.read_text() != "untouched\n":
            faults.append(f"{self.canary} was changed")
        if self.target.poll() is not None:
            faults.append(f"the process {self.target.pid} outside ended with {self.target.returncode}")
        left = [path.name for path in (self.directory / "writable").iterdir()]
        return faults + [f"left in the host's directory: {name}" for name in left]

    def control(self, names, needs):
        """name → answer of the attempts, made without a sandbox."""
        options, before = [], []
        if "pty" in needs:
            options = ["--terminal", self.terminal()]
        elif "console" in needs and self.as_root:
            options = ["--terminal", "/dev/tty12"]
        if "namespaces" in needs:
            before = NAMESPACES if self.as_root else [*NAMESPACES, "--user", "--map-root-user"]
        elif "nobody" in needs and self.as_root:
            before = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        elif self.cgroup:
            # Joins a group as an agent would, so that there is one to leave.
            before = ["/bin/sh", "-c", 'echo 0 >"$0/cgroup.procs"; exec "$@"', str(self._leaf())]
        completed = subprocess.run([*self.launcher(*options), *before, str(self.probe), "run", *names], env=self.environment(),
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace",
                                   timeout=60, check=False)
        return answers(completed.stdout)

    def _leaf(self):
        leaf = self.cgroup / "leaf"
        leaf.mkdir(exist_ok=True)
        return leaf

    def end_target(self):
        if self.target.poll() is None:
            self.target.kill()
        self.target.wait()

    def close(self):
        self.end_target()
        if self.as_root:
            subprocess.run(["umount", str(self.directory / "mounted")], check=False)
        for listener in self.listeners:
            listener.close()
        for master in self.masters:
            os.close(master)
        if self.cgroup:
            for group in (self.cgroup / "leaf", self.cgroup):
                if group.exists():
                    group.rmdir()
        shutil.rmtree(self.directory, ignore_errors=True)


def answers(output):
    """name → "refused HOW DETAIL" or "escaped DETAIL" of the probe's lines."""
    return {name: answer for name, _, answer in (line.partition(" ") for line in output.splitlines()) if answer}
