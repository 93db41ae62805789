// The operator's requests, through a whole control.
#include <sqlite3.h>

#include <doctest/doctest.h>

#include "audit/checkpoint.h"
#include "audit/proof.h"
#include "audit/record.h"
#include "audit/verify_file.h"
#include "base/unix.h"
#include "tests/unit/control/control_fixture.h"

namespace kai::test {
namespace {

control::Request list_of(const std::string& id) {
  control::Request request;
  request.mutable_audit_list()->set_id(id);
  return request;
}

control::Request export_of(const std::string& id) {
  control::Request request;
  request.mutable_audit_export()->set_id(id);
  return request;
}

control::Request verify() {
  control::Request request;
  request.mutable_audit_verify();
  return request;
}

/// What the client got, and the lines of it.
struct Lines {
  control::Response last;
  std::vector<std::string> lines;
};

Lines ask(ControlFixture& f, const control::Request& request) {
  OperatorClient client(f.loop, f.socket());
  Lines answer{client.call(request), {}};
  for (const auto& response : client.responses) {
    if (response.has_record()) answer.lines.push_back(response.record());
  }
  return answer;
}

void fill(ControlFixture& f, int count) {
  for (int at = 0; at < count; ++at) f.audit->append(at % 2 == 0 ? "a1" : "b2", "message_received", R"({"size":1})");
}

TEST_CASE("list: every record with a signature that proves it, in order, however many") {
  ControlFixture f;
  fill(f, 1500);
  const auto all = ask(f, list_of(""));
  REQUIRE(all.last.has_done());
  REQUIRE(all.lines.size() >= 1500);
  const auto key = *audit::PublicKey::parse(f.audit->head().public_key);
  for (std::size_t at = 0; at < all.lines.size(); ++at) {
    const auto listed = audit::parse_listed(all.lines[at]);
    REQUIRE(listed);
    CHECK(nlohmann::json::parse(all.lines[at])["seq"] == at + 1);
    const auto proof = audit::parse_proof(listed->proof);
    REQUIRE(proof);
    const auto head = audit::open_checkpoint(proof->note, key);
    REQUIRE(head);
    CHECK(audit::check_inclusion(audit::leaf_hash(listed->record), at, head->size, proof->path, head->root));
  }
  CHECK(nlohmann::json::parse(all.last.done().json())["checkpoint"].is_string());
}

TEST_CASE("list: one agent's, the last N, and nobody's") {
  ControlFixture f;
  fill(f, 20);
  CHECK(ask(f, list_of("b2")).lines.size() == 10);
  auto request = list_of("b2");
  request.mutable_audit_list()->set_has_lines(true);
  request.mutable_audit_list()->set_lines(3);
  const auto last = ask(f, request);
  REQUIRE(last.lines.size() == 3);
  CHECK(nlohmann::json::parse(last.lines.back())["agentSeq"] == 10);
  request.mutable_audit_list()->set_lines(0);
  const auto none = ask(f, request);
  CHECK(none.lines.empty());
  CHECK(none.last.done().json().find("checkpoint") != std::string::npos);
  CHECK(code(ask(f, list_of("nobody")).last) == "NOT_FOUND");
}

Result<audit::Report> verify_lines(const std::vector<std::string>& lines, const std::string& key,
                                   const std::string& remembered) {
  std::string whole;
  for (const std::string& line : lines) whole += line + "\n";
  CHECK(nlohmann::json::accept(whole));
  const Fd file = std::move(*sealed_memfd("export", whole));
  const Fd key_file = std::move(*sealed_memfd("key", key));
  const Fd note = std::move(*sealed_memfd("note", remembered));
  return audit::verify_file(file.get(), key_file.get(), note.get());
}

TEST_CASE("export: a file that holds with nothing but the key, of one agent and of the whole log") {
  ControlFixture f;
  fill(f, 700);
  const auto of_b2 = ask(f, export_of("b2"));
  REQUIRE(of_b2.last.has_done());
  const std::string key = f.audit->head().public_key;
  auto report = verify_lines(of_b2.lines, key, f.audit->head().note);
  REQUIRE(report);
  CHECK_MESSAGE(report->valid(), report->text());
  CHECK(report->records == 351);

  const auto whole = ask(f, export_of(""));
  report = verify_lines(whole.lines, key, f.audit->head().note);
  REQUIRE(report);
  CHECK_MESSAGE(report->valid(), report->text());
  CHECK(report->records == f.audit->last_seq());
  CHECK(code(ask(f, export_of("nobody")).last) == "NOT_FOUND");
}

TEST_CASE("a key rotation is asked for, and exports from after it hold by both keys") {
  ControlFixture f;
  fill(f, 10);
  REQUIRE(ask(f, list_of("")).last.has_done());
  const std::string old_key = f.audit->head().public_key;
  control::Request rotate;
  rotate.mutable_audit_rotate_key();
  const std::string new_key = document(f.call(rotate))["publicKey"];
  CHECK(new_key != old_key);
  fill(f, 10);
  const auto exported = ask(f, export_of("a1"));
  for (const std::string& key : {old_key, new_key}) {
    const auto report = verify_lines(exported.lines, key, f.audit->head().note);
    REQUIRE(report);
    CHECK_MESSAGE(report->valid(), report->text());
  }
  CHECK(document(f.call(verify()))["valid"] == true);
}

TEST_CASE("verify: holds, finds an edited record, and a remembered checkpoint of a log that is gone") {
  ControlFixture f;
  fill(f, 50);
  auto report = document(f.call(verify()));
  CHECK(report["valid"] == true);
  CHECK(report["findings"].empty());
  const std::string note = report["checkpoint"];
  fill(f, 10);
  const Fd remembered = std::move(*sealed_memfd("note", note));
  CHECK(document(f.call(verify(), {remembered.get()}))["valid"] == true);
  const Fd nonsense = std::move(*sealed_memfd("note", "nonsense"));
  CHECK(code(f.call(verify(), {nonsense.get()})) == "INVALID");

  sqlite3* database = nullptr;
  REQUIRE(sqlite3_open((f.audit->head().directory + "/audit.db").c_str(), &database) == SQLITE_OK);
  REQUIRE(sqlite3_exec(database, "UPDATE records SET body = body || ' ' WHERE seq = 7", nullptr, nullptr, nullptr) ==
          SQLITE_OK);
  sqlite3_close(database);
  const auto response = f.call(verify());
  report = document(response);
  CHECK(report["valid"] == false);
  REQUIRE(report["findings"].size() == 1);
  CHECK(report["findings"][0]["seq"] == 7);
  CHECK(response.done().text().find("record 7") != std::string::npos);
}

TEST_CASE("prove: one record, and that the log continues what was remembered") {
  ControlFixture f;
  fill(f, 300);
  const std::string note = document(f.call(verify()))["checkpoint"];
  fill(f, 300);
  control::Request prove;
  prove.mutable_audit_prove()->set_seq(123);
  auto proof = document(f.call(prove));
  const auto parsed = audit::parse_proof(proof["proof"].get<std::string>());
  REQUIRE(parsed);
  const auto key = *audit::PublicKey::parse(f.audit->head().public_key);
  const auto head = audit::open_checkpoint(parsed->note, key);
  REQUIRE(head);
  CHECK(audit::check_inclusion(audit::leaf_hash(proof["record"].get<std::string>()), 122, head->size, parsed->path,
                               head->root));

  control::Request consistency;
  consistency.mutable_audit_prove();
  const Fd remembered = std::move(*sealed_memfd("note", note));
  proof = document(f.call(consistency, {remembered.get()}));
  CHECK(proof["type"] == "consistency");
  CHECK(proof["oldSize"] == audit::parse_checkpoint(note)->size);

  const audit::SecretKey other = audit::SecretKey::generate(key.name);
  const Fd forged =
      std::move(*sealed_memfd("note", other.sign(audit::Checkpoint{key.name, 5, audit::leaf_hash("x")}.text())));
  CHECK(code(f.call(consistency, {forged.get()})) == "CONFLICT");
  CHECK(code(f.call(consistency)) == "INVALID");
  prove.mutable_audit_prove()->set_seq(1'000'000);
  CHECK(code(f.call(prove)) == "NOT_FOUND");
}

}  // namespace
}  // namespace kai::test
