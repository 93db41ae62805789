#include "tests/unit/egress/traffic_rig.h"

#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <arpa/inet.h>
#include <doctest/doctest.h>

#include "sandbox/network.h"
#include "supervisor/egress/socket_address.h"

namespace kai::egress {
namespace {

constexpr std::array<std::uint16_t, 4> kPorts = {kHttpPort, kTlsPort, kAnyPort, kEitherPort};

void lo_up() {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP;
  REQUIRE(ioctl(socket.get(), SIOCSIFFLAGS, &request) == 0);
}

void add_address(const char* text) {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo:1");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  REQUIRE(inet_pton(AF_INET, text, &address.sin_addr) == 1);
  std::memcpy(&request.ifr_addr, &address, sizeof address);
  REQUIRE(ioctl(socket.get(), SIOCSIFADDR, &request) == 0);
}

/// As an ordinary user the namespaces below need a user namespace, made once.
void become_privileged() {
  static const bool done = geteuid() == 0 || unshare(CLONE_NEWUSER) == 0;
  REQUIRE(done);
}

/// This thread's, a new one.
Fd new_network() {
  become_privileged();
  REQUIRE(unshare(CLONE_NEWNET) == 0);
  lo_up();
  Fd fd(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  REQUIRE(fd.valid());
  return fd;
}

std::string big_endian(std::size_t value, unsigned width) {
  std::string made;
  for (unsigned at = width; at-- > 0;) made += static_cast<char>(value >> (8 * at) & 0xff);
  return made;
}

std::string vector_of(const std::string& bytes, unsigned width) {
  return big_endian(bytes.size(), width) + bytes;
}

}  // namespace

const std::string& Peer::received() {
  std::array<char, 65536> bytes{};
  while (socket_ && !ended_ && !reset_) {
    const ssize_t got = recv(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got > 0) received_.append(bytes.data(), static_cast<std::size_t>(got));
    if (got == 0) ended_ = true;
    if (got < 0 && errno == EAGAIN) break;
    if (got < 0) reset_ = errno == ECONNRESET || errno == EPIPE;
    REQUIRE((got >= 0 || reset_));
  }
  return received_;
}

bool Peer::ended() {
  return received(), ended_;
}
bool Peer::reset() {
  return received(), reset_;
}

std::size_t Peer::send(std::string_view bytes) {
  const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent >= 0) return static_cast<std::size_t>(sent);
  if (errno == ECONNRESET) {  // it is said once: recv(2) would call it an end
    (void)received();
    ended_ = false;
    reset_ = true;
  }
  return 0;
}

void Peer::finish() {
  REQUIRE(shutdown(socket_.get(), SHUT_WR) == 0);
}
void Peer::close() {
  socket_.reset();
}
void Peer::close_reset() {
  reset_on_close(socket_.get());
  socket_.reset();
}

void Rig::map(Rules& rules, const std::string& name, const std::string& address) {
  const auto read = read_address(address);
  REQUIRE(read);
  StaticHost& host = *rules.add_hosts();
  host.set_name(name);
  host.set_address(std::string(read->bytes.begin(), read->bytes.begin() + read->bits / 8));
  host.set_rule("policy.yaml:30");
}

Rules Rig::default_rules() {
  Rules rules;
  rules.set_agent_id("agent");
  rules.set_policy("policy");
  const auto allow = [&](const std::string& name, bool subdomains) {
    for (Pattern* pattern : {rules.add_asked(), rules.add_allowed()}) {
      pattern->set_name(name);
      pattern->set_subdomains(subdomains);
      pattern->set_rule("policy.yaml:10");
    }
  };
  allow("test", true);
  Pattern& blocked = *rules.add_blocked();
  blocked.set_name("blocked.test");
  blocked.set_rule("policy.yaml:12");
  for (const auto& [network, prefix] : {std::pair(kServer4, 8U), std::pair(kServer6, 128U)}) {
    const auto read = read_address(network);
    Cidr& cidr = *rules.add_cidrs();
    cidr.set_network(std::string(read->bytes.begin(), read->bytes.begin() + read->bits / 8));
    cidr.set_prefix(prefix);
    cidr.set_rule("policy.yaml:14");
  }
  for (const std::uint16_t port : kPorts) rules.add_ports(port);
  map(rules, "allowed.test", kServer4);
  map(rules, "six.test", kServer6);
  map(rules, "own.test", kOwnPublic);
  map(rules, "private.test", "10.1.2.3");
  map(rules, "blocked.test", kServer4);
  map(rules, "nowhere.test", "192.0.79.1");
  for (const Protocol protocol : {TCP}) rules.add_protocols(protocol);
  Limits& limits = *rules.mutable_limits();
  limits.set_connections(4096);
  limits.set_connections_rule("policy.yaml:16");
  limits.set_bytes_per_second(10ULL << 30);
  limits.set_dial_ms(5'000);
  limits.set_head_ms(5'000);
  limits.set_idle_ms(60'000);
  limits.set_total_ms(600'000);
  limits.set_lookups(100);
  limits.set_name_bits(1024);
  rules.set_allowed_rule("policy.yaml:9");
  rules.set_cidrs_rule("policy.yaml:13");
  rules.set_ports_rule("policy.yaml:15");
  rules.set_protocols_rule("policy.yaml:17");
  return rules;
}

Rig::Rig() : rules(default_rules()) {
  agent_network_ = new_network();
  auto sockets = sandbox::prepare_network();
  REQUIRE_MESSAGE(sockets, sockets.error().message());
  REQUIRE(sandbox::open_network(*sockets, kPorts));
  host_network_ = new_network();
  add_address(kOwnPublic);
  auto made = Reactor::create();
  REQUIRE(made);
  reactor = std::move(*made);
  resolver = std::make_unique<Resolver>(*reactor);
  names = std::make_unique<SyntheticNames>(rules);
  traffic =
      AgentTraffic::create({.reactor = *reactor,
                            .resolver = *resolver,
                            .pipes = pipes,
                            .names = *names,
                            .rules = rules,
                            .events = {.opened = [this](Opened&& event) { opened.push_back(std::move(event)); },
                                       .closed = [this](Closed&& event) { closed.push_back(std::move(event)); },
                                       .refused = [this](Refused&& event) { refused.push_back(std::move(event)); }}});
  for (std::size_t at = sandbox::kFirstListener; at < sockets->size(); ++at) {
    auto listener = std::make_unique<Listener>();
    listener->socket = std::move((*sockets)[at]);
    const int fd = listener->socket.get();
    auto watch = reactor->watch(fd, EPOLLIN, [this, fd](std::uint32_t) {
      for (;;) {
        Fd socket(accept4(fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!socket) return;
        traffic->accepted(std::move(socket));
      }
    });
    REQUIRE(watch);
    listener->watch = std::move(*watch);
    listeners_.push_back(std::move(listener));
  }
}

Rig::~Rig() = default;

void Rig::rules_changed() {
  names->use(rules);
  traffic->rules_changed();
}

Peer Rig::connect_literal(const std::string& text, std::uint16_t port) {
  const auto address = read_address(text);
  REQUIRE(address);
  REQUIRE(setns(agent_network_.get(), CLONE_NEWNET) == 0);
  auto socket = make_socket(*address, SOCK_STREAM);
  REQUIRE(socket);
  REQUIRE(connect_to(socket->get(), *address, port));
  REQUIRE(setns(host_network_.get(), CLONE_NEWNET) == 0);
  return Peer(std::move(*socket));
}

Peer Rig::connect(const std::string& name, std::uint16_t port, bool six) {
  const auto addresses = names->addresses(name);
  REQUIRE(addresses);
  return connect_literal(address_text(six ? addresses->v6 : addresses->v4), port);
}

Fd Rig::listen(const std::string& text, std::uint16_t port, int backlog) {
  const bool four = text.find(':') == std::string::npos;
  Fd socket(::socket(four ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  REQUIRE(socket.valid());
  constexpr int kOn = 1;
  REQUIRE(setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &kOn, sizeof kOn) == 0);
  if (four) {
    sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(port)};
    REQUIRE(inet_pton(AF_INET, text.c_str(), &address.sin_addr) == 1);
    REQUIRE(bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  } else {
    sockaddr_in6 address{.sin6_family = AF_INET6, .sin6_port = htons(port)};
    REQUIRE(inet_pton(AF_INET6, text.c_str(), &address.sin6_addr) == 1);
    REQUIRE(bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  }
  REQUIRE(::listen(socket.get(), backlog) == 0);
  return socket;
}

Peer Rig::accept(const Fd& listener) {
  Fd socket;
  (void)until([&] {
    socket = Fd(accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    return socket.valid();
  });
  return Peer(std::move(socket));
}

bool Rig::until(const std::function<bool()>& done, std::chrono::milliseconds patience) {
  const auto end = Clock::now() + patience;
  while (!done()) {
    if (Clock::now() > end) return false;
    // What the peers do is seen by asking them: the loop does not wait for long.
    REQUIRE(reactor->turn(std::chrono::milliseconds(1)));
  }
  return true;
}

Refused Rig::refusal() {
  if (!until([&] { return !refused.empty(); })) return {};
  CHECK(refused.size() == 1);
  return refused.front();
}

Snapshot Rig::snapshot() const {
  Snapshot made;
  traffic->describe(made);
  return made;
}

std::string client_hello(const std::string& name, bool encrypted_inner) {
  std::string extensions;
  if (!name.empty()) {
    const std::string entry = '\0' + vector_of(name, 2);
    extensions += big_endian(0, 2) + vector_of(vector_of(entry, 2), 2);
  }
  extensions += big_endian(43, 2) + vector_of(std::string("\x02\x03\x04"), 2);  // supported_versions: TLS 1.3
  if (encrypted_inner) extensions += big_endian(0xfe0d, 2) + vector_of(std::string(32, 'e'), 2);
  const std::string body = std::string("\x03\x03") + std::string(32, 'r') + vector_of(std::string(32, 's'), 1) +
                           vector_of(std::string("\x13\x01"), 2) + vector_of(std::string(1, '\0'), 1) +
                           vector_of(extensions, 2);
  return std::string("\x16\x03\x01") + vector_of('\x01' + vector_of(body, 3), 2);
}

}  // namespace kai::egress
