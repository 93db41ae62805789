#include "supervisor/control/policies.h"

#include <unistd.h>

#include "base/unix.h"
#include "policies/policy_yaml.h"
#include "proto/keeper.pb.h"

namespace kai {
namespace {

constexpr std::size_t kMaxBlockedBytes = 1 << 20;  // kaid.yaml's 1,024 entries, each with where it stands
constexpr std::size_t kMaxBytes = (kMaxPolicyFileBytes + 1024) * kMaxPolicyFiles + kMaxBlockedBytes;

}  // namespace

Policies::Policies(bool ordinary_user)
    : ordinary_user_(ordinary_user),
      set_(std::make_shared<PolicySet>(PolicySet{{builtin_policy(ordinary_user)}, {}})) {}

Result<> Policies::take(const Fd& memfd) {
  if (!memfd) return failure("the policies did not come with their descriptor");
  if (lseek(memfd.get(), 0, SEEK_SET) < 0) return errno_failure("lseek", "policies");
  const auto bytes = read_all(memfd.get(), kMaxBytes);
  if (!bytes) return tl::unexpected(bytes.error());
  keeper::Policies texts;
  if (!texts.ParseFromString(*bytes)) return failure("the policies are not in their known form");
  std::vector<PolicyFile> files;
  for (const auto& file : texts.files()) files.push_back({file.name(), file.text()});
  auto parsed = parse_policies(files, ordinary_user_);
  if (!parsed) return tl::unexpected(parsed.error());
  std::vector<GlobalBlock> blocks;
  for (const auto& each : texts.blocked_domains()) blocks.push_back({each.pattern(), each.rule()});
  parsed->block_everywhere(blocks);
  use(std::move(*parsed));
  return {};
}

void Policies::use(PolicySet set) {
  set_ = std::make_shared<const PolicySet>(std::move(set));
}

PolicyRef Policies::for_agent(std::string_view id) const {
  return {set_, &set_->for_agent(id)};
}

PolicyRef Policies::named(std::string_view name) const {
  const Policy* found = set_->named(name);
  return found != nullptr ? PolicyRef(set_, found) : nullptr;
}

}  // namespace kai
