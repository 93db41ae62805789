#include "supervisor/control/egress_client.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <string>
#include <utility>

#include "base/unix.h"
#include "supervisor/control/connection_log.h"

namespace kai {
namespace {

constexpr std::size_t kMaxEventBytes = 512 << 10;  // a snapshot with every list full
constexpr std::chrono::milliseconds kAnswerDeadline{2'000};
constexpr int kEventsInOneTurn = 256;  // other agents' messages wait no longer

/// The instance that an event is about; 0: none.
std::uint64_t instance_of(const egress::Event& event) {
  if (event.has_opened()) return event.opened().instance();
  if (event.has_closed()) return event.closed().instance();
  return event.refused().instance();
}

}  // namespace

void EgressClient::use(Fd socket, bool again) {
  drop();
  socket_ = std::move(socket);
  garbled_ = false;
  poll_ = std::make_unique<Poll>(loop_, socket_.get(), [this](int) { readable(); });
  poll_->watch(UV_READABLE);
  if (!again) return;
  constexpr std::string_view kWhat =
      "another egress has taken the place of the one before: agents' connections of before are gone, new ones are made";
  log_.write(LogLevel::kWarn, "", "kai.restarted", kWhat);
  audit_.append("", "error", fields_json(kWhat, {}));
}

void EgressClient::drop() {
  poll_.reset();
  socket_.reset();
  while (!questions_.empty()) answer(questions_.front().id, nullptr);
}

void EgressClient::readable() {
  for (int taken = 0; taken < kEventsInOneTurn; ++taken) {
    auto packet = receive_packet(socket_.get(), kMaxEventBytes, MSG_DONTWAIT);
    if (!packet && packet.error().error_number == EAGAIN) return;
    // The keeper sees it end, and brings the socket to the next one.
    if (!packet || packet->bytes.empty()) return drop();
    egress::Event event;
    if (event.ParseFromString(packet->bytes)) {
      dispatch(event);
    } else if (!std::exchange(garbled_, true)) {
      log_.write(LogLevel::kError, "", "error",
                 "kai-egress says what is no event: that is not listened to, the rest is");
    }
  }
}

void EgressClient::dispatch(const egress::Event& event) {
  switch (event.kind_case()) {
    case egress::Event::kSnapshot:
      return answer(event.snapshot().id(), &event.snapshot());
    case egress::Event::kLost:
      return log_.write(LogLevel::kWarn, "", "kai.dropped", "events of agents' connections were lost: control was busy",
                        {{"dropped", event.lost().events()}});
    case egress::Event::KIND_NOT_SET:
      return;
    default:
      if (!keeper_.tell_network(instance_of(event), event)) log_late(instance_of(event), event);
  }
}

void EgressClient::ended(std::uint64_t instance, const std::string& agent) {
  ended_.emplace_back(instance, agent);
  if (ended_.size() > kMostEnded) ended_.pop_front();
}

void EgressClient::log_late(std::uint64_t instance, const egress::Event& event) {
  const auto found =
      std::find_if(ended_.begin(), ended_.end(), [&](const auto& each) { return each.first == instance; });
  if (found != ended_.end() && !event.has_refused()) ConnectionLog(loop_, log_, found->second).write(event);
}

void EgressClient::snapshot(std::uint64_t instance, Answer answer) {
  egress::Query query;
  query.set_id(++last_id_);
  query.set_instance(instance);
  if (!socket_ || !send_packet(socket_.get(), query.SerializeAsString())) return answer(nullptr);
  Question& question = questions_.emplace_back(last_id_, std::move(answer), loop_);
  question.deadline.start(kAnswerDeadline, [this, id = last_id_] { this->answer(id, nullptr); });
}

void EgressClient::answer(std::uint64_t id, const egress::Snapshot* snapshot) {
  const auto found =
      std::find_if(questions_.begin(), questions_.end(), [&](const auto& each) { return each.id == id; });
  if (found == questions_.end()) return;
  const Answer action = std::move(found->answer);
  questions_.erase(found);
  action(snapshot);
}

}  // namespace kai
