// Layers that the probe alone cannot show: denials as the operator reads them, what a missing layer does, private and
// host data, the host's network, and runtimes that live under their profile without a single denial.
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <arpa/inet.h>
#include <doctest/doctest.h>

#include "base/fd.h"
#include "base/unix.h"
#include "policies/filters.h"
#include "tests/sandbox/launch.h"

namespace {

using kai::spec::Mount;
using kai::test::LaunchOptions;
using kai::test::Outcome;
using kai::test::probe_spec;
using kai::test::run_confined;
using kai::test::run_free;
using Words = std::vector<std::string>;

Words texts(const Outcome& outcome) {
  Words all;
  for (const auto& refusal : outcome.refusals) all.push_back(refusal.text);
  return all;
}

Mount& add_mount(kai::spec::SandboxSpec& spec, Mount::Kind kind, const std::string& source, const std::string& target) {
  Mount& mount = *spec.add_mounts();
  mount.set_kind(kind);
  mount.set_source(source);
  mount.set_target(target);
  return mount;
}

Outcome run_shell(const std::string& script, const std::vector<Mount>& mounts = {}, const LaunchOptions& options = {}) {
  auto spec = probe_spec({"/bin/sh", "-c", script});
  for (const Mount& mount : mounts) *spec.add_mounts() = mount;
  return run_confined(spec, options);
}

/// A directory of the host that belongs to `owner`.
class HostDirectory {
 public:
  explicit HostDirectory(uid_t owner) {
    std::string name = "/tmp/kai-sandbox-XXXXXX";
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
    // Overlayfs, which a container's / is, cannot be idmapped.
    struct statfs status {};
    REQUIRE(statfs(name.c_str(), &status) == 0);
    mounted_ = status.f_type == OVERLAYFS_SUPER_MAGIC && geteuid() == 0;
    if (mounted_) REQUIRE(mount("kai-test", name.c_str(), "tmpfs", 0, nullptr) == 0);
    REQUIRE(chown(name.c_str(), owner, owner) == 0);
    REQUIRE(chmod(name.c_str(), 0755) == 0);
  }
  HostDirectory(const HostDirectory&) = delete;
  HostDirectory& operator=(const HostDirectory&) = delete;
  ~HostDirectory() {
    if (mounted_) (void)umount2(path_.c_str(), MNT_DETACH);
    std::filesystem::remove_all(path_);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
  bool mounted_ = false;
};

Mount host_mount(const std::string& source, bool read_only) {
  Mount mount;
  mount.set_kind(Mount::HOST);
  mount.set_source(source);
  mount.set_target("/data/shared");
  mount.set_read_only(read_only);
  return mount;
}

Mount private_mount(const std::string& name) {
  Mount mount;
  mount.set_kind(Mount::PRIVATE);
  mount.set_source(name);
  mount.set_target("/data/own");
  return mount;
}

/// A detached file system, as the keeper makes one of the agent's image.
kai::Fd detached_tmpfs() {
  const kai::Fd context(static_cast<int>(syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC)));
  REQUIRE(syscall(SYS_fsconfig, context.get(), FSCONFIG_SET_STRING, "size", "1m", 0) == 0);
  REQUIRE(syscall(SYS_fsconfig, context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) == 0);
  kai::Fd mount(static_cast<int>(syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, 0)));
  REQUIRE(mount);
  return mount;
}
/// The same file system once more: attaching a detached mount uses it up.
kai::Fd copy_of(const kai::Fd& mount) {
  auto copy = kai::clone_mount(mount.get(), false);
  REQUIRE(copy);
  return std::move(*copy);
}

/// Runs `check` in a child under a filter of the test's own: a kernel, or a host, that lacks something.
template <typename Check>
bool holds_under(const std::vector<sock_filter>& code, unsigned flags, Check check) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::vector<sock_filter> copy = code;
    const sock_fprog filter{static_cast<unsigned short>(copy.size()), copy.data()};
    const bool ready = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
                       syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter) >= 0;
    _exit(ready && check() ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

const std::vector<sock_filter> kAllowAll = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
const std::vector<sock_filter> kNoLandlock = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_landlock_create_ruleset, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};

kai::Fd listen_tcp(std::uint16_t& port) {
  kai::Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  REQUIRE(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), length) == 0);
  REQUIRE(listen(fd.get(), 8) == 0);
  REQUIRE(getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0);
  port = ntohs(address.sin_port);
  return fd;
}

