#include "bench/control_client.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "base/unix.h"

namespace kai::bench {

Result<ControlClient> ControlClient::connect(const std::string& socket_path) {
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return errno_failure("socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path) return failure("socket path too long", socket_path);
  std::memcpy(address.sun_path, socket_path.data(), socket_path.size());
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) {
    return errno_failure("connect", socket_path);
  }
  return ControlClient(std::move(socket));
}

Result<std::uint64_t> ControlClient::send(control::Request request) {
  request.set_id(++last_id_);
  std::string frame;
  append_frame(frame, request.SerializeAsString());
  if (auto written = write_all(socket_.get(), frame); !written) return tl::unexpected(written.error());
  return last_id_;
}

Result<control::Response> ControlClient::receive() {
  std::array<char, 65536> buffer;
  for (;;) {
    auto frame = decoder_.next();
    if (!frame) return tl::unexpected(frame.error());
    if (*frame) {
      control::Response response;
      if (!response.ParseFromArray((*frame)->data(), static_cast<int>((*frame)->size())))
        return failure("response", "not a message");
      if (response.has_progress() || response.has_record()) continue;
      return response;
    }
    const ssize_t count = read(socket_.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_failure("read");
    if (count == 0) return failure("the daemon closed the connection");
    decoder_.feed({buffer.data(), static_cast<std::size_t>(count)});
  }
}

Result<std::string> ControlClient::call(control::Request request) {
  if (auto sent = send(std::move(request)); !sent) return tl::unexpected(sent.error());
  auto response = receive();
  if (!response) return tl::unexpected(response.error());
  if (response->has_failed()) return failure(response->failed().code(), response->failed().message());
  return response->done().json();
}

namespace {

// A first start on a loaded machine may take long; a figure that took this long is no figure.
constexpr std::uint32_t kTimeoutMs = 30'000;

}  // namespace

control::Request start_request(const std::string& agent) {
  control::Request request;
  request.mutable_start()->set_id(agent);
  request.mutable_start()->set_timeout_ms(kTimeoutMs);
  return request;
}

control::Request stop_request(const std::string& agent) {
  control::Request request;
  request.mutable_stop()->set_id(agent);
  request.mutable_stop()->set_timeout_ms(kTimeoutMs);
  return request;
}

control::Request status_request(const std::string& agent) {
  control::Request request;
  request.mutable_status()->set_id(agent);
  return request;
}

control::Request send_request(const std::string& agent, const std::string& capability, const std::string& payload) {
  control::Request request;
  request.mutable_send()->set_id(agent);
  request.mutable_send()->set_capability(capability);
  request.mutable_send()->set_payload(payload);
  request.mutable_send()->set_timeout_ms(kTimeoutMs);
  return request;
}

}  // namespace kai::bench
