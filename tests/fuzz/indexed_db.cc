// IndexedDB's engine against a hostile agent-host: an input is a list of IdbRequests, each with a length of two bytes
// before it (big endian). Whatever is asked, in whatever order, the engine answers or refuses in words, its quota is
// what its rows add up to, and what it holds goes out as a dump.
//
// So that inputs get far: transaction 0 is the one that was begun last, and ids of stores and indexes count on from 1.
#include "supervisor/memory/indexed_db.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>

#include "proto/quiet.h"
#include "tests/unit/control/temp_directory.h"

namespace kai::test {
namespace {

constexpr std::size_t kMaxInput = 64 << 10;
constexpr DatabaseNames kNames = {"the fuzzed memory", "to begin anew"};

std::int64_t number(Database& database, const char* sql) {
  const auto answer = database.number(sql);
  if (!answer) __builtin_trap();
  return *answer;
}

class Place {
 public:
  Place() {
    terms_.agent_id = "fuzz";
    terms_.max_bytes = 256 << 10;
    terms_.key = SealKey{1};
    const std::string path = directory_ / "memory.db";
    std::ofstream(path).close();
    auto opened = Database::open_unchecked(path, kNames, false);
    if (!opened || !(*opened)->execute("PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF")) std::abort();
    database_ = std::move(*opened);
    engine_ = std::move(*IndexedDb::open(*database_, terms_, account_));
  }

  void take(std::string_view input) {
    while (input.size() >= 2) {
      const std::size_t size = static_cast<unsigned char>(input[0]) * 256U + static_cast<unsigned char>(input[1]);
      input.remove_prefix(2);
      const std::string_view one = input.substr(0, size);
      input.remove_prefix(one.size());
      klp::IdbRequest request;
      if (request.ParseFromArray(one.data(), static_cast<int>(one.size()))) ask(request);
    }
    check();
    engine_->abort_all();
    if (engine_->writing() || database_->in_transaction()) __builtin_trap();
    check();
    const auto dumped = engine_->dump([](DumpLine&&) { return Result<>{}; });
    if (!dumped) __builtin_trap();
    empty();
  }

 private:
  void ask(klp::IdbRequest& request) {
    if (request.transaction() == 0) request.set_transaction(last_);
    const auto answer = engine_->perform(request);
    if (!answer) {
      const klp::MemoryError& error = answer.error();
      // INTERNAL would be a fault of the store's own.
      if (error.code().empty() || error.code() == "INTERNAL" || error.message().empty()) __builtin_trap();
      return;
    }
    if (answer->result_case() == klp::IdbAnswer::RESULT_NOT_SET) __builtin_trap();
    if (answer->has_begun()) last_ = answer->begun().transaction();
    if (answer->has_records() && answer->records().records_size() > 1 &&
        answer->records().ByteSizeLong() > kMaxMemoryAnswerBytes) {
      __builtin_trap();
    }
  }

  void check() {
    const auto bytes = static_cast<std::uint64_t>(
        number(*database_, "SELECT ifnull(sum(length(key) + length(value) - 40 * sealed), 0) FROM idb_record") +
        number(*database_, "SELECT ifnull(sum(length(key)), 0) FROM idb_index_record"));
    const auto entries = static_cast<std::uint64_t>(number(*database_, "SELECT count(*) FROM idb_record"));
    if (account_.used().bytes != bytes || account_.used().entries != entries) __builtin_trap();
    if (bytes > terms_.max_bytes) __builtin_trap();
    if (engine_->writing()) return;
    const auto stored = engine_->stored();
    if (!stored || stored->bytes != bytes || stored->entries != entries) __builtin_trap();
  }

  // As it began, ids too: every input is its own whole story.
  void empty() {
    if (!engine_->clear()) __builtin_trap();
    if (account_.used().bytes != 0 || account_.used().entries != 0) __builtin_trap();
    for (const char* sql : {"SELECT count(*) FROM idb_store", "SELECT count(*) FROM idb_index",
                            "SELECT count(*) FROM idb_record", "SELECT count(*) FROM idb_index_record"}) {
      if (number(*database_, sql) != 0) __builtin_trap();
    }
    if (!database_->execute("DELETE FROM sqlite_sequence")) __builtin_trap();
    last_ = 0;
  }

  TempDirectory directory_;
  MemoryTerms terms_;
  std::unique_ptr<Database> database_;
  Account account_{256 << 10, {}};
  std::unique_ptr<IndexedDb> engine_;
  std::uint64_t last_ = 0;
};

}  // namespace
}  // namespace kai::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > kai::test::kMaxInput) return 0;
  kai::silence_protobuf();
  if (std::filesystem::is_directory("/dev/shm")) setenv("TMPDIR", "/dev/shm", 0);
  static kai::test::Place place;
  place.take({reinterpret_cast<const char*>(data), size});
  return 0;
}
