// The operator's policies as control holds them: parsed from what the keeper read, replaced whole or not at all.
// Whoever uses one keeps it alive: an agent that runs goes on under the policy that it was started with.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"
#include "policies/policy.h"

namespace kai {

using PolicyRef = std::shared_ptr<const Policy>;

class Policies {
 public:
  explicit Policies(bool ordinary_user);

  /// `memfd`: a serialized kai.keeper.Policies (proto/keeper.proto): the texts, and what kaid.yaml blocks under all of
  /// them. On an error the old ones stay.
  Result<> take(const Fd& memfd);

  void use(PolicySet set);

  [[nodiscard]] PolicyRef for_agent(std::string_view id) const;
  /// nullptr: no such name.
  [[nodiscard]] PolicyRef named(std::string_view name) const;
  /// Of kAI's own jobs: the built-in one, whatever operators allow to agents.
  [[nodiscard]] PolicyRef own_jobs() const { return {set_, &set_->policies.back()}; }
  [[nodiscard]] const PolicySet& all() const { return *set_; }

 private:
  bool ordinary_user_;
  std::shared_ptr<const PolicySet> set_;
};

}  // namespace kai
