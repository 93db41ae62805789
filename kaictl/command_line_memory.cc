// Agents' memory.
#include "kaictl/command_line.h"

namespace kai {

void Commands::define_memory() {
  using Asked = const Context&;
  CommandLine& line = line_;
  CLI::App* const memory = command("memory", "what the agents keep in their memory, and a file of it", Action());
  memory->require_subcommand(1);
  const auto below = [&](const std::string& name, const std::string& description, const Action& action) {
    return command_below(memory, name, description, action);
  };
  auto* stats = below("stats", "show how much each agent's memory holds, and where",
                      [&line](Asked context) { return memory_stats(context, line.id); });
  stats->add_option("ID", line.id, "only this agent's");
  add_timeout(stats, "how long to wait (10)");
  auto* get = below("get", "print the value of a key; bytes as base64",
                    [&line](Asked context) { return memory_get(context, line.id, line.key); });
  add_id(get);
  get->add_option("KEY", line.key, "as memory list prints it; one that begins with a hyphen: -- KEY")->required();
  add_timeout(get, "how long to wait (10)");
  auto* list = below("list", "list the keys in the order of their bytes, a key a line",
                     [&line](Asked context) { return memory_list(context, line.id, line.memory_list); });
  add_id(list);
  list->add_option("--prefix", line.memory_list.prefix, "only keys that begin so")->type_name("P");
  list->add_option("--limit", line.memory_list.limit, "at most so many (1000)")
      ->check(CLI::Range(1, 1000))
      ->type_name("N");
  list->add_option("--cursor", line.memory_list.cursor, "go on behind it; the answer before named it")->type_name("C");
  add_timeout(list, "how long to wait (10)");
  auto* exported = below("export", "write all of an agent's memory to a file, as it is at one moment",
                         [&line](Asked context) { return memory_export(context, line.id, line.path); });
  add_id(exported);
  exported->add_option("FILE", line.path, "made, or replaced when the export is whole; - is standard output")
      ->required();
  add_timeout(exported, "how long kaid may be silent (600)");
  auto* imported = below("import", "put what such a file holds in the place of all that an agent remembers",
                         [&line](Asked context) { return memory_import(context, line.id, line.path); });
  add_id(imported);
  imported->add_option("FILE", line.path, "made by memory export, maybe of another agent; - is standard input")
      ->required();
  add_timeout(imported, "how long kaid may be silent (600)");
}

}  // namespace kai
