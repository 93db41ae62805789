// The build-time reader of policies/profiles: what it refuses, it refuses with file and line.
#include <stdlib.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include <doctest/doctest.h>

namespace {

struct Outcome {
  int exit_code = -1;
  std::string errors;
};

class Directory {
 public:
  Directory() {
    std::string name = std::filesystem::temp_directory_path() / "kai-profiles-XXXXXX";
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  ~Directory() { std::filesystem::remove_all(path_); }

  Outcome generate(const std::string& yaml) const {
    const std::string profile = path_ / "test.yaml";
    std::ofstream(profile) << yaml;
    const std::string command =
        std::string(KAI_GENERATE_PROFILES) + " " + (path_ / "out.cc").string() + " " + profile + " 2>&1";
    FILE* pipe = popen(command.c_str(), "r");
    REQUIRE(pipe != nullptr);
    Outcome outcome;
    std::array<char, 256> line;
    while (fgets(line.data(), line.size(), pipe) != nullptr) outcome.errors += line.data();
    outcome.exit_code = WEXITSTATUS(pclose(pipe));
    return outcome;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace

TEST_CASE("a good profile is taken, every fault has its line") {
  const Directory directory;
  const std::string head = "name: test\nrules:\n";
  const Outcome good = directory.generate(head + "- calls: [read]\n  reason: Reading is needed.\n");
  CHECK(good.errors.empty());
  CHECK(good.exit_code == 0);
  struct Fault {
    std::string yaml;
    const char* expected;
  };
  const Fault faults[] = {
      {head + "- calls: [read]\n", "test.yaml:3: error: no reason"},
      {head + "- calls: [read]\n  reason: ''\n", "test.yaml:3: error: no reason"},
      {head + "- calls: [read]\n  reason: x\n", "test.yaml:4: error: a reason is a sentence"},
      {head + "- calls: [raed]\n  reason: Reading is needed.\n", "test.yaml:3: error: unknown system call raed"},
      {head + "- calls: [read]\n  reason: Reading is needed.\n  errnum: EPERM\n",
       "test.yaml:5: error: unknown key errnum"},
      {head + "- calls: read\n  reason: Reading is needed.\n", "test.yaml:3: error: calls is not a list"},
      {head + "- calls: [ioctl]\n  reason: Reading is needed.\n  when: [{arg: 6, in: [1]}]\n",
       "test.yaml:5: error: arg is not 0 to 5"},
      {head + "- calls: [ioctl]\n  reason: Reading is needed.\n  when: [{arg: 1}]\n",
       "test.yaml:5: error: in is not a list"},
      {head + "- calls: [ioctl]\n  reason: Reading is needed.\n  when: [{arg: 1, in: ['a b']}]\n",
       "test.yaml:5: error: not a number or constant"},
      {"name: other\nrules: []\n", "test.yaml:1: error: name differs from the file's"},
      {"name: test\ninclude: base\nrules: []\n", "test.yaml:2: error: no profile base before this one"},
      {head + "- calls: [read]\n  reason: Reading is needed.\n  quiet: true\n",
       "test.yaml:5: error: unknown key quiet"},
      {head + "- calls: [read]\n  reason: Reading is needed.\nrefused:\n- calls: [bpf]\n",
       "test.yaml:6: error: no reason"},
      {head + "- calls: [read]\n  reason: Reading is needed.\nrefused: bpf\n",
       "test.yaml:5: error: refused is not a list"},
      {"name: test\n", "test.yaml:1: error: rules is not a list"},
      {"name: test\nrules: [\n", "test.yaml:"},
  };
  for (const Fault& fault : faults) {
    const Outcome outcome = directory.generate(fault.yaml);
    CAPTURE(fault.yaml);
    CAPTURE(outcome.errors);
    CHECK(outcome.exit_code == 1);
    CHECK(outcome.errors.find(fault.expected) != std::string::npos);
  }
}
