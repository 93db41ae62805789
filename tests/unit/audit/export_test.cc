#include "audit/export.h"

#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <functional>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "audit/record.h"
#include "audit/verify_file.h"
#include "base/unix.h"

namespace kai::audit {
namespace {

/// A log in memory, to export from.
class Memory : public HashSource {
 public:
  void add(const std::string& agent, const std::string& event, const std::string& metadata = "{}") {
    bodies.push_back(format_record({bodies.size() + 1, ++seqs[agent], "01890a5d-ac96-774b-bcce-b302099a8057", agent,
                                    event, "2026-05-04T13:00:00.000Z", metadata}));
  }
  void close(const std::string& agent) {
    add(agent, "kai.exported", R"({"agentSeq":)" + std::to_string(seqs[agent] + 1) + "}");
  }
  Result<Hash> subtree(unsigned height, std::uint64_t position) override {
    if (height == 0) return leaf_hash(bodies[position]);
    return node_hash(*subtree(height - 1, 2 * position), *subtree(height - 1, 2 * position + 1));
  }
  std::string note(const SecretKey& by, std::uint64_t size) const {
    Frontier tree;
    for (std::uint64_t at = 0; at < size; ++at) tree.append(leaf_hash(bodies[at]));
    return by.sign(Checkpoint{by.public_key().name, size, tree.root()}.text());
  }
  std::string listed(std::uint64_t seq, const std::string& note_text, std::uint64_t size) {
    return format_listed(bodies[seq - 1], format_proof({seq - 1, *inclusion_path(*this, seq - 1, size), note_text}));
  }
  /// The lines of the export of `agent`.
  std::vector<std::string> lines(const std::string& agent, const SecretKey& by,
                                 std::vector<std::string> rotations = {}) {
    const std::string head = note(by, bodies.size());
    std::vector<std::string> all = {
        format_export_header({agent, "2026-05-04T13:00:00.000Z", head, std::move(rotations)})};
    for (std::uint64_t seq = 1; seq <= bodies.size(); ++seq) {
      if (agent != kWholeLog && parse_record(bodies[seq - 1])->agent_id != agent) continue;
      if (all.size() > 1) all.emplace_back(kExportSeparator);
      all.push_back(listed(seq, head, bodies.size()));
    }
    all.push_back("");
    return all;
  }

