// kai-agent-host, but for one step of the apply table: the one that the spec's agent_version names. For the test that
// each step is missed when it is gone. Only this program can leave one out.
#include <sched.h>

#include <cstring>
#include <string_view>

#include "agent-host/serve.h"
#include "agent-host/starter.h"
#include "proto/quiet.h"
#include "sandbox/apply.h"

namespace {

/// "STEP", or "STEP,STEP".
bool names(std::string_view list, std::string_view step) {
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    if (list.substr(0, comma) == step) return true;
    if (comma == std::string_view::npos) break;
    list.remove_prefix(comma + 1);
  }
  return false;
}

tl::expected<void, kai::sandbox::StepFailure> apply_others(kai::sandbox::Setup& setup) {
  for (const kai::sandbox::Step& step : kai::sandbox::steps()) {
    if (!step.applies(setup) || names(setup.spec->agent_version(), step.name)) continue;
    if (auto done = step.run(setup); !done) {
      return tl::unexpected(kai::sandbox::StepFailure{step.name, done.error()});
    }
  }
  // As if a step behind the filter made a call that it refuses.
  if (names(setup.spec->agent_version(), "refused-call")) (void)unshare(CLONE_NEWUSER);
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  kai::silence_protobuf();
  if (argc < 2) return 2;
  kai::StarterOptions options{.root = std::strcmp(argv[1], "--root") == 0, .host_network = argc == 3};
  kai::Confined confined = kai::start_agent(3, options, apply_others);
  kai::SupervisorLinks links{std::move(confined.klp), std::move(confined.keeper), confined.outlives_keeper};
  return kai::serve(confined.spec, std::move(links));
}
