#include "supervisor/control/keeper_client.h"

#include "base/text.h"
#include "base/unix.h"

namespace kai {
namespace {

constexpr std::size_t kMaxReplyBytes = 16 << 10;

keeper::Reply failed_reply(const Error& error) {
  keeper::Reply reply;
  reply.mutable_failed()->set_step("request");
  reply.mutable_failed()->set_errno_value(error.error_number);
  reply.mutable_failed()->set_detail("asking the keeper: " + error.what);
  return reply;
}

}  // namespace

KeeperClient::KeeperClient(EventLoop& loop, Fd socket)
    : socket_(std::move(socket)),
      loop_(loop),
      // A control that is started again goes on above whatever the one before it used.
      last_instance_(static_cast<std::uint64_t>(unix_ms()) << 16) {
  static_cast<void>(set_nonblocking(socket_.get()));
  poll_ = std::make_unique<Poll>(loop_, socket_.get(), [this](int ready) {
    if ((ready & UV_WRITABLE) != 0) flush();
    if ((ready & UV_READABLE) != 0) readable();
  });
  poll_->watch(UV_READABLE);
}

Result<KeeperClient::Greeting> KeeperClient::receive_hello(int socket) {
  auto packet = receive_packet(socket, kMaxReplyBytes);
  if (!packet) return tl::unexpected(packet.error());
  keeper::Reply reply;
  if (!reply.ParseFromString(packet->bytes) || !reply.has_hello()) {
    return failure("the keeper's first packet is no hello");
  }
  if (packet->fds.size() != 1) return failure("the keeper's hello came without the policies");
  Greeting greeting{reply.hello(), std::move(packet->fds.front()), {}};
  for (std::uint32_t left = greeting.hello.adoptable(); left > 0; --left) {
    auto next = receive_packet(socket, kMaxReplyBytes);
    if (!next) return tl::unexpected(next.error());
    if (!reply.ParseFromString(next->bytes) || !reply.has_adoptable()) {
      return failure("the keeper announced an instance and did not describe it");
    }
    greeting.adoptions.push_back({reply.adoptable(), std::move(next->fds)});
  }
  return greeting;
}

void KeeperClient::request(keeper::Request request, std::vector<Fd> descriptors, Answer answer) {
  request.set_id(++last_id_);
  if (answer) answers_.emplace(last_id_, std::move(answer));
  queue_.push_back({last_id_, request.SerializeAsString(), std::move(descriptors)});
  // At once, not with the round's other writes: a start waits for it.
  if (queue_.size() == 1) flush();
}

void KeeperClient::flush() {
  while (!queue_.empty()) {
    Packet& packet = queue_.front();
    std::vector<int> fds;
    for (const Fd& fd : packet.descriptors) fds.push_back(fd.get());
    const auto sent = send_packet(socket_.get(), packet.bytes, fds);
    if (!sent && sent.error().error_number == EAGAIN) {
      poll_->watch(UV_READABLE | UV_WRITABLE);
      return;
    }
    if (!sent) loop_.defer([this, id = packet.id, reply = failed_reply(sent.error())] { answer(id, reply, {}); });
    queue_.pop_front();
  }
  poll_->watch(UV_READABLE);
}

void KeeperClient::readable() {
  for (;;) {
    auto packet = receive_packet(socket_.get(), kMaxReplyBytes);
    if (!packet && packet.error().error_number == EAGAIN) return;
    keeper::Reply reply;
    if (!packet || packet->bytes.empty() || !reply.ParseFromString(packet->bytes)) {
      poll_->watch(0);
      if (events_.lost) events_.lost(packet ? "the keeper closed its connection" : packet.error().message());
      return;
    }
    dispatch(reply, std::move(packet->fds));
  }
}

void KeeperClient::dispatch(const keeper::Reply& reply, std::vector<Fd> descriptors) {
  if (reply.id() != 0) return answer(reply.id(), reply, std::move(descriptors));
  switch (reply.result_case()) {
    case keeper::Reply::kExited:
      if (auto ended = instances_.extract(reply.exited().instance())) ended.mapped().exited(reply.exited());
      return;
    case keeper::Reply::kLimit:
      if (const auto found = instances_.find(reply.limit().instance()); found != instances_.end()) {
        found->second.limit(reply.limit());
      }
      return;
    case keeper::Reply::kFileDenied:
      if (const auto found = instances_.find(reply.file_denied().instance()); found != instances_.end()) {
        found->second.file_denied(reply.file_denied());
      }
      return;
    case keeper::Reply::kEgress:
      if (events_.egress && descriptors.size() == 1) {
        events_.egress(std::move(descriptors.front()), reply.egress().again());
      }
      return;
    case keeper::Reply::kStopping:
      if (events_.stopping) events_.stopping();
      return;
    case keeper::Reply::kReload:
      if (events_.reload) events_.reload(reply.reload(), descriptors.empty() ? Fd() : std::move(descriptors.front()));
      return;
    default:
      return;
  }
}

void KeeperClient::answer(std::uint64_t id, const keeper::Reply& reply, std::vector<Fd> descriptors) {
  const auto found = answers_.find(id);
  if (found == answers_.end()) return;
  const auto answer = std::move(found->second);
  answers_.erase(found);
  answer(reply, std::move(descriptors));
}

bool KeeperClient::tell_network(std::uint64_t instance, const egress::Event& event) {
  const auto found = instances_.find(instance);
  if (found == instances_.end()) return false;
  found->second.network(event);
  return true;
}

void KeeperClient::kill(std::uint64_t instance) {
  keeper::Request kill;
  kill.mutable_kill()->set_instance(instance);
  request(std::move(kill), {}, nullptr);
}

std::uint64_t KeeperClient::new_instance(InstanceEvents events) {
  instances_.emplace(++last_instance_, std::move(events));
  return last_instance_;
}

}  // namespace kai
