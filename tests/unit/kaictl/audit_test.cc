// audit list, export, verify, prove, checkpoint.
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "audit/export.h"
#include "audit/merkle.h"
#include "audit/record.h"
#include "base/unix.h"
#include "tests/unit/kaictl/asked.h"

namespace kai::test {
namespace {

constexpr const char* kRecord =
    R"({"seq":41,"agentSeq":7,"id":"0190a0c0-0000-7000-8000-000000000000","agentId":"a","event":"quarantined",)"
    R"("timestamp":"2026-05-04T13:00:00.000Z","metadata":{"type":"manual"},"signature":"AAEC"})";
constexpr const char* kNote = R"("kai/0123456789abcdef\n41\nq83vEjRWeJA=\n\n— kai/0123456789abcdef c2ln\n")";

std::string with_note() {
  return std::string(R"({"checkpoint":)") + kNote + "}";
}

TEST_CASE("audit list: NDJSON with signatures, or lines and the checkpoint") {
  const Asked json = ask_records({"-o", "json", "audit", "list", "a", "-n", "3"}, {kRecord}, with_note());
  CHECK(json.request.audit_list().id() == "a");
  CHECK(json.request.audit_list().has_lines());
  CHECK(json.request.audit_list().lines() == 3);
  CHECK(json.result.out == std::string(kRecord) + "\n");
  const Asked text = ask_records({"audit", "list"}, {kRecord}, with_note());
  CHECK_FALSE(text.request.audit_list().has_lines());
  CHECK(text.result.out ==
        "2026-05-04T13:00:00.000Z warn  a              quarantined      seq=41 type=manual\n"
        "checkpoint: 41 records, root hash q83vEjRWeJA=\n");
}

TEST_CASE("audit checkpoint: the note, to be kept in a file") {
  const Asked asked = ask({"audit", "checkpoint"}, with_note());
  CHECK(asked.request.audit_list().has_lines());
  CHECK(asked.request.audit_list().lines() == 0);
  CHECK(asked.result.out == "kai/0123456789abcdef\n41\nq83vEjRWeJA=\n\n— kai/0123456789abcdef c2ln\n");
  CHECK(ask({"-o", "json", "audit", "checkpoint"}, with_note()).result.out == with_note() + "\n");
  CHECK(ask({"audit", "checkpoint"}, "{}").result.exit_code == 1);
}

TEST_CASE("audit export: the lines as they come, to standard output or to a file that is whole or not there") {
  const std::vector<std::string> lines = {R"({"agentId":"a","records":[)", kRecord, "]}"};
  const std::string expected = lines[0] + "\n" + lines[1] + "\n" + lines[2] + "\n";
  const Asked printed = ask_records({"audit", "export", "a"}, lines);
  CHECK(printed.request.audit_export().id() == "a");
  CHECK(printed.result.out == expected);

  const ScratchDirectory directory;
  const std::string file = directory / "export.json";
  const Asked written = ask_records({"audit", "export", "--file", file}, lines);
  CHECK(written.request.audit_export().id().empty());
  CHECK(written.result.exit_code == 0);
  CHECK(written.result.out.find("--key") != std::string::npos);
  CHECK(*read_file(file) == expected);
  struct stat info {};
  REQUIRE(stat(file.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);

  const Asked refused = ask_refused({"audit", "export", "x", "--file", file}, "NOT_FOUND", "there are no records of x");
  CHECK(refused.result.exit_code == 4);
  CHECK(*read_file(file) == expected);
  const std::filesystem::directory_iterator left(directory.path());
  CHECK(std::distance(begin(left), end(left)) == 1);
  CHECK(kaictl({"audit", "export", "--file", "/dev/null"}).exit_code == 5);
  CHECK(kaictl({"audit", "export", "--file", directory / "no/such"}).exit_code == 4);
}

TEST_CASE("audit verify: kaid's report, 1 when something is found") {
  const std::string holds =
      std::string(R"({"valid":true,"records":41,"checkpoints":3,"findings":[],"checkpoint":)") + kNote + "}";
  Asked asked = ask({"audit", "verify"}, holds);
  CHECK(asked.request.has_audit_verify());
  CHECK(asked.fds.empty());
  CHECK(asked.result.exit_code == 0);
  CHECK(asked.result.out ==
        "the audit holds: 41 records, 3 checkpoints looked at\n"
        "checkpoint: 41 records, root hash q83vEjRWeJA=\n"
        "remember the checkpoint, away from this machine, with: kaictl audit checkpoint > FILE\n");
  const std::string found =
      R"({"valid":false,"records":41,"checkpoints":3,"findings":[{"seq":17,"agentId":"a","event":"started",)"
      R"("problem":"it was edited\u001b"},{"problem":"the checkpoint is older"}],"findingsOmitted":5})";
  asked = ask({"audit", "verify"}, found);
  CHECK(asked.result.exit_code == 1);
  CHECK(asked.result.out ==
        "the audit does not hold: 41 records, 3 checkpoints looked at\n"
        "record 17 (a, started): it was edited\\e\n"
        "the checkpoint is older\n"
        "and 5 more\n");
  asked = ask({"-o", "json", "audit", "verify"}, found);
  CHECK(asked.result.exit_code == 1);
  CHECK(asked.result.out == found + "\n");
  // What is no report is no proof.
  CHECK(ask({"audit", "verify"}, "{}").result.exit_code == 1);
}

TEST_CASE("a remembered checkpoint goes along as a descriptor") {
  const ScratchDirectory directory;
  const std::string file = directory / "note";
  std::ofstream(file) << "a note\n";
  Asked asked =
      ask({"audit", "verify", "--checkpoint", file}, R"({"valid":true,"records":0,"checkpoints":0,"findings":[]})");
  REQUIRE(asked.fds.size() == 1);
  CHECK(*read_all(asked.fds[0].get(), 100) == "a note\n");
  asked = ask({"-o", "json", "audit", "prove", "--checkpoint", file}, R"({"type":"consistency","path":["aGFzaA=="]})");
  CHECK(asked.request.audit_prove().seq() == 0);
  CHECK(asked.fds.size() == 1);
  CHECK(asked.result.out == "{\"type\":\"consistency\",\"path\":[\"aGFzaA==\"]}\n");
  CHECK(kaictl({"audit", "verify", "--checkpoint", directory / "missing"}).exit_code == 1);
}

TEST_CASE("audit prove and rotate-key: kaid's document, or its own words, escaped") {
  control::Request request;
  const auto serve = [&](Connection& connection) {
    std::vector<Fd> fds;
    if (!connection.receive(request, fds)) return;
    control::Response response;
    response.set_id(request.id());
    response.mutable_done()->set_json(R"({"seq":41})");
    response.mutable_done()->set_text("c2sp.org/tlog-proof@v1\nindex 40\x1b\n\nkai\n");
    connection.send(response);
  };
  FakeDaemon daemon(serve, 3);
  CHECK(kaictl({"--socket", daemon.socket(), "audit", "prove", "41"}).out ==
        "c2sp.org/tlog-proof@v1\nindex 40\\e\n\nkai\n");
  CHECK(request.audit_prove().seq() == 41);
  CHECK(kaictl({"--socket", daemon.socket(), "-o", "json", "audit", "prove", "41"}).out == "{\"seq\":41}\n");
  CHECK(kaictl({"--socket", daemon.socket(), "audit", "rotate-key"}).exit_code == 0);
  daemon.join();
  CHECK(request.has_audit_rotate_key());
  CHECK(ask_refused({"audit", "prove", "99"}, "NOT_FOUND", "there is no record 99").result.exit_code == 4);
}

/// A kaid that lists `listed` and answers what comes next with `answer`; what it was asked is in `requests`.
Result with_newest(const std::vector<std::string>& arguments, const std::vector<std::string>& listed,
                   const std::string& answer, std::vector<control::Request>& requests) {
  const auto serve = [&](Connection& connection) {
    std::vector<Fd> fds;
    control::Request request;
    if (!connection.receive(request, fds)) return;
    requests.push_back(request);
    if (request.has_audit_list()) {
      for (const std::string& record : listed) connection.record(request, record);
    }
    connection.done(request, request.has_audit_list() ? "{}" : answer);
  };
  FakeDaemon daemon(serve, listed.empty() ? 1 : 2);
  std::vector<std::string> all = {"--socket", daemon.socket()};
  all.insert(all.end(), arguments.begin(), arguments.end());
  Result result = kaictl(all);
  daemon.join();
  return result;
}

TEST_CASE("audit verify ID and prove ID: asks for the agent's newest record first, and fails where there is none") {
  std::vector<control::Request> requests;
  const std::string report = R"({"valid":true,"records":41,"checkpoints":3,"findings":[]})";
  SUBCASE("verify covers the log") {
    const Result result = with_newest({"audit", "verify", "a"}, {kRecord}, report, requests);
    CHECK(result.exit_code == 0);
    CHECK(result.out == "the audit holds: 41 records, 3 checkpoints looked at\n");
    REQUIRE(requests.size() == 2);
    CHECK(requests[0].audit_list().id() == "a");
    CHECK(requests[0].audit_list().has_lines());
    CHECK(requests[0].audit_list().lines() == 1);
    CHECK(requests[1].has_audit_verify());
  }
  SUBCASE("prove is of its newest record") {
    const Result result = with_newest({"-o", "json", "audit", "prove", "a"}, {kRecord}, R"({"seq":41})", requests);
    CHECK(result.exit_code == 0);
    CHECK(result.out == "{\"seq\":41}\n");
    REQUIRE(requests.size() == 2);
    CHECK(requests[1].audit_prove().seq() == 41);
  }
  SUBCASE("no record") {
    for (const std::string command : {"verify", "prove"}) {
      const Result result = with_newest({"audit", command, "a"}, {}, report, requests);
      CHECK(result.exit_code == 4);
      CHECK(result.out.empty());
      CHECK(result.err.find("the audit has no record of a (NOT_FOUND). See") != std::string::npos);
    }
    CHECK(ask_refused({"audit", "verify", "x"}, "NOT_FOUND", "no agent x").result.exit_code == 4);
  }
  SUBCASE("what is neither") {
    for (const std::string wrong : {"0", "99999999999999999999", "4611686018427387905", "-3"}) {
      CAPTURE(wrong);
      CHECK(kaictl({"audit", "prove", wrong}).exit_code == 2);
    }
    CHECK(kaictl({"audit", "verify", "a", "--file", "f", "--key", "k"}).exit_code == 2);
  }
}

/// A log of three records of the agent a, and its export.
class SmallLog : public audit::HashSource {
 public:
  SmallLog() {
    add("started", "{}");
    add("kai.crashed", R"({"cause":"oom"})");
    add("kai.exported", R"({"agentSeq":3})");
  }

  kai::Result<audit::Hash> subtree(unsigned height, std::uint64_t position) override {
    if (height == 0) return audit::leaf_hash(records_.at(position));
    return audit::node_hash(*subtree(height - 1, 2 * position), *subtree(height - 1, 2 * position + 1));
  }

  [[nodiscard]] std::string note() const {
    return key_.sign(audit::Checkpoint{key_.public_key().name, 3, tree_.root()}.text());
  }
  [[nodiscard]] std::string key() const { return key_.public_key().text(); }
  std::string exported() {
    audit::ExportSum sum;
    std::string text = audit::format_export_header({"a", kTime, note(), {}}) + "\n";
    for (std::uint64_t index = 0; index < records_.size(); ++index) {
      const std::string line = audit::format_listed(
          records_[index], audit::format_proof({index, *audit::inclusion_path(*this, index, 3), note()}));
      sum.add(line);
      text += (index == 0 ? "" : ",\n") + line + "\n";
    }
    return text + audit::format_export_footer(sum.hex()) + "\n";
  }

 private:
  static constexpr const char* kTime = "2026-05-04T13:00:00.000Z";
  void add(std::string_view event, std::string_view metadata) {
    const std::uint64_t seq = records_.size() + 1;
    records_.push_back(
        audit::format_record({seq, seq, "0190a0c0-0000-7000-8000-000000000000", "a", event, kTime, metadata}));
    tree_.append(audit::leaf_hash(records_.back()));
  }

  std::vector<std::string> records_;
  audit::Frontier tree_;
  audit::SecretKey key_ = audit::SecretKey::generate();
};

TEST_CASE("audit verify --file: an export and the public key alone, without kaid") {
  const ScratchDirectory directory;
  const std::string file = directory / "export.json";
  const std::string key = directory / "key.pub";
  const std::string note = directory / "note";
  SmallLog log;
  const std::string exported = log.exported();
  std::ofstream(file) << exported;
  std::ofstream(key) << log.key() << "\n";
  std::ofstream(note) << log.note();
  const auto verify = [&](std::vector<std::string> more, const std::string& with_key) {
    more.insert(more.begin(), {"--socket", directory / "nobody", "audit", "verify", "--file", file, "--key", with_key});
    return kaictl(more);
  };
  CHECK(nlohmann::json::parse(exported)["records"].size() == 3);
  SUBCASE("it holds") {
    const Result result = verify({}, key);
    CHECK(result.exit_code == 0);
    CHECK(result.out.starts_with("the audit holds: 3 records, 1 checkpoint looked at\n"));
    CHECK(verify({"--checkpoint", note}, key).exit_code == 0);
    CHECK(verify({}, log.key()).exit_code == 0);
    const auto document = nlohmann::json::parse(verify({"-o", "json"}, key).out);
    CHECK(document["valid"] == true);
    CHECK(document["records"] == 3);
  }
  SUBCASE("one record was edited") {
    std::string edited = exported;
    edited.replace(edited.find("oom"), 3, "elf");
    std::ofstream(file) << edited;
    const Result result = verify({}, key);
    CHECK(result.exit_code == 1);
    CHECK(result.err.empty());
    CHECK(result.out.find("record 2 (a, kai.crashed): ") != std::string::npos);
    const Result as_json = verify({"-o", "json"}, key);
    CHECK(as_json.exit_code == 1);
    CHECK(nlohmann::json::parse(as_json.out)["findings"][0]["seq"] == 2);
  }
  SUBCASE("another log's key") {
    const Result result = verify({}, SmallLog().key());
    CHECK(result.exit_code == 1);
    CHECK(result.out.find("line 1: the checkpoint does not hold: it is not signed by the key ") != std::string::npos);
  }
  SUBCASE("an export that is not there, or no file") {
    const auto failed = [&](const std::string& path) {
      return kaictl({"audit", "verify", "--file", path, "--key", key});
    };
    Result result = failed(directory / "missing");
    CHECK(result.exit_code == 4);
    CHECK(result.err.find("(NOT_FOUND). Check the path") != std::string::npos);
    CHECK(is_one_line(result.err));
    result = failed(directory.path());
    CHECK(result.exit_code == 5);
    CHECK(result.err.find("(INVALID). Give a regular file") != std::string::npos);
  }
  SUBCASE("an export that was printed anew says what is wrong with it") {
    for (const int indent : {-1, 2}) {
      std::ofstream(file) << nlohmann::ordered_json::parse(exported).dump(indent);
      const Result result = verify({}, key);
      CHECK(result.exit_code == 1);
      CHECK(result.out.find("one record a line") != std::string::npos);
    }
  }
  SUBCASE("what is no key, or is not there") {
    for (const std::string& wrong : {file, directory / "missing", std::string("a+b")}) {
      CAPTURE(wrong);
      const Result result = verify({}, wrong);
      CHECK(result.exit_code == 1);
      CHECK(result.out.empty());
      CHECK(is_one_line(result.err));
    }
  }
}

}  // namespace
}  // namespace kai::test
