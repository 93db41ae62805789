// A kaid of the test's own making: it takes one connection after another on a real socket and answers as it is told.
#pragma once

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.h"
#include "proto/control.pb.h"
#include "proto/frame.h"

namespace kai::test {

/// A directory of its own, removed with all that is in it.
class ScratchDirectory {
 public:
  ScratchDirectory();
  ~ScratchDirectory();
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// The daemon's end of one connection. Waits are bounded by the test program's own end (ctest's time limit).
class Connection {
 public:
  explicit Connection(Fd socket) : socket_(std::move(socket)) {}

  /// The next request; its descriptors go to `fds`. False: the client is gone.
  bool receive(control::Request& request, std::vector<Fd>& fds);
  void send_bytes(std::string_view bytes);
  void send(const control::Response& response);
  /// Waits until the client hangs up.
  void wait_for_hangup();

  void done(const control::Request& request, const std::string& json, const std::vector<std::string>& warnings = {});
  void failed(const control::Request& request, const std::string& code, const std::string& message,
              const std::string& hint = "");
  void record(const control::Request& request, const std::string& json);

 private:
  Fd socket_;
  FrameDecoder decoder_;
};

class FakeDaemon {
 public:
  using Handler = std::function<void(Connection&)>;
  /// Serves `connections` connections, each by `handler`, in a thread of its own.
  explicit FakeDaemon(Handler handler, int connections = 1);
  ~FakeDaemon();
  FakeDaemon(const FakeDaemon&) = delete;
  FakeDaemon& operator=(const FakeDaemon&) = delete;

  [[nodiscard]] const std::string& socket() const { return socket_path_; }
  /// Waits until all connections were served: what the handler wrote may be read then.
  void join();

  /// A handler that answers the one request with `json`.
  static Handler answering(std::string json);
  static Handler failing(std::string code, std::string message, std::string hint = "");

 private:
  ScratchDirectory directory_;
  std::string socket_path_;
  Fd listener_;
  std::thread thread_;
};

}  // namespace kai::test
