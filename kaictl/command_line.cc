#include "kaictl/command_line.h"

#include "kaictl/policy.h"

namespace kai {

void Commands::define() {
  define_agents();
  define_packages();
  define_talk();
  define_run();
  define_upgrade();
  define_snapshot();
  define_quarantine();
  define_events();
  define_audit();
  define_memory();
  define_network();
  define_policies();
  define_about();
}

CLI::App* Commands::command(const std::string& name, const std::string& description, const Action& action) {
  CLI::App* const command = app_.add_subcommand(name, description);
  command->fallthrough();  // --socket and -o may stand after the command too
  // A command below this one was read before it, and is what was meant.
  command->callback([this, action] { action_ = action_below_ ? action_below_ : action; });
  return command;
}

CLI::App* Commands::command_below(CLI::App* parent, const std::string& name, const std::string& description,
                                  const Action& action) {
  CLI::App* const command = parent->add_subcommand(name, description);
  command->fallthrough();
  command->callback([this, action] { action_below_ = action; });
  return command;
}

void Commands::add_timeout(CLI::App* command, const std::string& description) {
  command->add_option("--timeout", line_.timeout, description + ", in seconds")
      ->check(CLI::Range(0.001, 86400.0))
      ->type_name("S");
}

void Commands::define_agents() {
  using Asked = const Context&;
  CommandLine& line = line_;
  auto* add = command("register", "store a package and make its agent known to kaid",
                      [&line](Asked context) { return kai::register_package(context, line.path); });
  add->add_option("PATH", line.path, "directory with manifest.json at its root, or a .tar.gz of it")->required();
  add_timeout(add, "how long to wait (120)");
  auto* remove = command("unregister", "forget a stopped or terminated agent",
                         [&line](Asked context) { return kai::unregister(context, line.id); });
  add_id(remove);
  add_timeout(remove, "how long to wait (30)");
  add_timeout(command("list", "list the registered agents", [](Asked context) { return kai::list(context); }),
              "how long to wait (10)");
  auto* status = command("status", "show what an agent does, why, and what to do next",
                         [&line](Asked context) { return kai::status(context, line.id); });
  add_id(status);
  add_timeout(status, "how long to wait (10)");
  const auto add_change = [&](const std::string& name, const std::string& description, Change change) {
    auto* const added = command(name, description, [&line, change](Asked context) {
      return kai::change(context, change, line.id, line.no_wait);
    });
    add_id(added);
    add_timeout(added, "how long it may take (30)");
    added->add_flag("--no-wait", line.no_wait, "return as soon as kaid has taken the request");
  };
  add_change("start", "start an agent, and keep it running", Change::kStart);
  add_change("stop", "stop an agent; its volatile memory stays", Change::kStop);
  add_change("restart", "stop an agent and start it again", Change::kRestart);
  auto* terminate = command("terminate", "stop an agent for good and clear its volatile memory",
                            [&line](Asked context) { return kai::terminate(context, line.id, line.purge); });
  add_id(terminate);
  terminate->add_flag("--purge", line.purge, "remove its persistent data and memory too; they cannot be had back");
  add_timeout(terminate, "how long it may take (30)");
}

void Commands::define_talk() {
  using Asked = const Context&;
  CommandLine& line = line_;
  auto* send = command("send", "send an agent a request and print its response",
                       [&line](Asked context) { return kai::send(context, line.id, line.capability, line.payload); });
  add_id(send);
  send->add_option("CAPABILITY", line.capability, "one of the capabilities in its manifest")->required();
  send->add_option("JSON", line.payload, "payload; - reads it from standard input ({})");
  add_timeout(send, "how long the agent may take (30)");
  auto* logs = command("logs", "show the log of kaid and its agents",
                       [&line](Asked context) { return kai::logs(context, line.logs); });
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
  using Asked = const Context&;
  CommandLine& line = line_;
  CLI::App* const policy = command("policy", "what the operator's policies give and refuse, and why", Action());
  policy->require_subcommand(1);
  const auto below = [&](const std::string& name, const std::string& description, const Action& action) {
    CLI::App* const added = command_below(policy, name, description, action);
    add_timeout(added, "how long to wait (10)");
    return added;
  };
  below("check", "say what a manifest would be granted, and what not, with the rule of each",
        [&line](Asked context) { return kai::policy_check(context, line.manifest); })
      ->add_option("MANIFEST", line.manifest, "manifest, or a package directory")
      ->required();
  auto* explain = below("explain", "say what an agent may do, layer by layer, with the rule of each",
                        [&line](Asked context) { return kai::policy_explain(context, line.subject, line.connect); });
  explain->add_option("ID|MANIFEST", line.subject, "id of an agent, or a manifest (with a slash, or .json, .yaml)")
      ->required();
  explain->add_option("--connect", line.connect, "only whether it might connect there, and why")
      ->check([](const std::string& text) {
        return text.empty() ? std::string("it needs NAME:PORT, as in api.example.com:443") : std::string();
      })
      ->type_name("NAME:PORT");
  add_timeout(command("reload", "read configuration and policies again; on an error the old ones stay",
                      [](Asked context) { return kai::reload(context); }),
              "how long to wait (10)");
}

void Commands::define_network() {
  CommandLine& line = line_;
  auto* net = command("net", "show what an agent is connected to, which names it looked up, and what it was refused",
                      [&line](const Context& context) { return kai::net(context, line.id); });
  add_id(net);
  add_timeout(net, "how long to wait (10)");
}

void Commands::define_about() {
  using Asked = const Context&;
  command("doctor", "say what this machine offers, what is missing and how to get it; needs no kaid", Action());
  add_timeout(
      command("version", "print the versions of kaictl and kaid", [](Asked context) { return kai::version(context); }),
      "how long to wait (10)");
}

}  // namespace kai
