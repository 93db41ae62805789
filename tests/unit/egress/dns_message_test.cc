#include "supervisor/egress/dns_message.h"

#include <set>

#include <doctest/doctest.h>

#include "dns_wire.h"
#include "supervisor/egress/reverse_name.h"

namespace kai::egress::dns {
namespace {

Bytes bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::optional<Query> query_of(const std::string& message) {
  return read_query(bytes_of(message));
}

constexpr std::uint16_t kAsk = 0x0100;  // RD

std::string question_message(const std::string& after_header, std::size_t additionals = 0) {
  return wire_header(7, kAsk, 1, 0, 0, additionals) + after_header;
}

TEST_CASE("A question is read with its case, its type and what its EDNS says") {
  const auto query = query_of(question_message(wire_question("WwW.Example.cOm", kTypeAaaa) + wire_opt(4096), 1));
  REQUIRE(query);
  CHECK(query->fault == Rcode::kNoError);
  CHECK(query->id == 7);
  CHECK(query->recursion_desired);
  CHECK(query->question->name.text() == "WwW.Example.cOm");
  CHECK(query->question->type == kTypeAaaa);
  CHECK(query->edns);
  CHECK(query->udp_bytes == 1232);
  CHECK(query_of(question_message(wire_question("a.test", 1)))->udp_bytes == 512);
  CHECK(query_of(question_message(wire_question("a.test", 1) + wire_opt(100), 1))->udp_bytes == 512);
  CHECK(query_of(question_message(wire_question("a.test", 1) + wire_opt(900), 1))->udp_bytes == 900);
}

TEST_CASE("What is no question is not answered") {
  const std::string right = question_message(wire_question("a.test", kTypeA));
  for (std::size_t size = 0; size < 12; ++size) CHECK_FALSE(query_of(right.substr(0, size)));
  CHECK_FALSE(query_of(wire_header(7, kAnswerFlags, 1, 0) + wire_question("a.test", kTypeA)));
}

TEST_CASE("Every other shape is answered with its error") {
  const std::string a = wire_question("a.test", kTypeA);
  struct Case {
    const char* what;
    std::string message;
    Rcode fault;
  };
  const Case cases[] = {
      {"status opcode", wire_header(7, kAsk | 0x1000, 1, 0) + a, Rcode::kNotImplemented},
      {"notify", wire_header(7, kAsk | 0x2000, 1, 0) + a, Rcode::kNotImplemented},
      {"update", wire_header(7, kAsk | 0x2800, 1, 0) + a, Rcode::kNotImplemented},
      {"no question", wire_header(7, kAsk, 0, 0), Rcode::kFormatError},
      {"two questions", wire_header(7, kAsk, 2, 0) + a + a, Rcode::kFormatError},
      {"65535 questions", wire_header(7, kAsk, 65535, 0) + a, Rcode::kFormatError},
      {"an answer in a question", wire_header(7, kAsk, 1, 1) + a + wire_record(pointer(12), 1, 1, "1234"),
       Rcode::kFormatError},
      {"an authority in a question", wire_header(7, kAsk, 1, 0, 1) + a + wire_record(pointer(12), 1, 1, "1234"),
       Rcode::kFormatError},
      {"cut off", question_message(a.substr(0, a.size() - 1)), Rcode::kFormatError},
      {"bytes behind", question_message(a + "x"), Rcode::kFormatError},
      {"a name that points to itself", question_message(pointer(12) + u16(1) + u16(1)), Rcode::kFormatError},
      {"a name that points into the header", question_message(pointer(4) + u16(1) + u16(1)), Rcode::kFormatError},
      {"a name that points onward", question_message(pointer(14) + u16(1) + u16(1)), Rcode::kFormatError},
      {"a label type of old",
       question_message("\x41"
                        "a" +
                        std::string(1, '\0') + u16(1) + u16(1)),
       Rcode::kFormatError},
      {"a label beyond the end",
       question_message("\x3F"
                        "a"),
       Rcode::kFormatError},
      {"256 bytes of name",
       question_message(wire_question(
           std::string(63, 'a') + "." + std::string(63, 'b') + "." + std::string(63, 'c') + "." + std::string(62, 'd'),
           1)),
       Rcode::kFormatError},
      {"class CHAOS", question_message(wire_question("version.bind", kTypeTxt, 3)), Rcode::kRefused},
      {"class ANY", question_message(wire_question("a.test", kTypeA, 255)), Rcode::kRefused},
      {"type 0", question_message(wire_question("a.test", 0)), Rcode::kFormatError},
      {"type OPT", question_message(wire_question("a.test", kTypeOpt)), Rcode::kFormatError},
      {"AXFR", question_message(wire_question("a.test", 252)), Rcode::kNotImplemented},
      {"IXFR", question_message(wire_question("a.test", 251)), Rcode::kNotImplemented},
      {"two OPTs", question_message(a + wire_opt(512) + wire_opt(512), 2), Rcode::kFormatError},
      {"an OPT with a name", question_message(a + wire_record(wire_name("x"), kTypeOpt, 0, ""), 1),
       Rcode::kFormatError},
      {"EDNS version 1", question_message(a + wire_opt(512, 1U << 16U), 1), Rcode::kBadVersion},
      {"an OPT longer than the message", question_message(a + wire_opt(512).substr(0, 9) + u16(9), 1),
       Rcode::kFormatError},
      {"an OPT that is missing", question_message(a, 1), Rcode::kFormatError},
      {"many additionals", question_message(a, 200), Rcode::kFormatError},
  };
  for (const Case& one : cases) {
    CAPTURE(one.what);
    const auto query = query_of(one.message);
    REQUIRE(query);
    CHECK(query->fault == one.fault);
    const std::string answer = write_answer(*query, {.rcode = query->fault}, query->udp_bytes);
    CHECK(answer.size() <= one.message.size() + 11);  // never much more than was sent
    CHECK((answer[2] & '\x80') != 0);
  }
}

TEST_CASE("A question of the greatest length is one") {
  const std::string name =
      std::string(63, 'a') + "." + std::string(63, 'b') + "." + std::string(63, 'c') + "." + std::string(61, 'd');
  const auto query = query_of(question_message(wire_question(name, 1)));
  REQUIRE(query);
  CHECK(query->fault == Rcode::kNoError);
  CHECK(query->question->name.text() == name);
}

TEST_CASE("Text of a name shows every byte, and no label can pass for two") {
  std::size_t at = 0;
  const std::string wire = std::string(
                               "\x03"
                               "a.b"
                               "\x04"
                               "\n\x00\\\xFF"
                               "\x01"
                               "-",
                               11) +
                           '\0';
  const auto name = Name::read(bytes_of(wire), at);
  REQUIRE(name);
  CHECK(name->text() == "a\\046b.\\010\\000\\092\\255.-");
  CHECK(at == wire.size());
  CHECK(Name().text() == ".");
}

TEST_CASE("Names compare without their case, and random case changes nothing else") {
  const Name name = *Name::of("a-long-name.with-9-labels.example.com");
  std::set<std::string> seen;
  for (int at = 0; at < 20; ++at) {
    const Name mixed = name.with_random_case();
    CHECK(mixed.same_as(name));
    seen.insert(mixed.wire());
  }
  CHECK(seen.size() > 15);
  CHECK_FALSE(Name::of("a.test")->same_as(*Name::of("b.test")));
  CHECK_FALSE(Name::of("a.test")->same_as(*Name::of("a.test.a")));
  CHECK_FALSE(Name::of("a..b"));
  CHECK_FALSE(Name::of(std::string(64, 'a')));
}

TEST_CASE("An answer repeats the question as it was sent, and its address") {
  auto query = query_of(question_message(wire_question("A.tEst", kTypeA) + wire_opt(1232), 1));
  const std::string answer = write_answer(*query, {.address = read_address("198.18.1.2")}, 512);
  CHECK(answer == wire_header(7, 0x8180, 1, 1, 0, 1) + wire_question("A.tEst", kTypeA) +
                      wire_record(pointer(12), kTypeA, 30, "\xC6\x12\x01\x02") + wire_opt(1232));
  query->edns = false;
  const std::string six = write_answer(*query, {.address = read_address("::1")}, 512);
  CHECK(six == wire_header(7, 0x8180, 1, 1) + wire_question("A.tEst", kTypeA) +
                   wire_record(pointer(12), kTypeA, 30, std::string(15, '\0') + '\1'));
}

TEST_CASE("An explanation is for clients with EDNS, and is cut to its place") {
  auto query = query_of(question_message(wire_question("a.test", kTypeA) + wire_opt(512), 1));
  const Answer refused{.rcode = Rcode::kRefused, .explanation = Explanation{.code = kProhibited, .text = "no rule"}};
  CHECK(write_answer(*query, refused, 512) == wire_header(7, 0x8185, 1, 0, 0, 1) + wire_question("a.test", kTypeA) +
                                                  wire_opt(1232, 0, u16(15) + u16(9) + u16(18) + "no rule"));
  const Answer talkative{.rcode = Rcode::kRefused,
                         .explanation = Explanation{.code = 18, .text = std::string(9000, 'x')}};
  CHECK(write_answer(*query, talkative, 512).size() <= 512);
  query->edns = false;
  CHECK(write_answer(*query, talkative, 512) == wire_header(7, 0x8185, 1, 0) + wire_question("a.test", kTypeA));
  query->edns = true;
  CHECK(write_answer(*query, {.rcode = Rcode::kBadVersion}, 512).ends_with(wire_opt(1232, 1U << 24U)));
}

TEST_CASE("What is too long for the client is cut off, and says so") {
  const std::string longest = std::string(63, 'a') + "." + std::string(63, 'b') + "." + std::string(63, 'c') + ".d";
  const auto query = query_of(question_message(wire_question(longest, kTypePtr)));
  const Answer answer{.pointer = Name::of(std::string(50, 'x') + "." + longest)};
  CHECK(write_answer(*query, answer, 1232).size() > 420);
  CHECK(write_answer(*query, answer, 420) == wire_header(7, 0x8380, 1, 0) + wire_question(longest, kTypePtr));
}

struct Asked {
  Request request{.id = 9, .question = {.name = *Name::of("WwW.test"), .type = kA}};
  std::string head(std::size_t answers, std::size_t authorities = 0, std::uint16_t flags = kAnswerFlags) const {
    return wire_header(9, flags, 1, answers, authorities) + wire_question("WwW.test", request.question.type);
  }
  std::optional<Reply> read(const std::string& message) const { return read_reply(bytes_of(message), request); }
};

TEST_CASE("A request asks for one thing, recursively") {
  const Asked asked;
  CHECK(write_request(asked.request) ==
        wire_header(9, 0x0100, 1, 0, 0, 1) + wire_question("WwW.test", kA) + wire_opt(1232));
}

TEST_CASE("Only an answer to the request is one") {
  const Asked asked;
  const std::string record = wire_record(pointer(12), kTypeA, 60, a_data(1));
  CHECK(asked.read(asked.head(1) + record));
  CHECK_FALSE(asked.read(wire_header(8, kAnswerFlags, 1, 1) + wire_question("WwW.test", 1) + record));
  CHECK_FALSE(asked.read(wire_header(9, 0x0100, 1, 1) + wire_question("WwW.test", 1) + record));
  CHECK_FALSE(asked.read(wire_header(9, kAnswerFlags, 1, 1) + wire_question("WwW.tesu", 1) + record));
  CHECK_FALSE(asked.read(wire_header(9, kAnswerFlags, 1, 1) + wire_question("WwW.test", 28) + record));
  CHECK_FALSE(asked.read(wire_header(9, kAnswerFlags, 1, 1) + wire_question("WwW.test", 1, 3) + record));
  CHECK_FALSE(asked.read(wire_header(9, kAnswerFlags, 0, 1) + record));
  CHECK_FALSE(asked.read(wire_header(9, kAnswerFlags | 0x2800, 1, 1) + wire_question("WwW.test", 1) + record));
  CHECK(asked.read(wire_header(9, kAnswerFlags, 1, 1) + wire_question("www.test", 1) + record)->other_case);
}

TEST_CASE("An answer that is cut off or lies about its lengths is none") {
  const Asked asked;
  const std::string right = asked.head(2) + wire_record(pointer(12), kTypeCname, 60, wire_name("b.test")) +
                            wire_record(wire_name("b.test"), kTypeA, 60, a_data(1));
  REQUIRE(asked.read(right));
  for (std::size_t size = 0; size < right.size(); ++size) CHECK_FALSE(asked.read(right.substr(0, size)));
  CHECK_FALSE(asked.read(asked.head(1) + wire_record(pointer(12), kTypeA, 60, "123")));
  CHECK_FALSE(asked.read(asked.head(1) + wire_record(pointer(12), kTypeA, 60, "12345")));
  CHECK_FALSE(asked.read(asked.head(65535) + wire_record(pointer(12), kTypeA, 60, a_data(1))));
  CHECK_FALSE(asked.read(asked.head(1) + wire_record(pointer(asked.head(1).size()), kTypeA, 60, a_data(1))));
  CHECK_FALSE(asked.read(asked.head(1) + wire_record(pointer(12), kTypeCname, 60, wire_name("b.test") + "x")));
  CHECK_FALSE(asked.read(asked.head(1) + wire_record(pointer(12), kTypeCname, 60,
                                                     "\x3F"
                                                     "b")));
}

TEST_CASE("Addresses are those at the end of the question's CNAMEs, and nobody else's") {
  const Asked asked;
  const auto cname = [](const char* from, const char* to, std::size_t ttl = 100) {
    return wire_record(wire_name(from), kTypeCname, ttl, wire_name(to));
  };
  const auto address = [](const char* of, std::uint8_t last) {
    return wire_record(wire_name(of), kTypeA, 50, a_data(last));
  };
  const auto reply =
      asked.read(asked.head(6) + address("c.test", 3) + cname("b.test", "C.test", 40) + address("evil.test", 66) +
                 cname("www.test", "b.test") + address("www.test", 1) + address("c.test", 4));
  REQUIRE(reply);
  REQUIRE(reply->addresses.size() == 2);
  CHECK(address_text(reply->addresses[0]) == "93.184.216.3");
  CHECK(address_text(reply->addresses[1]) == "93.184.216.4");
  CHECK(reply->ttl.count() == 40);
  CHECK(asked.read(asked.head(2) + cname("www.test", "b.test") + cname("b.test", "www.test"))->endless);
  CHECK(asked.read(asked.head(1) + cname("www.test", "www.test"))->endless);
  std::string chain;
  for (int at = 0; at < 20; ++at) {
    chain += cname(at == 0 ? "www.test" : ("n" + std::to_string(at)).c_str(), ("n" + std::to_string(at + 1)).c_str());
  }
  CHECK(asked.read(asked.head(20) + chain)->endless);
}

TEST_CASE("Records of another class, and TTLs beyond all measure, do not count") {
  const Asked asked;
  std::string chaos = wire_record(pointer(12), kTypeA, 60, a_data(1));
  chaos[5] = 3;
  CHECK(asked.read(asked.head(1) + chaos)->addresses.empty());
  CHECK(asked.read(asked.head(1) + wire_record(pointer(12), kTypeA, 0xFFFFFFFF, a_data(1)))->ttl.count() == 0);
}

TEST_CASE("Of a hundred addresses as many are taken as anybody tries") {
  const Asked asked;
  std::string records;
  for (std::uint8_t at = 0; at < 100; ++at) records += wire_record(pointer(12), kTypeA, 60, a_data(at));
  CHECK(asked.read(asked.head(100) + records)->addresses.size() == kMaxReplyAddresses);
}

TEST_CASE("For how long a name is not there is what the SOA says") {
  const Asked asked;
  const auto soa = [](std::size_t ttl, std::size_t minimum) {
    return wire_record(wire_name("test"), kTypeSoa, ttl, soa_data(minimum));
  };
  const auto reply = asked.read(asked.head(0, 1, kAnswerFlags | 3) + soa(900, 20));
  CHECK(reply->rcode == Rcode::kNoName);
  CHECK(reply->ttl.count() == 20);
  CHECK(asked.read(asked.head(0, 1) + soa(10, 20))->ttl.count() == 10);
  CHECK(asked.read(asked.head(0))->ttl.count() == 0);
  CHECK(asked.read(asked.head(0, 40000))->ttl.count() == 0);
}

TEST_CASE("An address in the form ::ffff:a.b.c.d is the one that it stands for") {
  Asked asked;
  asked.request.question.type = kAaaa;
  const std::string mapped = std::string(10, '\0') + "\xFF\xFF\x0A" + std::string(2, '\0') + "\x01";
  const auto reply = asked.read(asked.head(1) + wire_record(pointer(12), kTypeAaaa, 60, mapped));
  REQUIRE(reply);
  REQUIRE(reply->addresses.size() == 1);
  CHECK(address_text(reply->addresses[0]) == "10.0.0.1");
}

TEST_CASE("A message that is all compression costs little") {
  const Asked asked;
  std::string message = asked.head(0);
  const std::size_t first = message.size() + 11;
  std::string chain = pointer(12);
  for (std::size_t at = 0; at < 8000; ++at) chain += pointer((first + 2 * at) & 0x3FFFU);
  message += wire_record(std::string(1, '\0'), 65280, 0, chain);
  std::size_t records = 1;
  while (message.size() + 12 < 65535) {
    message += wire_record(pointer((first + 2 * 7999) & 0x3FFFU), 65280, 0, "");
    ++records;
  }
  message.replace(6, 2, u16(records));
  const auto begin = std::chrono::steady_clock::now();
  CHECK_FALSE(asked.read(message));
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(20));
}

TEST_CASE("The reverse of an address leads to it") {
  const auto reverse = [](const char* name) -> std::string {
    const auto address = address_of_reverse(*Name::of(name));
    return address ? address_text(*address) : "";
  };
  CHECK(reverse("4.3.18.198.in-addr.arpa") == "198.18.3.4");
  CHECK(reverse("4.3.18.198.IN-ADDR.arpa") == "198.18.3.4");
  CHECK(reverse("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa") == "::1");
  for (const char* name : {"3.18.198.in-addr.arpa", "5.4.3.18.198.in-addr.arpa", "04.3.18.198.in-addr.arpa",
                           "256.3.18.198.in-addr.arpa", "x.3.18.198.in-addr.arpa", "in-addr.arpa", "0.ip6.arpa",
                           "4.3.18.198.in-addr.arpa.test", "4.3.18.198xin-addr.arpa", "10.ip6.arpa"}) {
    CAPTURE(name);
    CHECK(reverse(name).empty());
  }
}

}  // namespace
}  // namespace kai::egress::dns
