#include "supervisor/egress/dns_streams.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>
#include <vector>

namespace kai::egress {
namespace {

/// Answers that the client does not take: no more questions are read beyond that.
constexpr std::size_t kMaxUnsent = 8 << 10;
constexpr int kMaxUnanswered = 16;
/// The kernel would else keep megabytes for a client that does not read (tcp(7)).
constexpr int kSocketBuffer = 16 << 10;

}  // namespace

class DnsStreams::Stream : public std::enable_shared_from_this<Stream> {
 public:
  Stream(DnsStreams& streams, Fd socket)
      : streams_(streams), socket_(std::move(socket)), idle_(streams.reactor_, [this] { close(); }) {}

  Result<> start() {
    for (const int option : {SO_SNDBUF, SO_RCVBUF}) {
      if (setsockopt(socket_.get(), SOL_SOCKET, option, &kSocketBuffer, sizeof kSocketBuffer) < 0) {
        return errno_failure("setsockopt", "SO_SNDBUF");
      }
    }
    auto watch =
        streams_.reactor_.watch(socket_.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP, [this](std::uint32_t) { go_on(); });
    if (!watch) return tl::unexpected(watch.error());
    watch_ = std::move(*watch);
    idle_.arm_in(kIdle);
    return {};
  }

  /// Writes and reads what there is.
  void go_on() {
    if (busy_) return;
    const auto self = shared_from_this();
    busy_ = true;
    const bool lives = write_and_read();
    busy_ = false;
    if (!lives) close();
  }

 private:
  enum class Taken { kQuestion, kNothing, kWrong };

  /// False: the connection has ended.
  bool write_and_read() {
    for (;;) {
      if (!flush()) return false;
      if (unsent_.size() >= kMaxUnsent || unanswered_ >= kMaxUnanswered) return true;
      const Taken taken = take_question();
      if (taken == Taken::kWrong) return false;
      if (taken == Taken::kNothing && !receive_some()) break;
    }
    return !at_end_ || unanswered_ > 0 || !unsent_.empty();
  }

  /// How many bytes the question at the front of what was received has, with the two of its length; 2: not known yet.
  [[nodiscard]] std::size_t whole() const {
    if (received_.size() < 2) return 2;
    return 2 + static_cast<std::uint8_t>(received_[0]) * std::size_t{256} + static_cast<std::uint8_t>(received_[1]);
  }

  Taken take_question() {
    const std::size_t size = whole();
    if (size - 2 > kMaxQuestionBytes) return Taken::kWrong;
    if (received_.size() < 2 || received_.size() < size) return Taken::kNothing;
    auto query = dns::read_query({reinterpret_cast<const std::uint8_t*>(received_.data()) + 2, size - 2});
    received_.clear();  // receive_some() takes one question's bytes at most
    if (!query) return Taken::kWrong;
    ++unanswered_;
    if (unsent_.empty()) idle_.arm_in(kIdle);
    streams_.questions_.ask(std::move(*query),
                            [stream = weak_from_this()](const dns::Query& asked, const dns::Answer& answer) {
                              if (const auto self = stream.lock())
                                self->send_answer(dns::write_answer(asked, answer, dns::kMaxMessageBytes));
                            });
    return Taken::kQuestion;
  }

  /// False: nothing more now, or ever.
  bool receive_some() {
    if (at_end_ || !streams_.intake_.take()) return false;
    std::array<char, 1024> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled by recv
    const std::size_t most = std::min(buffer.size(), whole() - received_.size());
    const ssize_t size = recv(socket_.get(), buffer.data(), most, 0);
    if (size > 0) {
      received_.append(buffer.data(), static_cast<std::size_t>(size));
      return true;
    }
    at_end_ = size == 0 || (errno != EAGAIN && errno != EINTR);
    return false;
  }

  void send_answer(const std::string& message) {
    --unanswered_;
    if (!socket_) return;
    unsent_ += static_cast<char>(message.size() >> 8U);
    unsent_ += static_cast<char>(message.size() & 0xFFU);
    unsent_ += message;
    go_on();
  }

  /// False: the client is gone. Only a client that has taken all of its answers has its time anew: a trickle is not
  /// enough.
  bool flush() {
    while (!unsent_.empty()) {
      const ssize_t sent = send(socket_.get(), unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
      if (sent < 0) return errno == EAGAIN || errno == EINTR;
      unsent_.erase(0, static_cast<std::size_t>(sent));
      if (unsent_.empty()) idle_.arm_in(kIdle);
    }
    return true;
  }

  void close() {
    idle_.stop();
    watch_.stop();
    socket_.reset();
    streams_.closed(this);
  }

  DnsStreams& streams_;
  Fd socket_;
  Reactor::Watch watch_;
  Reactor::Timer idle_;
  std::string received_, unsent_;
  int unanswered_ = 0;
  bool at_end_ = false, busy_ = false;
};

DnsStreams::DnsStreams(Reactor& reactor, DnsQuestions& questions, DnsIntake& intake, Fd listener)
    : reactor_(reactor), questions_(questions), intake_(intake), listener_(std::move(listener)) {}

DnsStreams::~DnsStreams() = default;

Result<> DnsStreams::start() {
  auto watch = reactor_.watch(listener_.get(), EPOLLIN, [this](std::uint32_t) { accept_some(); });
  if (!watch) return tl::unexpected(watch.error());
  watch_ = std::move(*watch);
  return {};
}

void DnsStreams::accept_some() {
  while (intake_.take()) {
    Fd socket(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket && errno == EAGAIN) return;
    // Out of descriptors or memory: those who wait may be lucky in a moment. Else one connection that is gone.
    if (!socket && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) return intake_.pause();
    if (!socket || streams_.size() >= DnsServer::kMaxStreams) continue;
    auto stream = std::make_shared<Stream>(*this, std::move(socket));
    if (stream->start()) streams_.push_back(std::move(stream));
  }
}

void DnsStreams::resume() {
  const std::vector<std::shared_ptr<Stream>> streams(streams_.begin(), streams_.end());
  for (const auto& stream : streams) stream->go_on();
  accept_some();
}

void DnsStreams::closed(const Stream* stream) {
  std::erase_if(streams_, [stream](const auto& one) { return one.get() == stream; });
}

}  // namespace kai::egress
