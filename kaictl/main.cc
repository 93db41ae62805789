// kaictl: the operator's command line. Here are the commands and their options only; what they do is in commands.h.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <functional>
#include <optional>
#include <string>

#include <CLI/CLI.hpp>

#include "base/text.h"
#include "base/unix.h"
#include "kaictl/arguments.h"
#include "kaictl/commands.h"
#include "kaictl/policy.h"
#include "kaictl/run.h"
#include "kaictl/socket_path.h"
#include "proto/quiet.h"

namespace {

using kai::Answer;
using kai::Outcome;

struct CommandLine {
  std::string socket;
  std::string output = "text";
  std::optional<double> timeout;
  std::string id, path, capability, payload;
  bool no_wait = false;
  bool purge = false;
  kai::LogsOptions logs;
  kai::RunOptions run;
  std::string manifest, subject, connect;
};

using Action = std::function<Outcome<Answer>(const kai::Context&)>;

/// Descriptors 0 to 2 are always there, so that nothing that is opened later takes their place.
void ensure_standard_descriptors() {
  int fd = open("/dev/null", O_RDWR);
  while (fd >= 0 && fd <= STDERR_FILENO) fd = open("/dev/null", O_RDWR);
  if (fd >= 0) close(fd);
}

class Commands {
 public:
  Commands(CLI::App& app, CommandLine& line) : app_(app), line_(line) {}

  void define() {
    define_agents();
    define_talk();
    define_run();
    define_policies();
    define_about();
  }
  /// The action of the command that was given; empty for run and doctor, which have their own way out.
  [[nodiscard]] const Action& action() const { return action_; }

 private:
  CLI::App* command(const std::string& name, const std::string& description, const Action& action) {
    CLI::App* const command = app_.add_subcommand(name, description);
    command->fallthrough();  // --socket and -o may stand after the command too
    command->callback([this, action] { action_ = action; });
    return command;
  }
  void add_id(CLI::App* command) { command->add_option("ID", line_.id, "id of the agent")->required(); }
  void add_timeout(CLI::App* command, const std::string& description) {
    command->add_option("--timeout", line_.timeout, description + ", in seconds")
        ->check(CLI::Range(0.001, 86400.0))
        ->type_name("S");
  }
  void define_agents();
  void define_talk();
  void define_run();
  void define_policies();
  void define_about();

