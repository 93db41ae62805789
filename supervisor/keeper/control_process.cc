#include "supervisor/keeper/control_process.h"

#include <unistd.h>

#include <array>
#include <climits>
#include <cstdlib>
#include <utility>

#include "base/unix.h"

namespace kai::keeper {
namespace {

using spec::Mount;

// Directories above state and runtime directory are made anew and open to it, whatever their modes on the host are.
spec::SandboxSpec control_view(const Config& config, const Programs& programs) {
  spec::SandboxSpec view = programs_view(programs.directory);
  for (const char* path : {"/etc", "/sys"}) add_to_view(view, Mount::SYSTEM, path);
  add_to_view(view, Mount::SYSTEM, programs.sdk);
  // Whether the kernel's clock is the one of before, as agents' memory expires by it (machine_time()). Its own /proc
  // has processes alone.
  auto* boot_id = view.add_mounts();
  boot_id->set_kind(Mount::SYSTEM);
  boot_id->set_source("/proc/sys/kernel/random/boot_id");
  boot_id->set_target("/boot_id");
  add_to_view(view, Mount::STATE, config.state_dir);
  add_to_view(view, Mount::STATE, config.runtime_dir);
  return view;
}

Result<std::string> directory_with(const std::string& path) {
  std::array<char, PATH_MAX> resolved{};
  if (realpath(path.c_str(), resolved.data()) == nullptr) return errno_failure("realpath", path);
  return std::string(resolved.data());
}

}  // namespace

Result<Programs> find_programs() {
  const auto own = program_directory();
  if (!own) return tl::unexpected(own.error());
  const bool beside = access((*own + "/kai-control").c_str(), X_OK) == 0;
  auto directory = directory_with(beside ? *own : *own + "/../lib/kai");
  if (!directory) return tl::unexpected(directory.error());
  auto sdk = directory_with(beside ? *own + "/../sdk" : *own + "/../share/kai/sdk");
  if (!sdk) return tl::unexpected(sdk.error());
  return Programs{*directory, *sdk};
}

Result<UnprivilegedProcess> start_control(const Config& config, const Identity& identity, const Programs& programs) {
  UnprivilegedProgram program{.directory = programs.directory,
                              .name = "kai-control",
                              .uid = identity.control_uid,
                              .gid = identity.control_gid,
                              .view = {},
                              .only_told = false};
  if (identity.root) program.view = control_view(config, programs);
  return start_unprivileged(program, identity.root);
}

}  // namespace kai::keeper
