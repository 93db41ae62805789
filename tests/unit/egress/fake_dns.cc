#include "fake_dns.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include <arpa/inet.h>
#include <doctest/doctest.h>

#include "dns_wire.h"

namespace kai::egress {
namespace {

std::uint16_t number_at(const std::string& text, std::size_t at) {
  return static_cast<std::uint16_t>(static_cast<std::uint8_t>(text[at]) << 8U |
                                    static_cast<std::uint8_t>(text[at + 1]));
}

sockaddr_storage at_any_port(const char* address) {
  sockaddr_storage storage{};
  sockaddr_in6 v6{.sin6_family = AF_INET6};
  sockaddr_in v4{.sin_family = AF_INET};
  if (inet_pton(AF_INET6, address, &v6.sin6_addr) == 1) {
    std::memcpy(&storage, &v6, sizeof v6);
  } else {
    REQUIRE(inet_pton(AF_INET, address, &v4.sin_addr) == 1);
    std::memcpy(&storage, &v4, sizeof v4);
  }
  return storage;
}

std::string port_of(const sockaddr_storage& address) {
  sockaddr_in6 v6{};  // the port stands at the same place in both
  std::memcpy(&v6, &address, sizeof v6);
  return std::to_string(ntohs(v6.sin6_port));
}

}  // namespace

bool turn_until(Reactor& reactor, const std::function<bool()>& done, std::chrono::milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  while (!done()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
    if (left.count() <= 0) return false;
    REQUIRE(reactor.turn(std::min(left, std::chrono::milliseconds(20))));
  }
  return true;
}

std::string FakeDns::Asked::message(std::size_t answers, const std::string& records, std::uint16_t flags,
                                    std::size_t authorities) const {
  return wire_header(id, flags, 1, answers, authorities) + question + records;
}

void FakeDns::Asked::answer(std::size_t answers, const std::string& records, std::uint16_t flags,
                            std::size_t authorities) const {
  const std::string whole = message(answers, records, flags, authorities);
  send(tcp ? u16(whole.size()) + whole : whole);
}

FakeDns::FakeDns(Reactor& reactor, Behaviour told, const char* address)
    : behaviour(std::move(told)), reactor_(reactor) {
  const std::string host = std::strchr(address, ':') == nullptr ? address : std::string("[") + address + "]";
  for (int attempt = 0; attempt < 20 && !datagrams_; ++attempt) {  // a port that is free for TCP may not be for UDP
    const sockaddr_storage any = at_any_port(address);
    Fd listener(::socket(any.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    REQUIRE(bind(listener.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) == 0);
    REQUIRE(listen(listener.get(), 64) == 0);
    sockaddr_storage made{};
    socklen_t length = sizeof made;
    REQUIRE(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&made), &length) == 0);
    address_ = host + ":" + port_of(made);
    Fd datagrams(::socket(made.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (bind(datagrams.get(), reinterpret_cast<const sockaddr*>(&made), length) != 0) continue;
    listener_ = std::move(listener);
    datagrams_ = std::move(datagrams);
  }
  REQUIRE(datagrams_.valid());
  datagrams_watch_ = *reactor.watch(datagrams_.get(), EPOLLIN, [this](std::uint32_t) { on_datagrams(); });
  listener_watch_ = *reactor.watch(listener_.get(), EPOLLIN, [this](std::uint32_t) { on_streams(); });
}

std::size_t FakeDns::asked_of(const std::string& name, std::uint16_t type) const {
  return static_cast<std::size_t>(std::count_if(
      asked.begin(), asked.end(), [&](const Asked& one) { return one.name == name && one.type == type; }));
}

void FakeDns::take(const std::string& message, Asked one) {
  REQUIRE(message.size() >= 17);
  one.id = number_at(message, 0);
  one.edns = number_at(message, 10) == 1;
  std::size_t at = 12;
  while (message[at] != '\0') {
    if (!one.name.empty()) one.name += '.';
    for (const char c : message.substr(at + 1, static_cast<std::size_t>(message[at]))) {
      one.name += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 0x20 : c);
    }
    at += 1 + static_cast<std::size_t>(message[at]);
  }
  one.type = number_at(message, at + 1);
  one.question = message.substr(12, at + 5 - 12);
  asked.push_back(one);
  behaviour(one);
}

void FakeDns::on_datagrams() {
  for (;;) {
    std::array<char, 4096> buffer{};
    Asked one;
    socklen_t length = sizeof one.peer;
    const ssize_t size =
        recvfrom(datagrams_.get(), buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&one.peer), &length);
    if (size < 0) return;
    one.send = [this, peer = one.peer, length](const std::string& bytes) {
      (void)sendto(datagrams_.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&peer), length);
    };
    take(std::string(buffer.data(), static_cast<std::size_t>(size)), std::move(one));
  }
}

void FakeDns::on_streams() {
  for (;;) {
    auto stream = std::make_shared<Stream>();
    stream->socket.reset(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!stream->socket) return;
    streams_.push_back(stream);
    stream->watch = *reactor_.watch(stream->socket.get(), EPOLLIN, [this, weak = std::weak_ptr(stream)](std::uint32_t) {
      if (const auto one = weak.lock()) on_stream(one);
    });
  }
}

void FakeDns::on_stream(const std::shared_ptr<Stream>& stream) {
  std::array<char, 4096> buffer{};
  for (;;) {
    const ssize_t size = recv(stream->socket.get(), buffer.data(), buffer.size(), 0);
    if (size <= 0) break;
    stream->received.append(buffer.data(), static_cast<std::size_t>(size));
  }
  while (stream->received.size() >= 2 && stream->received.size() >= 2U + number_at(stream->received, 0)) {
    const std::string message = stream->received.substr(2, number_at(stream->received, 0));
    stream->received.erase(0, 2 + message.size());
    Asked one;
    one.tcp = true;
    one.send = [stream](const std::string& bytes) {
      (void)::send(stream->socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    };
    one.close = [stream] {
      stream->watch.stop();
      stream->socket.reset();
    };
    take(message, std::move(one));
  }
}

FakeDns::Behaviour one_address(std::uint8_t last, std::size_t ttl) {
  return [last, ttl](const FakeDns::Asked& asked) {
    asked.answer(1, wire_record(pointer(12), asked.type, ttl, asked.type == kTypeA ? a_data(last) : aaaa_data(last)));
  };
}

}  // namespace kai::egress
