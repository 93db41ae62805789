// What is acknowledged is there: after kill -9, on a full disk; and how many share a commit.
#include <fcntl.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/memory/sqlite_backend.h"

namespace kai {
namespace {

constexpr std::uintmax_t kPage = 4096;

// Runs memory_writer until it has acknowledged so many writes, and kills it. The numbers of those it acknowledged.
std::vector<std::string> write_and_kill(const std::string& path, const char* how, std::size_t enough) {
  auto pipe = make_pipe().value();
  const std::string program = KAI_MEMORY_WRITER;
  std::array<char*, 4> arguments = {const_cast<char*>(program.c_str()), const_cast<char*>(path.c_str()),
                                    const_cast<char*>(how), nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipe.second.get(), STDOUT_FILENO);
  pid_t pid = 0;
  REQUIRE(posix_spawn(&pid, program.c_str(), &actions, nullptr, arguments.data(), environ) == 0);
  posix_spawn_file_actions_destroy(&actions);
  pipe.second.reset();

  std::string text;
  std::array<char, 4096> buffer{};
  bool killed = false;
  for (;;) {
    const ssize_t size = read(pipe.first.get(), buffer.data(), buffer.size());
    if (size <= 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(size));
    if (!killed && static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) >= enough) {
      kill(pid, SIGKILL);
      killed = true;
    }
  }
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  CHECK(WIFSIGNALED(status));
  std::vector<std::string> numbers;
  for (std::size_t at = 0, end = text.find('\n'); end != std::string::npos; at = end + 1, end = text.find('\n', at)) {
    numbers.push_back(text.substr(at, end - at));
  }
  return numbers;
}

void check_no_write_is_lost(const char* how, bool durable) {
  const TempDirectory directory;
  for (const std::size_t enough : {1UL, 300UL, 1'500UL}) {
    const std::string path = directory / std::to_string(enough);
    const auto acknowledged = write_and_kill(path, how, enough);
    REQUIRE(acknowledged.size() >= enough);

    TestClock clock;
    EventLoop loop;
    auto store = make_sqlite_store(loop, clock.get(), MemoryTerms{"writer", 64 << 20, 0, {}, {}},
                                   {.path = path, .durable = durable});
    bool opened = false;
    store->open([&](MemoryOutcome<>&& outcome) { opened = outcome.has_value(); });
    std::size_t answered = 0;
    std::size_t there = 0;
    for (std::size_t first = 0; first < acknowledged.size(); first += 1'000) {
      klp::MemoryRequest request;
      for (std::size_t i = first; i < std::min(first + 1'000, acknowledged.size()); ++i) {
        request.mutable_get()->add_keys("n/" + acknowledged[i]);
      }
      const std::size_t asked = static_cast<std::size_t>(request.get().keys_size());
      store->perform(std::move(request), [&, asked](klp::MemoryAnswer&& answer) {
        answered += asked;
        there += static_cast<std::size_t>(answer.got().entries_size());
      });
    }
    loop.run_until([&] { return answered == acknowledged.size(); });
    CHECK(opened);
    CHECK(there == acknowledged.size());
    // What is counted is what is there, to the entry: every write was of one key.
    std::uint64_t listed = 0;
    std::string after;
    for (bool more = true; more;) {
      std::optional<klp::MemoryAnswer> answer;
      klp::MemoryRequest request;
      request.mutable_list()->set_after(after);
      store->perform(std::move(request), [&](klp::MemoryAnswer&& said) { answer = std::move(said); });
      loop.run_until([&] { return answer.has_value(); });
      listed += static_cast<std::uint64_t>(answer->listed().keys_size());
      more = answer->listed().more();
      if (more) after = answer->listed().keys(answer->listed().keys_size() - 1);
    }
    CHECK(store->usage().entries == listed);
  }
}

// A file system of its own, for as long as it lives.
class SmallDisk {
 public:
  explicit SmallDisk(const std::string& path) : path_(path) {
    REQUIRE(mount("kai-test", path.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "size=2m") == 0);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  ~SmallDisk() { umount2(path_.c_str(), MNT_DETACH); }

 private:
  std::string path_;
};

}  // namespace

TEST_CASE("kill -9 loses no acknowledged write") {
  SUBCASE("sqlite") {
    check_no_write_is_lost("durable", true);
  }
  SUBCASE("memory, whose file outlives the process") {
    check_no_write_is_lost("volatile", false);
  }
}

TEST_CASE("writes that wait together share a commit") {
  const SqliteBackend sqlite;
  MemoryClient memory(sqlite.backend);
  std::vector<klp::MemoryRequest> requests;
  for (int i = 0; i < 256; ++i) requests.push_back(set_request("k" + std::to_string(i), "1"));
  const auto before = std::filesystem::file_size(sqlite.path() + "-wal");
  for (const auto& answer : memory.ask_all(std::move(requests))) CHECK(answer.has_written());
  // One commit writes each page once; as many commits as requests would write two pages each.
  CHECK(std::filesystem::file_size(sqlite.path() + "-wal") - before < 64 * kPage);
}

TEST_CASE("a million tiny keys stay within the entries' limit, file and all") {
  const SqliteBackend sqlite({.durable = false});
  MemoryClient memory(sqlite.backend, 256 << 10);  // 4,096 entries
  std::size_t written = 0;
  std::uint64_t next = 0;
  for (int round = 0; round < 10; ++round) {
    std::vector<klp::MemoryRequest> requests(100);
    for (auto& request : requests) {
      for (int i = 0; i < 1'000; ++i) add_write(request, std::to_string(next++), "1");
    }
    for (const auto& answer : memory.ask_all(std::move(requests))) {
      written += static_cast<std::size_t>(answer.written().versions_size());
    }
  }
  CHECK(next == 1'000'000);
  CHECK(written == 4'000);
  CHECK(memory.store().usage().entries == 4'000);
  CHECK(std::filesystem::file_size(sqlite.path()) + std::filesystem::file_size(sqlite.path() + "-wal") < 6 << 20);
}

TEST_CASE("a full disk refuses writes and keeps what is there" * doctest::skip(geteuid() != 0)) {
  const SqliteBackend sqlite;
  const SmallDisk disk(sqlite.directory.path());
  MemoryClient memory(sqlite.backend, 16 << 20);
  REQUIRE(memory.set("first", "1").has_written());
  // Somebody else fills it.
  {
    std::ofstream filler(sqlite.directory / "filler");
    const std::string block(64 << 10, 'x');
    while (filler << block && filler.flush()) continue;
  }
  const std::string value = '"' + std::string(100'000, 'v') + '"';
  klp::MemoryAnswer refused;
  int taken = 0;
  for (int i = 0; i < 100 && !refused.has_error(); ++i) {
    refused = memory.set("k" + std::to_string(i), value);
    taken += refused.has_written() ? 1 : 0;
  }
  REQUIRE(refused.has_error());
  CHECK(refused.error().code() == "UNAVAILABLE");
  CHECK(refused.error().retryable());
  CHECK(memory.value("first") == "1");
  CHECK(memory.store().usage().entries == static_cast<std::uint64_t>(taken) + 1);

  std::filesystem::remove(sqlite.directory / "filler");
  CHECK(memory.set("after", value).has_written());
  REQUIRE(memory.reopen());
  CHECK(memory.value("first") == "1");
  CHECK(memory.value("after") == value);
}

}  // namespace kai
