// sd_notify(3)'s protocol: datagrams to the socket that the service manager named, and the descriptors that it gives
// (sd_listen_fds(3)). Own code, as libsystemd would bring compression and more into the only privileged process for
// these few lines.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/fd.h"
#include "base/result.h"

namespace kai::keeper {

class ServiceManager {
 public:
  /// Takes NOTIFY_SOCKET out of the environment; none: notify does nothing.
  ServiceManager();
  /// Sends a state like "READY=1".
  void notify(std::string_view state) const;
  [[nodiscard]] const std::string& socket_path() const { return socket_path_; }

  /// Whether what is stored is kept (FileDescriptorStoreMax of the unit): tried, with a pipe, in bounded time.
  [[nodiscard]] bool keeps_descriptors() const;
  /// Into the store, until it is taken out by its name; the next start of the unit is given it. Never waits: EAGAIN,
  /// call again later.
  Result<> store(const std::string& name, const Fd& fd) const;
  Result<> unstore(const std::string& name) const;

 private:
  Result<> send(std::string_view state, int fd, int flags) const;
  void connect();

  std::string socket_path_;
  Fd socket_;
};

/// What the store gave to this start, by name, close-on-exec. Takes LISTEN_* out of the environment.
std::multimap<std::string, Fd> take_stored();

}  // namespace kai::keeper
