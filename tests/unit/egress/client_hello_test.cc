#include "supervisor/egress/client_hello.h"

#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace kai::egress {
namespace {

using namespace std::string_literals;
using Bytes = std::vector<std::uint8_t>;
using State = ClientHello::State;

std::string number(std::size_t value, int width) {
  std::string bytes;
  for (int at = width - 1; at >= 0; --at) bytes += static_cast<char>(value >> (8 * at) & 0xff);
  return bytes;
}
std::string vector(int width, const std::string& content) {
  return number(content.size(), width) + content;
}
std::string extension(std::size_t type, const std::string& content) {
  return number(type, 2) + vector(2, content);
}
std::string entry(const std::string& name, char type = 0) {
  return type + vector(2, name);
}
std::string server_name(const std::string& name) {
  return extension(0, vector(2, entry(name)));
}
const std::string kOuter = extension(0xfe0d, "\0\0\1\0\1\7"s + vector(2, "key") + vector(2, "hidden"));
const std::string kVersions = extension(43, "\2\3\4");

/// A hello up to its extensions.
std::string beginning() {
  return "\3\3" + std::string(32, 'r') + vector(1, std::string(32, 's')) + vector(2, "\x13\1\x13\2") + vector(1, "\0"s);
}
std::string handshake(const std::string& body, char type = 1) {
  return type + vector(3, body);
}
std::string hello(const std::string& extensions) {
  return handshake(beginning() + vector(2, extensions));
}

std::string record(const std::string& content, char type = 22, char major = 3, char minor = 1) {
  return ""s + type + major + minor + vector(2, content);
}
/// In records of `size` bytes.
std::string records(const std::string& message, std::size_t size) {
  std::string cut;
  for (std::size_t at = 0; at < message.size(); at += size) cut += record(message.substr(at, size));
  return cut;
}

ClientHello read(const std::string& bytes) {
  return read_client_hello(Bytes(bytes.begin(), bytes.end()));
}

void check_named(const std::string& bytes, const std::string& name) {
  CAPTURE(bytes.size());
  const ClientHello seen = read(bytes);
  CHECK(seen.state == State::kComplete);
  CHECK(std::string(seen.fault == nullptr ? "" : seen.fault) == "");
  CHECK(seen.server_name == name);
}

void check_malformed(const std::string& bytes, const std::string& why) {
  CAPTURE(why);
  const ClientHello seen = read(bytes);
  REQUIRE(seen.state == State::kMalformed);
  CHECK(std::string(seen.fault).find(why) != std::string::npos);
  CHECK(seen.server_name == "");
}

const std::string kName = "good.test";
const std::string kHello = hello(kVersions + server_name(kName));

TEST_CASE("ClientHello: the name that it says") {
  check_named(record(kHello), kName);
  check_named(record(hello(server_name("GOOD.test."))), "GOOD.test.");  // as it was sent: the caller folds it
  check_named(record(hello(server_name(std::string(255, 'a')))), std::string(255, 'a'));
  check_named(record(kHello, 22, 3, 0), kName);
  check_named(record(kHello, 22, 3, 3), kName);
  CHECK_FALSE(read(record(kHello)).encrypted_inner);
}

TEST_CASE("ClientHello: without a name") {
  check_named(record(hello(kVersions)), "");
  check_named(record(hello("")), "");
  check_named(record(handshake(beginning())), "");  // before TLS 1.3 there may be no extensions at all
}

TEST_CASE("ClientHello: encrypted_client_hello is seen, with the outer name") {
  for (const std::string& extensions : {server_name(kName) + kOuter, kOuter + server_name(kName)}) {
    const ClientHello seen = read(record(hello(extensions)));
    CHECK(seen.state == State::kComplete);
    CHECK(seen.encrypted_inner);
    CHECK(seen.server_name == kName);
  }
  check_malformed(record(hello(server_name(kName) + extension(0xfe0d, "\1"))), "inner one of another");
  check_malformed(record(hello(extension(0xfe0d, "\2"))), "does not know");
  check_malformed(record(hello(extension(0xfe0d, ""))), "does not know");
  check_malformed(record(hello(kOuter + kOuter)), "encrypted_client_hello twice");
}

TEST_CASE("ClientHello: split over records, inside the name too") {
  for (std::size_t size = 1 + kHello.size() / 64; size <= kHello.size(); ++size)
    check_named(records(kHello, size), kName);
  const std::size_t inside = kHello.find(kName) + 4;
  check_named(record(kHello.substr(0, inside)) + record(kHello.substr(inside)), kName);
  check_malformed(records(kHello, 1), "more than 64 records");
}

TEST_CASE("ClientHello: in any segments the same, and no sooner than it is whole") {
  for (const std::string& whole : {record(kHello), records(kHello, 5)}) {
    for (std::size_t size = 0; size < whole.size(); ++size) {
      const ClientHello seen = read(whole.substr(0, size));
      CHECK(seen.state == State::kIncomplete);
      CHECK(seen.server_name == "");
    }
    check_named(whole, kName);
    // What follows in records of its own (0-RTT data) is none of the hello's.
    check_named(whole + record("\1", 20) + record("early", 23), kName);
    check_named(whole + "\x16", kName);
  }
}

TEST_CASE("ClientHello: what is not TLS is seen at its first bytes") {
  check_malformed("G", "not TLS");
  check_malformed("GET / HTTP/1.1\r\n", "not TLS");
  check_malformed("SSH-2.0-x", "not TLS");
  check_malformed("\x16\x02", "not TLS");
  check_malformed("\x16\xfe\xff\0\0\0\0"s, "not TLS");  // DTLS
  check_malformed("\x80\x2e\1\3\1\0\x15"s, "SSL 2");
  check_malformed("\x80", "not TLS");
  check_malformed(record("\2\x28", 21), "not TLS");                   // an alert
  check_malformed(record("\2\x28", 21) + record(kHello), "not TLS");  // before the hello
  check_malformed(record("\1", 20) + record(kHello), "not TLS");      // ChangeCipherSpec
  check_malformed(record("data", 23) + record(kHello), "not TLS");
}

TEST_CASE("ClientHello: records that no client sends") {
  const std::string first = kHello.substr(0, 10), rest = kHello.substr(10);
  check_named(record(first) + record(rest), kName);
  check_malformed(record("") + record(kHello), "empty record");
  check_malformed(record(first) + record("") + record(rest), "empty record");
  check_malformed(record(first) + record("\2\x28", 21) + record(rest), "not TLS");
  check_malformed(record(first) + record(rest, 23), "not TLS");
  check_malformed("\x16\3\1\x40\1"s, "more than 16 KB");
  check_malformed(record(kHello + kHello), "shares a record");
  check_malformed(record(kHello + "x"), "shares a record");
  check_malformed(record(first) + record(rest + kHello), "shares a record");
  check_malformed(record(kHello + "x").substr(0, 9), "shares a record");  // said as soon as the two lengths are there
}

TEST_CASE("ClientHello: another message instead, or too large a one") {
  check_malformed(record(handshake("x", 2)), "begins with another message");
  check_malformed(record(handshake(beginning(), 0)), "begins with another message");
  check_malformed(record("\2"), "begins with another message");
  check_malformed(record("\1\1\0\0"s), "larger than 32 KB");
  const auto padded = [](std::size_t bytes) {
    return hello(server_name(kName) + extension(21, std::string(bytes, 0)));
  };
  check_named(records(padded(32000), 1 << 14), kName);
  check_malformed(records(padded(33000), 1 << 14), "larger than 32 KB");
  // Never incomplete once there are as many bytes as a caller would show.
  const std::string cut = records(padded((32 << 10) - 200), 1 << 10);
  CHECK(read(cut.substr(0, kMaxHelloBytes - 1)).state == State::kIncomplete);
  check_malformed(cut.substr(0, kMaxHelloBytes), "larger than 32 KB");
}

TEST_CASE("ClientHello: lengths that lie") {
  const auto body = [](const std::string& text) { return record(handshake(text)); };
  check_malformed(body(""), "contradict");
  check_malformed(body("\3\3"), "contradict");
  check_malformed(body(beginning().substr(0, 40)), "contradict");
  check_malformed(body(beginning() + "\0"s), "contradict");
  check_malformed(body(beginning() + vector(2, server_name(kName)) + "x"), "contradict");
  check_malformed(body(beginning() + number(500, 2) + server_name(kName)), "contradict");
  check_malformed(record(hello(number(0, 2) + number(50, 2) + "x")), "contradict");
  check_malformed(record(hello("\0"s)), "contradict");
  check_malformed(body("\2\3" + beginning().substr(2)), "version");
  const std::string random = "\3\3" + std::string(32, 'r');
  check_malformed(body(random + vector(1, std::string(33, 's')) + vector(2, "\x13\1") + vector(1, "\0"s)),
                  "session id");
  check_malformed(body(random + vector(1, "") + vector(2, "\x13") + vector(1, "\0"s)), "cipher suites");
  check_malformed(body(random + vector(1, "") + vector(2, "") + vector(1, "\0"s)), "cipher suites");
  check_malformed(body(random + vector(1, "") + vector(2, "\x13\1") + vector(1, "")), "compression methods");
}

TEST_CASE("ClientHello: one name, and one that a host can have") {
  const auto listed = [](const std::string& entries) { return record(hello(extension(0, vector(2, entries)))); };
  check_named(listed(entry(kName)), kName);
  check_malformed(record(hello(server_name(kName) + server_name(kName))), "server_name twice");
  check_malformed(record(hello(server_name(kName) + kVersions + server_name("evil.test"))), "server_name twice");
  check_malformed(listed(entry(kName) + entry("evil.test")), "more than one name");
  check_malformed(listed(entry(kName) + entry("evil.test", 1)), "more than one name");
  check_malformed(listed(entry(kName, 1)), "no host_name");
  check_malformed(listed(""), "without a name");
  check_malformed(listed(entry("")), "without a name");
  check_malformed(record(hello(extension(0, ""))), "contradict");
  check_malformed(record(hello(extension(0, vector(2, entry(kName)) + "x"))), "contradict");
  check_malformed(listed("\0"s + number(50, 2) + kName), "contradict");
  check_malformed(listed("\0\0"s), "contradict");
  check_malformed(listed(entry(std::string(256, 'a'))), "more than 255 bytes");
  for (const std::string& name : {"good.test\0.evil"s, "\0"s, "good test"s,
                                  "g\xC3\xB6\xC3\xB6"
                                  "d.test"s,
                                  "good\n.test"s, "good.test\x7f"s, "\x1b[2J"s}) {
    check_malformed(listed(entry(name)), "no host name has");
  }
}

}  // namespace
}  // namespace kai::egress
