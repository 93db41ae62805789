// Tries one thing that an agent must not do, and says what the kernel answered: "allowed", or the name of the errno.
// usage: sandbox-probe WHAT [ARGUMENT]. Run without a sandbox every WHAT must be allowed: a check that cannot fail is
// none.
#include <fcntl.h>
#include <linux/keyctl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <arpa/inet.h>

namespace {

int say(bool allowed) {
  std::printf("%s\n", allowed ? "allowed" : strerrorname_np(errno));
  return 0;
}

int read_path(const char* path) {
  return say(open(path, O_RDONLY | O_CLOEXEC) >= 0);
}
int create_path(const char* path) {
  const bool made = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) >= 0;
  if (made) (void)unlink(path);
  return say(made);
}
int write_path(const char* path) {
  return say(open(path, O_WRONLY | O_CLOEXEC) >= 0);
}

int connect_tcp(const char* port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::atoi(port)));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  return say(fd >= 0 && connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
}

int listen_tcp(const char*) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  return say(fd >= 0 && bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 && listen(fd, 1) == 0);
}

int connect_abstract(const char* name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path + 1, name, sizeof address.sun_path - 2);
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + std::strlen(name));
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  return say(fd >= 0 && connect(fd, reinterpret_cast<sockaddr*>(&address), length) == 0);
}

int run_from_tmp(const char*) {
  const std::string path = "/tmp/kai-probe-" + std::to_string(getpid());
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
  constexpr char kScript[] = "#!/bin/sh\nexit 0\n";
  if (fd < 0 || write(fd, kScript, sizeof kScript - 1) < 0 || close(fd) < 0) return say(false);
  const pid_t child = fork();
  if (child == 0) {
    execl(path.c_str(), path.c_str(), static_cast<char*>(nullptr));
    _exit(errno);
  }
  int status = 0;
  (void)waitpid(child, &status, 0);
  (void)unlink(path.c_str());
  errno = WEXITSTATUS(status);
  return say(errno == 0);
}

// At most 400 children, so that the run without a sandbox is harmless; prints how many there were.
int fork_bomb(const char*) {
  std::vector<pid_t> children;
  while (children.size() < 400) {
    const pid_t child = fork();
    if (child == 0) {
      pause();
      _exit(0);
    }
    if (child < 0) break;
    children.push_back(child);
  }
  const int why = errno;
  std::printf("%zu ", children.size());
  for (const pid_t child : children) (void)kill(child, SIGKILL);
  while (wait(nullptr) > 0) {
  }
  errno = why;
  return say(children.size() == 400);
}

// Touches memory, at most as many MB as asked for.
int use_memory(const char* megabytes) {
  for (long left = std::atol(megabytes); left > 0; --left) {
    void* piece = mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (piece == MAP_FAILED) return say(false);
    std::memset(piece, 1, 1 << 20);
  }
  return say(true);
}

int fill_tmp(const char* megabytes) {
  const int fd = open("/tmp", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
  if (fd < 0) return say(false);
  const std::string piece(1 << 20, 'x');
  for (long left = std::atol(megabytes); left > 0; --left) {
    if (write(fd, piece.data(), piece.size()) != static_cast<ssize_t>(piece.size())) return say(false);
  }
  return say(true);
}

int environment(const char* name) {
  errno = ENOENT;
  return say(std::getenv(name) != nullptr);
}

int descriptor(const char* number) {
  return say(fcntl(std::atoi(number), F_GETFD) >= 0);
}

int signal_host(const char* pid) {
  return say(kill(std::atoi(pid), 0) == 0);
}

#ifdef __x86_64__
// getpid of i386, by the old gate: the number 20 is writev of x86_64.
int call_i386(const char*) {
  long result = 20;
  asm volatile("int $0x80" : "+a"(result) : : "memory");
  return say(result > 0);
}
#endif

long keyring() {
  return syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 1);
}

int by_call(const std::string& what) {
  if (what == "mount") return say(mount("tmpfs", "/tmp", "tmpfs", MS_RDONLY, "size=4k") == 0 && umount("/tmp") == 0);
  if (what == "user-namespace") return say(unshare(CLONE_NEWUSER) == 0);
  if (what == "clone-namespace") {
    const long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
    if (child == 0) _exit(0);
    return say(child > 0);
  }
  if (what == "clone3") return say(syscall(SYS_clone3, nullptr, 0) == 0 || errno == EINVAL);
  if (what == "ptrace") return say(ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0);
  if (what == "keyctl") return say(keyring() > 0);
  if (what == "personality") return say(personality(ADDR_NO_RANDOMIZE) >= 0);
  if (what == "seccomp-probe") return say(syscall(SYS_seccomp, 1, 0, nullptr) == 0 || errno == EFAULT);
  if (what == "bpf")
    return say(syscall(SYS_bpf, 5, nullptr, 0) == 0 || errno == EFAULT || errno == EINVAL || errno == E2BIG);
  if (what == "netlink-audit") return say(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 9) >= 0);
  if (what == "packet-socket") return say(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0) >= 0);
  if (what == "hostname") return say(unshare(CLONE_NEWUTS) == 0 && sethostname("probe", 5) == 0);
  if (what == "chroot") return say(chroot("/") == 0);
  if (what == "setgroups") return say(syscall(SYS_setgroups, 0, nullptr) == 0);
  if (what == "parent-program") {
    const std::string path = "/proc/" + std::to_string(getppid()) + "/exe";
    return say(open(path.c_str(), O_RDONLY | O_CLOEXEC) >= 0);
  }
  // High bits set: a filter that compares 64 bits would let it pass, the kernel looks at 32 (CVE-2019-10063).
  if (what == "tiocsti") return say(syscall(SYS_ioctl, 0, TIOCSTI, "x") == 0 || errno == ENOTTY || errno == EIO);
  if (what == "tiocsti-high") {
    return say(syscall(SYS_ioctl, 0, TIOCSTI | (1UL << 40), "x") == 0 || errno == ENOTTY || errno == EIO);
  }
  std::fprintf(stderr, "sandbox-probe: unknown probe %s\n", what.c_str());
  return 2;
}

// How many instances the kernel lets this agent have; beyond 32 it does not look.
int count_inotify(const char*) {
  int made = 0;
  while (made < 32 && inotify_init1(IN_CLOEXEC) >= 0) ++made;
  std::printf("%d\n", made);
  return 0;
}

struct Probe {
  const char* name;
  int (*run)(const char* argument);
};
constexpr Probe kProbes[] = {
    {"inotify", count_inotify}, {"read", read_path},     {"write", write_path},          {"create", create_path},
    {"connect", connect_tcp},   {"listen", listen_tcp},  {"abstract", connect_abstract}, {"exec-tmp", run_from_tmp},
    {"fork-bomb", fork_bomb},   {"memory", use_memory},  {"fill-tmp", fill_tmp},         {"environment", environment},
    {"descriptor", descriptor}, {"signal", signal_host},
#ifdef __x86_64__
    {"i386", call_i386},
#endif
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  for (const Probe& probe : kProbes) {
    if (std::strcmp(argv[1], probe.name) == 0) return probe.run(argc > 2 ? argv[2] : "");
  }
  return by_call(argv[1]);
}
