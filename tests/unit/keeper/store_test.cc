// What the service manager keeps of a keeper's, with the test in its place.
#include "supervisor/keeper/store.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <utility>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "supervisor/keeper/handover.h"
#include "supervisor/keeper/service_manager.h"

namespace kai::keeper {
namespace {

/// Reads what it is told until the end of its life; keeps descriptors, or closes them at once.
class StandInManager {
 public:
  explicit StandInManager(bool keeps) : keeps_(keeps), socket_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    const std::string name = "@kai-test-notify-" + std::to_string(getpid());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name.data() + 1, name.size() - 1);
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    REQUIRE(bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0);
    REQUIRE(setenv("NOTIFY_SOCKET", name.c_str(), 1) == 0);
    thread_ = std::thread([this] { serve(); });
  }
  /// After everything that was sent before.
  void end(const ServiceManager& manager) {
    manager.notify("END");
    thread_.join();
  }

  std::map<std::string, Fd> kept;

 private:
  void serve() {
    for (;;) {
      auto packet = receive_packet(socket_.get(), 4096);
      if (!packet || packet->bytes == "END") return;
      const std::string name = packet->bytes.substr(packet->bytes.find("FDNAME=") + 7);
      if (packet->bytes.starts_with("FDSTORE=1\nFDPOLL=0\n") && keeps_) kept[name] = std::move(packet->fds.at(0));
      if (packet->bytes.starts_with("FDSTOREREMOVE=1\n")) kept.erase(name);
    }
  }

  bool keeps_;
  Fd socket_;
  std::thread thread_;
};

Fd memory(const handover::State& state) {
  auto memfd = sealed_memfd("state", state.SerializeAsString());
  REQUIRE(memfd);
  return std::move(*memfd);
}

Fd any() {
  return Fd(open("/dev/null", O_RDWR | O_CLOEXEC));
}

/// A process that waits to be killed.
struct Sleeper {
  Sleeper() {
    pid = fork();
    if (pid == 0) {
      for (;;) (void)pause();
    }
    auto opened = open_pidfd(pid);
    REQUIRE(opened);
    pidfd = std::move(*opened);
  }
  ~Sleeper() {
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, nullptr, 0);
  }
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;
  [[nodiscard]] bool ended() const {
    pollfd wanted{.fd = pidfd.get(), .events = POLLIN, .revents = 0};
    return poll(&wanted, 1, 0) == 1;
  }
  [[nodiscard]] Fd duplicate() const { return Fd(fcntl(pidfd.get(), F_DUPFD_CLOEXEC, 0)); }

  pid_t pid = 0;
  Fd pidfd;
};

handover::State with_agent(std::uint64_t instance) {
  handover::State state;
  state.set_version(kHandoverVersion);
  state.add_agents()->mutable_told()->set_instance(instance);
  return state;
}

}  // namespace

TEST_CASE("whether the service manager keeps descriptors is tried, not believed") {
  for (const bool keeps : {true, false}) {
    StandInManager stand_in(keeps);
    const ServiceManager manager;
    CHECK(manager.keeps_descriptors() == keeps);
    CHECK(manager.store("one", any()));
    CHECK(manager.store("two", any()));
    CHECK(manager.unstore("one"));
    stand_in.end(manager);
    CHECK(stand_in.kept.size() == (keeps ? 1 : 0));
    CHECK(stand_in.kept.contains("two") == keeps);
  }
  const ServiceManager none;
  CHECK_FALSE(none.keeps_descriptors());
  CHECK_FALSE(none.store("one", any()));
}

TEST_CASE("what is not meant for this process is not taken for stored descriptors") {
  REQUIRE(setenv("LISTEN_PID", "1", 1) == 0);
  REQUIRE(setenv("LISTEN_FDS", "1", 1) == 0);
  REQUIRE(setenv("LISTEN_FDNAMES", "state-1", 1) == 0);
  CHECK(take_stored().empty());
  CHECK(std::getenv("LISTEN_FDS") == nullptr);
  CHECK(std::getenv("LISTEN_FDNAMES") == nullptr);
}

