#include "supervisor/egress/upstream.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <utility>

#include "supervisor/egress/random.h"
#include "supervisor/egress/socket_address.h"

namespace kai::egress {
namespace {

constexpr std::uint16_t kDefaultPort = 53;
/// Whoever sends more at once waits until others had their turn.
constexpr int kDatagramsInOneTurn = 16;

dns::Bytes bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

/// nullopt: no port.
std::optional<std::uint16_t> read_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc{} || end != text.data() + text.size() || port == 0) return std::nullopt;
  return port;
}

}  // namespace

std::optional<DnsServerAddress> DnsServerAddress::read(std::string_view text) {
  std::string_view host = text, port;
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    host = text.substr(1, end - 1);
    port = text.substr(end + 1);
    if (host.find(':') == std::string_view::npos) return std::nullopt;
  } else if (const std::size_t colon = text.find(':'); colon != std::string_view::npos && colon == text.rfind(':')) {
    host = text.substr(0, colon);
    port = text.substr(colon);
  }
  const auto address = read_address(host);
  const auto number = port.empty()            ? std::optional(kDefaultPort)
                      : port.starts_with(':') ? read_port(port.substr(1))
                                              : std::nullopt;
  if (!address || !number) return std::nullopt;
  return DnsServerAddress{.address = *address, .port = *number, .text = std::string(text)};
}

DnsExchange::DnsExchange(Reactor& reactor, const DnsServerAddress& server, dns::Question question, bool edns, Done done)
    : reactor_(reactor),
      server_(server),
      request_{.id = random_number<std::uint16_t>(), .question = std::move(question), .edns = edns},
      done_(std::move(done)),
      patience_(
          reactor,
          [this] {
            fail("did not answer within " + std::to_string(kPatience.count() / 1000) + " s" +
                 (ignored_ == 0 ? "" : ", but sent " + std::to_string(ignored_) + " datagrams that are no answer"));
          }),
      again_(reactor, [this] { on_datagrams(); }) {
  request_.question.name = request_.question.name.with_random_case();
}

// A socket for each question: the kernel draws its port, and as it is connected passes on what comes from that server
// alone. Its ICMP errors come back too.
Result<> DnsExchange::open(int type) {
  watch_.stop();
  auto socket = make_socket(server_.address, type);
  if (!socket) return tl::unexpected(socket.error());
  socket_ = std::move(*socket);
  if (auto done = connect_to(socket_.get(), server_.address, server_.port); !done) return done;
  const bool is_stream = type == SOCK_STREAM;
  auto watch = reactor_.watch(socket_.get(), is_stream ? EPOLLIN | EPOLLOUT : EPOLLIN,
                              [this, is_stream](std::uint32_t) { is_stream ? on_stream() : on_datagrams(); });
  if (!watch) return tl::unexpected(watch.error());
  watch_ = std::move(*watch);
  patience_.arm_in(kPatience);
  return {};
}

Result<> DnsExchange::start() {
  if (auto done = open(SOCK_DGRAM); !done) return done;
  const std::string message = dns::write_request(request_);
  if (send(socket_.get(), message.data(), message.size(), MSG_NOSIGNAL) < 0) return errno_failure("send");
  return {};
}

void DnsExchange::on_datagrams() {
  std::array<std::uint8_t, 4096> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled by recv
  for (int taken = 0; taken < kDatagramsInOneTurn; ++taken) {
    const ssize_t size = recv(socket_.get(), buffer.data(), buffer.size(), MSG_TRUNC);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size < 0) return fail("could not be asked", errno);
    const auto length = static_cast<std::size_t>(size);
    auto reply = length <= buffer.size() ? dns::read_reply(dns::Bytes(buffer).first(length), request_) : std::nullopt;
    if (!reply) {  // not from the server, or not worth more: the true answer may still come
      ++ignored_;
      continue;
    }
    if (reply->truncated || reply->other_case) return ask_by_stream();
    return finish({.reply = std::move(reply)});
  }
  again_.arm_in(std::chrono::milliseconds(0));
}

void DnsExchange::ask_by_stream() {
  again_.stop();
  const std::string message = dns::write_request(request_);
  unsent_ = {static_cast<char>(message.size() >> 8U), static_cast<char>(message.size() & 0xFFU)};
  unsent_ += message;
  if (auto done = open(SOCK_STREAM); !done) fail("could not be asked by TCP", done.error().error_number);
}

void DnsExchange::on_stream() {
  while (!unsent_.empty()) {
    const ssize_t sent = send(socket_.get(), unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) return;
    if (sent < 0) return fail("could not be asked by TCP", errno);
    unsent_.erase(0, static_cast<std::size_t>(sent));
  }
  while (receive_some()) {
  }
}

bool DnsExchange::receive_some() {
  const auto bytes = bytes_of(received_);
  const std::size_t whole = bytes.size() < 2 ? 2 : 2 + std::size_t{bytes[0]} * 256 + bytes[1];
  if (bytes.size() > 2 && bytes.size() == whole) {
    on_stream_answer();
    return false;
  }
  std::array<char, 4096> buffer;  // NOLINT(cppcoreguidelines-pro-type-member-init): filled by recv
  const ssize_t size = recv(socket_.get(), buffer.data(), std::min(buffer.size(), whole - bytes.size()), 0);
  if (size < 0 && errno == EAGAIN) return false;
  if (size > 0) {
    received_.append(buffer.data(), static_cast<std::size_t>(size));
    return true;
  }
  fail(size == 0 ? "closed the connection before its answer was whole" : "broke off its answer by TCP",
       size == 0 ? 0 : errno);
  return false;
}

void DnsExchange::on_stream_answer() {
  // Nobody else can have sent it: the case of its question says nothing here.
  auto reply = dns::read_reply(bytes_of(received_).subspan(2), request_);
  if (!reply) return fail("sent by TCP what is no answer to the question");
  if (reply->truncated) return fail("cut off its answer by TCP too");
  finish({.reply = std::move(reply)});
}

void DnsExchange::fail(std::string_view what, int error_number) {
  std::string fault = server_.text + " " + std::string(what);
  if (error_number != 0) fault += std::string(": ") + std::strerror(error_number);
  finish({.fault = std::move(fault)});
}

void DnsExchange::finish(Outcome outcome) {
  watch_.stop();
  patience_.stop();
  again_.stop();
  const Done done = std::move(done_);
  done(std::move(outcome));
}

}  // namespace kai::egress
