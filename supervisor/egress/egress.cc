#include "supervisor/egress/egress.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cstdio>
#include <string>
#include <utility>

#include "base/unix.h"

namespace kai::egress {
namespace {

constexpr std::size_t kMaxCommandBytes = 64 << 10;
constexpr std::size_t kMaxRulesBytes = 4 << 20;

Result<std::string> contents_of(const std::vector<Fd>& descriptors) {
  struct stat status {};
  if (descriptors.empty()) return failure("a descriptor is missing");
  const Fd& memfd = descriptors.front();
  if (fstat(memfd.get(), &status) < 0) return errno_failure("fstat");
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size > kMaxRulesBytes) return failure("more than a descriptor may hold");
  std::string bytes(size, '\0');
  if (pread(memfd.get(), bytes.data(), size, 0) != static_cast<ssize_t>(size)) return errno_failure("pread");
  return bytes;
}

Result<Rules> rules_in(const std::vector<Fd>& descriptors) {
  const auto bytes = contents_of(descriptors);
  if (!bytes) return tl::unexpected(bytes.error());
  Rules rules;
  if (!rules.ParseFromString(*bytes)) return failure("no rules");
  return rules;
}

}  // namespace

Egress::Egress(Reactor& reactor, Fd keeper)
    : reactor_(reactor),
      keeper_(std::move(keeper)),
      resolver_(reactor),
      control_(reactor, [this](const Query& query) { answer(query); }),
      shared_{.reactor = reactor, .resolver = resolver_, .pipes = pipes_, .tell = [this](Event&& event) {
                control_.tell(event);
              }} {}

Result<std::unique_ptr<Egress>> Egress::create(Reactor& reactor, Fd keeper) {
  std::unique_ptr<Egress> egress(new Egress(reactor, std::move(keeper)));
  auto watch =
      reactor.watch(egress->keeper_.get(), EPOLLIN, [raw = egress.get()](std::uint32_t) { raw->on_commands(); });
  if (!watch) return tl::unexpected(watch.error());
  egress->watch_ = std::move(*watch);
  return egress;
}

void Egress::on_commands() {
  for (;;) {
    auto packet = receive_packet(keeper_.get(), kMaxCommandBytes, MSG_DONTWAIT);
    if (!packet && packet.error().error_number == EAGAIN) return;
    if (!packet || packet->bytes.empty()) return reactor_.stop();  // the keeper has ended
    Command command;
    auto done = command.ParseFromString(packet->bytes) ? carry_out(command, std::move(packet->fds))
                                                       : Result<>(failure("not a command"));
    // The keeper is the only one who could know what to do, and it starts another with everything that there is.
    if (!done) {
      std::fprintf(stderr, "kaid: egress: %s\n", done.error().message().c_str());
      return reactor_.stop();
    }
  }
}

Result<> Egress::carry_out(const Command& command, std::vector<Fd> descriptors) {
  switch (command.op_case()) {
    case Command::kAdd:
      return add(command.add().instance(), std::move(descriptors));
    case Command::kSetRules:
      return set_rules(command.set_rules().instance(), descriptors);
    case Command::kRemove:
      if (const auto found = agents_.find(command.remove().instance()); found != agents_.end()) {
        found->second->end();
        agents_.erase(found);
      }
      return {};
    case Command::kControl:
      if (descriptors.size() != 1) return failure("a descriptor is missing");
      return control_.use(std::move(descriptors[0]));
    case Command::kUpstream:
      return use_servers(command.upstream(), descriptors);
    case Command::OP_NOT_SET:
      break;
  }
  return failure("an unknown command");
}

Result<> Egress::add(std::uint64_t instance, std::vector<Fd> descriptors) {
  auto rules = rules_in(descriptors);
  if (!rules) return tl::unexpected(rules.error());
  descriptors.erase(descriptors.begin());
  auto network = AgentNetwork::create(shared_, instance, std::move(*rules), std::move(descriptors));
  if (!network) return tl::unexpected(network.error());
  agents_[instance] = std::move(*network);
  return {};
}

Result<> Egress::set_rules(std::uint64_t instance, const std::vector<Fd>& descriptors) {
  const auto found = agents_.find(instance);
  if (found == agents_.end()) return {};  // it ended meanwhile
  auto rules = rules_in(descriptors);
  if (!rules) return tl::unexpected(rules.error());
  found->second->use(std::move(*rules));
  return {};
}

Result<> Egress::use_servers(const Upstream& upstream, const std::vector<Fd>& descriptors) {
  std::vector<std::string> servers(upstream.servers().begin(), upstream.servers().end());
  if (servers.empty()) {
    const auto text = contents_of(descriptors);
    if (!text) return tl::unexpected(text.error());
    servers = Resolver::servers_of(*text);
  }
  for (const std::string& wrong : resolver_.use_servers(servers)) {
    std::fprintf(stderr, "kaid: egress: '%s' is no address of a DNS server, and is not asked\n", wrong.c_str());
  }
  return {};
}

void Egress::answer(const Query& query) {
  Event event;
  Snapshot& snapshot = *event.mutable_snapshot();
  snapshot.set_id(query.id());
  if (const auto found = agents_.find(query.instance()); found != agents_.end()) {
    snapshot.set_known(true);
    found->second->describe(snapshot);
  }
  control_.tell(event);
}

}  // namespace kai::egress
