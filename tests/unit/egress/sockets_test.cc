// What egress takes of the host: whose addresses are its own, and how much kernel memory, pipes and attempts there are.
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <arpa/inet.h>
#include <doctest/doctest.h>

#include "base/unix.h"
#include "supervisor/egress/pipes.h"
#include "supervisor/egress/socket_address.h"
#include "tests/unit/egress/traffic_rig.h"

namespace {

using namespace kai;
using namespace kai::egress;
using std::chrono::milliseconds;

// Of the same network as kOwnPublic: the kernel calls it secondary.
constexpr const char* kSecondary = "93.184.216.35";

void add_secondary() {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo:2");
  sockaddr_in address{.sin_family = AF_INET};
  REQUIRE(inet_pton(AF_INET, kSecondary, &address.sin_addr) == 1);
  std::memcpy(&request.ifr_addr, &address, sizeof address);
  REQUIRE(ioctl(socket.get(), SIOCSIFADDR, &request) == 0);
}

bool own(const char* text) {
  const auto address = read_address(text);
  REQUIRE(address);
  const auto is_own = is_own_address(*address);
  REQUIRE_MESSAGE(is_own, is_own.error().message());
  return *is_own;
}

TEST_CASE("every address of the host is its own, also a secondary one of a network") {
  Rig rig;  // in a network namespace of its own
  add_secondary();
  for (const char* address : {"127.0.0.1", "127.1.2.3", "::1", kOwnPublic, kSecondary}) {
    CAPTURE(std::string(address));
    CHECK(own(address));
  }
  for (const char* address : {"8.8.8.8", "2606:4700::1111", "192.0.2.1"}) {
    CAPTURE(std::string(address));
    CHECK_FALSE(own(address));
  }
  Rig::map(rig.rules, "second.test", kSecondary);
  Peer agent = rig.connect("second.test", kAnyPort);
  CHECK(rig.until([&] { return agent.reset(); }));
  CHECK(rig.refusal().kind() == Refused::CONNECTION);
  CHECK(rig.refusal().address() == kSecondary);
}

TEST_CASE("where a socket may be bound to any address, that makes no address the host's own") {
  const Rig rig;
  for (const char* family : {"ipv4", "ipv6"}) {
    std::ofstream setting("/proc/sys/net/" + std::string(family) + "/ip_nonlocal_bind");
    setting << 1 << std::flush;
    REQUIRE(setting.good());
  }
  for (const char* address : {"127.0.0.1", "::1", kOwnPublic}) CHECK(own(address));
  for (const char* address : {"8.8.8.8", "2606:4700::1111"}) CHECK_FALSE(own(address));
}

TEST_CASE("a pipe that was made small in a moment of pressure is not kept") {
  PipePool pool;
  auto ends = make_pipe(O_NONBLOCK);
  REQUIRE(ends);
  REQUIRE(fcntl(ends->second.get(), F_SETPIPE_SZ, 8192) == 8192);
  pool.give_back({.read = std::move(ends->first), .write = std::move(ends->second), .places = 2});
  auto pipe = pool.take();
  REQUIRE(pipe);
  CHECK(fcntl(pipe->write.get(), F_GETPIPE_SZ) == PipePool::kPipeBytes);
  const int fd = pipe->write.get();
  pool.give_back(std::move(*pipe));
  auto again = pool.take();
  REQUIRE(again);
  CHECK(again->write.get() == fd);  // a whole one is
}

TEST_CASE("an agent's share of kernel memory does not grow with its connections") {
  CHECK(server_buffer(0) == 1 << 20);
  CHECK(server_buffer(64) == 1 << 20);
  CHECK(server_buffer(128) == 512 << 10);
  CHECK(server_buffer(65535) == 256 << 10);
}

TEST_CASE("who reads fast and then stops is kept little for, and goes on where it stopped") {
  constexpr int kSmall = 64 << 10;
  constexpr std::size_t kFast = 64 << 20;
  // The two sockets of egress with a pipe between, and the two of the test: what the kernel would tune to tens of MB.
  constexpr std::size_t kMost = (2U << 20) + (256U << 10) + 4U * kSmall;
  for (const bool upload : {true, false}) {
    CAPTURE(upload);
    Rig rig;
    rig.rules.mutable_limits()->set_connections(64);
    const Fd listener = rig.listen(kServer4, kAnyPort);
    Peer agent = rig.connect("allowed.test", kAnyPort), server = rig.accept(listener);
    REQUIRE(server.valid());
    Peer &sender = upload ? agent : server, &receiver = upload ? server : agent;
    REQUIRE(setsockopt(sender.fd(), SOL_SOCKET, SO_SNDBUF, &kSmall, sizeof kSmall) == 0);
    REQUIRE(setsockopt(receiver.fd(), SOL_SOCKET, SO_RCVBUF, &kSmall, sizeof kSmall) == 0);
    const std::string bytes(1 << 18, 'x');
    std::vector<char> buffer(1 << 18);
    std::size_t sent = 0, received = 0;
    const auto receive = [&] {
      const ssize_t got = recv(receiver.fd(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (got > 0) received += static_cast<std::size_t>(got);
    };
    REQUIRE(rig.until([&] {
      sent += sender.send(bytes);
      receive();
      return received > kFast;
    }));
    auto last = Clock::now();
    REQUIRE(rig.until([&] {
      const std::size_t now = sender.send(bytes);
      sent += now;
      if (now > 0) last = Clock::now();
      return Clock::now() - last > milliseconds(300);
    }));
    CHECK(sent - received < kMost);
    const std::size_t stopped_at = received;
    CHECK(rig.until([&] {
      sent += sender.send(bytes);
      receive();
      return received > stopped_at + kFast;
    }));
  }
}

TEST_CASE("an address that is named twice is tried once") {
  Rig rig;
  rig.rules.clear_hosts();
  for (int at = 0; at < 3; ++at) Rig::map(rig.rules, "allowed.test", "127.0.0.9");
  Peer agent = rig.connect("allowed.test", kAnyPort);
  CHECK(rig.until([&] { return agent.reset(); }));
  CHECK(rig.refusal().reason() == "tried 127.0.0.9: Connection refused");
}

TEST_CASE("of many addresses that do not answer three are tried at a time, and the one that does is reached") {
  Rig rig;
  rig.rules.clear_hosts();
  std::vector<Fd> listeners, fillers;
  for (const char* text : {"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6"}) {
    Rig::map(rig.rules, "allowed.test", text);
    listeners.push_back(rig.listen(text, kAnyPort, 0));
    const auto address = read_address(text);
    auto filler = make_socket(*address, SOCK_STREAM);
    REQUIRE(filler);
    REQUIRE(connect_to(filler->get(), *address, kAnyPort));  // nobody accepts it
    fillers.push_back(std::move(*filler));
  }
  Rig::map(rig.rules, "allowed.test", kServer4);
  const Fd listener = rig.listen(kServer4, kAnyPort);
  const auto descriptors = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
  };
  const auto before = descriptors();
  const Peer agent = rig.connect("allowed.test", kAnyPort);
  auto most = before;
  CHECK(rig.until([&] {
    if (rig.opened.empty()) most = std::max(most, descriptors());
    return !rig.opened.empty();
  }));
  CHECK(most == before + 2 + 3);  // the agent's socket, its other end, and the attempts
  REQUIRE(rig.opened.size() == 1);
  CHECK(rig.opened[0].address() == kServer4);
  CHECK(rig.refused.empty());
}

}  // namespace
