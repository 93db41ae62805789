#include "kaictl/client.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/text.h"
#include "base/unix.h"

namespace kai {
namespace {

std::string in_seconds(Milliseconds time) {
  const auto tenths = (time.count() + 50) / 100;
  std::string text = std::to_string(tenths / 10);
  if (tenths % 10 != 0) text += "." + std::to_string(tenths % 10);
  return text + " s";
}

Failure timed_out(const std::string& message) {
  Failure failure;
  failure.exit_code = kExitTimeout;
  failure.code = "TIMEOUT";
  failure.message = message;
  failure.hint = "It may be busy or stuck: try again with a longer --timeout, or look at its log";
  failure.retryable = true;
  return failure;
}

tl::unexpected<Failure> unreachable(const std::string& path, int error_number) {
  Failure failure;
  failure.exit_code = kExitUnreachable;
  failure.code = "UNAVAILABLE";
  failure.retryable = true;
  failure.message = "kaid is not reachable at " + path + ": " + std::strerror(error_number);
  if (error_number == EACCES || error_number == EPERM) {
    failure.hint = "Operators are root, kaid's own user and the members of group kai: join it, or use sudo";
  } else if (geteuid() != 0 && access("/run/kai/kaid.sock", W_OK) == 0) {
    failure.hint = "For the system's kaid set KAI_SOCKET=/run/kai/kaid.sock, or start your own with: kaid";
  } else {
    failure.hint = "Start it with: systemctl start kaid (or kaid), or name its socket with --socket or KAI_SOCKET";
  }
  return tl::unexpected(std::move(failure));
}

// A socket's address holds 107 bytes of path. A longer one is reached through a descriptor of its directory.
Result<sockaddr_un> address_of(const std::string& path, Fd& directory) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::string reachable = path;
  if (path.size() >= sizeof address.sun_path) {
    const std::size_t slash = path.rfind('/');
    const std::string parent = slash == std::string::npos ? "." : path.substr(0, slash + 1);
    auto opened = open_at(AT_FDCWD, parent, O_PATH | O_DIRECTORY);
    if (!opened) return tl::unexpected(opened.error());
    directory = std::move(*opened);
    reachable = "/proc/self/fd/" + std::to_string(directory.get()) + "/" + path.substr(slash + 1);
  }
  if (reachable.empty() || reachable.size() >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return errno_failure("connect", path);
  }
  std::memcpy(address.sun_path, reachable.data(), reachable.size());
  return address;
}

int milliseconds_until(Clock::time_point deadline) {
  const auto left = std::chrono::ceil<Milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 1 << 30));
}

}  // namespace

Outcome<Client> Client::connect(const std::string& path, Milliseconds limit) {
  Fd directory;
  const auto address = address_of(path, directory);
  if (!address) return unreachable(path, address.error().error_number);
  Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return local_failure("cannot make a socket", Error{"socket", errno, ""});
  // A full backlog makes connect(2) wait; the send timeout is what bounds that for a Unix socket (socket(7)).
  const auto ms = std::max<std::int64_t>(limit.count(), 1);
  const timeval patience{ms / 1000, (ms % 1000) * 1000};
  setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  while (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) < 0) {
    if (errno == EINTR) continue;
    if (errno == EAGAIN) {
      return tl::unexpected(timed_out("kaid at " + path + " did not take the connection within " + in_seconds(limit)));
    }
    return unreachable(path, errno);
  }
  if (auto set = set_nonblocking(socket.get()); !set) return local_failure("cannot set up the socket", set.error());
  return Client(std::move(socket), path);
}

tl::unexpected<Failure> Client::lost(const std::string& why) const {
  // Not kExitUnreachable: kaid was there, and what was asked may be done.
  return fail(
      "UNAVAILABLE", "kaid's connection at " + path_ + " ended before its answer" + why,
      "What was asked may be done or not: kaid may have been stopped or restarted. Look at: kaictl list, and try "
      "again");
}

