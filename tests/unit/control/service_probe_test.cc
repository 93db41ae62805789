#include "supervisor/control/service_probe.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <memory>
#include <optional>

#include <arpa/inet.h>
#include <doctest/doctest.h>

#include "base/fd.h"
#include "base/unix.h"
#include "tests/unit/control/fake_keeper.h"
#include "tests/unit/control/temp_directory.h"

namespace kai {
namespace {

struct Fixture {
  Fixture() {
    auto pair = socket_pair(SOCK_SEQPACKET);
    REQUIRE(pair);
    keeper = std::make_unique<test::FakeKeeper>(loop, std::move(pair->first));
    client = std::make_unique<KeeperClient>(loop, std::move(pair->second));
  }

  Result<> probe(const std::string& address) {
    std::optional<Result<>> answer;
    {
      const ServiceProbe asked(loop, *client, address, [&](const Result<>& result) { answer = result; });
      CHECK_FALSE(answer);
      loop.run_until([&] { return answer.has_value(); });
    }
    loop.finish_work();
    return *answer;
  }

  EventLoop loop;
  std::unique_ptr<test::FakeKeeper> keeper;
  std::unique_ptr<KeeperClient> client;
};

TEST_CASE("a service answers when somebody takes a connection") {
  Fixture f;
  const Fd server(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::bind(server.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  socklen_t size = sizeof address;
  REQUIRE(::getsockname(server.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
  const std::string tcp = "tcp:127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  const auto refused = f.probe(tcp);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message() == "connect " + tcp + ": Connection refused");
  REQUIRE(::listen(server.get(), 4) == 0);
  CHECK(f.probe(tcp));
}

TEST_CASE("at a path the keeper tries it, and control believes its word alone") {
  Fixture f;
  const TempDirectory directory;
  const std::string address = "unix:" + (directory / "service.sock");
  const auto refused = f.probe(address);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message() == "connect " + address + ": Connection refused");
  f.keeper->services = {address};
  CHECK(f.probe(address));
}

TEST_CASE("an address that is none says so") {
  Fixture f;
  for (const char* wrong : {"", "unix:", "tcp:", "tcp:host", "tcp::80", "http://x", "tcp:127.0.0.1:http"}) {
    CAPTURE(wrong);
    CHECK_FALSE(f.probe(wrong));
  }
}

TEST_CASE("one that is not waited for any more calls nobody") {
  Fixture f;
  bool called = false, over = false;
  for (const char* address : {"tcp:127.0.0.1:1", "unix:/run/db.sock"}) {
    const ServiceProbe gone(f.loop, *f.client, address, [&](const Result<>&) { called = true; });
  }
  f.loop.finish_work();
  // The keeper answers in order: once it has answered this, it has answered the probe.
  keeper::Request usage;
  usage.mutable_usage();
  f.client->request(usage, {}, [&](const keeper::Reply&, const auto&) { f.loop.defer([&] { over = true; }); });
  f.loop.run_until([&] { return over; });
  CHECK_FALSE(called);
}

}  // namespace
}  // namespace kai
