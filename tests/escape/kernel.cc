// Calls that reach far into the kernel, other processes and the network.
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/capability.h>
#include <sys/io.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include <arpa/inet.h>

#include "tests/escape/attempts.h"

namespace kai::escape {
namespace {

/// Outside a process of run.py's; inside PID 1, as there is nobody else.
pid_t victim() {
  const pid_t target = setting_number("TARGET");
  return kill(target, 0) == 0 ? target : 1;
}

Verdict reap(long child) {
  if (child == 0) _exit(0);
  if (child > 0) (void)waitpid(static_cast<pid_t>(child), nullptr, 0);
  return by_result(child);
}

Verdict vm_access(long number) {
  char byte = 0;
  const std::string text = setting("ADDRESS");  // where the victim holds a byte
  iovec own{&byte, 1};
  iovec other{reinterpret_cast<void*>(std::stoul(text, nullptr, 16)), 1};
  return call(number, victim(), &own, 1, &other, 1, 0);
}

}  // namespace

Verdict call_x32() {
  return call(0x40000000 | 39);  // getpid
}

// getpid of i386, by the old gate: the number 20 is writev of x86_64.
Verdict call_i386() {
#ifdef __x86_64__
  long result = 20;
  asm volatile("int $0x80" : "+a"(result) : : "memory");
  return by_result(result > 0 ? 0 : -1);
#else
  errno = ENOSYS;
  return refused("no i386 on this processor");
#endif
}

Verdict clone_flag(unsigned long flag) {
  return reap(syscall(SYS_clone, flag | SIGCHLD, nullptr, nullptr, nullptr, nullptr));
}

Verdict clone3_child(std::uint64_t flags) {
  clone_args arguments{};
  arguments.flags = flags;
  arguments.exit_signal = SIGCHLD;
  arguments.cgroup = 999;  // no descriptor: CLONE_INTO_CGROUP gets as far as EBADF outside
  return reap(syscall(SYS_clone3, &arguments, sizeof arguments));
}

Verdict io_uring() {
  io_uring_params parameters{};
  return call(SYS_io_uring_setup, 1, &parameters);
}

namespace {
struct MountRequest {  // struct mnt_id_req of Linux 6.8, which the headers of Debian 12 do not have
  std::uint32_t size, spare;
  std::uint64_t mount, parameter;
};
constexpr long kStatmount = 457, kListmount = 458;
constexpr std::uint64_t kRootMount = ~std::uint64_t{0};  // LSMT_ROOT
}  // namespace

Verdict list_mounts() {
  const MountRequest request{24, 0, kRootMount, 0};
  std::uint64_t found[64];
  return call(kListmount, &request, found, 64, 0);
}

Verdict stat_mount() {
  const MountRequest list{24, 0, kRootMount, 0};
  std::uint64_t found = 0;
  (void)syscall(kListmount, &list, &found, 1, 0);
  const MountRequest request{24, 0, found, 2 /* STATMOUNT_MNT_BASIC */};
  char answer[4096];
  return call(kStatmount, &request, answer, sizeof answer, 0);
}

Verdict trace(int request) {
  const long result = syscall(SYS_ptrace, request, request == PTRACE_TRACEME ? 0 : victim(), nullptr, nullptr);
  return by_result(result);
}

Verdict take_descriptor() {
  const long process = syscall(SYS_pidfd_open, victim(), 0);
  if (process < 0) return refused("pidfd_open");
  return call(SYS_pidfd_getfd, process, 0, 0);
}

Verdict read_other_memory() {
  return vm_access(SYS_process_vm_readv);
}

Verdict write_other_memory() {
  return vm_access(SYS_process_vm_writev);
}

Verdict bpf_map() {
  bpf_attr attributes;
  std::memset(&attributes, 0, sizeof attributes);
  attributes.map_type = BPF_MAP_TYPE_ARRAY;
  attributes.key_size = 4;
  attributes.value_size = 4;
  attributes.max_entries = 1;
  return call(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof attributes);
}

Verdict performance_counter() {
  perf_event_attr attributes{};
  attributes.type = PERF_TYPE_SOFTWARE;
  attributes.size = sizeof attributes;
  attributes.config = PERF_COUNT_SW_CPU_CLOCK;
  return call(SYS_perf_event_open, &attributes, 0, -1, -1, 0);
}

Verdict listener_of_own(bool by_seccomp) {
  sock_filter allow{BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
  const sock_fprog program{1, &allow};
  (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (by_seccomp) return call(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
  return call(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
}

// In a child, as strict mode leaves nobody who could report.
Verdict strict_mode() {
  const pid_t child = fork();
  if (child == 0) {
    const long result = syscall(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0, 0, 0);
    (void)syscall(SYS_exit, result < 0 ? errno : 0);
  }
  int status = 0;
  (void)waitpid(child, &status, 0);
  errno = WEXITSTATUS(status);
  return by_result(errno == 0 ? 0 : -1);
}

Verdict landlock_of_own() {
  const std::uint64_t handled[1] = {1};
  return call(SYS_landlock_create_ruleset, handled, sizeof handled, 0);
}

Verdict make_socket(int family, int type, int protocol) {
  return by_result(socket(family, type | SOCK_CLOEXEC, protocol));
}

Verdict family_high_bits() {
  return call(SYS_socket, AF_NETLINK | (1L << 32), static_cast<long>(SOCK_RAW), 0L);
}

Verdict connect_host(int family, const char* address) {
  sockaddr_storage storage{};
  socklen_t length = 0;
  const auto port = htons(static_cast<std::uint16_t>(setting_number("PORT")));
  if (family == AF_INET) {
    auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
    v4->sin_port = port;
    (void)inet_pton(AF_INET, address, &v4->sin_addr);
    length = sizeof *v4;
  } else {
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
    v6->sin6_port = port;
    (void)inet_pton(AF_INET6, address, &v6->sin6_addr);
    length = sizeof *v6;
  }
  storage.ss_family = static_cast<sa_family_t>(family);
  const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return refused("socket");
  return by_result(connect(fd, reinterpret_cast<sockaddr*>(&storage), length), address);
}

Verdict signal_host() {
  return by_result(kill(setting_number("TARGET"), SIGCONT), "pid " + setting("TARGET"));
}

Verdict process_descriptor_of_host() {
  return call(SYS_pidfd_open, setting_number("TARGET"), 0);
}

Verdict swap_on() {
  const std::string file = setting("SWAP");
  if (swapon(file.c_str(), 0) < 0) return refused(file);
  (void)swapoff(file.c_str());
  return escaped(file);
}

Verdict port_access() {
#ifdef __x86_64__
  return by_result(ioperm(0x80, 1, 1));
#else
  errno = ENOSYS;
  return refused("no ports on this processor");
#endif
}

// Sets what it has; a process that may do that may also take more.
Verdict keep_capability() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capget, &header, data) < 0) return refused("capget");
  return call(SYS_capset, &header, data);
}

Verdict realtime() {
  const sched_param parameter{1};
  return by_result(sched_setscheduler(0, SCHED_FIFO, &parameter));
}

}  // namespace kai::escape
