#include "supervisor/memory/redis_connection.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/text.h"

namespace kai {

namespace {

constexpr std::size_t kMaxWritevParts = 64;
constexpr int kReadsARound = 16;  // of the loop's 64 KiB each: then others have their turn

/// hiredis' own makers of replies, but for an array that claims more elements than any answer of ours has: it is what
/// memory is reserved for before the elements are there.
redisReplyObjectFunctions& bounded_functions() {
  static const auto* const kHiredis = [] {
    redisReader* reader = redisReaderCreate();
    const redisReplyObjectFunctions* functions = reader->fn;  // static in hiredis
    redisReaderFree(reader);
    return functions;
  }();
  static redisReplyObjectFunctions bounded = [] {
    redisReplyObjectFunctions functions = *kHiredis;
    functions.createArray = [](const redisReadTask* task, int elements) -> void* {
      return elements > kMaxRedisReplyElements ? nullptr : kHiredis->createArray(task, elements);
    };
    return functions;
  }();
  return bounded;
}

std::string connect_error(int socket) {
  int error = 0;
  socklen_t size = sizeof error;
  if (getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size) < 0) error = errno;
  return error == 0 ? std::string() : std::strerror(error);
}

}  // namespace

std::string encode_redis_command(std::span<const std::string_view> arguments) {
  std::size_t size = 16;
  for (const auto argument : arguments) size += argument.size() + 16;
  std::string out;
  out.reserve(size);
  out += '*' + std::to_string(arguments.size()) + "\r\n";
  for (const auto argument : arguments) {
    out += '$' + std::to_string(argument.size()) + "\r\n";
    out += argument;
    out += "\r\n";
  }
  return out;
}

RedisConnection::RedisConnection(EventLoop& loop, Fd socket, Events events)
    : loop_(loop),
      socket_(std::move(socket)),
      events_(std::move(events)),
      reader_(redisReaderCreateWithFunctions(&bounded_functions()), redisReaderFree),
      deadline_(loop) {}

std::shared_ptr<RedisConnection> RedisConnection::make(EventLoop& loop, Fd socket, Events events) {
  std::shared_ptr<RedisConnection> self(new RedisConnection(loop, std::move(socket), std::move(events)));
  self->poll_ = std::make_unique<Poll>(loop, self->socket_.get(), [raw = self.get()](int ready) { raw->ready(ready); });
  self->poll_->watch(UV_READABLE | UV_WRITABLE);
  return self;
}

RedisConnection::~RedisConnection() = default;

void RedisConnection::send(RedisCommand command) {
  if (pending_.empty()) {
    oldest_since_ = loop_.now_ms();
    if (!deadline_.active()) watch_deadline(kRedisDeadline);
  }
  pending_.push_back(std::move(command));
  flush();
}

std::deque<RedisCommand> RedisConnection::close() {
  closed_ = true;
  deadline_.stop();
  poll_->watch(0);
  return std::exchange(pending_, {});
}

void RedisConnection::ready(int events) {
  // Whoever is told may let go of this connection meanwhile.
  const auto self = shared_from_this();
  if (closed_ || !check_connected()) return;
  if ((events & UV_READABLE) != 0) read();
  if (!closed_ && (events & UV_WRITABLE) != 0) write();
}

bool RedisConnection::check_connected() {
  if (connected_) return true;
  if (const std::string error = connect_error(socket_.get()); !error.empty()) {
    end(error);
    return false;
  }
  connected_ = true;
  events_.connected();
  return !closed_;
}

void RedisConnection::read() {
  auto& buffer = loop_.scratch();
  for (int round = 0; round < kReadsARound && !closed_; ++round) {
    const ssize_t got = recv(socket_.get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got < 0) return end(std::strerror(errno));
    if (got == 0) return end("it closed the connection");
    const auto size = static_cast<std::size_t>(got);
    unparsed_ += size;
    if (redisReaderFeed(reader_.get(), buffer.data(), size) != REDIS_OK) return end("its reply cannot be kept");
    parse();
    if (!closed_ && unparsed_ > kMaxRedisReplyBytes)
      return end("a reply has more than " + std::to_string(kMaxRedisReplyBytes) + " bytes");
    if (size < buffer.size()) return;
  }
}

void RedisConnection::parse() {
  while (!closed_) {
    void* parsed = nullptr;
    if (redisReaderGetReply(reader_.get(), &parsed) != REDIS_OK)
      return end("it does not speak redis' protocol (" + escape_for_terminal(reader_->errstr) + ")");
    if (parsed == nullptr) return;
    const std::unique_ptr<void, void (*)(void*)> owned(parsed, freeReplyObject);
    unparsed_ = reader_->len - reader_->pos;
    const auto& reply = *static_cast<const redisReply*>(parsed);
    // Before it is asked for anything a server says one thing: why it will not serve.
    if (written_ == 0) {
      const std::string text = reply.type == REDIS_REPLY_ERROR ? std::string(reply.str, reply.len) : std::string();
      return end(text.empty() ? "it sent a reply that nobody asked for"
                              : "it refuses: " + escape_for_terminal(clip_utf8(text, 200)));
    }
    RedisCommand command = std::move(pending_.front());
    pending_.pop_front();
    --written_;
    oldest_since_ = loop_.now_ms();
    events_.replied(std::move(command), reply);
  }
}

void RedisConnection::flush() {
  if (flush_due_) return;
  flush_due_ = true;
  // What one round of the loop sends goes out in one system call.
  loop_.defer([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    self->flush_due_ = false;
    if (!self->closed_ && self->connected_) self->write();
  });
}

void RedisConnection::write() {
  while (written_ < pending_.size()) {
    std::array<iovec, kMaxWritevParts> parts{};
    const std::size_t count = std::min(parts.size(), pending_.size() - written_);
    for (std::size_t i = 0; i < count; ++i) {
      std::string& bytes = pending_[written_ + i].bytes;
      const std::size_t skip = i == 0 ? offset_ : 0;
      parts[i] = {bytes.data() + skip, bytes.size() - skip};
    }
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = count;
    const ssize_t sent = sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) return poll_->watch(UV_READABLE | UV_WRITABLE);
    if (sent < 0) return end(std::strerror(errno));
    offset_ += static_cast<std::size_t>(sent);
    while (written_ < pending_.size() && offset_ >= pending_[written_].bytes.size())
      offset_ -= pending_[written_++].bytes.size();
  }
  poll_->watch(UV_READABLE);
}

void RedisConnection::watch_deadline(std::chrono::milliseconds delay) {
  deadline_.start(delay, [this] { on_deadline(); });
}

void RedisConnection::on_deadline() {
  const auto self = shared_from_this();
  // The reply may be there already, and it was this process that stood still.
  if (connected_) read();
  if (closed_ || pending_.empty()) return;
  const std::chrono::milliseconds waited{loop_.now_ms() - oldest_since_};
  if (waited >= kRedisDeadline)
    return end("it did not answer within " + std::to_string(kRedisDeadline.count() / 1000) + " s");
  watch_deadline(kRedisDeadline - waited);
}

void RedisConnection::end(const std::string& why) {
  if (closed_) return;
  closed_ = true;
  deadline_.stop();
  poll_->watch(0);
  events_.ended(why);
}

}  // namespace kai
