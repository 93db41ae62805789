// kaictl: the operator's command line, read (command_line.h), carried out, and its answer or failure printed.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include <CLI/CLI.hpp>

#include "base/text.h"
#include "base/unix.h"
#include "kaictl/arguments.h"
#include "kaictl/command_line.h"
#include "kaictl/socket_path.h"
#include "proto/quiet.h"

namespace {

using kai::Answer;
using kai::Outcome;

/// Descriptors 0 to 2 are always there, so that nothing that is opened later takes their place.
void ensure_standard_descriptors() {
  int fd = open("/dev/null", O_RDWR);
  while (fd >= 0 && fd <= STDERR_FILENO) fd = open("/dev/null", O_RDWR);
  if (fd >= 0) close(fd);
}

int print(const Outcome<Answer>& answer, kai::OutputFormat format) {
  if (!answer) return kai::report(answer.error(), format);
  const bool json = format == kai::OutputFormat::kJson;
  for (const std::string& warning : answer->warnings) {
    if (json) break;
    static_cast<void>(kai::write_all(STDERR_FILENO, "kaictl: warning: " + kai::escape_for_terminal(warning) + "\n"));
  }
  std::string text = json ? answer->json : answer->text;
  if (json && !text.empty()) text += "\n";
  if (auto written = kai::write_all(STDOUT_FILENO, text); !written) {
    return kai::report(kai::local_failure("cannot write the answer", written.error()).value(), format);
  }
  return answer->exit_code;
}

bool knows(const CLI::App& app, const std::string& command) {
  const auto all = app.get_subcommands([](const CLI::App*) { return true; });
  return std::any_of(all.begin(), all.end(), [&](const CLI::App* known) { return known->check_name(command); });
}

/// CLI11 could not make sense of the line, or was asked for help.
int explain(const CLI::App& app, const CLI::ParseError& error, const kai::Arguments& arguments) {
  if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
  kai::Failure failure;
  failure.exit_code = arguments.command == "run" ? kai::kExitRunFailed : kai::kExitUsage;
  failure.code = "INVALID";
  failure.message = error.what();
  if (!arguments.command.empty() && !knows(app, arguments.command)) {
    failure.message = "there is no command " + arguments.command;
    failure.hint = "See: kaictl --help";
    return kai::report(failure, arguments.format);
  }
  std::replace(failure.message.begin(), failure.message.end(), '\n', ' ');
  failure.hint = "See: kaictl " + (arguments.command.empty() ? "" : arguments.command + " ") + "--help";
  return kai::report(failure, arguments.format);
}

int run_program(kai::CommandLine& line, const kai::Arguments& arguments, const kai::Context& context) {
  if (arguments.program.empty()) {
    kai::Failure failure;
    failure.exit_code = kai::kExitRunFailed;
    failure.code = "INVALID";
    failure.message = "no PROGRAM to run";
    failure.hint = "Give it after --: kaictl run -- PROGRAM [ARG...]";
    return kai::report(failure, context.format);
  }
  line.run.socket = context.socket;
  line.run.argv = arguments.program;
  const auto end = kai::run(line.run);
  return end ? *end : kai::report(end.error(), context.format);
}

int carry_out(kai::CommandLine& line, const kai::Commands::Action& action, const kai::Arguments& arguments) {
  kai::Context context;
  context.format = line.output == "json" ? kai::OutputFormat::kJson : kai::OutputFormat::kText;
  context.show_progress = context.format == kai::OutputFormat::kText && isatty(STDERR_FILENO) == 1;
  if (line.timeout) context.timeout = kai::Milliseconds(static_cast<std::int64_t>(*line.timeout * 1000));
  auto socket = kai::choose_socket_path(line.socket);
  const bool is_run = arguments.command == "run";
  if (!socket) {
    if (is_run) socket.error().exit_code = kai::kExitRunFailed;
    // What does not need kaid is not refused for its socket's sake.
    const bool needs_kaid = arguments.command != "doctor" && arguments.command != "package";
    if (needs_kaid) return kai::report(socket.error(), context.format);
  }
  context.socket = socket.value_or("");
  if (is_run) return run_program(line, arguments, context);
  if (arguments.command == "doctor") return kai::report(kai::doctor(context), context.format);
  return print(action(context), context.format);
}

}  // namespace

int main(int argc, char** argv) {
  kai::silence_protobuf();
  ensure_standard_descriptors();
  const kai::Arguments arguments =
      kai::look_through(std::span<const char* const>(argv + 1, static_cast<std::size_t>(std::max(argc - 1, 0))));
  kai::CommandLine line;
  CLI::App app("kaictl: run agents that you do not trust, and see what they do", "kaictl");
  app.set_version_flag("--version", "kaictl " KAI_VERSION);
  app.add_option("--socket", line.socket, "kaid's socket; also KAI_SOCKET")->type_name("PATH");
  app.add_option("-o,--output", line.output, "text, or json for programs")
      ->check(CLI::IsMember({"text", "json"}))
      ->type_name("text|json");
  app.require_subcommand(1);
  app.footer(
      "Exit codes: 0 done; 1 the agent or operation failed; 2 usage; 3 kaid not reachable; 4 not found; 5 refused;\n"
      "6 quarantined; 7 timeout. run: the program's own, 128+N for a signal; 125, 126, 127 are kai's. See kaictl(1).");
  kai::Commands commands(app, line);
  commands.define();
  try {
    std::vector<std::string> options(arguments.options.rbegin(), arguments.options.rend());  // CLI11 takes them so
    app.parse(std::move(options));
  } catch (const CLI::ParseError& error) {
    return explain(app, error, arguments);
  }
  return carry_out(line, commands.action(), arguments);
}
