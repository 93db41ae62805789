// An AgentTraffic between real sockets: an agent's network namespace as its starter makes it (sandbox/network.h), and
// another one that stands for the host's, with servers of the test's own. One thread: whoever waits turns the loop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "proto/egress.pb.h"
#include "supervisor/egress/connection.h"

namespace kai::egress {

/// Servers stand here: the host's own addresses in the test's namespace. kOwnPublic is an ordinary public address, and
/// the host's all the same.
inline constexpr const char* kServer4 = "127.0.0.1";
inline constexpr const char* kServer6 = "::1";
inline constexpr const char* kOwnPublic = "93.184.216.34";
inline constexpr std::uint16_t kHttpPort = 80, kTlsPort = 443, kAnyPort = 7000, kEitherPort = 8443;

/// A TCP socket of a test, non-blocking.
class Peer {
 public:
  Peer() = default;
  explicit Peer(Fd socket) : socket_(std::move(socket)) {}
  [[nodiscard]] int fd() const { return socket_.get(); }
  [[nodiscard]] bool valid() const { return socket_.valid(); }
  /// What was received; reads what is there.
  const std::string& received();
  [[nodiscard]] bool ended();  ///< FIN came
  [[nodiscard]] bool reset();  ///< RST came
  /// How many bytes the socket took.
  std::size_t send(std::string_view bytes);
  void finish();       ///< FIN: nothing more is sent
  void close();        ///< FIN, or RST where something was not read
  void close_reset();  ///< RST

 private:
  Fd socket_;
  std::string received_;
  bool ended_ = false, reset_ = false;
};

class Rig {
 public:
  /// Allowed: "allowed.test" and what is below "wide.test", at every port above; hosts has "allowed.test" at kServer4,
  /// "six.test" at kServer6, and more that the tests name.
  Rig();
  ~Rig();
  Rig(const Rig&) = delete;
  Rig& operator=(const Rig&) = delete;

  static Rules default_rules();
  static void map(Rules& rules, const std::string& name, const std::string& address);
  void rules_changed();

  /// A connection of the agent's to the address that stands for `name`.
  Peer connect(const std::string& name, std::uint16_t port, bool six = false);
  Peer connect_literal(const std::string& address, std::uint16_t port);
  /// A server's socket, listening in the host's namespace.
  Fd listen(const std::string& address, std::uint16_t port, int backlog = 4096);
  /// The next connection that comes in there; not valid when none came.
  Peer accept(const Fd& listener);

  /// Turns the loop until `done`; false: not within `patience`.
  bool until(const std::function<bool()>& done, std::chrono::milliseconds patience = std::chrono::seconds(60));
  /// The one refusal that comes, or an empty one.
  Refused refusal();
  Snapshot snapshot() const;

  Rules rules;
  std::vector<Opened> opened;
  std::vector<Closed> closed;
  std::vector<Refused> refused;
  std::unique_ptr<Reactor> reactor;
  std::unique_ptr<Resolver> resolver;
  PipePool pipes;
  std::unique_ptr<SyntheticNames> names;
  std::unique_ptr<AgentTraffic> traffic;

 private:
  struct Listener {
    Fd socket;
    Reactor::Watch watch;
  };
  Fd agent_network_, host_network_;  // this thread is in the second
  std::vector<std::unique_ptr<Listener>> listeners_;
};

/// A ClientHello; without `name`, without server_name.
std::string client_hello(const std::string& name, bool encrypted_inner = false);

}  // namespace kai::egress