TEST_CASE("the newest state that is in the store counts, and agents that it does not know are killed") {
  const Sleeper known, unknown;
  std::multimap<std::string, Fd> stored;
  stored.emplace(stored_state_name(9), memory(with_agent(1)));
  stored.emplace(stored_state_name(10), memory(with_agent(2)));
  for (const auto& [instance, sleeper] : {std::pair(1, &unknown), std::pair(2, &known)}) {
    const auto number = static_cast<std::uint64_t>(instance);
    stored.emplace(stored_name(number, Kept::kPidfd), sleeper->duplicate());
    stored.emplace(stored_name(number, Kept::kChannel), any());
  }
  Stored sorted = sort_stored(std::move(stored));
  REQUIRE(sorted.state);
  REQUIRE(sorted.state->agents().size() == 1);
  const handover::Agent& agent = sorted.state->agents(0);
  CHECK(agent.told().instance() == 2);
  CHECK(agent.orphan());
  CHECK(inherited(agent.pidfd()).valid());
  CHECK(inherited(agent.channel()).valid());
  CHECK(agent.output() == 0);
  CHECK(unknown.ended());
  CHECK_FALSE(known.ended());
  CHECK(sorted.useless == std::vector<std::string>{"agent-1-channel", "agent-1-pidfd", "state-9"});
}

TEST_CASE("a state of another version, one that is cut, or one without its descriptors: nothing is taken") {
  handover::State other = with_agent(1);
  other.set_version(kHandoverVersion + 1);
  const auto cut = sealed_memfd("state", "\x08");
  REQUIRE(cut);
  const Sleeper sleeper;
  SUBCASE("version") {
    std::multimap<std::string, Fd> stored;
    stored.emplace(stored_state_name(1), memory(other));
    stored.emplace(stored_name(1, Kept::kPidfd), sleeper.duplicate());
    stored.emplace(stored_name(1, Kept::kChannel), any());
    const Stored sorted = sort_stored(std::move(stored));
    CHECK_FALSE(sorted.state);
    CHECK(sorted.useless.size() == 3);
    CHECK(sleeper.ended());
  }
  SUBCASE("cut") {
    std::multimap<std::string, Fd> stored;
    stored.emplace(stored_state_name(1), Fd(fcntl(cut->get(), F_DUPFD_CLOEXEC, 0)));
    CHECK_FALSE(sort_stored(std::move(stored)).state);
  }
  SUBCASE("a part of its network") {
    handover::State reaching = with_agent(1);
    for (int at = 0; at < 3; ++at) reaching.mutable_agents(0)->add_network(0);
    std::multimap<std::string, Fd> stored;
    stored.emplace(stored_state_name(1), memory(reaching));
    stored.emplace(stored_name(1, Kept::kPidfd), sleeper.duplicate());
    stored.emplace(stored_name(1, Kept::kChannel), any());
    for (std::size_t at = 0; at < 2; ++at) stored.emplace(stored_network_name(1, at), any());
    SUBCASE("is missing") {
      CHECK_FALSE(sort_stored(std::move(stored)).state);
      CHECK(sleeper.ended());
    }
    SUBCASE("is not missing") {
      stored.emplace(stored_network_name(1, 2), any());
      const Stored sorted = sort_stored(std::move(stored));
      REQUIRE(sorted.state);
      for (const std::int32_t number : sorted.state->agents(0).network()) CHECK(inherited(number).valid());
      CHECK(sorted.useless.empty());
      CHECK_FALSE(sleeper.ended());
    }
  }
  SUBCASE("no channel") {
    std::multimap<std::string, Fd> stored;
    stored.emplace(stored_state_name(1), memory(with_agent(1)));
    stored.emplace(stored_name(1, Kept::kPidfd), sleeper.duplicate());
    CHECK_FALSE(sort_stored(std::move(stored)).state);
    CHECK(sleeper.ended());
  }
}

}  // namespace kai::keeper
