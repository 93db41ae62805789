#include "tests/unit/memory/redis_fixture.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <array>
#include <charconv>
#include <cstring>

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <hiredis/hiredis.h>

#include "base/unix.h"

namespace kai {
namespace {

// Given back to the kernel at once: another program could take it before redis does, which start() would show.
std::uint16_t free_port() {
  const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  REQUIRE(bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0);
  REQUIRE(getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
  return ntohs(address.sin_port);
}

void append(std::string& out, const redisReply& reply) {
  if (reply.type == REDIS_REPLY_ARRAY) {
    for (std::size_t i = 0; i < reply.elements; ++i) append(out, *reply.element[i]);
    return;
  }
  if (reply.type == REDIS_REPLY_INTEGER) out += std::to_string(reply.integer);
  if (reply.str != nullptr) out.append(reply.str, reply.len);
  out += '\n';
}

}  // namespace

RedisProcess::RedisProcess(std::vector<std::string> options) : options_(std::move(options)), port_(free_port()) {
  for (std::size_t i = 0; i + 1 < options_.size(); ++i)
    if (options_[i] == "--requirepass") password_ = options_[i + 1];
  start();
}

RedisProcess::~RedisProcess() {
  kill();
}

void RedisProcess::start() {
  auto [reading, writing] = make_pipe().value();
  // It ends with this program, however that ends.
  std::vector<std::string> words = {"setpriv",      "--pdeathsig",         "KILL",   "redis-server",
                                    "--port",       std::to_string(port_), "--bind", "127.0.0.1",
                                    "--unixsocket", directory_ / "redis",  "--dir",  directory_.path()};
  words.insert(words.end(), options_.begin(), options_.end());
  std::vector<char*> arguments;
  for (auto& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, writing.get(), STDOUT_FILENO);
  REQUIRE(posix_spawnp(&pid_, "setpriv", &actions, nullptr, arguments.data(), environ) == 0);
  posix_spawn_file_actions_destroy(&actions);
  writing.reset();
  std::string said;
  std::array<char, 4096> buffer{};
  while (said.find("Ready to accept connections") == said.npos) {
    const ssize_t got = read(reading.get(), buffer.data(), buffer.size());
    REQUIRE_MESSAGE(got > 0, "redis-server did not start:\n" << said);
    said.append(buffer.data(), static_cast<std::size_t>(got));
  }
  // Kept: what it says later would end it by SIGPIPE. It says less than a pipe holds.
  output_ = std::move(reading);
}

void RedisProcess::kill() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

std::string RedisProcess::command(const std::vector<std::string>& words) {
  const std::unique_ptr<redisContext, void (*)(redisContext*)> context(redisConnectUnix((directory_ / "redis").c_str()),
                                                                       redisFree);
  REQUIRE(context->err == 0);
  if (!password_.empty()) freeReplyObject(redisCommand(context.get(), "AUTH %s", password_.c_str()));
  std::vector<const char*> arguments;
  std::vector<std::size_t> sizes;
  for (const auto& word : words) {
    arguments.push_back(word.data());
    sizes.push_back(word.size());
  }
  const std::unique_ptr<void, void (*)(void*)> reply(
      redisCommandArgv(context.get(), static_cast<int>(words.size()), arguments.data(), sizes.data()), freeReplyObject);
  REQUIRE(reply != nullptr);
  std::string out;
  append(out, *static_cast<const redisReply*>(reply.get()));
  return out;
}

RedisUrl RedisProcess::unix_url() const {
  RedisUrl url;
  url.path = directory_ / "redis";
  url.password = password_;
  return url;
}

RedisUrl RedisProcess::tcp_url(const std::string& host) const {
  RedisUrl url;
  url.host = host;
  url.port = port_;
  url.password = password_;
  return url;
}

FakeRedis::FakeRedis(Reply reply)
    : reply_(std::move(reply)), listening_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  url().path.copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(bind(listening_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(listen(listening_.get(), 16) == 0);
  std::tie(ended_, end_) = make_pipe().value();
  thread_ = std::thread([this] { serve(); });
}

FakeRedis::~FakeRedis() {
  end_.reset();
  thread_.join();
}

RedisUrl FakeRedis::url() const {
  RedisUrl url;
  url.path = directory_ / "redis";
  return url;
}

void FakeRedis::serve() {
  while (true) {
    std::array<pollfd, 2> watched{{{ended_.get(), POLLIN, 0}, {listening_.get(), POLLIN, 0}}};
    poll(watched.data(), watched.size(), -1);
    if (watched[0].revents != 0) return;
    const Fd connection(accept(listening_.get(), nullptr, nullptr));
    if (connection) serve_one(connection.get());
  }
}

void FakeRedis::serve_one(int connection) {
  const std::unique_ptr<redisReader, void (*)(redisReader*)> reader(redisReaderCreate(), redisReaderFree);
  std::array<char, 65536> buffer{};
  while (true) {
    std::array<pollfd, 2> watched{{{ended_.get(), POLLIN, 0}, {connection, POLLIN, 0}}};
    poll(watched.data(), watched.size(), -1);
    if (watched[0].revents != 0) return;
    const ssize_t got = recv(connection, buffer.data(), buffer.size(), 0);
    if (got <= 0) return;
    // A command is an array, as a reply may be.
    redisReaderFeed(reader.get(), buffer.data(), static_cast<std::size_t>(got));
    for (void* parsed = nullptr; redisReaderGetReply(reader.get(), &parsed) == REDIS_OK && parsed != nullptr;) {
      const auto& array = *static_cast<const redisReply*>(parsed);
      Command command;
      for (std::size_t i = 0; i < array.elements; ++i)
        command.emplace_back(array.element[i]->str, array.element[i]->len);
      freeReplyObject(parsed);
      const auto reply = reply_(command);
      if (!reply) return;
      if (send(connection, reply->data(), reply->size(), MSG_NOSIGNAL) < 0) return;
    }
  }
}

FakeRedis::Reply greeting_then(std::function<std::optional<std::string>()> to_script) {
  return [to_script = std::move(to_script)](const FakeRedis::Command& command) -> std::optional<std::string> {
    if (command[0] == "SCRIPT") return "$40\r\n" + std::string(40, 'a') + "\r\n";
    if (command[0] == "CONFIG") return "*2\r\n$16\r\nmaxmemory-policy\r\n$10\r\nnoeviction\r\n";
    return to_script();
  };
}

namespace {

/// In the keeper's place.
RedisServer::Connector connect_to(EventLoop& loop, const std::string& path) {
  return [&loop, path](std::function<void(Result<Fd>)> done) {
    auto connection = std::make_shared<Result<Fd>>(Fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    if (connect(connection->value().get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
      *connection = errno_failure("connect", path);
    loop.defer([connection, done = std::move(done)] { done(std::move(*connection)); });
  };
}

class OwnServerStore final : public MemoryStore {
 public:
  OwnServerStore(EventLoop& loop, const ExpiryClock& clock, const RedisUrl& url, MemoryTerms terms,
                 std::vector<RedisReport>& reports, const std::string& file)
      : server_(loop, url, connect_to(loop, url.path),
                [&reports](bool good, const std::string& message) {
                  reports.push_back({good, message});
                }),
        store_(make_redis_store(loop, server_, clock, std::move(terms), {file})) {}

  void open(Done done) override { store_->open(std::move(done)); }
  void perform(klp::MemoryRequest&& request, Answer answer) override {
    store_->perform(std::move(request), std::move(answer));
  }
  void clear(Done done) override { store_->clear(std::move(done)); }
  void save(Fd file, std::string exported_at, Done done) override {
    store_->save(std::move(file), std::move(exported_at), std::move(done));
  }
  void restore(Fd file, Done done) override { store_->restore(std::move(file), std::move(done)); }
  void end_session() override { store_->end_session(); }
  [[nodiscard]] MemoryUsage usage() const override { return store_->usage(); }

 private:
  RedisServer server_;
  std::unique_ptr<MemoryStore> store_;
};

}  // namespace

MemoryBackend redis_backend(RedisUrl url, std::vector<RedisReport>& reports, std::string file) {
  return {.make = [url = std::move(url), &reports, file = std::move(file)](EventLoop& loop, const ExpiryClock& clock,
                                                                           const MemoryTerms& terms) {
    return std::make_unique<OwnServerStore>(loop, clock, url, terms, reports, file);
  }};
}

}  // namespace kai
