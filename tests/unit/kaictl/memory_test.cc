// memory stats, get, list, export, import.
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/kaictl/asked.h"

namespace kai::test {
namespace {

constexpr const char* kStats =
    R"({"totalAllocated":1.5,"activeContexts":2,"contexts":[)"
    R"({"id":"calendarAgent","type":"persistent","backend":"sqlite","size":1.4,"entryCount":12,)"
    R"("lastAccessed":"2026-05-04T13:00:00.000Z","limit":50,"encrypted":true},)"
    R"({"id":"b","type":"volatile","backend":"memory","size":0.0001,"entryCount":1,"fault":"its file is\u001b[2J damaged"}]})";

std::size_t files_in(const std::string& directory) {
  const std::filesystem::directory_iterator files(directory);
  return static_cast<std::size_t>(std::distance(begin(files), end(files)));
}

void put(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// kaid writes `bytes` to the descriptor, and answers; empty `refusal`: with Done.
struct Exported {
  Result result;
  control::Request request;
  bool writable_regular_file = false;
};
Exported exported(std::vector<std::string> arguments, const std::string& bytes, const std::string& refusal = "") {
  Exported seen;
  FakeDaemon daemon([&](Connection& connection) {
    std::vector<Fd> fds;
    if (!connection.receive(seen.request, fds) || fds.size() != 1) return;
    struct stat info {};
    seen.writable_regular_file = fstat(fds[0].get(), &info) == 0 && S_ISREG(info.st_mode) &&
                                 (info.st_mode & 077) == 0 && info.st_size == 0 &&
                                 write_all(fds[0].get(), bytes).has_value();
    if (!refusal.empty()) return connection.failed(seen.request, refusal, "no");
    connection.done(seen.request, R"({"id":"a","entries":1,"bytes":)" + std::to_string(bytes.size()) + "}");
  });
  arguments.insert(arguments.begin(), {"--socket", daemon.socket()});
  seen.result = kaictl(arguments);
  daemon.join();
  return seen;
}

/// What kaid reads from the descriptor.
struct Imported {
  Result result;
  control::Request request;
  std::string bytes;
  bool regular_file = false;
};
Imported imported(std::vector<std::string> arguments, const std::string& input = "", const std::string& refusal = "") {
  Imported seen;
  FakeDaemon daemon([&](Connection& connection) {
    std::vector<Fd> fds;
    if (!connection.receive(seen.request, fds) || fds.size() != 1) return;
    struct stat info {};
    seen.regular_file = fstat(fds[0].get(), &info) == 0 && S_ISREG(info.st_mode);
    seen.bytes = read_all(fds[0].get(), 16 << 20).value_or("unread");
    if (!refusal.empty()) return connection.failed(seen.request, refusal, "no");
    connection.done(seen.request, R"({"id":"a","entries":2,"bytes":)" + std::to_string(seen.bytes.size()) + "}");
  });
  arguments.insert(arguments.begin(), {"--socket", daemon.socket()});
  seen.result = kaictl(arguments, input);
  daemon.join();
  return seen;
}

TEST_CASE("memory stats: the document, or a table with what is wrong below it") {
  const Asked json = ask({"-o", "json", "memory", "stats"}, kStats);
  CHECK(json.request.has_memory_stats());
  CHECK(json.request.memory_stats().id().empty());
  CHECK(json.result.out == std::string(kStats) + "\n");
  const Asked text = ask({"memory", "stats", "calendarAgent"}, kStats);
  CHECK(text.request.memory_stats().id() == "calendarAgent");
  CHECK(text.result.exit_code == 0);
  CHECK(text.result.out ==
        "ID             TYPE        BACKEND  SIZE             ENTRIES  LAST ACCESSED             ENCRYPTED\n"
        "calendarAgent  persistent  sqlite   1.4 MB of 50 MB  12       2026-05-04T13:00:00.000Z  yes\n"
        "b              volatile    memory   105 B            1        -                         -\n"
        "the memory of b cannot be used: its file is\\e[2J damaged\n");
  CHECK(ask({"memory", "stats"}, R"({"totalAllocated":0,"activeContexts":0,"contexts":[]})").result.out ==
        "no agent has a memory in use\n");
  CHECK(ask({"memory", "stats"}, R"({"contexts":[7,{},{"size":1e300},{"size":"x","limit":-1}]})").result.exit_code ==
        0);
  CHECK(ask_refused({"memory", "stats", "x"}, "NOT_FOUND", "there is no agent x").result.exit_code == 4);
}

TEST_CASE("memory get: JSON as send prints it, bytes as base64") {
  const std::string document = R"({"key":"k","value":{"a":[1,"\u001b[2J"]},"version":3})";
  Asked asked = ask({"memory", "get", "a", "k"}, document);
  CHECK(asked.request.memory_read().id() == "a");
  CHECK(asked.request.memory_read().key() == "k");
  CHECK(asked.result.out == "{\"a\":[1,\"\\u001b[2J\"]}\n");
  CHECK(asked.result.err.empty());
  CHECK(ask({"-o", "json", "memory", "get", "a", "k"}, document).result.out == document + "\n");
  CHECK(ask({"memory", "get", "a", "k"}, R"({"key":"k","value":null,"version":1})").result.out == "null\n");

  asked = ask({"memory", "get", "a", "k"}, R"({"key":"k","valueBase64":"AAH/","version":1})");
  CHECK(asked.result.out == "AAH/\n");
  CHECK(asked.result.err == "kaictl: warning: the value is bytes, printed as base64\n");
  CHECK(
      ask({"-o", "json", "memory", "get", "a", "k"}, R"({"key":"k","valueBase64":"","version":1})").result.err.empty());

  CHECK(ask({"memory", "get", "a", "--", "--k"}, document).request.memory_read().key() == "--k");
  CHECK(ask({"memory", "get", "a", "two words\xff"}, document).request.memory_read().key() == "two words\xff");
  asked = ask_refused({"memory", "get", "a", "k"}, "NOT_FOUND", "a has no key k");
  CHECK(asked.result.exit_code == 4);
  CHECK(asked.result.out.empty());
  CHECK(ask_refused({"memory", "get", "a", ""}, "INVALID", "a key has 1 to 512 bytes").result.exit_code == 5);
  CHECK(ask_refused({"memory", "get", "a", "k"}, "UNAVAILABLE", "redis is down").result.exit_code == 1);
  CHECK(kaictl({"memory", "get", "a"}).exit_code == 2);
}

TEST_CASE("memory list: a key a line, and where to go on") {
  Asked asked = ask({"memory", "list", "a", "--prefix", "event:", "--limit", "2", "--cursor", "event:1"},
                    R"({"keys":["event:2","x\ny\u001b"],"cursor":"x\ny"})");
  CHECK(asked.request.memory_keys().id() == "a");
  CHECK(asked.request.memory_keys().prefix() == "event:");
  CHECK(asked.request.memory_keys().limit() == 2);
  CHECK(asked.request.memory_keys().cursor() == "event:1");
  CHECK(asked.result.out == "event:2\nx\\ny\\e\n");
  CHECK(asked.result.err == "kaictl: warning: there are more keys; go on with: --cursor 'x\\ny'\n");
  asked = ask({"memory", "list", "a"}, R"({"keys":[]})");
  CHECK(asked.request.memory_keys().limit() == 0);
  CHECK(asked.result.out.empty());
  CHECK(asked.result.err.empty());
  CHECK(asked.result.exit_code == 0);
  CHECK(ask({"-o", "json", "memory", "list", "a"}, R"({"keys":["k"]})").result.out == "{\"keys\":[\"k\"]}\n");
  for (const char* const limit : {"0", "1001", "-1", "many"}) {
    CHECK(kaictl({"memory", "list", "a", "--limit", limit}).exit_code == 2);
  }
}

TEST_CASE("memory export: a file of its owner's, whole or as it was before") {
  const ScratchDirectory directory;
  const std::string file = directory / "a.memory";
  Exported seen = exported({"memory", "export", "a", file}, "first\n");
  CHECK(seen.request.memory_export().id() == "a");
  CHECK(seen.writable_regular_file);
  CHECK(seen.result.exit_code == 0);
  CHECK(seen.result.out == "a: exported to " + file + " (1 entry, 6 bytes)\n");
  CHECK(*read_file(file) == "first\n");
  struct stat info {};
  REQUIRE(stat(file.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);

  seen = exported({"memory", "export", "a", file}, "half", "UNAVAILABLE");
  CHECK(seen.result.exit_code == 1);
  CHECK(seen.result.out.empty());
  CHECK(*read_file(file) == "first\n");
  CHECK(files_in(directory.path()) == 1);

  seen = exported({"-o", "json", "memory", "export", "a", file}, "second\n");
  CHECK(seen.result.out == "{\"id\":\"a\",\"entries\":1,\"bytes\":7}\n");
  CHECK(*read_file(file) == "second\n");
  CHECK(files_in(directory.path()) == 1);

  // kaid never hears of what cannot be written.
  CHECK(kaictl({"memory", "export", "a", "/dev/null"}).exit_code == 5);
  CHECK(kaictl({"memory", "export", "a", directory.path()}).exit_code == 5);
  CHECK(kaictl({"memory", "export", "a", directory / "no/such"}).exit_code == 4);
  CHECK(exported({"memory", "export", "x", file}, "", "NOT_FOUND").result.exit_code == 4);
}

TEST_CASE("memory export to standard output: nothing before all is there, and no terminal") {
  const std::string bytes(3 << 20, 'x');
  Exported seen = exported({"memory", "export", "a", "-"}, bytes);
  CHECK(seen.writable_regular_file);
  CHECK(seen.result.exit_code == 0);
  CHECK(seen.result.out == bytes);
  CHECK(exported({"-o", "json", "memory", "export", "a", "-"}, "lines\n").result.out == "lines\n");
  seen = exported({"memory", "export", "a", "-"}, "half", "DENIED");
  CHECK(seen.result.exit_code == 5);
  CHECK(seen.result.out.empty());
  const Result terminal = Program({"memory", "export", "a", "-"}, Program::Streams::kTerminal).finish();
  CHECK(terminal.exit_code == 2);
  CHECK(terminal.out.find("standard output is a terminal") != std::string::npos);
}

TEST_CASE("memory import: a regular file of the operator's, or standard input") {
  const ScratchDirectory directory;
  const std::string file = directory / "a.memory";
  put(file, "lines\n");
  Imported seen = imported({"memory", "import", "a", file});
  CHECK(seen.request.memory_import().id() == "a");
  CHECK(seen.regular_file);
  CHECK(seen.bytes == "lines\n");
  CHECK(seen.result.out ==
        "a: imported from " + file + " (2 entries, 6 bytes), in the place of all that it remembered\n");
  CHECK(imported({"-o", "json", "memory", "import", "a", file}).result.out ==
        "{\"id\":\"a\",\"entries\":2,\"bytes\":6}\n");

  const std::string large(3 << 20, 'y');
  seen = imported({"memory", "import", "a", "-"}, large);
  CHECK(seen.regular_file);
  CHECK(seen.bytes == large);
  CHECK(seen.result.exit_code == 0);
  seen = imported({"memory", "import", "a", "-"}, "");
  CHECK(seen.regular_file);
  CHECK(seen.bytes.empty());

  CHECK(imported({"memory", "import", "a", file}, "", "QUOTA_EXCEEDED").result.exit_code == 1);
  CHECK(imported({"memory", "import", "a", file}, "", "INVALID").result.exit_code == 5);
  CHECK(*read_file(file) == "lines\n");
  const Result missing = kaictl({"memory", "import", "a", directory / "none"});
  CHECK(missing.exit_code == 4);
  CHECK(missing.err.find("kaictl memory export ID FILE") != std::string::npos);
  CHECK(kaictl({"memory", "import", "a", directory.path()}).exit_code == 5);
  const std::string pipe = directory / "pipe";
  REQUIRE(mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(kaictl({"memory", "import", "a", pipe}).exit_code == 5);
}

TEST_CASE("memory needs a command below it") {
  CHECK(kaictl({"memory"}).exit_code == 2);
  CHECK(kaictl({"memory", "forget", "a"}).exit_code == 2);
  CHECK(kaictl({"memory", "--help"}).out.find("export") != std::string::npos);
  CHECK(kaictl({"terminate", "--help"}).out.find("persistent data and memory too") != std::string::npos);
}

}  // namespace
}  // namespace kai::test
