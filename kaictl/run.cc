#include "kaictl/run.h"

#include <fcntl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <csignal>
#include <cstdlib>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "base/unix.h"
#include "kaictl/relay.h"

namespace kai {
namespace {

// kaid's own deadlines for a start are 10 s (hello) and 30 s (start); a policy may stretch them a little.
constexpr Milliseconds kStartLimit{60'000};
constexpr std::size_t kManifestBytes = 1 << 20;
constexpr std::uint64_t kRequestId = 1;
constexpr std::array<int, 6> kPassedSignals = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};

tl::unexpected<Failure> run_failure(int exit_code, std::string code, std::string message, std::string hint = {}) {
  Failure failure;
  failure.exit_code = exit_code;
  failure.code = std::move(code);
  failure.message = std::move(message);
  failure.hint = std::move(hint);
  return tl::unexpected(std::move(failure));
}

/// kai's own failures are 125, unless kaid names 126 or 127 (the program inside cannot be run, or is not there).
Failure as_run_failure(Failure failure) {
  failure.exit_code = kExitRunFailed;
  const auto details = nlohmann::json::parse(failure.details_json, nullptr, false);
  if (details.is_object() && details.contains("exitCode") && details["exitCode"].is_number_integer()) {
    const int named = details["exitCode"].get<int>();
    if (named == kExitRunNotExecutable || named == kExitRunNotFound) failure.exit_code = named;
  }
  return failure;
}

/// What is opened for the request, in the order of proto/control.proto.
struct Opened {
  std::vector<Fd> fds;
  [[nodiscard]] std::vector<int> numbers() const {
    std::vector<int> all;
    for (const Fd& fd : fds) all.push_back(fd.get());
    return all;
  }
};

Outcome<Fd> open_mount(const std::string& source) {
  // O_NONBLOCK: a FIFO must not hold us; it is refused below.
  Fd fd(open(source.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  struct stat info {};
  if (!fd || fstat(fd.get(), &info) < 0) {
    return run_failure(kExitRunFailed, "INVALID", "cannot open --mount " + Error{source, errno, ""}.message());
  }
  if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) {
    return run_failure(kExitRunFailed, "INVALID", "--mount " + source + " is neither a file nor a directory");
  }
  return fd;
}

Outcome<std::string> absolute_path(const std::string& path) {
  std::array<char, PATH_MAX> resolved;
  if (realpath(path.c_str(), resolved.data()) == nullptr) {
    return run_failure(kExitRunFailed, "INVALID", "cannot open --mount " + Error{path, errno, ""}.message());
  }
  return std::string(resolved.data());
}

Outcome<> add_mounts(const RunOptions& options, control::Run& run, Opened& opened) {
  if (options.mounts.size() + 4 > kMaxPacketFds) {
    return run_failure(kExitRunFailed, "TOO_LARGE", "more than " + std::to_string(kMaxPacketFds - 4) + " mounts",
                       "Mount a directory that holds them");
  }
  for (const std::string& text : options.mounts) {
    auto option = parse_mount(text);
    if (!option) return tl::unexpected(option.error());
    auto fd = open_mount(option->source);
    if (!fd) return tl::unexpected(fd.error());
    if (option->target.empty()) {
      auto own = absolute_path(option->source);
      if (!own) return tl::unexpected(own.error());
      option->target = std::move(*own);
    }
    control::RunMount* const mount = run.add_mounts();
    mount->set_source_label(option->source);
    mount->set_target(option->target);
    mount->set_read_write(option->read_write);
    opened.fds.push_back(std::move(*fd));
  }
  return {};
}

Outcome<> add_options(const RunOptions& options, control::Run& run) {
  run.set_policy(options.policy);
  for (const std::string& argument : options.argv) run.add_argv(argument);
  for (const std::string& setting : options.env) {
    const std::size_t equals = setting.find('=');
    if (equals == std::string::npos || equals == 0) {
      return run_failure(kExitRunFailed, "INVALID", "--env " + setting + " is not NAME=VALUE");
    }
    run.add_env(setting);
  }
  if (options.manifest.empty()) return {};
  auto manifest = read_file(options.manifest, kManifestBytes);
  if (!manifest) {
    return run_failure(kExitRunFailed, "INVALID", "cannot read --manifest: " + manifest.error().message());
  }
  run.set_manifest(std::move(*manifest));
  return {};
}

struct Pipes {
  ProgramStreams ours;
  std::array<Fd, 3> programs;
};

Result<Pipes> make_pipes() {
  auto input = make_pipe();
  auto output = input ? make_pipe() : tl::unexpected(input.error());
  auto error = output ? make_pipe() : tl::unexpected(output.error());
  if (!error) return tl::unexpected(error.error());
  // Only our end: the program's own description of the pipe stays as programs expect it.
  if (auto set = set_nonblocking(input->second.get()); !set) return tl::unexpected(set.error());
  return Pipes{{std::move(input->second), std::move(output->first), std::move(error->first)},
               {std::move(input->first), std::move(output->second), std::move(error->second)}};
}

Result<Fd> block_signals() {
  sigset_t passed;
  sigemptyset(&passed);
  for (const int number : kPassedSignals) sigaddset(&passed, number);
  // Writing to a pipe that nobody reads is an error that the relay handles.
  if (std::signal(SIGPIPE, SIG_IGN) == SIG_ERR) return errno_failure("signal SIGPIPE");
  if (sigprocmask(SIG_BLOCK, &passed, nullptr) < 0) return errno_failure("sigprocmask");
  Fd fd(signalfd(-1, &passed, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return errno_failure("signalfd");
  return fd;
}

Outcome<RunEnd> run_request(const RunOptions& options, const control::Request& request, Opened opened, Pipes pipes) {
  auto signals = block_signals();
  if (!signals) return local_failure("cannot watch for signals", signals.error());
  auto client = Client::connect(options.socket, kStartLimit);
  if (!client) return tl::unexpected(client.error());
  for (std::size_t at = 0; at < pipes.programs.size(); ++at) {
    opened.fds.insert(opened.fds.begin() + static_cast<std::ptrdiff_t>(at), std::move(pipes.programs[at]));
  }
  if (auto sent = client->send(request, opened.numbers(), Clock::now() + kStartLimit); !sent) {
    return tl::unexpected(sent.error());
  }
  // The program's ends are closed here, or its pipes would never end.
  opened.fds.clear();
  return relay(*client, kRequestId, std::move(pipes.ours), signals->get(), kStartLimit);
}

}  // namespace

Outcome<MountOption> parse_mount(std::string_view text) {
  MountOption option;
  std::string_view rest = text;
  if (rest.ends_with(":rw")) {
    option.read_write = true;
    rest.remove_suffix(3);
  }
  const std::size_t colon = rest.find(':');
  option.source = rest.substr(0, colon);
  if (colon != std::string_view::npos) option.target = rest.substr(colon + 1);
  const bool bad_target = colon != std::string_view::npos && !option.target.starts_with('/');
  if (option.source.empty() || bad_target || option.target.find(':') != std::string::npos) {
    return run_failure(kExitRunFailed, "INVALID", "--mount " + std::string(text) + " is not SRC[:DST][:rw]",
                       "DST is an absolute path inside the sandbox");
  }
  return option;
}

Outcome<Fd> open_program(const std::string& path) {
  // O_NONBLOCK: a FIFO must not hold us; it is refused below.
  Fd fd(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!fd) {
    const bool missing = errno == ENOENT || errno == ENOTDIR;
    return run_failure(missing ? kExitRunNotFound : kExitRunNotExecutable, missing ? "NOT_FOUND" : "DENIED",
                       "cannot run " + Error{path, errno, ""}.message(),
                       "A PROGRAM with a slash is a file of this host; without one it is looked up inside the sandbox");
  }
  struct stat info {};
  if (fstat(fd.get(), &info) < 0 || !S_ISREG(info.st_mode)) {
    return run_failure(kExitRunNotExecutable, "INVALID", "cannot run " + path + ": it is not a regular file");
  }
  if (faccessat(AT_FDCWD, path.c_str(), X_OK, AT_EACCESS) < 0) {
    return run_failure(kExitRunNotExecutable, "DENIED", "cannot run " + path + ": it is not executable",
                       "Make it so with: chmod +x");
  }
  return fd;
}

Outcome<int> run(const RunOptions& options) {
  control::Request request;
  request.set_id(kRequestId);
  control::Run& run = *request.mutable_run();
  Opened opened;
  if (auto added = add_options(options, run); !added) return tl::unexpected(added.error());
  if (options.argv[0].find('/') != std::string::npos) {
    auto program = open_program(options.argv[0]);
    if (!program) return tl::unexpected(program.error());
    run.set_program_is_descriptor(true);
    opened.fds.push_back(std::move(*program));
  }
  if (auto added = add_mounts(options, run, opened); !added) return tl::unexpected(added.error());
  auto pipes = make_pipes();
  if (!pipes) return tl::unexpected(as_run_failure(local_failure("cannot make pipes", pipes.error()).value()));
  const auto end = run_request(options, request, std::move(opened), std::move(*pipes));
  if (!end) return tl::unexpected(as_run_failure(end.error()));
  if (!end->message.empty()) {
    static_cast<void>(write_all(STDERR_FILENO, "kaictl: " + escape_for_terminal(end->message) + "\n"));
  }
  return end->exit_code;
}

}  // namespace kai
