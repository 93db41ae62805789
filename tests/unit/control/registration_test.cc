#include <fcntl.h>
#include <unistd.h>

#include <set>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "supervisor/control/typescript.h"
#include "tests/unit/control/control_fixture.h"
#include "tests/unit/control/signed_package.h"
#include "tests/unit/control/tar_builder.h"

namespace kai::test {
namespace {

control::Request register_request() {
  control::Request request;
  request.mutable_register_()->set_label("test");
  request.mutable_register_()->set_directory(true);
  return request;
}

TEST_CASE("register answers with id, version, package and warnings") {
  ControlFixture f;
  auto manifest = manifest_of("a1");
  manifest["security"]["networkAccess"] = {{"allowOutbound", true}, {"allowedDomains", {"example.org"}}};
  const auto answer = f.add(manifest);
  const auto json = document(answer);
  CHECK(json["id"] == "a1");
  CHECK(json["version"] == "1.0.0");
  CHECK(json["package"].get<std::string>().size() == 64);
  REQUIRE(answer.done().warnings_size() > 0);
  std::string all;
  for (const auto& warning : answer.done().warnings()) all += warning + "\n";
  CHECK(all.find("allows no network") != std::string::npos);
}

TEST_CASE("the same again is success, running or not; another version waits until it is stopped") {
  ControlFixture f;
  auto manifest = manifest_of("a1");
  const auto first = document(f.add(manifest));
  CHECK(document(f.add(manifest))["package"] == first["package"]);
  REQUIRE(f.call(start_of("a1")).has_done());
  CHECK(f.add(manifest).has_done());
  manifest["version"] = "2.0.0";
  const auto refused = f.add(manifest);
  CHECK(code(refused) == "CONFLICT");
  CHECK(refused.failed().hint().find("kaictl stop a1") != std::string::npos);
  REQUIRE(f.call(stop_of("a1")).has_done());
  CHECK(document(f.add(manifest))["version"] == "2.0.0");
  REQUIRE(f.call(start_of("a1")).has_done());
  CHECK(f.keeper->host().spec.agent_version() == "2.0.0");
}

TEST_CASE("registered agents survive a restart of kaid") {
  ControlFixture f;
  REQUIRE(f.add(manifest_of("a1")).has_done());
  f.end();
  f.start();
  CHECK(f.status("a1")["state"] == "registered");
  REQUIRE(f.call(start_of("a1")).has_done());
}

TEST_CASE("faults of a manifest come all at once, each with its pointer") {
  ControlFixture f;
  auto manifest = manifest_of("a1");
  manifest["version"] = "one";
  manifest["persona"] = "villain";
  manifest["extra"] = 1;
  const auto answer = f.add(manifest);
  CHECK(code(answer) == "INVALID");
  const auto errors = nlohmann::json::parse(answer.failed().details_json())["errors"];
  std::set<std::string> pointers;
  for (const auto& error : errors) pointers.insert(error["pointer"].get<std::string>());
  CHECK(pointers.contains("/version"));
  CHECK(pointers.contains("/persona"));
  CHECK(pointers.contains("/extra"));
  CHECK(answer.failed().message().find("/") != std::string::npos);
}

TEST_CASE("what is refused") {
  ControlFixture f;
  SUBCASE("no descriptor") {
    CHECK(code(f.call(register_request())) == "INVALID");
  }
  SUBCASE("no tar") {
    const Fd file = std::move(*sealed_memfd("tar", "not a tar at all"));
    CHECK(code(f.call(register_request(), {file.get()})) == "INVALID");
  }
  SUBCASE("no regular file") {
    const Fd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
    CHECK(code(f.call(register_request(), {null.get()})) == "INVALID");
  }
  SUBCASE("a manifest that is missing") {
    TarBuilder tar;
    tar.file("other");
    const Fd file = std::move(*sealed_memfd("tar", tar.bytes()));
    CHECK(code(f.call(register_request(), {file.get()})) == "INVALID");
  }
  SUBCASE("an entry that is not there") {
    TarBuilder tar;
    tar.file("manifest.json", manifest_of("a1").dump());
    const Fd file = std::move(*sealed_memfd("tar", tar.bytes()));
    const auto answer = f.call(register_request(), {file.get()});
    CHECK(code(answer) == "INVALID");
    CHECK(answer.failed().details_json().find("/entry") != std::string::npos);
  }
  SUBCASE("sandbox: false") {
    auto manifest = manifest_of("a1");
    manifest["security"]["sandbox"] = false;
    CHECK(code(f.add(manifest)) == "DENIED");
  }
  control::Request list;
  list.mutable_list();
  CHECK(document(f.call(list))["agents"].empty());
}

TEST_CASE("a Python agent's modules are in its package, or it is not registered") {
  ControlFixture f;
  auto manifest = manifest_of("py");
  manifest["entry"] = "main.py";
  manifest["runtime"] = {{"kind", "python"}};
  const auto add = [&](const std::string& version, bool required) {
    manifest["dependencies"] = {
        {{"name", "Some.Module"}, {"version", version}, {"type", "module"}, {"required", required}}};
    TarBuilder tar;
    tar.file("manifest.json", manifest.dump()).file("main.py");
    tar.file("some_module-1.4.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-module\nVersion: 1.4.2\n\n");
    const Fd file = std::move(*sealed_memfd("tar", tar.bytes()));
    return f.call(register_request(), {file.get()});
  };
  const auto wrong = add("~=1.5", true);
  CHECK(code(wrong) == "INVALID");
  CHECK(wrong.failed().message().find("'1.4.2'") != std::string::npos);
  const auto errors = nlohmann::json::parse(wrong.failed().details_json())["errors"];
  REQUIRE(errors.size() == 1);
  CHECK(errors[0]["pointer"] == "/dependencies/0");
  const auto malformed = add("^1.4", false);
  CHECK(code(malformed) == "INVALID");
  CHECK(malformed.failed().details_json().find("/dependencies/0/version") != std::string::npos);
  const auto warned = add("1.4.3", false);
  REQUIRE(warned.has_done());
  std::string all;
  for (const auto& warning : warned.done().warnings()) all += warning + "\n";
  CHECK(all.find("/dependencies/0: the module Some.Module in the package has version '1.4.2'") != std::string::npos);
  CHECK(add("~=1.4", true).has_done());
}

Policy trusting(std::vector<std::string> keys) {
  Policy policy = builtin_policy(true);
  policy.trusted_keys = std::move(keys);
  return policy;
}

struct SignedFixture : ControlFixture {
  SignedFixture() : ControlFixture(trusting({kSigner.public_key, kOtherSigner.public_key})) {}

