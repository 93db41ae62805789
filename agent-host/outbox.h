// Bytes on their way into a stream socket whose other end may be slow or hostile. Never blocks; its owner holds its
// size to a limit before adding (agent-host/limits.h).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace kai {

class Outbox {
 public:
  void add(std::string_view bytes);
  /// Where a writer appends by itself (append_frame).
  std::string& buffer() { return buffer_; }
  /// Sends what the socket takes now. False: the other end is gone; what waited is dropped.
  bool flush(int socket);
  /// What waits.
  [[nodiscard]] std::size_t size() const { return buffer_.size() - start_; }
  [[nodiscard]] bool empty() const { return size() == 0; }

 private:
  std::string buffer_;
  std::size_t start_ = 0;  // sent already
};

}  // namespace kai