// Chown and mounts of the test's own.
doctest::skip needs_root() {
  return doctest::skip(geteuid() != 0);
}

}  // namespace

TEST_SUITE("layers") {
  TEST_CASE("a refused call is told with its flags, its reason and its rule, and answered") {
    const auto outcome = run_confined(probe_spec({"probe", "user-namespace"}));
    CHECK(outcome.output == "EPERM\n");
    REQUIRE(outcome.refusals.size() == 1);
    CHECK(outcome.refusals[0].text == "unshare(CLONE_NEWUSER)");
    CHECK(outcome.refusals[0].rule.starts_with("base.yaml:"));
    CHECK(texts(run_confined(probe_spec({"probe", "ptrace"}))) == Words{"ptrace(PTRACE_TRACEME, 0, 0x0, 0x0)"});
    CHECK(outcome.degraded.empty());
  }

  TEST_CASE("set-up makes no refused call behind its own filter, where nobody would answer") {
    CHECK(run_confined(probe_spec({"/bin/true"}), {.without = "none"}).failed_step.empty());
    CHECK(run_confined(probe_spec({"/bin/true"}), {.without = "refused-call"}).failed_step == "listener");
  }

  TEST_CASE("set-id bits cannot be set, plain ones can") {
    CHECK(run_shell("touch /tmp/f && chmod 755 /tmp/f && echo plain; chmod u+s /tmp/f 2>/dev/null || echo refused")
              .output == "plain\nrefused\n");
  }

  TEST_CASE("a listener that is there already: refused, or silent where the policy lets it") {
    CHECK(holds_under(kAllowAll, SECCOMP_FILTER_FLAG_NEW_LISTENER, [] {
      const auto outcome = run_confined(probe_spec({"probe", "user-namespace"}));
      return outcome.failed_step == "seccomp" && outcome.output.empty();
    }));
    CHECK(holds_under(kAllowAll, SECCOMP_FILTER_FLAG_NEW_LISTENER, [] {
      auto spec = probe_spec({"probe", "user-namespace"});
      spec.add_degrade("seccompNotify");
      const auto outcome = run_confined(spec);
      return outcome.degraded == Words{"seccompNotify"} && outcome.output == "EPERM\n" && outcome.refusals.empty();
    }));
  }

  TEST_CASE("a kernel without Landlock: refused, or told as missing where the policy lets it") {
    CHECK(
        holds_under(kNoLandlock, 0, [] { return run_confined(probe_spec({"/bin/true"})).failed_step == "landlock"; }));
    CHECK(holds_under(kNoLandlock, 0, [] {
      auto spec = probe_spec({"/bin/echo", "runs"});
      spec.add_degrade("landlock");
      const auto outcome = run_confined(spec);
      return outcome.degraded == Words{"landlock"} && outcome.output == "runs\n";
    }));
  }

  TEST_CASE("Landlock refuses what mounts and modes allow") {
    for (const char* path : {"/dev/urandom", "/proc/self/comm"}) {
      CAPTURE(path);
      CHECK(run_free({"probe", "write", path}).output == "allowed\n");
      CHECK(run_confined(probe_spec({"probe", "write", path})).output == "EACCES\n");
      CHECK(run_confined(probe_spec({"probe", "write", path}), {.without = "landlock,verify"}).output == "allowed\n");
    }
    CHECK(run_confined(probe_spec({"probe", "write", "/dev/null"})).output == "allowed\n");
  }

  TEST_CASE("an agent's own directories can be used as directories are") {
    CHECK(run_shell("cd /tmp && mkdir a b && echo x >a/f && mv a/f b/g && ln b/g a/h && ln -s g b/s && mkfifo p && "
                    "cat a/h && : >/dev/null && echo y >/dev/shm/z && cat /dev/shm/z && rm -r a b p && echo done")
              .output == "x\ny\ndone\n");
  }

  TEST_CASE("a host path read-only: seen, not written, not executed") {
    const HostDirectory host(geteuid());
    std::ofstream(host.path() + "/f") << "#!/bin/sh\necho ran\n";
    REQUIRE(chmod((host.path() + "/f").c_str(), 0755) == 0);
    const auto outcome = run_shell(
        "head -1 /data/shared/f; echo x 2>/dev/null >/data/shared/new || echo refused; /data/shared/f 2>/dev/null || "
        "echo no",
        {host_mount(host.path(), true)});
    CAPTURE(outcome.detail);
    CHECK(outcome.output == "#!/bin/sh\nrefused\nno\n");
  }

  TEST_CASE("a writable host path: what the agent writes belongs to the path's owner") {
    const uid_t owner = geteuid() == 0 ? 12345 : geteuid();
    const HostDirectory host(owner);
    const auto outcome = run_shell("echo data >/data/shared/f; stat -c %u /data/shared /data/shared/f",
                                   {host_mount(host.path(), false)});
    CHECK_MESSAGE(outcome.failed_step.empty(), outcome.detail);
    CHECK(outcome.output == "1000\n1000\n");
    struct stat status {};
    REQUIRE(stat((host.path() + "/f").c_str(), &status) == 0);
    CHECK(status.st_uid == owner);
    CHECK(status.st_gid == owner);
  }

  TEST_CASE("a writable host path of root's is refused, with what to do" * needs_root()) {
    const HostDirectory host(0);
    const auto outcome = run_shell("true", {host_mount(host.path(), false)});
    CHECK(outcome.failed_step == "mounts");
    CHECK(outcome.detail.find("chown") != std::string::npos);
    CHECK(outcome.detail.find(host.path()) != std::string::npos);
  }

  TEST_CASE("a link on the way to a host path is not followed") {
    const HostDirectory host(geteuid() == 0 ? 1000 : geteuid());
    REQUIRE(symlink("/etc", (host.path() + "/link").c_str()) == 0);
    for (const bool read_only : {true, false}) {
      CHECK(run_shell("true", {host_mount(host.path() + "/link", read_only)}).failed_step == "mounts");
      CHECK(run_shell("true", {host_mount(host.path() + "/link/ssl", read_only)}).failed_step == "mounts");
    }
  }

  TEST_CASE("private data outlives an instance, belongs to the agent, and is bounded" * needs_root()) {
    const kai::Fd data = detached_tmpfs();
    const auto run = [&](const std::string& script) {
      const kai::Fd copy = copy_of(data);
      return run_shell(script, {private_mount("cache")}, {.private_data = kai::starter::MOUNT, .data_fd = copy.get()});
    };
    const auto first =
        run("stat -c '%u %a' /data/own; echo kept >/data/own/f; cp /bin/true /data/own/t; /data/own/t || echo no");
    CHECK_MESSAGE(first.failed_step.empty(), first.detail);
    CHECK(first.output.starts_with("1000 700\n"));
    CHECK(first.output.ends_with("no\n"));
    CHECK(run("cat /data/own/f").output == "kept\n");
    CHECK(run("head -c 2000000 /dev/zero >/data/own/big 2>/dev/null || echo full").output == "full\n");
    CHECK(run("touch /sys 2>/dev/null || echo 'no attach point'").output == "no attach point\n");
  }

  TEST_CASE("private data of an ordinary user's agent is a directory" * doctest::skip(geteuid() == 0)) {
    const HostDirectory data(geteuid());
    const kai::Fd fd(open(data.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    const LaunchOptions options{.private_data = kai::starter::DIRECTORY, .data_fd = fd.get()};
    const auto first =
        run_shell("echo kept >/data/own/f; stat -c '%u %a' /data/own", {private_mount("cache")}, options);
    CHECK_MESSAGE(first.failed_step.empty(), first.detail);
    CHECK(first.output == "1000 700\n");
    CHECK(run_shell("cat /data/own/f", {private_mount("cache")}, options).output == "kept\n");
    CHECK(std::filesystem::exists(data.path() + "/cache/f"));
    std::filesystem::remove_all(data.path() + "/cache");
    REQUIRE(symlink("/etc", (data.path() + "/cache").c_str()) == 0);
    CHECK(run_shell("true", {private_mount("cache")}, options).failed_step == "mounts");
  }

  TEST_CASE("a private directory that was replaced by a link is refused (CVE-2024-42472)" * needs_root()) {
    const kai::Fd data = detached_tmpfs();
    REQUIRE(symlinkat("/etc", data.get(), "cache") == 0);
    const auto outcome =
        run_shell("true", {private_mount("cache")}, {.private_data = kai::starter::MOUNT, .data_fd = data.get()});
    CHECK(outcome.failed_step == "mounts");
    CHECK(run_shell("true", {private_mount("..")},
                    {.private_data = kai::starter::MOUNT, .data_fd = detached_tmpfs().get()})
              .failed_step == "mounts");
    CHECK(run_shell("true", {private_mount("cache")}).failed_step == "mounts");  // none came with the job
  }

  TEST_CASE("the host's network: TCP to the granted ports, no bind") {
    std::uint16_t granted = 0;
    std::uint16_t other = 0;
    const kai::Fd first = listen_tcp(granted);
    const kai::Fd second = listen_tcp(other);
    const auto connect = [&](std::uint16_t port) {
      auto spec = probe_spec({"probe", "connect", std::to_string(port)});
      spec.set_host_network(true);
      spec.add_tcp_ports(granted);
      const auto outcome = run_confined(spec, {.host_network = true});
      return outcome.failed_step.empty() ? outcome.output : outcome.failed_step + ": " + outcome.detail;
    };
    CHECK(connect(granted) == "allowed\n");
    CHECK(connect(other) == "EACCES\n");
    auto spec = probe_spec({"probe", "listen"});
    spec.set_host_network(true);
    CHECK(run_free({"probe", "listen"}).output == "allowed\n");
    CHECK(run_confined(spec, {.host_network = true}).output == "EACCES\n");
  }

  TEST_CASE("the host's network: its abstract sockets are not reached") {
    const std::string name = "kai-layers-" + std::to_string(getpid());
    const kai::Fd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::copy(name.begin(), name.end(), address.sun_path + 1);
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    REQUIRE(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), length) == 0);
    REQUIRE(listen(listener.get(), 8) == 0);
    CHECK(run_free({"probe", "abstract", name}).output == "allowed\n");
    auto spec = probe_spec({"probe", "abstract", name});
    spec.set_host_network(true);
    CHECK(run_confined(spec, {.host_network = true}).output == "EPERM\n");
  }

  TEST_CASE("a starter of the wrong kind is noticed") {
    CHECK(run_confined(probe_spec({"/bin/true"}), {.host_network = true}).failed_step == "verify");
    auto spec = probe_spec({"/bin/true"});
    spec.set_host_network(true);
    CHECK(run_confined(spec).failed_step == "verify");
  }

  TEST_CASE("unsandboxed: the host's files, but no rights, ids, processes or limits of the host") {
    const HostDirectory host(geteuid());
    std::ofstream(host.path() + "/seen") << "host\n";
    auto spec = probe_spec(
        {"/bin/sh", "-c",
         "cat " + host.path() +
             "/seen; id -u; grep -c CapEff:.0000000000000000 /proc/self/status; "
             "grep NoNewPrivs /proc/self/status; test -r /etc/shadow || echo no shadow; "
             "test -d /proc/1 && readlink /proc/1/exe >/dev/null || echo hidden; echo $$; ls -d /agent/probe"});
    add_mount(spec, Mount::DESCRIPTOR, "", "/agent/probe").set_read_only(true);
    spec.set_unsandboxed(true);
    spec.clear_seccomp();
    spec.clear_seccomp_silent();
    const auto outcome = run_confined(spec, {.host_network = true});
    CHECK_MESSAGE(outcome.failed_step.empty(), outcome.failed_step << ": " << outcome.detail);
    CHECK(outcome.output == "host\n1000\n1\nNoNewPrivs:\t1\nno shadow\nhidden\n2\n/agent/probe\n");
  }

  TEST_CASE("all agents together weigh half of what stands beside them" * needs_root()) {
    const std::string name = "kai-test-weight-" + std::to_string(getpid());
    auto tree = kai::sandbox::CgroupTree::open(name, true);
    Words weights;
    for (const auto& entry : std::filesystem::recursive_directory_iterator("/sys/fs/cgroup")) {
      if (entry.path().filename() != name) continue;
      for (const char* file : {"cpu.weight", "cpu.shares"}) {
        if (const auto weight = kai::read_file(entry.path() / file)) weights.push_back(*weight);
      }
    }
    tree.remove();
    REQUIRE(weights.size() == 1);
    CHECK((weights[0] == "50\n" || weights[0] == "512\n"));
  }

  TEST_CASE("a fork refused at the pids limit is counted, and wakes whoever watches on v2" * needs_root()) {
    auto spec = probe_spec({"probe", "fork-bomb"});
    spec.mutable_cgroup()->set_pids(20);
    const auto outcome = run_confined(spec);
    CHECK(outcome.usage.pids_refused > 0);
    const bool v2 = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
    CHECK((outcome.pids_event || !v2));
    CHECK_FALSE(run_confined(probe_spec({"/bin/true"})).pids_event);
  }

  TEST_CASE("runtimes live under their profile without a denial") {
    struct Run {
      const char* profile;
      Words argv;
    };
    const Run runs[] = {
        {"base",
         {"/bin/bash", "-c",
          "cd /tmp; cp -p /etc/passwd x; cp -a x y; mkdir a; mv x a/; tar cf t.tar a; mkdir q; tar xf t.tar -C q; gzip "
          "t.tar; "
          "find / -xdev -maxdepth 2 >list; sort list | uniq -c | tail -1 >/dev/null; stat /; df /tmp; du -s a; install "
          "-m 600 y z; "
          "touch -d yesterday z; mktemp; nice -n 5 true; timeout 1 true; (sleep 0 &); cat <(echo hi); mkfifo f; "
          "(echo a >f &); cat f; flock z true; ulimit -a; nproc; id; date; ps"}},
        {"base",
         {"/bin/sh", "-c",
          "cd /tmp && git init -q r && cd r && echo a >f && git add f && git -c user.email=a@b -c user.name=a commit "
          "-qm m && "
          "git gc -q && git clone -q /tmp/r /tmp/s && git status"}},
        {"base", {"/usr/bin/perl", "-e", "open(F, '>', '/tmp/p'); print F 'x'; system('ls'); print getpwuid($<);"}},
        {"python",
         {"/usr/bin/python3", "-c",
          "import asyncio, concurrent.futures, multiprocessing, os, platform, shutil, socket, sqlite3, ssl, "
          "subprocess, threading, "
          "uuid\n"
          "subprocess.run(['ls', '/'])\n"
          "open('/tmp/x', 'w').write('a'); shutil.copy2('/tmp/x', '/tmp/y'); shutil.copytree('/etc/ssl', '/tmp/z')\n"
          "db = sqlite3.connect('/tmp/db'); db.execute('pragma journal_mode=wal'); db.execute('create table t(a)'); "
          "db.close()\n"
          "asyncio.run(asyncio.to_thread(os.getpid))\n"
          "threading.Thread(target=lambda: 1, name='named').start()\n"
          "print(platform.platform(), uuid.uuid1(), socket.getaddrinfo('localhost', 80))\n"
          "ssl.create_default_context()\n"
          "with concurrent.futures.ProcessPoolExecutor(2) as pool: print(list(pool.map(abs, [1, -2])))\n"}},
        {"node",
         {"/usr/bin/node", "-e",
          "const fs = require('fs'), cp = require('child_process'), os = require('os'), net = require('net');"
          "fs.writeFileSync('/tmp/a', '1'); fs.copyFileSync('/tmp/a', '/tmp/b'); fs.cpSync('/etc/ssl', '/tmp/e', "
          "{recursive: true});"
          "fs.watch('/tmp').close(); os.cpus(); os.userInfo(); try { os.networkInterfaces(); } catch (e) {}"
          "cp.execSync('ls /'); cp.fork('/tmp/b'); new (require('worker_threads').Worker)('1', {eval: true});"
          "const s = net.createServer().listen(0, '127.0.0.1', () => net.connect(s.address().port, '127.0.0.1', () => "
          "s.close()).end());"
          "require('dns').lookup('localhost', () => 0); process.title = 'x'; fetch('http://127.0.0.1:1').catch(() => "
          "0);"}},
    };
    for (const Run& run : runs) {
      auto spec = probe_spec(run.argv);
      spec.set_profile(run.profile);
      spec.set_seccomp(kai::compiled_filter(run.profile, {})->notifying);
      const auto outcome = run_confined(spec);
      CAPTURE(run.argv[0]);
      CAPTURE(outcome.output);
      CHECK_MESSAGE(outcome.failed_step.empty(), outcome.detail);
      CHECK_FALSE(outcome.signaled);
      CHECK(texts(outcome) == Words{});
    }
  }
}
