#include "supervisor/egress/http_requests.h"

#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>

namespace kai::egress {
namespace {

using namespace std::string_literals;

/// How a whole stream fared, shown in pieces that end at `ends`.
struct Seen {
  std::size_t forwarded = 0;
  std::string fault;
  bool idle = true;
  std::uint64_t requests = 0;
  bool operator==(const Seen&) const = default;
};

Seen show(const std::string& stream, const std::vector<std::size_t>& ends, const std::string& host = "good.test",
          std::uint16_t port = 80) {
  HttpRequests reader(host, port);
  Seen seen;
  for (const std::size_t end : ends) {
    const std::string_view shown = std::string_view(stream).substr(seen.forwarded, end - seen.forwarded);
    const HttpRequests::Step step = reader.take(shown);
    REQUIRE(step.forward <= shown.size());
    seen.forwarded += step.forward;
    seen.fault = step.fault;
    if (!seen.fault.empty()) break;
  }
  seen.idle = reader.idle();
  seen.requests = reader.requests();
  return seen;
}

Seen whole(const std::string& stream, const std::string& host = "good.test", std::uint16_t port = 80) {
  return show(stream, {stream.size()}, host, port);
}

void check_passes(const std::string& stream, std::uint64_t requests, const std::string& host = "good.test",
                  std::uint16_t port = 80) {
  CAPTURE(stream);
  const Seen seen = whole(stream, host, port);
  CHECK(seen.fault == "");
  CHECK(seen.forwarded == stream.size());
  CHECK(seen.requests == requests);
  CHECK(seen.idle);
}

/// Refused, for a reason that says `why`, with nothing forwarded beyond `forwarded`.
void check_refused(const std::string& stream, const std::string& why, std::size_t forwarded = 0,
                   const std::string& host = "good.test", std::uint16_t port = 80) {
  CAPTURE(stream);
  const Seen seen = whole(stream, host, port);
  CAPTURE(seen.fault);
  CHECK(seen.fault.find(why) != std::string::npos);
  CHECK(seen.forwarded == forwarded);
}

const std::string kGet = "GET / HTTP/1.1\r\nHost: good.test\r\n\r\n";

std::string with(const std::string& fields) {
  return "POST /x HTTP/1.1\r\nHost: good.test\r\n" + fields + "\r\n";
}
std::string chunked(const std::string& body) {
  return with("Transfer-Encoding: chunked\r\n") + body;
}

TEST_CASE("HTTP: requests as clients send them") {
  check_passes(kGet, 1);
  check_passes("GET / HTTP/1.0\r\nHost: good.test\r\n\r\n", 1);
  check_passes("GET /a?b=c%20d&e=f:80/ HTTP/1.1\r\nhost:good.test\r\nAccept: */*\r\nTE: trailers\r\n\r\n", 1);
  check_passes("OPTIONS * HTTP/1.1\r\nHost: good.test\r\n\r\n", 1);
  check_passes("PROPFIND /d HTTP/1.1\r\nHost: good.test\r\nContent-Length: 0\r\n\r\n", 1);
  check_passes("HEAD //twice HTTP/1.1\r\nX-Empty:\r\nX-Tab:\ta\t\r\nX-Text: \xC3\xA9\r\nHost:  good.test \t\r\n\r\n",
               1);
  check_passes(with("Content-Length: 5\r\nExpect: 100-continue\r\nConnection: keep-alive, TE\r\n") + "hello", 1);
  check_passes(chunked("5\r\nhello\r\n0a;name=\"value\"\r\n0123456789\r\n0\r\n\r\n"), 1);
  check_passes(chunked("0\r\nDigest: abc\r\nX-Sum: 1\r\n\r\n"), 1);
  check_passes(with("TRANSFER-ENCODING: Chunked\r\n") + "0\r\n\r\n", 1);
  check_passes("", 0);
}

TEST_CASE("HTTP: many requests on one connection") {
  const std::string post = with("Content-Length: 4\r\n") + "GET ";
  check_passes(kGet + kGet + kGet, 3);
  check_passes(kGet + post + chunked("3\r\nabc\r\n0\r\n\r\n") + kGet, 4);
  check_passes("GET / HTTP/1.0\r\nHost: good.test\r\n\r\n" + kGet, 2);
}

TEST_CASE("HTTP: what Host may be") {
  struct Case {
    const char* host;
    std::uint16_t port;
    const char* field;
    bool right;
  };
  const Case cases[] = {
      {"good.test", 80, "good.test", true},
      {"good.test", 80, "GOOD.Test", true},
      {"good.test", 80, "good.test.", true},
      {"good.test", 80, "good.test:80", true},
      {"good.test", 80, "good.test.:80", true},
      {"good.test", 8080, "good.test:8080", true},
      {"good.test", 8080, "good.test", false},
      {"good.test", 8080, "good.test:80", false},
      {"good.test", 80, "good.test:8080", false},
      {"good.test", 80, "good.test:080", false},
      {"good.test", 80, "good.test:", false},
      {"good.test", 80, "good.test:80:80", false},
      {"good.test", 80, "", false},
      {"good.test", 80, ".", false},
      {"good.test", 80, "evil.test", false},
      {"good.test", 80, "x.good.test", false},
      {"good.test", 80, "good.test..", false},
      {"good.test", 80, "evilgood.test", false},
      {"good.test", 80, "good.test.evil", false},
      {"good.test", 80, "good.test,evil.test", false},
      {"good.test", 80, "good.test evil", false},
      {"good.test", 80, "me@good.test", false},
      {"good.test", 80, "good.test:80@evil", false},
      {"good.test", 80, "good.test/evil", false},
      {"good.test", 80, "http://good.test", false},
      {"good.test", 80, "[good.test]", false},
      {"good.test", 80,
       "go\xC3\xB6"
       "d.test",
       false},
      {"192.0.2.1", 80, "192.0.2.1", true},
      {"192.0.2.1", 80, "192.0.2.10", false},
      {"192.0.2.1", 80, "192.0.2.01", false},
      {"192.0.2.1", 80, "3221225985", false},
      {"2001:db8::1", 80, "[2001:db8::1]", true},
      {"2001:db8::1", 8080, "[2001:DB8:0::1]:8080", true},
      {"2001:db8::1", 80, "2001:db8::1", false},
      {"2001:db8::1", 80, "[2001:db8::2]", false},
      {"2001:db8::1", 80, "[2001:db8::1", false},
      {"2001:db8::1", 80, "[2001:db8::1%lo]", false},
      {"2001:db8::1", 80, "[2001:db8::1]80", false},
      {"2001:db8::1", 80, "[]", false},
  };
  for (const Case& each : cases) {
    const std::string stream = "GET / HTTP/1.1\r\nHost: "s + each.field + "\r\n\r\n";
    if (each.right) {
      check_passes(stream, 1, each.host, each.port);
    } else {
      check_refused(stream, "has the Host \"", 0, each.host, each.port);
    }
  }
}

TEST_CASE("HTTP: a refusal says what was sent and what was meant") {
  CHECK(whole("GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n").fault ==
        "HTTP request 1 has the Host \"evil.test\", and its connection is to good.test:80");
  CHECK(whole("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "2001:db8::1", 81).fault ==
        "HTTP request 1 has the Host \"a\", and its connection is to [2001:db8::1]:81");
  // A terminal is not driven, a line not filled.
  const std::string fault =
      whole("GET / HTTP/1.1\r\nHost: \xE2\x80\xAE\x80" + std::string(900, 'a') + "\r\n\r\n").fault;
  CHECK(fault.find("\\u{202e}\\x80aaa") != std::string::npos);
  CHECK(fault.size() < 300);
}

TEST_CASE("HTTP: what is refused in the request line") {
  const std::string rest = "\r\nHost: good.test\r\n\r\n";
  check_passes(
      "GET /"
      " HTTP/1.1" +
          rest,
      1);  // the control run of each
  check_refused("GET http://good.test/ HTTP/1.1" + rest, "has the target \"http://good.test/\"");
  check_refused("GET http://evil.test/ HTTP/1.1" + rest, "connect to the host itself");
  check_refused("GET good.test/ HTTP/1.1" + rest, "does not begin with \"/\"");
  check_refused("GET * HTTP/1.1" + rest, "does not begin with \"/\"");
  check_refused("CONNECT evil.test:443 HTTP/1.1" + rest, "is a CONNECT");
  check_refused("CONNECT / HTTP/1.1" + rest, "is a CONNECT");
  check_refused("GET /" + rest, "HTTP/0.9");
  check_refused("GET" + rest, "is not HTTP/1");
  check_refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "is in HTTP/2");
  check_refused("GET / HTTP/1.2" + rest, "neither HTTP/1.0 nor HTTP/1.1");
  check_refused("GET / HTTP/0.9" + rest, "neither HTTP/1.0 nor HTTP/1.1");
  check_refused("GET / HTTP/1.10" + rest, "neither HTTP/1.0 nor HTTP/1.1");
  check_refused("GET / http/1.1" + rest, "neither HTTP/1.0 nor HTTP/1.1");
  check_refused("GET / HTTP/1.1 " + rest, "neither HTTP/1.0 nor HTTP/1.1");
  check_refused("GET  / HTTP/1.1" + rest, "has whitespace in its target");
  check_refused("GET /a b HTTP/1.1" + rest, "has whitespace in its target");
  check_refused("GET /a\tb HTTP/1.1" + rest, "has whitespace in its target");
  check_refused("GET\t/ HTTP/1.1" + rest, "HTTP/0.9");
  check_refused(" GET / HTTP/1.1" + rest, "has a method that is no token");
  check_refused("G(T / HTTP/1.1" + rest, "has a method that is no token");
  check_refused("\r\n" + kGet, "begins with an empty line");
  check_refused("\n" + kGet, "LF alone");
  check_refused("\x16\x03\x01\x02", "looks like TLS");
  check_refused("\x01 / HTTP/1.1" + rest, "control character");
}

TEST_CASE("HTTP: header shapes that two readers read differently") {
  check_passes(with("X-Plain: 1\r\n"), 1);
  check_refused(with("X: 1\r\n folded: 2\r\n"), "obs-fold");
  check_refused(with("X: 1\r\n\tHost: evil.test\r\n"), "obs-fold");
  check_refused("GET / HTTP/1.1\r\n Host: good.test\r\n\r\n", "obs-fold");
  check_refused(with("Content-Length : 5\r\n") + "hello", "whitespace before a header's colon");
  check_refused(with("Transfer-Encoding\t: chunked\r\n"), "whitespace before a header's colon");
  check_refused(with(": 1\r\n"), "name is no token");
  check_refused(with("X Y: 1\r\n"), "name is no token");
  check_refused(with("X\xC3: 1\r\n"), "name is no token");
  check_refused(with("novalue\r\n"), "without a colon");
  check_refused(with("X: a\rb\r\n"), "CR without LF");
  check_refused(with("X: a\r\r\n"), "CR without LF");
  check_refused(with("X: a\nHost: evil.test\r\n"), "LF alone");
  check_refused("GET / HTTP/1.1\nHost: good.test\n\n", "LF alone");
  check_refused(with("X: a\0b\r\n"s), "control character");
  check_refused(with("X: a\x1b[2J\r\n"), "control character");
  check_refused(with("X\x7f: a\r\n"), "control character");
  check_refused("GET / HTTP/1.1\r\n\r\n", "has no Host");
  check_refused("GET / HTTP/1.0\r\n\r\n", "has no Host");
  check_refused(with("Host: good.test\r\n"), "more than one Host");
  check_refused(with("hOST: evil.test\r\n"), "more than one Host");
  check_refused("GET / HTTP/1.1\r\nHost: evil.test\r\nHost: good.test\r\n\r\n", "has the Host \"evil.test\"");
}

TEST_CASE("HTTP: where a request ends is beyond doubt") {
  const std::string hidden = "GET /admin HTTP/1.1\r\nHost: evil.test\r\n\r\n";
  check_passes(with("Content-Length: 5\r\n") + "hello", 1);
  check_refused(with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n" + hidden,
                "has both");  // CL.TE
  check_refused(with("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n") + "0\r\n\r\n" + hidden,
                "has both");  // TE.CL
  check_refused(with("Content-Length: 5\r\nContent-Length: 5\r\n") + "hello", "more than one Content-Length");
  check_refused(with("Content-Length: 5\r\nContent-Length: 0\r\n") + "hello", "more than one Content-Length");
  for (const char* length :
       {"5, 5", "+5", "-5", "0x5", "5 ", "05", "", "5.0", "5;", "1e1", "\xD9\xA5", "1000000000000000000"}) {
    const std::string field = "Content-Length: "s + length + "\r\n";
    if (length == "5 "s) {
      check_passes(with(field) + "hello", 1);  // whitespace at the end is none of the value
    } else {
      check_refused(with(field) + "hello", "has a Content-Length that is no plain number");
    }
  }
  // TE.TE: one reader takes it for chunked, another one for nothing.
  for (const char* coding : {"xchunked", "chunked, chunked", "identity", "chunked, identity", "gzip, chunked",
                             "\"chunked\"", "chunked;q=1", "", "x", ",chunked", "chunke\xC4\x91"}) {
    check_refused(with("Transfer-Encoding: "s + coding + "\r\n") + "0\r\n\r\n", "only \"chunked\" is beyond doubt");
  }
  check_refused(with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
                "more than one Transfer-Encoding");
  check_refused(with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
                "more than one Transfer-Encoding");
  check_refused(with("Transfer-Encoding: chunked\r\n , identity\r\n"), "obs-fold");
  check_refused(with("Transfer-Encoding: \x0b"
                     "chunked\r\n"),
                "control character");
  check_refused(with("Transfer_Encoding: chunked\r\n"), "read with a hyphen");
  check_refused(with("content_LENGTH: 5\r\n"), "read with a hyphen");
  check_refused("POST / HTTP/1.0\r\nHost: good.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "HTTP/1.0 does not have");
  check_refused(with("Connection: close, Content-Length\r\nContent-Length: 5\r\n") + "hello", "in Connection");
  check_refused(with("Connection: Host\r\n"), "in Connection");
}

TEST_CASE("HTTP: chunked bodies to the letter") {
  const std::string head = chunked("");
  check_passes(head + "1\r\na\r\n0\r\n\r\n", 1);
  for (const char* size :
       {"", "g", "-1", "+1", "0x1", " 1", "1 ", "1 ;a", "1000000000000000", "0000000000000001", "1,1"}) {
    check_refused(head + size + "\r\na\r\n0\r\n\r\n", "no plain hexadecimal number", head.size());
  }
  check_refused(head + "1\na\r\n0\r\n\r\n", "LF alone", head.size());
  check_refused(head + "1;a\nb\r\na\r\n0\r\n\r\n", "LF alone", head.size());
  check_refused(head + "1;a\rb\r\na\r\n0\r\n\r\n", "CR without LF", head.size());
  check_refused(head + "1;" + std::string(2000, 'a'), "extensions of more than 1 KB", head.size());
  check_refused(head + "1\r\nab\r\n", "longer than its size says", head.size() + 4);
  check_refused(head + "1\r\na\n", "LF alone", head.size() + 4);
  check_refused(head + "1\r\na0\r\n\r\n", "longer than its size says", head.size() + 4);
  check_refused(head + "1\r\na\r0", "CR without LF", head.size() + 4);
}

TEST_CASE("HTTP: trailers change nothing that was decided") {
  const std::string head = chunked("0\r\n");
  check_passes(head + "X-Checksum: 1\r\n\r\n", 1);
  for (const char* field : {"Host: good.test", "hOsT: evil.test", "Content-Length: 5", "Transfer-Encoding: chunked",
                            "Connection: close", "Upgrade: h2c", "Expect: 100-continue", "TE: x", "Trailer: Host"}) {
    check_refused(head + field + "\r\n\r\n", "in its trailers", head.size());
  }
  check_refused(head + "X: 1\r\n y\r\n\r\n", "obs-fold", head.size() + 6);
  check_refused(head + "X : 1\r\n\r\n", "whitespace before a header's colon", head.size());
  check_refused(head + "GET / HTTP/1.1\r\n\r\n", "without a colon", head.size());
  std::string many = head;
  while (many.size() < head.size() + kMaxRequestHeadBytes) many += "X: 1\r\n";
  const Seen seen = whole(many);
  CHECK(seen.fault.find("more than 32 KB") != std::string::npos);
}

TEST_CASE("HTTP: another protocol cannot be agreed on") {
  check_passes(with("Expect: 100-Continue\r\n"), 1);
  for (const char* fields : {"Upgrade: h2c\r\n", "Connection: Upgrade, HTTP2-Settings\r\n", "Upgrade: websocket\r\n",
                             "Connection: close , uPGRADE\r\n"}) {
    check_refused(with(fields), "networkLimit.allowedProtocols allow tcp");
  }
  check_refused(with("Expect: 200-ok\r\n"), "not \"100-continue\"");
}

TEST_CASE("HTTP: each request of a connection is held against its host") {
  const std::string evil = "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n";
  check_refused(kGet + evil, "HTTP request 2 has the Host \"evil.test\"", kGet.size());
  const std::string posts[] = {with("Content-Length: 3\r\n") + "abc", chunked("3\r\nabc\r\n0\r\n\r\n"),
                               chunked("0\r\nX: 1\r\n\r\n")};
  for (const std::string& post : posts) {
    check_passes(post + kGet, 2);
    check_refused(post + evil, "HTTP request 2 has the Host \"evil.test\"", post.size());
  }
  // Without a length there is no body: what looks like one is the next request.
  check_refused(with("") + evil, "HTTP request 2 has the Host", with("").size());
  // What lies inside a body is nobody's request.
  check_passes(with("Content-Length: " + std::to_string(evil.size()) + "\r\n") + evil + kGet, 2);
}

TEST_CASE("HTTP: a head has a limit, a body has none") {
  const std::string begin = "GET / HTTP/1.1\r\nHost: good.test\r\nX: ", end = "\r\n\r\n";
  const std::string fits = begin + std::string(kMaxRequestHeadBytes - begin.size() - end.size(), 'a') + end;
  REQUIRE(fits.size() == kMaxRequestHeadBytes);
  check_passes(fits + fits, 2);
  check_refused(begin + "a" + fits.substr(begin.size()), "more than 32 KB");
  check_refused(std::string(kMaxRequestHeadBytes, 'G'), "more than 32 KB");
  CHECK(whole(std::string(kMaxRequestHeadBytes - 1, 'G')).fault == "");

  HttpRequests reader("good.test", 80);
  const std::string head = with("Content-Length: 999999999999999999\r\n"), piece(1 << 20, 'x');
  CHECK(reader.take(head).forward == head.size());
  for (int count = 0; count < 64; ++count) {
    const HttpRequests::Step step = reader.take(piece);
    REQUIRE(step.forward == piece.size());
  }
  CHECK_FALSE(reader.idle());
}

TEST_CASE("HTTP: nothing of a head goes on before it is whole, and nothing after a refusal") {
  HttpRequests reader("good.test", 80);
  CHECK(reader.idle());
  CHECK(reader.take(kGet.substr(0, kGet.size() - 1)).forward == 0);
  CHECK_FALSE(reader.idle());
  CHECK(reader.take(kGet).forward == kGet.size());
  CHECK(reader.idle());
  const std::string fault = reader.take("GET\n").fault;
  CHECK(fault != "");
  CHECK(reader.take("GET\n" + kGet).fault == fault);
  CHECK(reader.take(kGet).forward == 0);
  CHECK_FALSE(reader.idle());
}

TEST_CASE("HTTP: however a stream is cut, the same bytes go on and the same is decided") {
  const std::string streams[] = {
      kGet + with("Content-Length: 11\r\n") + "hello world" + kGet,
      chunked("5;a=b\r\nhello\r\n1\r\n\n\r\n0\r\nX: 1\r\n\r\n") + kGet,
      kGet + "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
      kGet + "GET / HTTP/1.1\nHost: good.test\n\n",
      chunked("5\r\nhello!\r\n0\r\n\r\n"),
      chunked("0\r\nX: 1\r\nHost: evil.test\r\n\r\n"),
      with("Content-Length: 3\r\n") + "ab",
      "POST / HTTP/1.1\r\nHost: good.test\r\nX: \r\r\n",
  };
  std::mt19937 random(1);  // NOLINT: the same cuts each time
  for (const std::string& stream : streams) {
    CAPTURE(stream);
    const Seen expected = whole(stream);
    for (std::size_t cut = 0; cut <= stream.size(); ++cut) CHECK(show(stream, {cut, stream.size()}) == expected);
    std::vector<std::size_t> every;
    for (std::size_t end = 1; end <= stream.size(); ++end) every.push_back(end);
    CHECK(show(stream, every) == expected);
    for (int turn = 0; turn < 200; ++turn) {
      std::vector<std::size_t> some;
      for (const std::size_t end : every) {
        if (random() % 8 == 0) some.push_back(end);
      }
      some.push_back(stream.size());
      CHECK(show(stream, some) == expected);
    }
  }
}

}  // namespace
}  // namespace kai::egress
