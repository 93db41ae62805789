// sd_notify(3)'s protocol: one datagram to the socket that the service manager named. Own code, as libsystemd would
// bring compression and more into the only privileged process for these few lines.
#pragma once

#include <string>
#include <string_view>

namespace kai::keeper {

class ServiceManager {
 public:
  /// Takes NOTIFY_SOCKET out of the environment; none: notify does nothing.
  ServiceManager();
  /// Sends a state like "READY=1".
  void notify(std::string_view state) const;
  [[nodiscard]] const std::string& socket_path() const { return socket_path_; }

 private:
  std::string socket_path_;
};

}  // namespace kai::keeper
