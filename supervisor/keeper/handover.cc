#include "supervisor/keeper/handover.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <string_view>

#include "base/unix.h"
#include "supervisor/keeper/check_network.h"
#include "supervisor/keeper/child.h"

namespace kai::keeper {
namespace {

constexpr const char* kVariable = "KAI_HANDOVER";                            // the number of the memfd
constexpr std::size_t kMaxStateBytes = 4096 * (kMaxRulesBytes + (4 << 10));  // as many agents
constexpr auto kCheckPatience = std::chrono::seconds(3);

Result<std::vector<std::string>> own_arguments() {
  const auto text = read_file("/proc/self/cmdline");
  if (!text) return tl::unexpected(text.error());
  std::vector<std::string> arguments;
  for (std::size_t at = 0; at < text->size(); at = text->find('\0', at) + 1) arguments.emplace_back(text->c_str() + at);
  return arguments;
}

bool is_sealed(int memfd) {
  constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  const int seals = fcntl(memfd, F_GET_SEALS);
  return seals >= 0 && (seals & kSeals) == kSeals;
}

}  // namespace

Result<std::string> own_program() {
  constexpr std::string_view kDeleted = " (deleted)";  // proc_pid_exe(5)
  std::array<char, PATH_MAX> path{};
  const ssize_t length = readlink("/proc/self/exe", path.data(), path.size() - 1);
  if (length < 0) return errno_failure("readlink", "/proc/self/exe");
  std::string program(path.data(), static_cast<std::size_t>(length));
  if (program.ends_with(kDeleted)) program.resize(program.size() - kDeleted.size());
  if (access(program.c_str(), X_OK) < 0) return errno_failure("access", program);
  return program;
}

Result<> check_next(const std::string& program) {
  const auto arguments = own_arguments();
  if (!arguments) return tl::unexpected(arguments.error());
  const Fd here(open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!here) return errno_failure("open", ".");
  std::vector<const char*> given;
  for (const std::string& argument : *arguments) given.push_back(argument.c_str());
  const std::string version = std::to_string(kHandoverVersion);
  given.insert(given.end(), {"--check-handover", version.c_str()});
  return run_tool(program.c_str(), given, here.get(), kCheckPatience, environ);
}

Inheritance::~Inheritance() {
  for (const int fd : fds_) (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
}

std::int32_t Inheritance::add(const Fd& fd) {
  if (!fd || fcntl(fd.get(), F_SETFD, 0) < 0) return 0;
  fds_.push_back(fd.get());
  return fd.get();
}

Error exec_next(const std::string& program, const handover::State& state) {
  auto arguments = own_arguments();
  if (!arguments) return arguments.error();
  const auto memfd = sealed_memfd("handover", state.SerializeAsString());
  if (!memfd) return memfd.error();
  Inheritance inheritance;
  const std::string number = std::to_string(inheritance.add(*memfd));
  if (setenv(kVariable, number.c_str(), 1) < 0) return Error{"setenv", errno, kVariable};
  std::vector<char*> given;
  for (std::string& argument : *arguments) given.push_back(argument.data());
  given.push_back(nullptr);
  (void)execv(program.c_str(), given.data());
  const int why = errno;
  (void)unsetenv(kVariable);
  return Error{"execve", why, program};
}

Result<handover::State> read_state(const Fd& memfd) {
  if (!is_sealed(memfd.get())) return failure("what the kaid before left is not sealed");
  if (lseek(memfd.get(), 0, SEEK_SET) < 0) return errno_failure("lseek", "state");
  const auto bytes = read_all(memfd.get(), kMaxStateBytes);
  if (!bytes) return tl::unexpected(bytes.error());
  handover::State state;
  if (!state.ParseFromString(*bytes)) return failure("what the kaid before left cannot be read");
  if (state.version() != kHandoverVersion) {
    return failure("the kaid before left its state in version " + std::to_string(state.version()) +
                   ", this one reads " + std::to_string(kHandoverVersion));
  }
  return state;
}

Result<std::optional<handover::State>> take_inheritance() {
  const char* const text = getenv(kVariable);
  if (text == nullptr) return std::nullopt;
  int number = -1;
  const std::string_view digits(text);
  (void)std::from_chars(digits.data(), digits.data() + digits.size(), number);
  (void)unsetenv(kVariable);
  if (number < 0 || !is_sealed(number)) {
    return failure(std::string(kVariable) + " is set, and not by a kaid; unset it");
  }
  auto state = read_state(Fd(number));
  if (!state) return tl::unexpected(state.error());
  return std::move(*state);
}

Fd inherited(std::int32_t number) {
  if (number <= STDERR_FILENO || fcntl(number, F_SETFD, FD_CLOEXEC) < 0) return {};
  return Fd(number);
}

}  // namespace kai::keeper
