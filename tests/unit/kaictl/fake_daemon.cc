#include "tests/unit/kaictl/fake_daemon.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "base/unix.h"

namespace kai::test {
namespace {

void must(bool held, const char* what) {
  if (!held) throw std::runtime_error(std::string(what) + ": " + std::strerror(errno));
}

}  // namespace

ScratchDirectory::ScratchDirectory() {
  std::string name = "/tmp/kaictl-test-XXXXXX";
  must(mkdtemp(name.data()) != nullptr, "mkdtemp");
  path_ = name;
}

ScratchDirectory::~ScratchDirectory() {
  std::error_code ignored;  // the directory is in /tmp; a left-over file fails no test
  std::filesystem::remove_all(path_, ignored);
}

bool Connection::receive(control::Request& request, std::vector<Fd>& fds) {
  for (;;) {
    const auto frame = decoder_.next();
    if (!frame) return false;
    if (*frame) return request.ParseFromArray((*frame)->data(), static_cast<int>((*frame)->size()));
    auto packet = receive_packet(socket_.get(), 65536);
    if (!packet || packet->bytes.empty()) return false;
    decoder_.feed(packet->bytes);
    for (Fd& fd : packet->fds) fds.push_back(std::move(fd));
  }
}

void Connection::send_bytes(std::string_view bytes) {
  // The client may hang up first, which is its right.
  while (!bytes.empty()) {
    const ssize_t count = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count <= 0) return;
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

void Connection::send(const control::Response& response) {
  std::string frame;
  append_frame(frame, response.SerializeAsString());
  send_bytes(frame);
}

void Connection::wait_for_hangup() {
  pollfd gone{socket_.get(), POLLRDHUP, 0};
  poll(&gone, 1, -1);
}

void Connection::done(const control::Request& request, const std::string& json,
                      const std::vector<std::string>& warnings) {
  control::Response response;
  response.set_id(request.id());
  response.mutable_done()->set_json(json);
  for (const std::string& warning : warnings) response.mutable_done()->add_warnings(warning);
  send(response);
}

void Connection::failed(const control::Request& request, const std::string& code, const std::string& message,
                        const std::string& hint) {
  control::Response response;
  response.set_id(request.id());
  response.mutable_failed()->set_code(code);
  response.mutable_failed()->set_message(message);
  response.mutable_failed()->set_hint(hint);
  send(response);
}

void Connection::record(const control::Request& request, const std::string& json) {
  control::Response response;
  response.set_id(request.id());
  response.set_record(json);
  send(response);
}

FakeDaemon::FakeDaemon(Handler handler, int connections) : socket_path_(directory_ / "kaid.sock") {
  listener_ = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, socket_path_.data(), socket_path_.size());
  must(bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "bind");
  must(listen(listener_.get(), 16) == 0, "listen");
  thread_ = std::thread([this, handler = std::move(handler), connections] {
    for (int served = 0; served < connections; ++served) {
      Fd accepted(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!accepted) return;
      Connection connection(std::move(accepted));
      handler(connection);
    }
  });
}

FakeDaemon::~FakeDaemon() {
  // A thread that still waits for a connection is woken.
  shutdown(listener_.get(), SHUT_RDWR);
  join();
}

void FakeDaemon::join() {
  if (thread_.joinable()) thread_.join();
}

FakeDaemon::Handler FakeDaemon::answering(std::string json) {
  return [json = std::move(json)](Connection& connection) {
    control::Request request;
    std::vector<Fd> fds;
    if (connection.receive(request, fds)) connection.done(request, json);
  };
}

FakeDaemon::Handler FakeDaemon::failing(std::string code, std::string message, std::string hint) {
  return [code = std::move(code), message = std::move(message), hint = std::move(hint)](Connection& connection) {
    control::Request request;
    std::vector<Fd> fds;
    if (connection.receive(request, fds)) connection.failed(request, code, message, hint);
  };
}

}  // namespace kai::test
