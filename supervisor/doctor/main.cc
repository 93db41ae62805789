// kai-doctor [-o text|json] [--socket PATH]: `kaictl doctor` runs it. Exit status 1: no agent would start here.
#include <getopt.h>
#include <unistd.h>

#include <array>
#include <string_view>

#include "base/unix.h"
#include "supervisor/doctor/check.h"

namespace {

constexpr int kUsage = 2;

int usage() {
  static_cast<void>(kai::write_all(STDERR_FILENO, "usage: kai-doctor [-o text|json] [--socket PATH]\n"));
  return kUsage;
}

}  // namespace

int main(int argc, char** argv) {
  static constexpr std::array<option, 3> kOptions = {
      {{"output", required_argument, nullptr, 'o'}, {"socket", required_argument, nullptr, 's'}, {}}};
  std::string_view format = "text";
  std::string socket;
  for (int option = 0; (option = getopt_long(argc, argv, "o:", kOptions.data(), nullptr)) != -1;) {
    if (option == 'o') format = optarg;
    if (option == 's') socket = optarg;
    if (option == '?') return usage();
  }
  if (optind != argc || (format != "text" && format != "json")) return usage();

  using namespace kai::doctor;
  Checks checks;
  check_kernel(checks);
  check_layers(checks);
  check_namespaces(checks);
  check_network(checks);
  check_cgroups(checks);
  check_programs(checks);
  check_limits(checks);
  check_daemon(checks, socket);
  const std::string report = format == "json" ? as_json(checks) + "\n" : as_text(checks);
  if (!kai::write_all(STDOUT_FILENO, report)) return 1;
  return result_of(checks) == Status::kMissing ? 1 : 0;
}
