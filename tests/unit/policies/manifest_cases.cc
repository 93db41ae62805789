#include <string>

#include "tests/unit/policies/manifests.h"

namespace kai::testing {
namespace {

std::string repeated(std::size_t times, char c) {
  return std::string(times, c);
}

Json strings(std::size_t count) {
  Json list = Json::array();
  for (std::size_t at = 0; at < count; ++at) list.push_back("item" + std::to_string(at));
  return list;
}

void add(std::vector<Case>& cases, const char* pointer, bool good, const std::vector<Json>& values) {
  for (const Json& value : values) cases.push_back({pointer, value, good});
}

void add_identity(std::vector<Case>& cases) {
  add(cases, "/id", true, {"a", "A-1.b_c", repeated(64, 'x'), "kaid2", "0"});
  add(cases, "/id", false,
      {"", "-a", ".a", "a/b", "a@b", "a b", "kaid", "operator", "topic", repeated(65, 'x'), 5, nullptr, "é"});
  add(cases, "/name", true, {"n", repeated(256, 'x'), "Ünï 名前"});
  add(cases, "/name", false, {"", repeated(257, 'x'), "a\nb", "a\x1b[31m", true, Json::array({"x"})});
  add(cases, "/version", true,
      {"0.0.0", "1.0.0-rc.1", "1.0.0-0a.--", "1.0.0+build.01", "10.20.30-a.b+c", "1.0.0-x-y.0"});
  add(cases, "/version", false,
      {"", "1", "1.0", "1.0.0.0", "v1.0.0", "01.0.0", "1.00.0", "1.0.0-", "1.0.0-01", "1.0.0-a..b", "1.0.0+",
       "1.0.0+a+b", "1.0.x", " 1.0.0", 1.0, "1.0.0-ä"});
  add(cases, "/entry", true, {"main.ts", "./main.ts", "dist/a-b/main.js", "a", "..a", "a..b/c", "x.kai", "src/.kai"});
  add(cases, "/entry", false,
      {"", "/main.ts", "../main.ts", "a/../b", "a/..", ".", "./", "a//b", "a/", "a/./b", "-e", "a/-x", "a\\b", "a\nb",
       ".kai/x", "./.kai/x", "././a", repeated(1025, 'a'), std::string("a\0b", 3)});
  add(cases, "/persona", true, {"assistant", "specialist", "guardian", "orchestrator", "utility", "companion"});
  add(cases, "/persona", false, {"Assistant", "", "robot", 1, nullptr});
  add(cases, "/capabilities", true,
      {Json::array(), Json::array({"a", "b.c", "d:e", "f/g", "_h", "9-i"}), strings(256)});
  add(cases, "/capabilities", false,
      {Json::array({""}), Json::array({"a", "a"}), Json::array({"a b"}), Json::array({1}), Json::array({"-a"}), "a",
       nullptr, strings(257), Json::array({repeated(129, 'a')}), Json::array({"ä"})});
}

void add_memory(std::vector<Case>& cases) {
  add(cases, "/memory", true,
      {{{"type", "volatile"}, {"backend", "memory"}, {"persistent", false}},
       {{"type", "volatile"}, {"backend", "redis"}, {"persistent", false}, {"sharedAccess", true}},
       {{"type", "hybrid"}, {"backend", "sqlite"}, {"persistent", true}, {"ttl", 0.5}, {"maxSize", 0}}});
  add(cases, "/memory", false,
      {{{"type", "volatile"}, {"backend", "memory"}, {"persistent", true}},
       {{"type", "persistent"}, {"backend", "sqlite"}, {"persistent", false}},
       {{"type", "hybrid"}, {"backend", "memory"}, {"persistent", true}},
       {{"type", "volatile"}, {"backend", "memory"}},
       {{"backend", "memory"}, {"persistent", false}},
       Json::object(),
       Json::array(),
       "memory",
       nullptr});
  add(cases, "/memory/type", false, {"Persistent", "", 1});
  add(cases, "/memory/backend", false, {"postgres", "", nullptr});
  add(cases, "/memory/ttl", true, {0, 1, 1.5, 1e12});
  add(cases, "/memory/ttl", false, {-1, -0.5, "60", nullptr, true});
  add(cases, "/memory/maxSize", false, {-1, "50", Json::object()});
  add(cases, "/memory/persistent", false, {"true", 1, nullptr});
  add(cases, "/memory/sharedAccess", true, {true, false});
  add(cases, "/memory/sharedAccess", false, {"yes", 0});
  add(cases, "/memory/size", false, {1});
}

void add_security(std::vector<Case>& cases) {
  add(cases, "/security/sandbox", true, {true, false});  // a refusal of false is the policy's, not the manifest's
  add(cases, "/security/sandbox", false, {"true", nullptr, 1});
  add(cases, "/security/permissions", true,
      {Json::array(), Json::array({{{"resource", "agent"}, {"actions", {"execute"}}, {"scope", "*"}}})});
  add(cases, "/security/permissions", false,
      {Json::object(), Json::array({"file"}), Json::array({{{"resource", "file"}}}),
       Json::array({{{"actions", {"read"}}}})});
  add(cases, "/security/permissions/0/resource", false, {"", "a b", 1, repeated(129, 'a')});
  add(cases, "/security/permissions/0/actions", true, {{"read", "write", "execute", "delete"}});
  add(cases, "/security/permissions/0/actions", false, {Json::array(), {"read", "read"}, {"list"}, "read", {1}});
  add(cases, "/security/permissions/0/scope", true, {"*", "/data"});
  add(cases, "/security/permissions/0/scope", false, {"", 1, "a\nb", repeated(1025, 'x')});
  add(cases, "/security/permissions/0/extra", false, {1});
  add(cases, "/security/crypto", true, {"ed25519", "secp256k1", "none"});
  add(cases, "/security/crypto", false, {"rsa", "", nullptr});
  add(cases, "/security/networkAccess/allowOutbound", false, {"yes", nullptr});
  for (const char* domains : {"/security/networkAccess/allowedDomains", "/security/networkAccess/blockedDomains"}) {
    add(cases, domains, true,
        {Json::array(),
         Json::array({"a", "localhost", "a.b", "*.a.b", "a.b:443", "xn--bcher-kva.example", "1a.example", "a_b.c",
                      "A.Example", "3com.com", "0.example", "b.", "*.A.b.:443"}),
         Json::array({"bücher.example", "*.bücher.example.:8443", "例え.テスト", "straße.example", "BÜCHER.de"}),
         Json::array({"1.2.3.4", "1.2.3.4:80", "10.0.0.0/8", "0.0.0.0/0", "1.2.3.4/32", "::1", "::", "1::", "fd00::1",
                      "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8", "[::1]:443", "fd00::/8", "::/0",
                      "::1/128", "FD00::A"})});
    add(cases, domains, false,
        {Json::array({""}),
         Json::array({"*"}),
         Json::array({"*."}),
         Json::array({".a"}),
         Json::array({"a..b"}),
         Json::array({"a.*.b"}),
         Json::array({"-a.b"}),
         Json::array({"a-.b"}),
         Json::array({"2130706433"}),
         Json::array({"0x7f.1"}),
         Json::array({"1.2.3"}),
         Json::array({"01.2.3.4"}),
         Json::array({"256.1.1.1"}),
         Json::array({"1.2.3.4."}),
         Json::array({"1.2.3.4:0"}),
         Json::array({"1.2.3.4:"}),
         Json::array({"1.2.3.4/33"}),
         Json::array({"10.0.0.0/08"}),
         Json::array({"10.0.0.0/8:80"}),
         Json::array({"::ffff:1.2.3.4"}),
         Json::array({"::1.2.3.4"}),
         Json::array({"1:2:3:4:5:6:7"}),
         Json::array({"1:2:3:4:5:6:7:8:9"}),
         Json::array({"1::2::3"}),
         Json::array({"::/129"}),
         Json::array({"[::1]:"}),
         Json::array({"[::1]:0"}),
         Json::array({"[1.2.3.4]:80"}),
         Json::array({"[::/0]:80"}),
         Json::array({"a.."}),
         Json::array({"bü cher.de"}),
         Json::array({"bücher..de"}),
         Json::array({"*.*.bücher.de"}),
         Json::array({"bücher.de:0"}),
         Json::array({"bücher.de/"}),
         Json::array({"a.0x1"}),
         Json::array({"[::1]"}),
         Json::array({"fe80::1%eth0"}),
         Json::array({"http://a.b"}),
         Json::array({"a.b/c"}),
         Json::array({"a b"}),
         Json::array({"a:0"}),
         Json::array({"a:x"}),
         Json::array({"a:"}),
         Json::array({"a", "a"}),
         Json::array({"a\nb"}),
         Json::array({repeated(64, 'a') + ".b"}),
         Json::array({1}),
         "a.b",
         strings(257),
         Json::array({std::string("a\0.b", 4)})});
  }
  add(cases, "/security/networkAccess/maxConnections", true, {0, 10, 65535});
  add(cases, "/security/networkAccess/maxConnections", false, {-1, 1.5, 65536, "10", nullptr});
  add(cases, "/security/fileAccess/allowedPaths", true,
      {Json::array(),
       Json::array({"/tmp", "/data", "/data/x", "/home/agent/.cache", "/usrx", "/opt/a b", "/d/..a", "/var/lib/ä"})});
  add(cases, "/security/fileAccess/allowedPaths", false,
      {Json::array({"/"}),
       Json::array({""}),
       Json::array({"data"}),
       Json::array({"/data/"}),
       Json::array({"//data"}),
       Json::array({"/a//b"}),
       Json::array({"/a/../b"}),
       Json::array({"/a/."}),
       Json::array({"/proc"}),
       Json::array({"/proc/1"}),
       Json::array({"/dev/shm"}),
       Json::array({"/usr/local"}),
       Json::array({"/etc/x"}),
       Json::array({"/sys"}),
       Json::array({"/agent/x"}),
       Json::array({"/kai"}),
       Json::array({"/bin"}),
       Json::array({"/lib64"}),
       Json::array({"/a", "/a"}),
       Json::array({"/a\nb"}),
       Json::array({"/-a"}),
       Json::array({"/a\\b"}),
       Json::array({"/node_modules/x"}),
       "/data",
       Json::array({1}),
       Json::array({std::string("/a\0b", 4)})});
  add(cases, "/security/fileAccess/readOnly", false, {"no", nullptr});
  add(cases, "/security/fileAccess/tempFileAccess", false, {0});
}

void add_rest(std::vector<Case>& cases) {
  add(cases, "/dependencies", true, {Json::array()});
  add(cases, "/dependencies", false, {Json::object(), Json::array({"date-fns"}), nullptr});
  add(cases, "/dependencies/0/name", true, {"@scope/name", "requests", "a.b_c", repeated(214, 'a')});
  add(cases, "/dependencies/0/name", false, {"", "../x", "a b", "-a", 1, repeated(215, 'a'), "a\nb"});
  add(cases, "/dependencies/0/version", true, {"*", ">=1.2 <2", "1.0.0", "latest"});
  add(cases, "/dependencies/0/version", false, {"", 2, repeated(129, '1'), "1\n"});
  add(cases, "/dependencies/0/type", true, {"module", "service"});
  add(cases, "/dependencies/0/type", false, {"package", nullptr});
  add(cases, "/dependencies/0", true,
      {{{"name", "echo"}, {"version", "1.0.0"}, {"type", "agent"}, {"required", false}}});
  add(cases, "/dependencies/0", false,
      {{{"name", "a/b"}, {"version", "1.0.0"}, {"type", "agent"}, {"required", false}}});
  add(cases, "/dependencies/0/required", false, {"true", nullptr});
  add(cases, "/metadata/author", true, {"", repeated(256, 'a')});
  add(cases, "/metadata/author", false, {repeated(257, 'a'), 1, "a\rb"});
  add(cases, "/metadata/description", true, {"", "two\nlines\tand a tab", repeated(4096, 'a')});
  add(cases, "/metadata/description", false, {repeated(4097, 'a'), "bell\a", nullptr});
  add(cases, "/metadata/license", false, {nullptr, Json::array()});
  add(cases, "/metadata/documentation", true, {"", "https://example.org/x"});
  add(cases, "/metadata/documentation", false, {1, repeated(2049, 'a')});
  add(cases, "/metadata/tags", true, {Json::array(), {"a", "a"}, strings(64)});
  add(cases, "/metadata/tags", false, {"a", {""}, {1}, strings(65), {repeated(65, 'a')}});
  for (const char* time : {"/metadata/created", "/metadata/updated"}) {
    add(cases, time, true, {"2024-02-29T23:59:60Z", "2024-01-15T10:00:00.123456Z", "2024-01-15T10:00:00+05:30"});
    add(cases, time, false,
        {"", "2024-01-15", "2024-01-15T10:00:00", "2024-01-15 10:00:00Z", "2024-13-01T00:00:00Z",
         "2024-01-32T00:00:00Z", "2024-01-15T24:00:00Z", "2024-01-15T10:60:00Z", "2024-01-15T10:00:61Z",
         "2024-01-15T10:00:00.Z", "2024-01-15T10:00:00+0530", "2024-01-15T10:00:00+24:00", "yesterday", 1705312800,
         "2024-1-15T10:00:00Z"});
  }
  add(cases, "/runtime", true,
      {Json::object(),
       {{"kind", "node"}},
       {{"kind", "exec"}, {"protocol", "runner"}},
       {{"args", {"-x", ""}}, {"env", {{"A", "b"}}}},
       {{"env", {"A=b", "B="}}},
       {{"kind", "native"}, {"protocol", "runner"}}});
  add(cases, "/runtime", false,
      {"node",
       {{"kind", "mcp"}},
       {{"kind", "ruby"}},
       {{"protocol", "http"}},
       {{"args", "x"}},
       {{"args", {1}}},
       {{"image", "x"}},
       {{"env", {{"1A", "b"}}}},
       {{"env", {{"KAI_X", "b"}}}},
       {{"env", {{"A", 1}}}},
       {{"env", {"A"}}},
       {{"env", {"=a"}}},
       {{"env", "A=b"}},
       {{"args", {std::string("a\0b", 3)}}},
       {{"kind", "native"}, {"protocol", "none"}}});
  for (const char* unknown : {"/Id", "/capabilites", "/memory/maxsize", "/security/networkAccess/allowInbound",
                              "/security/fileAccess/x", "/dependencies/0/optional", "/metadata/homepage", "/$schema"}) {
    add(cases, unknown, false, {"x"});
  }
}

}  // namespace

std::vector<Case> common_cases() {
  std::vector<Case> cases;
  add_identity(cases);
  add_memory(cases);
  add_security(cases);
  add_rest(cases);
  return cases;
}

}  // namespace kai::testing
