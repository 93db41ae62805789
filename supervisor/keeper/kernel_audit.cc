#include "supervisor/keeper/kernel_audit.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include <arpa/inet.h>

namespace kai::keeper {
namespace {

constexpr std::size_t kMaxPending = 64;
constexpr int kBufferBytes = 1 << 20;
constexpr auto kLostPause = std::chrono::minutes(1);
constexpr std::size_t kMaxDomains = 8192;                 // twice as many as there can be agents
constexpr auto kOverdue = std::chrono::milliseconds(50);  // all records of an event come within one system call

/// Passes the three types; of a host that audits much, nothing else reaches the keeper.
Result<> filter_types(const Fd& socket) {
  const auto type = [](std::uint16_t number) { return std::uint32_t{htons(number)}; };  // BPF loads big-endian
  std::array<sock_filter, 6> program = {
      sock_filter BPF_STMT(BPF_LD | BPF_H | BPF_ABS, offsetof(nlmsghdr, nlmsg_type)),
      sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, type(kAuditLandlockAccess), 3, 0),
      sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, type(kAuditLandlockDomain), 2, 0),
      sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, type(kAuditSyscall), 1, 0),
      sock_filter BPF_STMT(BPF_RET | BPF_K, 0),
      sock_filter BPF_STMT(BPF_RET | BPF_K, 0xFFFFFFFF)};
  const sock_fprog filter{.len = program.size(), .filter = program.data()};
  if (setsockopt(socket.get(), SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) < 0) {
    return errno_failure("SO_ATTACH_FILTER", "audit");
  }
  return {};
}

}  // namespace

Result<KernelAudit> KernelAudit::open() {
  Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_AUDIT));
  if (!socket) return errno_failure("socket", "NETLINK_AUDIT");
  if (auto done = filter_types(socket); !done) return tl::unexpected(done.error());
  // Without CAP_NET_ADMIN as much as the system lets everybody have.
  if (setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kBufferBytes, sizeof kBufferBytes) < 0) {
    (void)setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUF, &kBufferBytes, sizeof kBufferBytes);
  }
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = 1U << (AUDIT_NLGRP_READLOG - 1);
  if (bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) {
    return errno_failure("bind", "AUDIT_NLGRP_READLOG");
  }
  return KernelAudit(std::move(socket));
}

std::vector<LandlockDenial> KernelAudit::read(Clock::time_point now) {
  if (now - second_ >= std::chrono::seconds(1)) {
    second_ = now;
    read_in_second_ = 0;
  }
  std::vector<LandlockDenial> done;
  alignas(nlmsghdr) std::array<char, 16 << 10> buffer;
  for (; read_in_second_ < kRecordsPerSecond; ++read_in_second_) {
    sockaddr_nl from{};
    socklen_t size = sizeof from;
    const ssize_t length =
        recvfrom(socket_.get(), buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&from), &size);
    if (length < 0 && (errno == ENOBUFS || errno == EINTR)) continue;  // ENOBUFS: some were lost
    if (length < static_cast<ssize_t>(sizeof(nlmsghdr))) return done;
    if (from.nl_pid != 0) continue;  // not from the kernel
    nlmsghdr header{};
    std::memcpy(&header, buffer.data(), sizeof header);
    // The kernel's nlmsg_len of these is not always the whole length: the packet's own is what counts.
    const std::string_view text(buffer.data() + NLMSG_HDRLEN, static_cast<std::size_t>(length) - NLMSG_HDRLEN);
    if (auto record = parse_audit_record(header.nlmsg_type, text)) take(std::move(*record), now, done);
  }
  paused_ = true;
  return done;
}

void KernelAudit::take(AuditRecord record, Clock::time_point now, std::vector<LandlockDenial>& done) {
  if (record.type == kAuditLandlockDomain) {
    if (record.deallocated) {
      agents_.erase(record.domain);
    } else if (agents_.size() < kMaxDomains) {
      agents_[record.domain] = record.pid;
    }
    return;
  }
  if (record.type == kAuditLandlockAccess) {
    if (pending_.size() >= kMaxPending) {
      give_out(std::move(pending_.front()), done);
      pending_.pop_front();
    }
    LandlockDenial denial{.access = std::move(record.blockers), .path = std::move(record.path)};
    pending_.push_back({record.serial, record.domain, std::move(denial), now});
    return;
  }
  const auto found = std::find_if(pending_.begin(), pending_.end(),
                                  [&](const Pending& pending) { return pending.serial == record.serial; });
  if (found == pending_.end()) return;
  found->denial.pid = record.pid;
  found->denial.comm = std::move(record.comm);
  give_out(std::move(*found), done);
  pending_.erase(found);
}

/// Each domain is told of once: with that record lost, only the process that was refused says whose it is.
void KernelAudit::give_out(Pending pending, std::vector<LandlockDenial>& done) const {
  const auto agent = agents_.find(pending.domain);
  if (agent != agents_.end()) pending.denial.agent = agent->second;
  if (pending.denial.agent == 0 && pending.denial.pid == 0) return;
  done.push_back(std::move(pending.denial));
}

std::vector<LandlockDenial> KernelAudit::take_overdue(Clock::time_point now) {
  std::vector<LandlockDenial> done;
  while (!pending_.empty() && now - pending_.front().since >= kOverdue) {
    give_out(std::move(pending_.front()), done);
    pending_.pop_front();
  }
  if (now - second_ >= std::chrono::seconds(1)) paused_ = false;
  return done;
}

std::uint32_t KernelAudit::take_lost(Clock::time_point now) {
  if (lost_said_at_ && now - *lost_said_at_ < kLostPause) return 0;
  std::array<std::uint32_t, SK_MEMINFO_VARS> counts{};
  socklen_t size = sizeof counts;
  if (getsockopt(socket_.get(), SOL_SOCKET, SO_MEMINFO, counts.data(), &size) < 0) return 0;
  // The kernel's counter may wrap around, and so does the difference.
  const std::uint32_t lost = counts[SK_MEMINFO_DROPS] - std::exchange(lost_said_, counts[SK_MEMINFO_DROPS]);
  if (lost > 0) lost_said_at_ = now;
  return lost;
}

bool Budget::take(std::chrono::steady_clock::time_point now) {
  const double seconds = std::chrono::duration<double>(now - last_).count();
  last_ = now;
  tokens_ = std::min(per_second_, tokens_ + seconds * per_second_);
  if (tokens_ < 1) {
    ++dropped_;
    return false;
  }
  tokens_ -= 1;
  return true;
}

}  // namespace kai::keeper
