#include "audit/record.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

namespace kai::audit {
namespace {

RecordView a_record(std::string_view metadata) {
  return {
      41,      7, "01890a5d-ac96-774b-bcce-b302099a8057", "calendarAgent", "kai.crashed", "2026-05-04T13:00:00.000Z",
      metadata};
}

TEST_CASE("a record is the JSON of the contract, and is read back as it was") {
  const std::string bytes = format_record(a_record(R"({"signal":"SIGSEGV"})"));
  CHECK(bytes == R"({"seq":41,"agentSeq":7,"id":"01890a5d-ac96-774b-bcce-b302099a8057","agentId":"calendarAgent",)"
                 R"("event":"kai.crashed","timestamp":"2026-05-04T13:00:00.000Z","metadata":{"signal":"SIGSEGV"}})");
  const auto record = parse_record(bytes);
  REQUIRE(record);
  CHECK(record->seq == 41);
  CHECK(record->agent_seq == 7);
  CHECK(record->agent_id == "calendarAgent");
  CHECK(record->event == "kai.crashed");
  CHECK(record->metadata == R"({"signal":"SIGSEGV"})");
}

TEST_CASE("metadata that is no object in one line cannot break a record") {
  for (const std::string& metadata :
       {std::string(), std::string("7"), std::string("{\"a\":1},\"seq\":9,\"x\":{}"), std::string("{\n}"),
        std::string("{"), std::string("\xff\x1b[2J"), std::string(10'000, '"')}) {
    const std::string bytes = format_record(a_record(metadata));
    CHECK(bytes.find('\n') == std::string::npos);
    CHECK(nlohmann::json::parse(bytes)["seq"] == 41);
    CHECK(parse_record(bytes));
  }
  const std::string large = "{\"a\":\"" + std::string(kMaxMetadata, 'x') + "\"}";
  CHECK(nlohmann::json::parse(format_record(a_record(large)))["metadata"]["omittedBytes"] == large.size());
}

TEST_CASE("only what is exactly a record is read as one") {
  const std::string bytes = format_record(a_record("{}"));
  for (std::size_t at = 0; at + 1 < bytes.size(); ++at) CHECK_FALSE(parse_record(bytes.substr(0, at)));
  for (const std::string& text :
       {" " + bytes, bytes + " ", R"({"seq":041)" + bytes.substr(9), R"({"seq":-1)" + bytes.substr(9),
        R"({"seq":99999999999999999999)" + bytes.substr(9)}) {
    CHECK_FALSE_MESSAGE(parse_record(text).has_value(), text);
  }
}

TEST_CASE("a listed record is a document, and gives its bytes and proof back") {
  const std::string bytes = format_record(a_record(R"({"signature":"no","x":",\"signature\":\"AAAA\"}"})"));
  const InclusionProof proof{40, {leaf_hash("a"), leaf_hash("b")}, "origin\n41\nroot\n\nsigned\n"};
  const std::string line = format_listed(bytes, format_proof(proof));
  CHECK(nlohmann::json::parse(line)["agentSeq"] == 7);
  const auto listed = parse_listed(line);
  REQUIRE(listed);
  CHECK(listed->record == bytes);
  const auto read = parse_proof(listed->proof);
  REQUIRE(read);
  CHECK(read->index == 40);
  CHECK(read->path == proof.path);
  CHECK(read->note == proof.note);
  CHECK_FALSE(parse_listed(bytes));
  CHECK_FALSE(parse_listed(R"(,"signature":")"));
  CHECK_FALSE(parse_listed(""));
}

TEST_CASE("what is no proof is refused") {
  const std::string begin = "c2sp.org/tlog-proof@v1\nindex ";
  for (const std::string& text : {std::string(), begin, begin + "1", begin + "1\n", begin + "x\n\nnote",
                                  begin + "1\nAAAA\n\nnote", std::string("c2sp.org/tlog-proof@v2\nindex 1\n\nnote")}) {
    CHECK_FALSE_MESSAGE(parse_proof(text).has_value(), text);
  }
  std::string many = begin + "1\n";
  for (int at = 0; at < 64; ++at) many += "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
  CHECK_FALSE(parse_proof(many + "\nnote"));
}

}  // namespace
}  // namespace kai::audit
