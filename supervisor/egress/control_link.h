// To the control of now: what happened goes out, questions come in. Control may die and come back at any time; what it
// did not read is kept within bounds, and beyond them counted.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>

#include "base/fd.h"
#include "proto/egress.pb.h"
#include "supervisor/egress/reactor.h"

namespace kai::egress {

class ControlLink {
 public:
  static constexpr std::size_t kMaxWaiting = 4096;  ///< events that control has not taken yet

  using OnQuery = std::function<void(const egress::Query& query)>;
  ControlLink(Reactor& reactor, OnQuery on_query) : reactor_(reactor), on_query_(std::move(on_query)) {}

  /// SOCK_SEQPACKET, in place of the one before.
  Result<> use(Fd socket);
  void tell(const egress::Event& event);

 private:
  void on_ready();
  void flush();
  void drop();

  Reactor& reactor_;
  OnQuery on_query_;
  Fd socket_;
  Reactor::Watch watch_;
  std::deque<std::string> waiting_;
  std::uint64_t lost_ = 0;
};

}  // namespace kai::egress