Outcome<> Client::send(const control::Request& request, std::span<const int> fds, Clock::time_point deadline) {
  std::string frame;
  append_frame(frame, request.SerializeAsString());
  if (frame.size() > kFrameHeaderBytes + kMaxFrameBytes + kEnvelopeOverheadBytes) {
    return fail("TOO_LARGE", "the request is " + std::to_string(frame.size()) + " bytes, over the limit of 1 MiB",
                "Send less, or put it in a file that the agent may read");
  }
  std::string_view rest = frame;
  bool descriptors_sent = fds.empty();
  while (!rest.empty()) {
    // The header alone carries the descriptors: four bytes are never taken in part.
    Result<> sent;
    std::size_t count = kFrameHeaderBytes;
    if (!descriptors_sent) {
      sent = send_packet(socket_.get(), rest.substr(0, kFrameHeaderBytes), fds);
    } else {
      const ssize_t written = ::send(socket_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
      if (written < 0) sent = errno_failure("send");
      count = static_cast<std::size_t>(std::max<ssize_t>(written, 0));
    }
    if (sent) {
      descriptors_sent = true;
      rest.remove_prefix(count);
      continue;
    }
    const int error = sent.error().error_number;
    // kaid hung up; what it said before that, if anything, is read next.
    if (error == EPIPE || error == ECONNRESET) return {};
    if (error == EINTR) continue;
    if (error != EAGAIN) return local_failure("cannot send the request to kaid", sent.error());
    pollfd writable{socket_.get(), POLLOUT, 0};
    const int wait = milliseconds_until(deadline);
    if (wait == 0) return tl::unexpected(timed_out("kaid at " + path_ + " did not take the request in time"));
    poll(&writable, 1, wait);
  }
  return {};
}

Outcome<std::optional<control::Response>> Client::take_decoded() {
  const auto frame = decoder_.next();
  if (!frame) {
    return fail("INTERNAL", "kaid's answer is out of step: " + frame.error().message(),
                "Is " + path_ + " kaid's socket? Compare versions with: kaictl version");
  }
  if (!*frame) return std::nullopt;
  control::Response response;
  if (!response.ParseFromArray((*frame)->data(), static_cast<int>((*frame)->size())) ||
      response.result_case() == control::Response::RESULT_NOT_SET) {
    return fail("INTERNAL", "kaid's answer is not of its protocol",
                "Is " + path_ + " kaid's socket? Compare versions with: kaictl version");
  }
  return response;
}

Outcome<std::optional<control::Response>> Client::take() {
  for (;;) {
    auto decoded = take_decoded();
    if (!decoded || *decoded) return decoded;
    std::array<char, 65536> buffer;
    const ssize_t count = recv(socket_.get(), buffer.data(), buffer.size(), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return std::nullopt;
    if (count < 0) return lost(std::string(": ") + std::strerror(errno));
    if (count == 0) return lost("");
    decoder_.feed({buffer.data(), static_cast<std::size_t>(count)});
  }
}

Outcome<std::optional<control::Response>> Client::receive(Clock::time_point deadline, int interrupt_fd) {
  for (;;) {
    auto taken = take();
    if (!taken || *taken) return taken;
    const int wait = deadline == Clock::time_point::max() ? -1 : milliseconds_until(deadline);
    if (wait == 0) return tl::unexpected(timed_out("kaid at " + path_ + " did not answer in time"));
    std::array<pollfd, 2> waiting = {{{socket_.get(), POLLIN, 0}, {interrupt_fd, POLLIN, 0}}};
    if (poll(waiting.data(), waiting.size(), wait) > 0 && waiting[1].revents != 0) return std::nullopt;
  }
}

Failure failure_of(const control::Failed& failed) {
  Failure failure;
  failure.code = failed.code().empty() ? "INTERNAL" : failed.code();
  failure.exit_code = exit_code_of(failure.code);
  failure.message = failed.message();
  failure.hint = failed.hint();
  failure.details_json = failed.details_json();
  failure.retryable = failed.retryable();
  failure.document = failed.document();
  return failure;
}

namespace {

/// Tells a person what is being waited for: kaid's own words, else ours once it was quiet for kQuietTime.
class ProgressLine {
 public:
  explicit ProgressLine(const CallOptions& options) : options_(options) {}

  [[nodiscard]] bool due() const { return options_.show_progress && !said_ && Clock::now() >= quiet_until_; }
  [[nodiscard]] Clock::time_point next(Clock::time_point deadline) const {
    return options_.show_progress && !said_ ? std::min(deadline, quiet_until_) : deadline;
  }
  void say(const std::string& text) {
    said_ = true;
    if (!options_.show_progress) return;
    static_cast<void>(write_all(STDERR_FILENO, "kaictl: " + escape_for_terminal(text) + "\n"));
  }
  void say_waiting() { say("waiting for kaid: " + options_.activity); }

 private:
  const CallOptions& options_;
  const Clock::time_point quiet_until_ = Clock::now() + kQuietTime;
  bool said_ = false;
};

}  // namespace

Outcome<control::Done> call(const std::string& path, control::Request request, std::span<const int> fds,
                            const CallOptions& options) {
  auto client = Client::connect(path, options.limit);
  if (!client) return tl::unexpected(client.error());
  request.set_id(1);
  auto deadline = Clock::now() + options.limit;
  if (auto sent = client->send(request, fds, deadline); !sent) return tl::unexpected(sent.error());
  if (options.unlimited) deadline = Clock::time_point::max();
  ProgressLine progress(options);
  for (;;) {
    auto received = client->receive(progress.next(deadline), options.interrupt_fd);
    if (!received && received.error().code == "TIMEOUT" && progress.due()) {
      progress.say_waiting();
      continue;
    }
    if (!received && received.error().code == "TIMEOUT") {
      return tl::unexpected(timed_out("kaid at " + path + " did not answer within " + in_seconds(options.limit)));
    }
    if (!received) return tl::unexpected(received.error());
    if (!*received) return control::Done();  // interrupted
    const control::Response& response = **received;
    if (response.id() != request.id()) return fail("INTERNAL", "kaid answered a request that was not made");
    if (response.has_done()) return response.done();
    if (response.has_failed()) return tl::unexpected(failure_of(response.failed()));
    if (response.has_record() && options.on_record && !options.on_record(response.record())) return control::Done();
    if (response.has_progress()) progress.say(response.progress().text());
    if (!options.unlimited) deadline = Clock::now() + options.limit;
  }
}

}  // namespace kai
