// Build-time: turns policies/profiles/*.yaml into the table that find_profile() searches. Strict, since nobody is there
// to read a warning: an unknown key or system call, or a rule without a reason, fails the build with file:line.
//
//   kai-generate-profiles OUTPUT.cc base.yaml node.yaml …      (a profile comes after the one that it includes)
#include <seccomp.h>

#include <cctype>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <yaml-cpp/yaml.h>

namespace {

/// One condition: the argument, masked, is one of these constants.
struct Condition {
  unsigned index = 0;
  std::string mask;
  std::vector<std::string> values;
};

class ProfileReader {
 public:
  ProfileReader(std::string file, const std::map<std::string, std::string>& known)
      : file_(std::move(file)), known_(known) {}

  /// The rules as C++ initializers; `name` gets the profile's name.
  std::string read(std::string& name) {
    const YAML::Node document = load();
    check_keys(document, {"name", "include", "rules", "refused"});
    name = text(document, "name");
    if (name != std::filesystem::path(file_).stem()) fail(document["name"], "name differs from the file's");
    if (const YAML::Node include = document["include"]) {
      const auto found = known_.find(include.as<std::string>());
      if (found == known_.end()) fail(include, "no profile " + include.as<std::string>() + " before this one");
      out_ << found->second;
    }
    if (!document["rules"] || !document["rules"].IsSequence()) fail(document, "rules is not a list");
    for (const YAML::Node& rule : document["rules"]) read_rule(rule, false);
    if (document["refused"] && !document["refused"].IsSequence()) fail(document["refused"], "refused is not a list");
    for (const YAML::Node& rule : document["refused"]) read_rule(rule, true);
    return out_.str();
  }

 private:
  YAML::Node load() const try { return YAML::LoadFile(file_); } catch (const YAML::Exception& error) {
    throw std::runtime_error(file_ + ":" + std::to_string(error.mark.line + 1) + ": error: " + error.msg);
  }

  [[noreturn]] void fail(const YAML::Node& node, const std::string& message) const {
    throw std::runtime_error(file_ + ":" + std::to_string(node.Mark().line + 1) + ": error: " + message);
  }

  static bool is_filled_list(const YAML::Node& node) { return node && node.IsSequence() && node.size() > 0; }

  void check_keys(const YAML::Node& map, const std::set<std::string>& allowed) const {
    if (!map.IsMap()) fail(map, "not a mapping");
    std::set<std::string> seen;
    for (const auto& entry : map) {
      const auto key = entry.first.as<std::string>();
      if (!allowed.contains(key)) fail(entry.first, "unknown key " + key);
      if (!seen.insert(key).second) fail(entry.first, "key " + key + " twice");
    }
  }

  std::string text(const YAML::Node& map, const std::string& key) const {
    const YAML::Node value = map[key];
    if (!value || !value.IsScalar() || value.Scalar().empty()) fail(map, "no " + key);
    return value.Scalar();
  }

  /// A number, or the name of a constant that the compiler checks when it compiles the table.
  std::string constant(const YAML::Node& node) const {
    const auto& word = node.Scalar();
    if (!node.IsScalar() || word.empty()) fail(node, "not a number or constant");
    for (const char c : word) {
      if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_') fail(node, "not a number or constant: " + word);
    }
    return word;
  }

  Condition read_condition(const YAML::Node& node) const {
    check_keys(node, {"arg", "mask", "in"});
    Condition condition;
    condition.index = node["arg"] ? node["arg"].as<unsigned>() : 6;
    if (condition.index > 5) fail(node, "arg is not 0 to 5");
    condition.mask = node["mask"] ? constant(node["mask"]) : "0xffffffff";
    if (!is_filled_list(node["in"])) fail(node, "in is not a list of values");
    for (const YAML::Node& value : node["in"]) condition.values.push_back(constant(value));
    return condition;
  }