  CLI::App& app_;
  CommandLine& line_;
  Action action_, policy_action_;
};

void Commands::define_agents() {
  using Context = const kai::Context&;
  CommandLine& line = line_;
  auto* add = command("register", "store a package and make its agent known to kaid",
                      [&line](Context context) { return kai::register_package(context, line.path); });
  add->add_option("PATH", line.path, "directory with manifest.json at its root, or a .tar.gz of it")->required();
  add_timeout(add, "how long to wait (120)");
  auto* remove = command("unregister", "forget a stopped or terminated agent",
                         [&line](Context context) { return kai::unregister(context, line.id); });
  add_id(remove);
  add_timeout(remove, "how long to wait (30)");
  add_timeout(command("list", "list the registered agents", [](Context context) { return kai::list(context); }),
              "how long to wait (10)");
  auto* status = command("status", "show what an agent does, why, and what to do next",
                         [&line](Context context) { return kai::status(context, line.id); });
  add_id(status);
  add_timeout(status, "how long to wait (10)");
  const auto add_change = [&](const std::string& name, const std::string& description, kai::Change change) {
    auto* const added = command(name, description, [&line, change](Context context) {
      return kai::change(context, change, line.id, line.no_wait);
    });
    add_id(added);
    add_timeout(added, "how long it may take (30)");
    added->add_flag("--no-wait", line.no_wait, "return as soon as kaid has taken the request");
  };
  add_change("start", "start an agent, and keep it running", kai::Change::kStart);
  add_change("stop", "stop an agent; its volatile memory stays", kai::Change::kStop);
  add_change("restart", "stop an agent and start it again", kai::Change::kRestart);
  auto* terminate = command("terminate", "stop an agent for good and clear its volatile memory",
                            [&line](Context context) { return kai::terminate(context, line.id, line.purge); });
  add_id(terminate);
  terminate->add_flag("--purge", line.purge, "remove its persistent data too");
  add_timeout(terminate, "how long it may take (30)");
}

void Commands::define_talk() {
  using Context = const kai::Context&;
  CommandLine& line = line_;
  auto* send = command("send", "send an agent a request and print its response",
                       [&line](Context context) { return kai::send(context, line.id, line.capability, line.payload); });
  add_id(send);
  send->add_option("CAPABILITY", line.capability, "one of the capabilities in its manifest")->required();
  send->add_option("JSON", line.payload, "payload; - reads it from standard input ({})");
  add_timeout(send, "how long the agent may take (30)");
  auto* logs = command("logs", "show the log of kaid and its agents",
                       [&line](Context context) { return kai::logs(context, line.logs); });
  logs->add_option("ID", line.logs.id, "only this agent's records");
  logs->add_flag("-f,--follow", line.logs.follow, "go on with new records until interrupted");
  logs->add_option("-n,--lines", line.logs.lines, "only the last N records")->type_name("N");
  logs->add_option("--since", line.logs.since, "only records since then: 2026-05-04T13:00:00Z, or 10m, 2h, 1d ago")
      ->type_name("T");
  add_timeout(logs, "how long to wait for the next record without -f (10)");
}

void Commands::define_run() {
  auto* run = command("run", "run a program in a sandbox: kaictl run [OPTIONS] -- PROGRAM [ARG...]", Action());
  run->footer("PROGRAM with a slash is a file of this host; without one it is looked up inside the sandbox.");
  run->add_option("--manifest", line_.run.manifest, "manifest that says what the program may ask for")
      ->type_name("FILE");
  run->add_option("--policy", line_.run.policy, "operator policy, instead of the first that matches")
      ->type_name("NAME");
  // One value a time, and never split: a value may hold commas, spaces and brackets.
  const auto one_each = [](CLI::Option* option) {
    option->allow_extra_args(false)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  };
  one_each(run->add_option("--env", line_.run.env, "variable of the program's environment; may be repeated")
               ->type_name("K=V"));
  one_each(run->add_option("--mount", line_.run.mounts, "file or directory of this host; needs the grant hostMounts")
               ->type_name("SRC[:DST][:rw]"));
}

void Commands::define_policies() {
  using Context = const kai::Context&;
  CommandLine& line = line_;
  CLI::App* const policy = command("policy", "what the operator's policies give and refuse, and why", Action());
  policy->require_subcommand(1);
  const auto below = [&](const std::string& name, const std::string& description, const Action& action) {
    CLI::App* const added = policy->add_subcommand(name, description);
    added->fallthrough();
    // The outer command's callback comes after this one.
    added->callback([this, action] { policy_action_ = action; });
    add_timeout(added, "how long to wait (10)");
    return added;
  };
  below("check", "say what a manifest would be granted, and what not, with the rule of each",
        [&line](Context context) { return kai::policy_check(context, line.manifest); })
      ->add_option("MANIFEST", line.manifest, "manifest, or a package directory")
      ->required();
  auto* explain = below("explain", "say what an agent may do, layer by layer, with the rule of each",
                        [&line](Context context) { return kai::policy_explain(context, line.subject, line.connect); });
  explain->add_option("ID|MANIFEST", line.subject, "id of an agent, or a manifest (with a slash, or .json, .yaml)")
      ->required();
  explain->add_option("--connect", line.connect, "only whether it might connect there, and why")
      ->type_name("NAME:PORT");
  policy->callback([this] { action_ = policy_action_; });
  add_timeout(command("reload", "read configuration and policies again; on an error the old ones stay",
                      [](Context context) { return kai::reload(context); }),
              "how long to wait (10)");
}

void Commands::define_about() {
  using Context = const kai::Context&;
  command("doctor", "say what this machine offers, what is missing and how to get it; needs no kaid", Action());
  add_timeout(command("version", "print the versions of kaictl and kaid",
                      [](Context context) { return kai::version(context); }),
              "how long to wait (10)");
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

int run_program(CommandLine& line, const kai::Arguments& arguments, const kai::Context& context) {
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

int carry_out(CommandLine& line, const Action& action, const kai::Arguments& arguments) {
  kai::Context context;
  context.format = line.output == "json" ? kai::OutputFormat::kJson : kai::OutputFormat::kText;
  context.show_progress = context.format == kai::OutputFormat::kText && isatty(STDERR_FILENO) == 1;
  if (line.timeout) context.timeout = kai::Milliseconds(static_cast<std::int64_t>(*line.timeout * 1000));
  auto socket = kai::choose_socket_path(line.socket);
  const bool is_run = arguments.command == "run";
  if (!socket) {
    if (is_run) socket.error().exit_code = kai::kExitRunFailed;
    // What does not need kaid is not refused for its socket's sake.
    if (arguments.command != "doctor") return kai::report(socket.error(), context.format);
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
  CommandLine line;
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
  Commands commands(app, line);
  commands.define();
  try {
    std::vector<std::string> options(arguments.options.rbegin(), arguments.options.rend());  // CLI11 takes them so
    app.parse(std::move(options));
  } catch (const CLI::ParseError& error) {
    return explain(app, error, arguments);
  }
  return carry_out(line, commands.action(), arguments);
}
