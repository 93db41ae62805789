// kaid.sock against whoever connects: strangers, liars, the slow, the silent, and far too many.
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/control/control_fixture.h"

namespace kai::test {
namespace {

control::Request list_request() {
  control::Request request;
  request.set_id(1);
  request.mutable_list();
  return request;
}

// Whether kaid has closed the connection; what it said first goes to `said`.
bool closed_by_kaid(int socket, std::string& said) {
  std::array<char, 4096> buffer;
  ssize_t count = 0;
  while ((count = recv(socket, buffer.data(), buffer.size(), MSG_DONTWAIT)) > 0) {
    said.append(buffer.data(), static_cast<std::size_t>(count));
  }
  return count == 0 || (count < 0 && errno == ECONNRESET);
}

std::string refusal_in(const std::string& bytes) {
  FrameDecoder decoder;
  decoder.feed(bytes);
  const auto frame = decoder.next();
  control::Response response;
  if (!frame || !*frame || !response.ParseFromArray((*frame)->data(), static_cast<int>((*frame)->size()))) return "";
  return response.failed().code();
}

TEST_CASE("the socket is there when it is served: 0660, its group, under its own name") {
  ControlFixture f;
  struct stat info {};
  REQUIRE(stat(f.socket().c_str(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0660);
  CHECK(info.st_gid == f.hello.socket_gid());
  CHECK(stat((f.socket() + ".new").c_str(), &info) != 0);
}

TEST_CASE("a path that the kernel cannot take is an error that says so") {
  ControlFixture f;
  OperatorApi api(f.loop, *f.log, {}, [](const control::Request&, std::vector<Fd>, const Responder&) {});
  const auto listening = api.listen(f.directory / std::string(120, 'x'));
  REQUIRE_FALSE(listening);
  CHECK(listening.error().what.find("too long") != std::string::npos);
}

// Root becomes a stranger for one connect(2); an ordinary user has nobody else to be, and doctest counts the skip.
TEST_CASE("a stranger gets one DENIED and is closed; the log says who it was" * doctest::skip(geteuid() != 0)) {
  ControlFixture f;
  constexpr uid_t kStranger = 65534;
  int requests = 0;
  OperatorApi api(f.loop, *f.log, {0, 0, 4'000'000},
                  [&](const control::Request&, std::vector<Fd>, const Responder&) { ++requests; });
  const std::string path = f.directory / "open.sock";
  REQUIRE(api.listen(path));
  REQUIRE(chmod(path.c_str(), 0666) == 0);
  REQUIRE(chmod(f.directory.path().c_str(), 0755) == 0);
  // The system call changes this thread alone.
  REQUIRE(syscall(SYS_setresuid, -1, kStranger, -1) == 0);
  const Fd socket = connect_to(path);
  REQUIRE(syscall(SYS_setresuid, -1, 0, -1) == 0);
  REQUIRE(socket);
  std::string said;
  f.until([&] { return closed_by_kaid(socket.get(), said); });
  CHECK(refusal_in(said) == "DENIED");
  CHECK(requests == 0);
  CHECK(f.log_text().find("\"uid\":65534") != std::string::npos);
}

TEST_CASE("bytes that are no request close their connection and no other") {
  ControlFixture f;
  const Fd socket = connect_to(f.socket());
  std::string expected;
  SUBCASE("a lying length") {
    REQUIRE(write_all(socket.get(), "\xff\xff\xff\xff"));
  }
  SUBCASE("garbage in a frame") {
    REQUIRE(write_all(socket.get(), std::string("\0\0\0\x04\xff\xff\xff\xff", 8)));
    expected = "INVALID";
  }
  SUBCASE("half a frame, then nothing more to come") {
    REQUIRE(write_all(socket.get(), std::string("\0\0\0\x10half", 8)));
    REQUIRE(shutdown(socket.get(), SHUT_WR) == 0);
  }
  SUBCASE("two requests with one id") {
    control::Request request;
    request.set_id(1);
    request.mutable_logs()->set_follow(true);
    std::string bytes;
    append_frame(bytes, request.SerializeAsString());
    append_frame(bytes, request.SerializeAsString());
    REQUIRE(write_all(socket.get(), bytes));
    expected = "BUSY";
  }
  std::string said;
  f.until([&] { return closed_by_kaid(socket.get(), said); });
  if (!expected.empty()) CHECK(said.find(expected) != std::string::npos);
  CHECK(f.call(list_request()).has_done());
}

TEST_CASE("a request that this kaid does not know is INVALID, and the connection goes on") {
  ControlFixture f;
  CHECK(code(f.call(control::Request{})) == "INVALID");
  CHECK(f.call(list_request()).has_done());
}

TEST_CASE("1,000 silent connections: the oldest give way, and a request among them is served") {
  ControlFixture f;
  std::vector<Fd> silent;
  while (silent.size() < 1000) {
    silent.push_back(connect_to(f.socket()));
    REQUIRE(silent.back());
    // The kernel's own queue of not yet accepted connections is finite too.
    if (silent.size() % 100 == 0) f.loop.run_until([] { return true; });
  }
  CHECK(f.call(list_request()).has_done());
  std::string said;
  CHECK(closed_by_kaid(silent.front().get(), said));
  CHECK_FALSE(closed_by_kaid(silent.back().get(), said));
}

TEST_CASE("256 connections at work: one more is told BUSY, and none of them is closed") {
  ControlFixture f;
  control::Request follow;
  follow.set_id(1);
  follow.mutable_logs()->set_follow(true);
  std::string bytes;
  append_frame(bytes, follow.SerializeAsString());
  std::vector<Fd> working;
  for (int at = 0; at < 256; ++at) {
    working.push_back(connect_to(f.socket()));
    REQUIRE(working.back());
    REQUIRE(write_all(working.back().get(), bytes));
    if (at % 64 == 63) {
      // Each has had its first record (that kaid serves) once its request was taken.
      std::array<char, 4> peeked;
      f.until([&] { return recv(working.back().get(), peeked.data(), peeked.size(), MSG_PEEK | MSG_DONTWAIT) > 0; });
    }
  }
  const Fd extra = connect_to(f.socket());
  std::string said;
  f.until([&] { return closed_by_kaid(extra.get(), said); });
  CHECK(refusal_in(said) == "BUSY");
  CHECK_FALSE(closed_by_kaid(working.front().get(), said));
}

TEST_CASE("a client that follows the log and never reads is closed, and costs a bounded queue") {
  ControlFixture f;
  control::Request follow;
  follow.set_id(1);
  follow.mutable_logs()->set_follow(true);
  const Fd socket = connect_to(f.socket());
  std::string bytes;
  append_frame(bytes, follow.SerializeAsString());
  REQUIRE(write_all(socket.get(), bytes));
  std::array<char, 1> peeked;
  f.until([&] { return recv(socket.get(), peeked.data(), peeked.size(), MSG_PEEK | MSG_DONTWAIT) > 0; });
  const std::string text(8000, 'x');
  std::size_t written = 0;
  // The timer keeps the loop going: a peer that does not read is no event.
  Timer flood(f.loop);
  std::function<void()> more = [&] {
    for (int at = 0; at < 50; ++at) f.log->write(LogLevel::kInfo, "", "flood", text);
    written += 50 * text.size();
    flood.start(std::chrono::milliseconds(1), more);
  };
  more();
  // The peer's end shows as EPIPE even while old bytes wait to be read.
  f.until(
      [&] { return send(socket.get(), peeked.data(), 0, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 || written > (100U << 20); });
  CHECK(written < (100U << 20));
  CHECK(f.call(list_request()).has_done());
}

TEST_CASE("many requests at once on one connection are each answered with their own id") {
  ControlFixture f;
  OperatorClient client(f.loop, f.socket());
  std::vector<std::uint64_t> ids;
  for (int at = 0; at < 200; ++at) {
    control::Request request;
    request.mutable_version();
    ids.push_back(client.send(request));
  }
  for (const std::uint64_t id : ids) CHECK(client.wait(id).has_done());
}

}  // namespace
}  // namespace kai::test
