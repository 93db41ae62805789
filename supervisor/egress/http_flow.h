// A flow from agent to server that goes through this process, since every request on it has to name the host that was
// connected to (http_requests.h). What has not been checked does not go on.
#pragma once

#include <string>

#include "supervisor/egress/flow.h"
#include "supervisor/egress/http_requests.h"

namespace kai::egress {

class HttpFlow final : public Flow {
 public:
  HttpFlow(std::string host, std::uint16_t port) : requests_(std::move(host), port) {}
  Step move(Side& from, Side& to, std::uint64_t most) override;

  /// Reads until the first head is whole and right (kMore); kEnded: the agent has ended before.
  Step look(Side& from);
  /// A head has begun and is not whole.
  [[nodiscard]] bool in_head() const { return checked_ == 0 && !bytes_.empty(); }
  [[nodiscard]] std::uint64_t requests() const { return requests_.requests(); }

 private:
  bool fill(Side& from, std::uint64_t most, Step& step);
  bool drain(Side& to, Step& step);
  void check();

  HttpRequests requests_;
  std::string bytes_;        // read and not yet passed on: at most one read and kMaxRequestHeadBytes
  std::size_t checked_ = 0;  // so many of them may go on
  std::string fault_;
  bool end_ = false;  // `from` has ended
};

}  // namespace kai::egress
