#include "supervisor/control/service_probe.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <optional>

#include <arpa/inet.h>
#include <doctest/doctest.h>

#include "base/fd.h"
#include "tests/unit/control/temp_directory.h"

namespace kai {
namespace {

Result<> probe(const std::string& address) {
  EventLoop loop;
  std::optional<Result<>> answer;
  {
    const ServiceProbe asked(loop, address, [&](const Result<>& result) { answer = result; });
    CHECK_FALSE(answer);
    loop.run_until([&] { return answer.has_value(); });
  }
  loop.finish_work();
  return *answer;
}

TEST_CASE("a service answers when somebody takes a connection") {
  const Fd server(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::bind(server.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  socklen_t size = sizeof address;
  REQUIRE(::getsockname(server.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
  const std::string tcp = "tcp:127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  const auto refused = probe(tcp);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message() == "connect " + tcp + ": Connection refused");
  REQUIRE(::listen(server.get(), 4) == 0);
  CHECK(probe(tcp));
}

TEST_CASE("the same at a path") {
  const TempDirectory directory;
  const std::string path = directory / "service.sock";
  const auto missing = probe("unix:" + path);
  REQUIRE_FALSE(missing);
  CHECK(missing.error().error_number == ENOENT);
  const Fd server(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.c_str(), path.size());
  REQUIRE(::bind(server.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::listen(server.get(), 4) == 0);
  CHECK(probe("unix:" + path));
}

TEST_CASE("an address that is none says so") {
  for (const char* wrong : {"", "unix:", "tcp:", "tcp:host", "tcp::80", "http://x", "tcp:127.0.0.1:http"}) {
    CAPTURE(wrong);
    CHECK_FALSE(probe(wrong));
  }
}

TEST_CASE("one that is not waited for any more calls nobody") {
  EventLoop loop;
  bool called = false, over = false;
  {
    const ServiceProbe gone(loop, "tcp:127.0.0.1:1", [&](const Result<>&) { called = true; });
  }
  loop.finish_work();
  loop.defer([&] { over = true; });
  loop.run_until([&] { return over; });
  CHECK_FALSE(called);
}

}  // namespace
}  // namespace kai