  std::vector<std::string> bodies;
  std::map<std::string, std::uint64_t> seqs;
};

/// The last line, for whatever records there are now.
void sum_up(std::vector<std::string>& lines) {
  ExportSum sum;
  for (const std::string& line : lines) {
    if (line.starts_with("{\"seq\"")) sum.add(line);
  }
  lines.back() = format_export_footer(sum.hex());
}

Report verify(const std::vector<std::string>& lines, const PublicKey& key, const std::string& remembered = {}) {
  ExportCheck check(key, remembered);
  for (const std::string& line : lines) {
    if (!check.line(line)) break;
  }
  return check.finish();
}

struct Log {
  Log() {
    for (int round = 0; round < 5; ++round) {
      memory.add("a1", "started");
      memory.add("b2", "message_received", R"({"size":3})");
      memory.add("kaid", "kai.policy_loaded");
    }
    memory.close("a1");
    lines = memory.lines("a1", key);
    sum_up(lines);
  }
  Memory memory;
  SecretKey key = SecretKey::generate();
  std::vector<std::string> lines;
};

bool finds(const Report& report, std::uint64_t seq, const std::string& words) {
  for (const Finding& finding : report.findings) {
    if ((seq == 0 || finding.seq == seq) && finding.problem.find(words) != std::string::npos) return true;
  }
  MESSAGE(report.text());
  return false;
}

TEST_CASE("an export is one document and documents line by line, and holds by itself") {
  const Log log;
  std::string whole;
  for (const std::string& line : log.lines) {
    whole += line + "\n";
    if (line.starts_with("{\"seq\"")) CHECK(nlohmann::json::parse(line)["agentId"] == "a1");
  }
  const auto document = nlohmann::json::parse(whole);
  CHECK(document["records"].size() == 6);
  CHECK(document["checksum"].get<std::string>().size() == 64);
  const Report report = verify(log.lines, log.key.public_key());
  CHECK_MESSAGE(report.valid(), report.text());
  CHECK(report.records == 6);
}

TEST_CASE("an export of the whole log holds too, and is compared with what was remembered") {
  Log log;
  log.memory.close("kaid");
  auto lines = log.memory.lines(std::string(kWholeLog), log.key);
  sum_up(lines);
  for (std::uint64_t size = 1; size <= log.memory.bodies.size(); ++size) {
    const Report report = verify(lines, log.key.public_key(), log.memory.note(log.key, size));
    CHECK_MESSAGE(report.valid(), report.text());
  }
  Memory other = log.memory;
  other.bodies[3] = other.bodies[2];
  CHECK(finds(verify(lines, log.key.public_key(), other.note(log.key, 9)), 9, "not the one of the remembered"));
  log.memory.add("a1", "started");
  CHECK(finds(verify(lines, log.key.public_key(), log.memory.note(log.key, 18)), 18, "older"));
}

TEST_CASE("a record that was edited is named") {
  Log log;
  const std::size_t at = log.lines[3].find("started");
  log.lines[3].replace(at, 7, "stopped");
  CHECK(finds(verify(log.lines, log.key.public_key()), 4, "edited"));
  CHECK(finds(verify(log.lines, log.key.public_key()), 0, "checksum"));
  sum_up(log.lines);
  const Report report = verify(log.lines, log.key.public_key());
  REQUIRE(report.findings.size() == 1);
  CHECK(report.findings[0].seq == 4);
  CHECK(report.findings[0].agent_id == "a1");
}

TEST_CASE("a record that was deleted is named by the one after it, the last by the missing end") {
  Log log;
  auto lines = log.lines;
  lines.erase(lines.begin() + 3, lines.begin() + 5);
  sum_up(lines);
  CHECK(finds(verify(lines, log.key.public_key()), 7, "agentSeq is 3, after 1"));
  lines = log.lines;
  lines.erase(lines.end() - 3, lines.end() - 1);
  sum_up(lines);
  CHECK(finds(verify(lines, log.key.public_key()), 13, "closing record is missing"));
  lines = {log.lines.front(), log.lines.back()};
  sum_up(lines);
  CHECK(finds(verify(lines, log.key.public_key()), 0, "closing record is missing"));
}

TEST_CASE("records that changed places are named") {
  Log log;
  std::swap(log.lines[1], log.lines[3]);
  sum_up(log.lines);
  CHECK(finds(verify(log.lines, log.key.public_key()), 1, "stands after record 4"));
}

TEST_CASE("a file that was cut off anywhere, or goes on, does not hold") {
  const Log log;
  for (std::size_t count = 0; count < log.lines.size(); ++count) {
    CHECK_FALSE(
        verify({log.lines.begin(), log.lines.begin() + static_cast<long>(count)}, log.key.public_key()).valid());
  }
  auto lines = log.lines;
  lines.push_back("{}");
  CHECK(finds(verify(lines, log.key.public_key()), 0, "goes on after its end"));
}

TEST_CASE("what another key signed does not hold, a single record or all") {
  Log log;
  const SecretKey other = SecretKey::generate(log.key.public_key().name);
  auto lines = log.lines;
  lines[3] = log.memory.listed(4, log.memory.note(other, 16), 16);
  sum_up(lines);
  CHECK(finds(verify(lines, log.key.public_key()), 4, "signed anew"));
  lines = log.memory.lines("a1", other);
  sum_up(lines);
  CHECK(finds(verify(lines, log.key.public_key()), 0, "not signed by the key"));
  CHECK(verify(lines, other.public_key()).valid());
}

TEST_CASE("a record of another agent or with another's proof does not pass") {
  Log log;
  auto lines = log.lines;
  const std::string head = log.memory.note(log.key, 16);
  lines[3] = log.memory.listed(5, head, 16);
  sum_up(lines);
  CHECK(finds(verify(lines, log.key.public_key()), 5, "of another agent"));
  lines = log.lines;
  lines[3] = format_listed(log.memory.bodies[3], format_proof({4, *inclusion_path(log.memory, 4, 16), head}));
  sum_up(lines);
  CHECK(finds(verify(lines, log.key.public_key()), 4, "that of record 5"));
}

TEST_CASE("a log whose key was rotated holds by its first and by its newest key") {
  Memory memory;
  const SecretKey first = SecretKey::generate();
  const SecretKey second = SecretKey::generate(first.public_key().name);
  memory.add("a1", "started");
  memory.add("kaid", "kai.key_rotated", format_rotation(first.public_key().text(), second.public_key().text()));
  const std::string rotation = memory.listed(2, memory.note(first, 2), 2);
  const std::string forged = memory.listed(2, memory.note(second, 2), 2);
  memory.close("a1");
  auto lines = memory.lines("a1", second, {rotation});
  sum_up(lines);
  CHECK(verify(lines, first.public_key()).valid());
  CHECK(verify(lines, second.public_key()).valid());
  CHECK_FALSE(verify(lines, SecretKey::generate(first.public_key().name).public_key()).valid());

  // The step to the new key has to be the old one's own; without it the new one is a stranger's.
  lines = memory.lines("a1", second, {forged});
  sum_up(lines);
  CHECK_FALSE(verify(lines, first.public_key()).valid());
  lines = memory.lines("a1", second);
  sum_up(lines);
  CHECK_FALSE(verify(lines, first.public_key()).valid());
  // After the step the old key says nothing any more.
  lines = memory.lines("a1", first, {rotation});
  sum_up(lines);
  CHECK_FALSE(verify(lines, first.public_key()).valid());
}

TEST_CASE("verify_file reads descriptors, and says what is wrong with them") {
  const Log log;
  std::string whole;
  for (const std::string& line : log.lines) whole += line + "\n";
  const auto file = [](const std::string& bytes) { return std::move(*sealed_memfd("test", bytes)); };
  const Fd key = file(log.key.public_key().text() + "\n");
  const Fd remembered = file(log.memory.note(log.key, 16));
  const Fd good = file(whole);
  const auto report = verify_file(good.get(), key.get(), remembered.get());
  REQUIRE(report);
  CHECK_MESSAGE(report->valid(), report->text());
  CHECK_FALSE(verify_file(good.get(), remembered.get()));
  const Fd no_newline_at_all = file(std::string(5 << 20, 'x'));
  CHECK_FALSE(verify_file(no_newline_at_all.get(), file(log.key.public_key().text()).get())->valid());
  CHECK_FALSE(verify_file(file("").get(), file(log.key.public_key().text()).get())->valid());
}

}  // namespace
}  // namespace kai::audit
