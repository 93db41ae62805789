// kaid.sock: who may speak, how many at a time, and what becomes of the rest.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "supervisor/control/connection.h"
#include "supervisor/control/output.h"

namespace kai {

/// Whom kaid.sock lets in (contracts.md: root, kaid's own uid, the group).
struct OperatorRule {
  std::uint32_t own_uid = 0;       ///< control's
  std::uint32_t operator_uid = 0;  ///< who started kaid
  std::uint32_t group = 0;
};

class OperatorApi {
 public:
  using Handle = std::function<void(const control::Request&, std::vector<Fd>, Responder)>;

  OperatorApi(EventLoop& loop, Log& log, const OperatorRule& rule, Handle handle);
  ~OperatorApi();
  OperatorApi(const OperatorApi&) = delete;
  OperatorApi& operator=(const OperatorApi&) = delete;

  /// Binds under another name and renames: who finds the socket is served.
  Result<> listen(const std::string& path);
  /// Takes the socket away; connections stay.
  void stop_listening();

  [[nodiscard]] std::size_t connections() const { return connections_.size(); }

 private:
  void accept_some();
  bool accept_one();
  void admit(Fd socket);
  void refuse(Fd socket, const Failure& failure);
  bool make_room();

  EventLoop& loop_;
  Log& log_;
  OperatorRule rule_;
  Handle handle_;
  std::string path_;
  Fd listener_;
  Fd spare_;  // given up to accept and close one connection when there are no descriptors left
  std::unique_ptr<Poll> poll_;
  LogBudget refusals_;  // lines about strangers
  std::uint64_t last_key_ = 0;
  std::map<std::uint64_t, std::shared_ptr<Connection>> connections_;
};

}  // namespace kai