  /// Allowed, unless `errno` says what it fails with; a refused one is notified, unless `quiet`.
  std::string action_of(const YAML::Node& rule, bool refused) const {
    check_keys(rule, refused ? std::set<std::string>{"calls", "when", "errno", "reason", "quiet"}
                             : std::set<std::string>{"calls", "when", "errno", "reason"});
    const std::string error_number = rule["errno"] ? constant(rule["errno"]) : "EPERM";
    if (!refused) return rule["errno"] ? "Action::kErrno, " + error_number : "Action::kAllow, 0";
    return (rule["quiet"] && rule["quiet"].as<bool>() ? "Action::kErrno, " : "Action::kNotify, ") + error_number;
  }

  /// Place and reason as the last two members of a SyscallRule.
  std::string provenance(const YAML::Node& rule) const {
    std::string quoted;
    for (const char c : text(rule, "reason")) {
      if (c == '"' || c == '\\') quoted += '\\';
      quoted += c;
    }
    const std::string place = std::filesystem::path(file_).filename().string();
    return "\"" + place + ":" + std::to_string(rule.Mark().line + 1) + "\", \"" + quoted + "\"";
  }

  void read_rule(const YAML::Node& rule, bool refused) {
    const std::string action = "SyscallRule::" + action_of(rule, refused);
    if (text(rule, "reason").size() < 8) fail(rule["reason"], "a reason is a sentence");
    if (rule["reason"].Scalar().find('\n') != std::string::npos) fail(rule["reason"], "a reason is one line");
    const std::string why = provenance(rule);
    std::vector<std::string> alternatives = {""};  // every combination of one value of each condition
    for (const YAML::Node& node : rule["when"]) {
      const Condition condition = read_condition(node);
      std::vector<std::string> longer;
      for (const std::string& before : alternatives) {
        for (const std::string& value : condition.values) {
          std::ostringstream all;
          all << before << "argument(" << condition.index << ", " << condition.mask << ", " << value << "), ";
          longer.push_back(all.str());
        }
      }
      alternatives = std::move(longer);
    }
    if (!is_filled_list(rule["calls"])) fail(rule, "calls is not a list of system calls");
    for (const YAML::Node& call : rule["calls"]) {
      const auto name = call.as<std::string>();
      if (seccomp_syscall_resolve_name(name.c_str()) == __NR_SCMP_ERROR) fail(call, "unknown system call " + name);
      // With #line a constant that the compiler does not know is reported at its rule here.
      for (const std::string& arguments : alternatives) {
        out_ << "#line " << call.Mark().line + 1 << " \"" << file_ << "\"\n    {\"" << name << "\", " << action << ", {"
             << arguments << "}, " << why << "},\n";
      }
    }
  }

  std::string file_;
  const std::map<std::string, std::string>& known_;
  std::ostringstream out_;
};

constexpr const char* kHead = R"(// Made by policies/profiles/generate.cc from policies/profiles/*.yaml. Do not edit.
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>

#include "policies/profiles.h"

namespace kai {
namespace {

SyscallRule::Argument argument(unsigned index, std::uint64_t mask, std::uint64_t value) {
  return {index, SyscallRule::Argument::Op::kMaskedEqual, value & mask, mask};
}

)";

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 3) throw std::runtime_error("usage: kai-generate-profiles OUTPUT.cc PROFILE.yaml...");
  std::map<std::string, std::string> rules;
  std::ostringstream tables;
  std::ostringstream list;
  tables << kHead;
  for (int at = 2; at < argc; ++at) {
    std::string name;
    const std::string body = ProfileReader(argv[at], rules).read(name);
    rules[name] = body;
    tables << "SeccompProfile make_" << name << "() {\n  return {\"" << name << "\", {\n" << body << "  }};\n}\n\n";
    list << " make_" << name << "(),";
  }
  tables << "}  // namespace\n\nconst std::vector<SeccompProfile>& all_profiles() {\n"
         << "  static const std::vector<SeccompProfile> profiles = {" << list.str() << "};\n"
         << "  return profiles;\n}\n\n}  // namespace kai\n";
  std::ofstream file(argv[1], std::ios::trunc);
  file << tables.str();
  if (!file.flush()) throw std::runtime_error(std::string("cannot write ") + argv[1]);
  return 0;
} catch (const std::exception& error) {
  (void)std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
