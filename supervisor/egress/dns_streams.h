// DNS over TCP (RFC 7766): several questions a connection, answered as they come. A client that does not read its
// answers is not read from, and what stands still for long is closed.
#pragma once

#include <list>
#include <memory>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "supervisor/egress/dns_intake.h"
#include "supervisor/egress/dns_questions.h"
#include "supervisor/egress/reactor.h"

namespace kai::egress {

class DnsStreams {
 public:
  static constexpr std::chrono::seconds kIdle{10};
  /// A question is some 300 bytes at most; more is no resolver's.
  static constexpr std::size_t kMaxQuestionBytes = 4096;

  DnsStreams(Reactor& reactor, DnsQuestions& questions, DnsIntake& intake, Fd listener);
  DnsStreams(const DnsStreams&) = delete;
  DnsStreams& operator=(const DnsStreams&) = delete;
  ~DnsStreams();

  Result<> start();
  /// The intake lets read again.
  void resume();

 private:
  class Stream;

  void accept_some();
  void closed(const Stream* stream);

  Reactor& reactor_;
  DnsQuestions& questions_;
  DnsIntake& intake_;
  Fd listener_;
  Reactor::Watch watch_;
  std::list<std::shared_ptr<Stream>> streams_;
};

}  // namespace kai::egress