  /// Registers a version of agent a1 that `signer` signed (nullptr: nobody), as an archive or as a directory.
  control::Response add_version(const std::string& version, const TestSigner* signer, bool is_directory = false) {
    auto manifest = manifest_of("a1");
    manifest["version"] = version;
    PackageFiles files = {{"manifest.json", manifest.dump()}, {"main.sh", "#!/bin/sh\n"}};
    if (signer != nullptr) files = listed(std::move(files), signer);
    const Fd file = std::move(*sealed_memfd("tar", tar_of(files)));
    control::Request request;
    request.mutable_register_()->set_directory(is_directory);
    return call(request, {file.get()});
  }
  /// Of the records of agent a1 with that event, the metadata.
  std::vector<nlohmann::json> records(const std::string& event) {
    std::vector<nlohmann::json> found;
    control::Request request;
    request.mutable_audit_list()->set_id("a1");
    const auto id = operator_->send(request);
    operator_->wait(id);
    for (const auto& response : operator_->responses) {
      if (response.id() != id || !response.has_record()) continue;
      const auto record = nlohmann::json::parse(response.record());
      if (record["event"] == event) found.push_back(record["metadata"]);
    }
    return found;
  }
};

TEST_CASE_FIXTURE(SignedFixture, "who signed a package is kept, and is in the audit") {
  const auto answer = add_version("1.0.0", &kSigner);
  const auto json = document(answer);
  CHECK(json["warnings"].empty());
  CHECK(registry->get("a1").value()->active.signer == kSigner.public_key);
  const auto created = records("created");
  REQUIRE(created.size() == 1);
  CHECK(created[0]["signed"] == true);
  CHECK(created[0]["signer"] == kSigner.public_key);
  CHECK(created[0]["package"] == json["package"]);
  CHECK(created[0]["operatorUid"] == geteuid());
  CHECK(records("registered").at(0)["signer"] == kSigner.public_key);
  // The same again is known already.
  CHECK(document(add_version("1.0.0", &kSigner))["package"] == json["package"]);
  CHECK(records("created").size() == 1);
}

TEST_CASE_FIXTURE(SignedFixture, "not signed: of a local directory with a warning, of an archive not at all") {
  const auto refused = add_version("1.0.0", nullptr);
  CHECK(code(refused) == "DENIED");
  CHECK(refused.failed().hint().find("kaictl package sign") != std::string::npos);
  CHECK_FALSE(registry->get("a1").value());
  CHECK(packages->list()->empty());

  const auto answer = add_version("1.0.0", nullptr, true);
  REQUIRE(answer.has_done());
  REQUIRE(answer.done().warnings_size() == 1);
  CHECK(answer.done().warnings(0).find("not signed") != std::string::npos);
  const auto created = records("created");
  REQUIRE(created.size() == 1);
  CHECK(created[0]["signed"] == false);
  CHECK(log_text().find("the package is not signed") != std::string::npos);
}

TEST_CASE_FIXTURE(SignedFixture, "another signer takes an agent over with the operator's leave alone") {
  REQUIRE(add_version("1.0.0", nullptr, true).has_done());
  REQUIRE(add_version("1.1.0", &kSigner).has_done());
  for (const auto& answer : {add_version("1.2.0", &kOtherSigner), add_version("1.2.0", nullptr, true),
                             add_version("1.1.0", &kOtherSigner)}) {
    CHECK(code(answer) == "DENIED");
    CHECK(answer.failed().hint().find("signerChange") != std::string::npos);
  }
  CHECK(registry->get("a1").value()->active.version == "1.1.0");
  CHECK(packages->list()->size() == 2);  // what was refused is gone again
  Policy leave = trusting({kSigner.public_key, kOtherSigner.public_key});
  leave.grants = {"signerChange"};
  policies.use({{leave}, {}});
  REQUIRE(add_version("1.2.0", &kOtherSigner).has_done());
  CHECK(registry->get("a1").value()->active.signer == kOtherSigner.public_key);
  CHECK(registry->get("a1").value()->previous_version == "1.1.0");
}

TEST_CASE_FIXTURE(SignedFixture, "the same bytes stay bad, and are not registered again") {
  REQUIRE(add_version("1.0.0", &kSigner).has_done());
  REQUIRE(add_version("1.1.0", &kSigner).has_done());
  REQUIRE(registry->activate("a1", "1.0.0", ""));
  REQUIRE(registry->mark_bad("a1", "1.1.0", "it crashed"));
  end();
  start();
  const auto answer = add_version("1.1.0", &kSigner);
  CHECK(code(answer) == "DENIED");
  CHECK(answer.failed().message().find("it crashed") != std::string::npos);
  CHECK(registry->get("a1").value()->active.version == "1.0.0");
  // Out of the archive they are as bad.
  REQUIRE(registry->set_previous_version("a1", ""));
  REQUIRE(registry->remove_version("a1", "1.1.0"));
  CHECK(code(add_version("1.1.0", &kSigner)) == "DENIED");
}

struct TypescriptFixture : ControlFixture {
  nlohmann::json manifest() {
    auto json = manifest_of("ts");
    json["entry"] = "main.ts";
    json["runtime"] = {{"kind", "node"}};
    return json;
  }
  // What the compiler in its sandbox does.
  void compiler(const std::string& output, const std::string& messages, int status) {
    keeper->on_spawn = [this, output, messages, status](FakeHost& host) {
      argv.assign(host.spec.argv().begin(), host.spec.argv().end());
      const Fd main(openat(host.descriptors.at(3).get(), "main.ts", O_RDONLY | O_CLOEXEC));
      source = read_all(main.get(), 1000).value_or("");
      host.script = [this, &host, output, messages, status](const klp::Envelope& envelope) {
        if (!envelope.has_accepted()) return;
        klp::Envelope word;
        word.mutable_started();
        host.send(word);
        host.write_output(1, output);
        host.write_output(2, messages);
        word.mutable_exit()->set_code(status);
        host.send(word);
        loop.defer([&host, status] { host.exit(status); });
      };
      host.say_hello();
    };
  }
  std::vector<std::string> argv;
  std::string source;
};

TEST_CASE_FIXTURE(TypescriptFixture, "TypeScript is compiled in a sandbox, and what came out is run") {
  compiler("export default 1;\n", "", 0);
  const auto answer = add(manifest(), "const x: number = 1;\n");
  REQUIRE_MESSAGE(answer.has_done(), answer.failed().message());
  CHECK(argv.front() == "/usr/bin/esbuild");
  CHECK(argv.at(1) == "/agent/main.ts");
  CHECK(source == "const x: number = 1;\n");
  const std::string package = document(answer)["package"];
  CHECK(read_file(directory / ("state/packages/ts/" + package + "/.kai/main.mjs")).value_or("") ==
        "export default 1;\n");
  keeper->on_spawn = nullptr;
  REQUIRE(call(start_of("ts")).has_done());
  const auto& run = keeper->host().spec.argv();
  CHECK(std::find(run.begin(), run.end(), "/agent/.kai/main.mjs") != run.end());
}

TEST_CASE_FIXTURE(TypescriptFixture, "what is compiled is beside what was signed") {
  policies.use({{trusting({kSigner.public_key})}, {}});
  compiler("export default 1;\n", "", 0);
  const Fd file = std::move(*sealed_memfd(
      "tar", tar_of(listed({{"manifest.json", manifest().dump()}, {"main.ts", "const x = 1;\n"}}, &kSigner))));
  const auto answer = call(register_request(), {file.get()});
  REQUIRE_MESSAGE(answer.has_done(), answer.failed().message());
  CHECK(registry->get("ts").value()->active.signer == kSigner.public_key);
  CHECK(registry->get("ts").value()->active.entry_override == ".kai/main.mjs");
}

TEST_CASE_FIXTURE(TypescriptFixture, "the compiler's messages are the error") {
  compiler("", "main.ts:1:5: ERROR: Expected \";\"\n", 1);
  const auto answer = add(manifest(), "const x number");
  CHECK(code(answer) == "INVALID");
  CHECK(answer.failed().message().find("main.ts:1:5: ERROR") != std::string::npos);
}

TEST_CASE_FIXTURE(TypescriptFixture, "a compiler that cannot be started is kAI's failure, and leaves nothing") {
  keeper->fail_step = "clone3";
  CHECK(code(add(manifest())) == "INTERNAL");
  CHECK(packages->list()->empty());
}

TEST_CASE("what is TypeScript") {
  CHECK(is_typescript("a/main.ts"));
  CHECK(is_typescript("main.mts"));
  CHECK_FALSE(is_typescript("main.js"));
}

}  // namespace
}  // namespace kai::test
