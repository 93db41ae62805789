// The published JSON Schema says what the C++ validator says, over one table of good and bad documents. valijson knows
// draft 7: the schema keeps to keywords that mean the same in draft 2020-12 ($ref without siblings that matter, no
// prefixItems, no unevaluated*).
//
// What the schema does not say, and only the validator checks (below, each with a document that shows it): the number
// of days in a month, ports over 65535, which Unicode is a name and which names are one, IPv4 addresses in IPv6, bits
// behind a block's prefix, names and path components that are too long in bytes, dependencies named twice,
// variables set twice or more than 128, C1 control characters, a native entry with protocol none and no kind. Before
// any document there is: size, depth, UTF-8, duplicate keys.
#include <fstream>
#include <sstream>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tests/unit/policies/manifests.h"
#include "tests/unit/policies/valijson.h"

namespace kai {
namespace {

using testing::Case;
using testing::Json;
using Adapter = valijson::adapters::NlohmannJsonAdapter;

class Schema {
 public:
  Schema() : document_(nlohmann::json::parse(manifest_json_schema())) {
    valijson::SchemaParser().populateSchema(Adapter(document_), schema_);
  }
  bool accepts(const std::string& text) {
    const nlohmann::json target = nlohmann::json::parse(text);
    return validator_.validate(schema_, Adapter(target), nullptr);
  }

 private:
  nlohmann::json document_;
  valijson::Schema schema_;
  valijson::Validator validator_;
};

bool is_good(const std::string& text) {
  return parse_manifest(text).errors.empty();
}

}  // namespace

TEST_CASE("the schema that is built in is the published file, draft 2020-12") {
  std::ifstream file(KAI_SOURCE_DIR "/docs/schema/manifest.schema.json");
  std::ostringstream published;
  published << file.rdbuf();
  CHECK(published.str() == manifest_json_schema());
  CHECK(Json::parse(manifest_json_schema())["$schema"] == "https://json-schema.org/draft/2020-12/schema");
}

TEST_CASE("schema and validator agree on every common case") {
  Schema schema;
  CHECK(is_good(testing::kExample));
  CHECK(schema.accepts(testing::kExample));
  int good = 0;
  for (const Case& each : testing::common_cases()) {
    const std::string text = testing::with(each.pointer, each.value);
    CAPTURE(std::string(each.pointer));
    CAPTURE(each.value.dump().substr(0, 100));
    CAPTURE(testing::errors(text));
    CHECK(is_good(text) == each.good);
    CHECK(schema.accepts(text) == each.good);
    good += each.good ? 1 : 0;
  }
  CHECK(good > 80);
}

TEST_CASE("schema and validator agree on every missing field") {
  Schema schema;
  for (const char* pointer : {"/id",
                              "/name",
                              "/version",
                              "/entry",
                              "/persona",
                              "/capabilities",
                              "/memory",
                              "/security",
                              "/dependencies",
                              "/metadata",
                              "/memory/type",
                              "/memory/backend",
                              "/memory/persistent",
                              "/security/sandbox",
                              "/security/permissions",
                              "/security/permissions/0/resource",
                              "/security/permissions/0/actions",
                              "/security/crypto",
                              "/security/networkAccess",
                              "/security/networkAccess/allowOutbound",
                              "/security/fileAccess",
                              "/security/fileAccess/allowedPaths",
                              "/security/fileAccess/readOnly",
                              "/security/fileAccess/tempFileAccess",
                              "/dependencies/0/name",
                              "/dependencies/0/version",
                              "/dependencies/0/type",
                              "/dependencies/0/required",
                              "/metadata/author",
                              "/metadata/description",
                              "/metadata/license",
                              "/metadata/tags",
                              "/metadata/created",
                              "/metadata/updated"}) {
    CAPTURE(std::string(pointer));
    CHECK(testing::errors(testing::without(pointer)) == std::string(pointer) + ": is missing\n");
    CHECK(!schema.accepts(testing::without(pointer)));
  }
  for (const char* pointer : {"/memory/ttl", "/memory/maxSize", "/security/networkAccess/allowedDomains"}) {
    CAPTURE(std::string(pointer));
    CHECK(testing::errors(testing::without(pointer)).empty());
    CHECK(schema.accepts(testing::without(pointer)));
  }
}

TEST_CASE("what only the validator says") {
  Schema schema;
  const std::string long_name =
      std::string(63, 'a') + "." + std::string(63, 'b') + "." + std::string(63, 'c') + "." + std::string(63, 'd');
  Json two = testing::example()["dependencies"];
  two.push_back(two[0]);
  Json variables = Json::array();
  for (int at = 0; at < 2; ++at) variables.push_back("A=" + std::to_string(at));
  Json native = testing::example();
  native["entry"] = "agent.so";
  native["runtime"] = {{"protocol", "none"}};
  const std::string documents[] = {
      testing::with("/metadata/created", "2023-02-29T00:00:00Z"),
      testing::with("/metadata/created", "2024-04-31T00:00:00Z"),
      testing::with("/security/networkAccess/allowedDomains", Json::array({"a.b:70000"})),
      testing::with("/security/networkAccess/allowedDomains", Json::array({long_name})),
      testing::with("/security/networkAccess/allowedDomains", Json::array({"a.com", "A.com."})),
      testing::with("/security/networkAccess/allowedDomains", Json::array({"10.0.0.1/8"})),
      testing::with("/security/networkAccess/allowedDomains", Json::array({"::ffff:102:304"})),
      testing::with("/security/networkAccess/allowedDomains", Json::array({"\xE2\x98\x83\xEF\xB8\x8F.example"})),
      testing::with("/security/networkAccess/blockedDomains", Json::array({"\xEF\xBC\x91.2.3.4"})),  // fullwidth 1
      testing::with("/security/fileAccess/allowedPaths", Json::array({"/" + std::string(256, 'a')})),
      testing::with("/dependencies", two),
      testing::with("/runtime", {{"env", variables}}),
      testing::with("/name", "C1 \xC2\x9B control"),
      native.dump(),
  };
  for (const std::string& text : documents) {
    CAPTURE(text);
    CHECK(!is_good(text));
    CHECK(schema.accepts(text));
  }
}

}  // namespace kai
