// net: the document as kaid gave it, or tables of it; policy explain --connect, which says why.
#include <doctest/doctest.h>

#include "tests/unit/kaictl/asked.h"

namespace kai::test {
namespace {

constexpr const char* kBusy =
    R"({"id":"fetcher","state":"running","network":true,"policy":"fetch",)"
    R"("limits":{"maxConnections":64,"bandwidthLimit":10240,"protocols":["tls","http"],"ports":[80,443]},)"
    R"("open":3,"total":12,"sent":2048,"received":3670016,"lookups":7,"refused":2,"failed":1,"connections":[)"
    R"({"name":"api.example.com","address":"93.184.216.34","port":443,"protocol":"tls","age":5120,"sent":900,)"
    R"("received":1048576,"sentPerSecond":0,"receivedPerSecond":262144,"state":"open"},)"
    R"({"port":80,"age":12,"sent":0,"received":0,"sentPerSecond":0,"receivedPerSecond":0,"state":"connecting"}],)"
    R"("names":[{"name":"api.example.com","address4":"198.18.0.5","address6":"fd6b:6169::5","connections":1}],)"
    R"("denials":[{"name":"evil\u001b[2J.example","port":443,"reason":"the manifest does not ask for it","rule":"10-a.yaml:4","count":2},)"
    R"({"name":"x.example","reason":"too many questions","count":1}]})";

TEST_CASE("net: the document, or what is open, looked up and refused, in words") {
  const Asked json = ask({"-o", "json", "net", "fetcher"}, kBusy);
  CHECK(json.request.net().id() == "fetcher");
  CHECK(json.result.out == std::string(kBusy) + "\n");
  const Asked text = ask({"net", "fetcher"}, kBusy);
  CHECK(text.result.exit_code == 0);
  CHECK(text.result.out ==
        "fetcher: running, policy fetch\n"
        "  limits       64 connections, and as many new ones a second; 10 MB/s each way; ports 80, 443; tls, http\n"
        "  connections  3 open, 12 in all\n"
        "  bytes        2 KB sent, 3.5 MB received\n"
        "  lookups      7\n"
        "  refused      2; allowed, but failed: 1\n"
        "\n"
        "NAME             ADDRESS        PORT  PROTOCOL  STATE       AGE   SENT   RECEIVED\n"
        "api.example.com  93.184.216.34  443   tls       open        5.1s  900 B  1 MB (256 KB/s)\n"
        "-                -              80    -         connecting  12ms  0 B    0 B\n"
        "and 1 more\n"
        "\n"
        "LOOKED UP        IPV4 INSIDE  IPV6 INSIDE   OPEN\n"
        "api.example.com  198.18.0.5   fd6b:6169::5  1\n"
        "\n"
        "REFUSED            PORT  COUNT  RULE         REASON\n"
        "evil\\e[2J.example  443   2      10-a.yaml:4  the manifest does not ask for it\n"
        "x.example          -     1      -            too many questions\n");
}

TEST_CASE("net: empty lists are said in words") {
  const Asked idle =
      ask({"net", "a"}, R"({"id":"a","state":"running","network":true,"policy":"default","open":0,"total":0,"sent":0,)"
                        R"("received":0,"lookups":0,"refused":0,"failed":0,"connections":[],"names":[],"denials":[]})");
  CHECK(idle.result.out ==
        "a: running, policy default\n"
        "  connections  0 open, 0 in all\n"
        "  bytes        0 B sent, 0 B received\n"
        "  lookups      0\n"
        "  refused      0; allowed, but failed: 0\n"
        "\n"
        "no connection is open\n\nno allowed name has been looked up\n\nnothing was refused\n");
}

TEST_CASE("net: an agent that may reach nothing, and one of which nothing is known now") {
  const Asked none =
      ask({"net", "a"}, R"({"id":"a","state":"running","network":false,"reason":"its manifest does not ask for it",)"
                        R"("policy":"default","connections":[],"names":[],"denials":[]})");
  CHECK(none.result.out == "a: running, policy default\n  no egress: its manifest does not ask for it\n");
  const Asked stopped =
      ask({"net", "a"}, R"({"id":"a","state":"stopped","network":true,"policy":"default","limits":)"
                        R"({"maxConnections":64,"bandwidthLimit":512,"protocols":["tcp"],"ports":[7]},)"
                        R"("connections":[],"names":[],"denials":[]})");
  CHECK(stopped.result.out ==
        "a: stopped, policy default\n"
        "  limits       64 connections, and as many new ones a second; 512 KB/s each way; ports 7; tcp\n"
        "nothing is open: it does not run\n");
  const Asked unknown =
      ask({"net", "a"},
          R"({"id":"a","state":"running","network":true,"policy":"default","fault":"kai-egress is restarted",)"
          R"("connections":[],"names":[],"denials":[]})");
  CHECK(unknown.result.out == "a: running, policy default\nwhat is open is not known now: kai-egress is restarted\n");
}

TEST_CASE("policy explain --connect: a name or an address, and the verdict as a block") {
  const std::string verdict =
      R"({"pointer":"/security/networkAccess/allowedDomains/0","asked":"a.example:443","verdict":"refused",)"
      R"("reason":"blocked\u001b[2J","rule":"kaid.yaml:3"})";
  const Asked name = ask({"policy", "explain", "a", "--connect", "a.example:443"}, verdict);
  CHECK(name.request.policy_explain().connect_name() == "a.example");
  CHECK(name.request.policy_explain().connect_port() == 443);
  CHECK(name.result.exit_code == 0);
  CHECK(name.result.out ==
        "a.example:443: refused\n"
        "  why       blocked\\e[2J\n"
        "  rule      kaid.yaml:3\n"
        "  manifest  /security/networkAccess/allowedDomains/0\n");
  const Asked six = ask({"policy", "explain", "a", "--connect", "[2001:db8::1]:80"}, verdict);
  CHECK(six.request.policy_explain().connect_name() == "2001:db8::1");
  CHECK(six.result.out.starts_with("[2001:db8::1]:80: refused\n"));
  const std::string umlaut =
      "b\xC3\xBC"
      "cher.example";
  const Asked unicode = ask({"policy", "explain", "a", "--connect", umlaut + ":443"}, verdict);
  CHECK(unicode.request.policy_explain().connect_name() == umlaut);
  for (const char* wrong : {"", "a.example", ":443", "a b:443", "\xFF.example:443"}) {
    CAPTURE(std::string(wrong));
    const Result result = kaictl({"policy", "explain", "a", "--connect", wrong});
    CHECK(result.exit_code == 2);
    CHECK(result.err.find("NAME:PORT") != std::string::npos);
  }
}

TEST_CASE("net: of an id that is not registered") {
  const Asked nobody = ask_refused({"net", "x"}, "NOT_FOUND", "no agent 'x'", "See 'kaictl list'");
  CHECK(nobody.result.exit_code == 4);
  CHECK(nobody.result.out.empty());
}

}  // namespace
}  // namespace kai::test
