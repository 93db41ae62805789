#include "policies/refusal_words.h"

#include <linux/bpf.h>
#include <linux/keyctl.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>

namespace kai {
namespace {

#define KAI_WORD(name)                      \
  Word {                                    \
    static_cast<std::uint64_t>(name), #name \
  }

constexpr Word kNamespaces[] = {{0x00000080, "CLONE_NEWTIME"}, KAI_WORD(CLONE_NEWNS),   KAI_WORD(CLONE_NEWCGROUP),
                                KAI_WORD(CLONE_NEWUTS),        KAI_WORD(CLONE_NEWIPC),  KAI_WORD(CLONE_NEWUSER),
                                KAI_WORD(CLONE_NEWPID),        KAI_WORD(CLONE_NEWNET),  KAI_WORD(CLONE_FS),
                                KAI_WORD(CLONE_FILES),         KAI_WORD(CLONE_SYSVSEM), KAI_WORD(CLONE_VM),
                                KAI_WORD(CLONE_SIGHAND),       KAI_WORD(CLONE_THREAD)};
constexpr Word kCloneFlags[] = {KAI_WORD(CLONE_NEWNS),
                                KAI_WORD(CLONE_NEWCGROUP),
                                KAI_WORD(CLONE_NEWUTS),
                                KAI_WORD(CLONE_NEWIPC),
                                KAI_WORD(CLONE_NEWUSER),
                                KAI_WORD(CLONE_NEWPID),
                                KAI_WORD(CLONE_NEWNET),
                                KAI_WORD(CLONE_VM),
                                KAI_WORD(CLONE_FS),
                                KAI_WORD(CLONE_FILES),
                                KAI_WORD(CLONE_SIGHAND),
                                KAI_WORD(CLONE_PIDFD),
                                KAI_WORD(CLONE_PTRACE),
                                KAI_WORD(CLONE_VFORK),
                                KAI_WORD(CLONE_PARENT),
                                KAI_WORD(CLONE_THREAD),
                                KAI_WORD(CLONE_SYSVSEM),
                                KAI_WORD(CLONE_SETTLS),
                                KAI_WORD(CLONE_PARENT_SETTID),
                                KAI_WORD(CLONE_CHILD_CLEARTID),
                                KAI_WORD(CLONE_UNTRACED),
                                KAI_WORD(CLONE_CHILD_SETTID),
                                KAI_WORD(CLONE_IO)};
constexpr Word kCloneSignals[] = {KAI_WORD(SIGCHLD)};
constexpr Word kFamilies[] = {KAI_WORD(AF_UNSPEC),  KAI_WORD(AF_UNIX),   KAI_WORD(AF_INET),  KAI_WORD(AF_AX25),
                              KAI_WORD(AF_IPX),     KAI_WORD(AF_X25),    KAI_WORD(AF_INET6), KAI_WORD(AF_KEY),
                              KAI_WORD(AF_NETLINK), KAI_WORD(AF_PACKET), KAI_WORD(AF_RDS),   KAI_WORD(AF_PPPOX),
                              KAI_WORD(AF_LLC),     KAI_WORD(AF_CAN),    KAI_WORD(AF_TIPC),  KAI_WORD(AF_BLUETOOTH),
                              KAI_WORD(AF_ALG),     KAI_WORD(AF_NFC),    KAI_WORD(AF_VSOCK), KAI_WORD(AF_KCM),
                              KAI_WORD(AF_QIPCRTR), KAI_WORD(AF_SMC),    KAI_WORD(AF_XDP)};
constexpr Word kSocketTypes[] = {KAI_WORD(SOCK_STREAM), KAI_WORD(SOCK_DGRAM),     KAI_WORD(SOCK_RAW),
                                 KAI_WORD(SOCK_RDM),    KAI_WORD(SOCK_SEQPACKET), KAI_WORD(SOCK_DCCP)};
constexpr Word kSocketFlags[] = {KAI_WORD(SOCK_CLOEXEC), KAI_WORD(SOCK_NONBLOCK)};
constexpr Word kMountFlags[] = {
    KAI_WORD(MS_RDONLY), KAI_WORD(MS_NOSUID), KAI_WORD(MS_NODEV),    KAI_WORD(MS_NOEXEC),      KAI_WORD(MS_REMOUNT),
    KAI_WORD(MS_BIND),   KAI_WORD(MS_MOVE),   KAI_WORD(MS_REC),      KAI_WORD(MS_UNBINDABLE),  KAI_WORD(MS_PRIVATE),
    KAI_WORD(MS_SLAVE),  KAI_WORD(MS_SHARED), KAI_WORD(MS_RELATIME), KAI_WORD(MS_STRICTATIME), KAI_WORD(MS_NOATIME)};
constexpr Word kUmountFlags[] = {KAI_WORD(MNT_FORCE), KAI_WORD(MNT_DETACH), KAI_WORD(MNT_EXPIRE),
                                 KAI_WORD(UMOUNT_NOFOLLOW)};
constexpr Word kPtraceRequests[] = {
    KAI_WORD(PTRACE_TRACEME),  KAI_WORD(PTRACE_PEEKTEXT),   KAI_WORD(PTRACE_PEEKDATA),  KAI_WORD(PTRACE_PEEKUSER),
    KAI_WORD(PTRACE_POKETEXT), KAI_WORD(PTRACE_POKEDATA),   KAI_WORD(PTRACE_POKEUSER),  KAI_WORD(PTRACE_CONT),
    KAI_WORD(PTRACE_KILL),     KAI_WORD(PTRACE_SINGLESTEP), KAI_WORD(PTRACE_ATTACH),    KAI_WORD(PTRACE_DETACH),
    KAI_WORD(PTRACE_SYSCALL),  KAI_WORD(PTRACE_SETOPTIONS), KAI_WORD(PTRACE_GETREGSET), KAI_WORD(PTRACE_SETREGSET),
    KAI_WORD(PTRACE_SEIZE),    KAI_WORD(PTRACE_INTERRUPT)};
constexpr Word kPrctlOptions[] = {KAI_WORD(PR_SET_PDEATHSIG),
                                  KAI_WORD(PR_SET_DUMPABLE),
                                  KAI_WORD(PR_SET_KEEPCAPS),
                                  KAI_WORD(PR_GET_KEEPCAPS),
                                  KAI_WORD(PR_SET_TIMING),
                                  KAI_WORD(PR_SET_SECCOMP),
                                  KAI_WORD(PR_CAPBSET_DROP),
                                  KAI_WORD(PR_SET_TSC),
                                  KAI_WORD(PR_SET_SECUREBITS),
                                  KAI_WORD(PR_SET_TIMERSLACK),
                                  KAI_WORD(PR_MCE_KILL),
                                  KAI_WORD(PR_SET_MM),
                                  KAI_WORD(PR_SET_PTRACER),
                                  KAI_WORD(PR_SET_CHILD_SUBREAPER),
                                  KAI_WORD(PR_GET_CHILD_SUBREAPER),
                                  KAI_WORD(PR_SET_THP_DISABLE),
                                  KAI_WORD(PR_GET_THP_DISABLE),
                                  KAI_WORD(PR_CAP_AMBIENT),
                                  KAI_WORD(PR_GET_SPECULATION_CTRL),
                                  KAI_WORD(PR_SET_SPECULATION_CTRL),
                                  KAI_WORD(PR_SET_IO_FLUSHER),
                                  {59, "PR_SET_SYSCALL_USER_DISPATCH"},
                                  KAI_WORD(PR_SCHED_CORE),
                                  {65, "PR_SET_MDWE"},
                                  {66, "PR_GET_MDWE"},
                                  {67, "PR_SET_MEMORY_MERGE"}};
constexpr Word kKeyctlOperations[] = {KAI_WORD(KEYCTL_GET_KEYRING_ID), KAI_WORD(KEYCTL_JOIN_SESSION_KEYRING),
                                      KAI_WORD(KEYCTL_UPDATE),         KAI_WORD(KEYCTL_REVOKE),
                                      KAI_WORD(KEYCTL_CHOWN),          KAI_WORD(KEYCTL_SETPERM),
                                      KAI_WORD(KEYCTL_DESCRIBE),       KAI_WORD(KEYCTL_CLEAR),
                                      KAI_WORD(KEYCTL_LINK),           KAI_WORD(KEYCTL_UNLINK),
                                      KAI_WORD(KEYCTL_SEARCH),         KAI_WORD(KEYCTL_READ),
                                      KAI_WORD(KEYCTL_INSTANTIATE),    KAI_WORD(KEYCTL_GET_PERSISTENT)};
constexpr Word kBpfCommands[] = {
    KAI_WORD(BPF_MAP_CREATE),      KAI_WORD(BPF_MAP_LOOKUP_ELEM),  KAI_WORD(BPF_MAP_UPDATE_ELEM),
    KAI_WORD(BPF_MAP_DELETE_ELEM), KAI_WORD(BPF_MAP_GET_NEXT_KEY), KAI_WORD(BPF_PROG_LOAD),
    KAI_WORD(BPF_OBJ_PIN),         KAI_WORD(BPF_OBJ_GET),          KAI_WORD(BPF_PROG_ATTACH),
    KAI_WORD(BPF_PROG_DETACH),     KAI_WORD(BPF_PROG_TEST_RUN),    KAI_WORD(BPF_BTF_LOAD)};
constexpr Word kSeccompOperations[] = {KAI_WORD(SECCOMP_SET_MODE_STRICT), KAI_WORD(SECCOMP_SET_MODE_FILTER),
                                       KAI_WORD(SECCOMP_GET_ACTION_AVAIL), KAI_WORD(SECCOMP_GET_NOTIF_SIZES)};
constexpr Word kIoctls[] = {KAI_WORD(TCSETS),
                            KAI_WORD(TCSETSW),
                            KAI_WORD(TCSETSF),
                            KAI_WORD(TIOCSTI),
                            {0x541C, "TIOCLINUX"},
                            KAI_WORD(TIOCSCTTY),
                            KAI_WORD(TIOCNOTTY),
                            KAI_WORD(TIOCSPGRP),
                            KAI_WORD(TIOCSWINSZ),
                            KAI_WORD(TIOCSETD),
                            KAI_WORD(TIOCCONS),
                            KAI_WORD(TIOCGSID),
                            KAI_WORD(TIOCGPTN),
                            KAI_WORD(TIOCSPTLCK),
                            KAI_WORD(FIOASYNC),
                            KAI_WORD(SIOCGIFCONF),
                            KAI_WORD(SIOCGIFFLAGS),
                            KAI_WORD(SIOCGIFADDR),
                            KAI_WORD(SIOCGIFINDEX),
                            KAI_WORD(SIOCSIFFLAGS),
                            {0x40049409, "FICLONE"},
                            {0x4020940D, "FICLONERANGE"},
                            {0x80086601, "FS_IOC_GETFLAGS"},
                            {0x40086602, "FS_IOC_SETFLAGS"},
                            {0xC020660B, "FS_IOC_FIEMAP"},
                            {0x12, "BLKGETSIZE"}};
constexpr Word kPersonalities[] = {
    KAI_WORD(ADDR_NO_RANDOMIZE), KAI_WORD(MMAP_PAGE_ZERO), KAI_WORD(ADDR_COMPAT_LAYOUT), KAI_WORD(READ_IMPLIES_EXEC),
    KAI_WORD(ADDR_LIMIT_32BIT),  KAI_WORD(SHORT_INODE),    KAI_WORD(WHOLE_SECONDS),      KAI_WORD(STICKY_TIMEOUTS),
    KAI_WORD(ADDR_LIMIT_3GB),    KAI_WORD(UNAME26)};
constexpr Word kPersonalityKinds[] = {KAI_WORD(PER_LINUX), {8, "PER_LINUX32"}};

#undef KAI_WORD

using Kind = ArgumentForm::Kind;
constexpr ArgumentForm kHex{};
constexpr ArgumentForm kNumber{Kind::kNumber, {}, {}};
constexpr ArgumentForm kMode{Kind::kOctal, {}, {}};
constexpr ArgumentForm one_of(std::span<const Word> words) {
  return {Kind::kOneOf, words, {}};
}
constexpr ArgumentForm flags(std::span<const Word> words) {
  return {Kind::kFlags, words, {}};
}

constexpr CallForm kForms[] = {
    {"unshare", 1, {flags(kNamespaces)}},
    {"setns", 2, {kNumber, flags(kNamespaces)}},
    {"clone", 5, {{Kind::kMixed, kCloneSignals, kCloneFlags}}},
    {"socket", 3, {one_of(kFamilies), {Kind::kMixed, kSocketTypes, kSocketFlags}, kNumber}},
    {"socketpair", 4, {one_of(kFamilies), {Kind::kMixed, kSocketTypes, kSocketFlags}, kNumber}},
    {"mount", 5, {kHex, kHex, kHex, flags(kMountFlags), kHex}},
    {"umount2", 2, {kHex, flags(kUmountFlags)}},
    {"pivot_root", 2, {}},
    {"chroot", 1, {}},
    {"move_mount", 5, {kNumber, kHex, kNumber}},
    {"open_tree", 3, {kNumber}},
    {"fsopen", 2, {}},
    {"fsconfig", 5, {kNumber, kNumber}},
    {"fsmount", 3, {kNumber}},
    {"fspick", 3, {kNumber}},
    {"mount_setattr", 5, {kNumber}},
    {"ptrace", 4, {one_of(kPtraceRequests), kNumber}},
    {"process_vm_readv", 6, {kNumber}},
    {"process_vm_writev", 6, {kNumber}},
    {"process_madvise", 5, {kNumber}},
    {"pidfd_getfd", 3, {kNumber, kNumber}},
    {"kcmp", 5, {kNumber, kNumber, kNumber}},
    {"prctl", 5, {one_of(kPrctlOptions)}},
    {"keyctl", 5, {one_of(kKeyctlOperations)}},
    {"add_key", 5, {}},
    {"request_key", 4, {}},
    {"ioctl", 3, {kNumber, one_of(kIoctls), kHex}},
    {"bpf", 3, {one_of(kBpfCommands), kHex, kNumber}},
    {"seccomp", 3, {one_of(kSeccompOperations)}},
    {"personality", 1, {{Kind::kMixed, kPersonalityKinds, kPersonalities}}},
    {"perf_event_open", 5, {kHex, kNumber, kNumber, kNumber}},
    {"userfaultfd", 1, {}},
    {"init_module", 3, {}},
    {"finit_module", 3, {kNumber}},
    {"delete_module", 2, {}},
    {"prlimit64", 4, {kNumber, kNumber}},
    {"arch_prctl", 2, {}},
    {"chmod", 2, {kHex, kMode}},
    {"fchmod", 2, {kNumber, kMode}},
    {"fchmodat", 3, {kNumber, kHex, kMode}},
    {"creat", 2, {kHex, kMode}},
    {"open", 3, {kHex, kHex, kMode}},
    {"openat", 4, {kNumber, kHex, kHex, kMode}},
    {"mknod", 3, {kHex, kMode, kHex}},
    {"mknodat", 4, {kNumber, kHex, kMode, kHex}},
    {"chown", 3, {kHex, kNumber, kNumber}},
    {"fchown", 3, {kNumber, kNumber, kNumber}},
    {"lchown", 3, {kHex, kNumber, kNumber}},
    {"fchownat", 5, {kNumber, kHex, kNumber, kNumber}},
    {"setuid", 1, {kNumber}},
    {"setgid", 1, {kNumber}},
    {"setreuid", 2, {kNumber, kNumber}},
    {"setregid", 2, {kNumber, kNumber}},
    {"setresuid", 3, {kNumber, kNumber, kNumber}},
    {"setresgid", 3, {kNumber, kNumber, kNumber}},
    {"setfsuid", 1, {kNumber}},
    {"setfsgid", 1, {kNumber}},
    {"setgroups", 2, {kNumber}},
    {"capset", 2, {}},
    {"memfd_create", 2, {}},
    {"memfd_secret", 1, {}},
    {"sethostname", 2, {}},
    {"setdomainname", 2, {}},
    {"execveat", 5, {kNumber}},
    {"mbind", 6, {}},
    {"syncfs", 1, {kNumber}},
    {"sync", 0, {}},
    {"vhangup", 0, {}},
    {"reboot", 4, {}},
    {"syslog", 3, {kNumber}},
    {"sched_setaffinity", 3, {kNumber, kNumber}},
    {"sched_setscheduler", 3, {kNumber, kNumber}},
    {"sched_setattr", 3, {kNumber}},
    {"ioprio_set", 3, {kNumber, kNumber}},
    {"landlock_create_ruleset", 3, {}},
    {"landlock_add_rule", 4, {kNumber}},
    {"landlock_restrict_self", 2, {kNumber}},
    {"name_to_handle_at", 5, {kNumber}},
    {"open_by_handle_at", 3, {kNumber}},
    {"setrlimit", 2, {kNumber}},
    {"shmget", 3, {}},
    {"semget", 3, {}},
    {"msgget", 2, {}},
    {"mq_open", 4, {}},
};

}  // namespace

const CallForm* find_call_form(std::string_view call) {
  for (const CallForm& form : kForms) {
    if (form.call == call) return &form;
  }
  return nullptr;
}

}  // namespace kai
