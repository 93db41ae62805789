#include "supervisor/control/stream.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <doctest/doctest.h>

#include "base/unix.h"

namespace kai {
namespace {

using std::chrono::milliseconds;

struct Pair {
  explicit Pair(StreamLimits limits = {}) {
    auto sockets = std::move(*socket_pair(SOCK_STREAM));
    peer = std::move(sockets.second);
    stream = std::make_unique<FrameStream>(
        loop, std::move(sockets.first), limits,
        FrameStream::Handlers{.frame = [this](std::string_view body) { frames.emplace_back(body); },
                              .closed =
                                  [this](const std::string& why, bool by_peer) {
                                    reason = why;
                                    closed_by_peer = by_peer;
                                  }});
  }

  void until(const std::function<bool()>& met) {
    Timer guard(loop);
    bool late = false;
    guard.start(milliseconds(30'000), [&] { late = true; });
    loop.run_until([&] { return late || met(); });
    REQUIRE_FALSE(late);
  }
  void one_round() {
    loop.run_until([] { return true; });
  }
  void write(std::string_view bytes) { REQUIRE(write_all(peer.get(), bytes)); }

  EventLoop loop;
  Fd peer;
  std::unique_ptr<FrameStream> stream;
  std::vector<std::string> frames;
  std::string reason;
  bool closed_by_peer = false;
};

std::string frame(std::string_view body) {
  std::string bytes;
  append_frame(bytes, body);
  return bytes;
}

TEST_CASE("frames in any pieces") {
  Pair pair;
  const std::string bytes = frame("one") + frame("") + frame(std::string(200'000, 'x'));
  pair.write(bytes.substr(0, 2));
  pair.one_round();
  CHECK(pair.frames.empty());
  pair.write(bytes.substr(2));
  pair.until([&] { return pair.frames.size() == 3; });
  CHECK(pair.frames[0] == "one");
  CHECK(pair.frames[1].empty());
  CHECK(pair.frames[2].size() == 200'000);
}

TEST_CASE("a lying length closes the stream before a byte of the body is stored") {
  Pair pair;
  pair.write("\xff\xff\xff\xff");
  pair.until([&] { return !pair.reason.empty(); });
  CHECK(pair.reason.find("broken framing") != std::string::npos);
  CHECK_FALSE(pair.closed_by_peer);
  CHECK_FALSE(pair.stream->open());
}

TEST_CASE("half a frame is closed at its deadline, however it drips") {
  StreamLimits limits;
  limits.frame_deadline = milliseconds(50);
  Pair pair(limits);
  pair.write(frame("whole") + std::string("\0\0\0\x10half", 8));
  pair.until([&] { return !pair.reason.empty(); });
  CHECK(pair.frames == std::vector<std::string>{"whole"});
  CHECK(pair.reason == "a message was not complete 50 ms after its first byte");
}

TEST_CASE("a silent peer with no half frame is left alone") {
  StreamLimits limits;
  limits.frame_deadline = milliseconds(1);
  Pair pair(limits);
  pair.write(frame("a"));
  bool later = false;
  Timer timer(pair.loop);
  timer.start(milliseconds(20), [&] { later = true; });
  pair.until([&] { return later; });
  CHECK(pair.stream->open());
}

TEST_CASE("the end of the stream, between frames and inside one") {
  Pair pair;
  SUBCASE("between") {
    pair.write(frame("last"));
  }
  SUBCASE("inside") {
    pair.write("\0");
  }
  pair.peer.reset();
  pair.until([&] { return !pair.reason.empty(); });
  CHECK(pair.closed_by_peer);
}

TEST_CASE("a peer that never reads is closed when the queue is full, in bytes or in messages") {
  StreamLimits limits;
  limits.queue_bytes = 1 << 20;
  limits.queue_messages = 100;
  Pair pair(limits);
  std::size_t body = 0;
  SUBCASE("bytes") {
    body = 300'000;
  }
  SUBCASE("messages") {
    body = 10'000;
  }
  int sent = 0;
  while (pair.stream->open() && sent < 1000) {
    pair.stream->send(std::string(body, 'x'));
    ++sent;
    pair.one_round();
  }
  CHECK_FALSE(pair.stream->open());
  CHECK(pair.reason.find("it does not read") != std::string::npos);
}

TEST_CASE("a peer that stops reading is closed at the write deadline") {
  StreamLimits limits;
  limits.write_deadline = milliseconds(30);
  Pair pair(limits);
  pair.stream->send(std::string(1 << 20, 'x'));
  pair.until([&] { return !pair.reason.empty(); });
  CHECK(pair.reason == "it did not read for 30 ms");
}

TEST_CASE("what is queued in one round arrives whole and in order") {
  Pair pair;
  for (int at = 0; at < 100; ++at) pair.stream->send(std::to_string(at));
  FrameDecoder decoder;
  int next = 0;
  pair.one_round();
  std::array<char, 4096> buffer;
  const ssize_t count = read(pair.peer.get(), buffer.data(), buffer.size());
  REQUIRE(count > 0);
  decoder.feed({buffer.data(), static_cast<std::size_t>(count)});
  for (auto got = decoder.next(); got && *got; got = decoder.next()) CHECK(**got == std::to_string(next++));
  CHECK(next == 100);
}

TEST_CASE("finish() writes what is queued, then closes") {
  Pair pair;
  pair.stream->send("goodbye");
  pair.stream->finish();
  pair.until([&] { return !pair.stream->open(); });
  const auto bytes = read_all(pair.peer.get(), 100);
  REQUIRE(bytes);
  CHECK(*bytes == frame("goodbye"));
}

TEST_CASE("descriptors come along, a flood of them closes the stream, and who takes none gets none") {
  Fd null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  StreamLimits limits;
  SUBCASE("taken") {
    limits.descriptors = 4;
    Pair pair(limits);
    const int fds[] = {null.get(), null.get()};
    REQUIRE(send_packet(pair.peer.get(), frame("with"), fds));
    pair.until([&] { return !pair.frames.empty(); });
    CHECK(pair.stream->take_descriptors().size() == 2);
    CHECK(pair.stream->take_descriptors().empty());
  }
  SUBCASE("flood") {
    limits.descriptors = 4;
    Pair pair(limits);
    const int fds[] = {null.get(), null.get(), null.get()};
    REQUIRE(send_packet(pair.peer.get(), std::string_view("\0", 1), fds));
    REQUIRE(send_packet(pair.peer.get(), std::string_view("\0", 1), fds));
    pair.until([&] { return !pair.reason.empty(); });
    CHECK(pair.reason.find("descriptors") != std::string::npos);
  }
  SUBCASE("none wanted") {
    Pair pair(limits);
    const int fds[] = {null.get()};
    REQUIRE(send_packet(pair.peer.get(), frame("with"), fds));
    pair.until([&] { return !pair.frames.empty(); });
    CHECK(pair.stream->take_descriptors().empty());
    CHECK(pair.stream->open());
  }
}

TEST_CASE("a stream may be destroyed by its own frame") {
  Pair pair;
  pair.stream.reset();
  auto sockets = std::move(*socket_pair(SOCK_STREAM));
  std::unique_ptr<FrameStream> stream;
  int seen = 0;
  stream = std::make_unique<FrameStream>(pair.loop, std::move(sockets.first), StreamLimits{},
                                         FrameStream::Handlers{.frame =
                                                                   [&](std::string_view) {
                                                                     ++seen;
                                                                     stream.reset();
                                                                   },
                                                               .closed = [](const std::string&, bool) {}});
  REQUIRE(write_all(sockets.second.get(), frame("one") + frame("two")));
  pair.until([&] { return stream == nullptr; });
  CHECK(seen == 1);
}

}  // namespace
}  // namespace kai
