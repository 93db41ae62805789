// kai-traffic MODE ADDRESS PORT …: both ends of the connections that bench/egress.py measures, on plain blocking
// sockets, a thread each. Static: inside an agent there is nothing else of the host's.
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>

namespace {

using Clock = std::chrono::steady_clock;

// The first byte of a connection says what it is for.
constexpr char kUpload = 'U', kDownload = 'D', kEcho = 'E', kOneByte = 'C', kIdle = 'I';
constexpr char kLastBlock = 'L';  // of an upload, its first byte
constexpr std::size_t kBlock = 256 << 10;
constexpr int kServers = 128;  // connections that are served at the same time, never read ones too; idle ones need none
constexpr int kBacklog = 4096;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

[[noreturn]] void give_up(const char* what) {
  std::perror(what);
  std::exit(1);
}

bool write_whole(int fd, const char* bytes, std::size_t size) {
  while (size > 0) {
    const ssize_t count = send(fd, bytes, size, MSG_NOSIGNAL);
    if (count <= 0) return false;
    bytes += count;
    size -= static_cast<std::size_t>(count);
  }
  return true;
}

sockaddr_in address_of(const char* host, const char* port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::strtoul(port, nullptr, 10)));
  if (inet_pton(AF_INET, host, &address.sin_addr) != 1) give_up(host);
  return address;
}

void no_delay(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/// A connection for `purpose`, or -1.
int try_connect(const sockaddr_in& address, char purpose) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  no_delay(fd);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 && write_whole(fd, &purpose, 1)) {
    return fd;
  }
  close(fd);
  return -1;
}

int must_connect(const sockaddr_in& address, char purpose) {
  const int fd = try_connect(address, purpose);
  if (fd < 0) give_up("connect");
  return fd;
}

/// Until a block that begins with kLastBlock: not every peer of egress hands on a half-closed connection.
std::uint64_t read_blocks(int fd) {
  std::vector<char> block(kBlock);
  for (std::uint64_t bytes = 0;;) {
    // What is there, and not only whole blocks: waiting for those would hold the window back.
    const std::size_t at = bytes % kBlock;
    const ssize_t count = recv(fd, block.data() + at, kBlock - at, 0);
    if (count <= 0) return bytes;
    bytes += static_cast<std::uint64_t>(count);
    if (bytes % kBlock == 0 && block[0] == kLastBlock) return bytes;
  }
}

void serve_connection(int fd) {
  char purpose = 0;
  if (recv(fd, &purpose, 1, 0) != 1) return;
  if (purpose == kUpload) {
    const std::uint64_t bytes = read_blocks(fd);
    write_whole(fd, reinterpret_cast<const char*>(&bytes), sizeof(bytes));
  } else if (purpose == kDownload) {
    const std::vector<char> block(kBlock, 'x');
    while (write_whole(fd, block.data(), block.size())) continue;
  } else if (purpose == kEcho) {
    char byte = 0;
    while (recv(fd, &byte, 1, 0) == 1 && write_whole(fd, &byte, 1)) continue;
  } else {
    write_whole(fd, &purpose, 1);
  }
  if (purpose == kIdle) {
    // Lives on without a server, until this process ends.
    if (fcntl(fd, F_DUPFD_CLOEXEC, 0) < 0) give_up("an idle connection");
  }
}

/// Prints the port, and serves until it is killed.
int serve(const sockaddr_in& asked) {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = asked;
  socklen_t size = sizeof(address);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener, kBacklog) != 0 ||
      getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    give_up("listen");
  }
  std::printf("%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  const auto work = [listener] {
    for (;;) {
      const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) continue;
      no_delay(fd);
      serve_connection(fd);
      close(fd);
    }
  };
  std::vector<std::thread> servers;
  for (int count = 0; count < kServers; ++count) servers.emplace_back(work);
  for (std::thread& server : servers) server.join();
  return 0;
}

/// Bytes in so many seconds by one connection, until the server has them all.
void upload(const sockaddr_in& address, double seconds) {
  const int fd = must_connect(address, kUpload);
  std::vector<char> block(kBlock, 'x');
  const Clock::time_point begin = Clock::now();
  while (block[0] != kLastBlock) {
    if (seconds_since(begin) >= seconds) block[0] = kLastBlock;
    if (!write_whole(fd, block.data(), block.size())) give_up("upload");
  }
  std::uint64_t bytes = 0;
  if (recv(fd, &bytes, sizeof(bytes), MSG_WAITALL) != sizeof(bytes)) give_up("upload");
  const double took = seconds_since(begin);
  close(fd);
  std::printf("{\"bytes\": %llu, \"seconds\": %.6f}\n", static_cast<unsigned long long>(bytes), took);
}

void download(const sockaddr_in& address, double seconds) {
  const int fd = must_connect(address, kDownload);
  std::vector<char> block(kBlock);
  std::uint64_t bytes = 0;
  const Clock::time_point begin = Clock::now();
  double took = 0;
  for (; took < seconds; took = seconds_since(begin)) {
    const ssize_t count = recv(fd, block.data(), block.size(), 0);
    if (count <= 0) give_up("download");
    bytes += static_cast<std::uint64_t>(count);
  }
  close(fd);
  std::printf("{\"bytes\": %llu, \"seconds\": %.6f}\n", static_cast<unsigned long long>(bytes), took);
}

void round_trips(const sockaddr_in& address, double seconds) {
  const int fd = must_connect(address, kEcho);
  std::vector<double> took;
  const Clock::time_point begin = Clock::now();
  while (seconds_since(begin) < seconds) {
    const Clock::time_point sent = Clock::now();
    char byte = 'x';
    if (!write_whole(fd, &byte, 1) || recv(fd, &byte, 1, 0) != 1) give_up("round trip");
    took.push_back(seconds_since(sent) * 1e6);
  }
  close(fd);
  std::sort(took.begin(), took.end());
  std::printf("{\"p50\": %.2f, \"p99\": %.2f, \"count\": %zu}\n", took[took.size() / 2], took[took.size() * 99 / 100],
              took.size());
}

/// Connect, a byte each way, the server closes: by `threads` at the same time.
void connections(const sockaddr_in& address, double seconds, unsigned long threads) {
  std::atomic<std::uint64_t> made = 0, failed = 0;
  const Clock::time_point begin = Clock::now();
  std::vector<std::thread> clients;
  for (unsigned long count = 0; count < threads; ++count) {
    clients.emplace_back([&] {
      while (seconds_since(begin) < seconds) {
        const int fd = try_connect(address, kOneByte);
        char byte = 0;
        const bool answered = fd >= 0 && recv(fd, &byte, 1, 0) == 1 && recv(fd, &byte, 1, 0) == 0;
        ++(answered ? made : failed);
        if (fd >= 0) close(fd);
      }
    });
  }
  for (std::thread& client : clients) client.join();
  std::printf("{\"connections\": %llu, \"failed\": %llu, \"seconds\": %.6f}\n",
              static_cast<unsigned long long>(made.load()), static_cast<unsigned long long>(failed.load()),
              seconds_since(begin));
}

/// Says "ready" and stays until standard input ends.
void stay() {
  std::printf("ready\n");
  std::fflush(stdout);
  char byte = 0;
  while (read(STDIN_FILENO, &byte, 1) > 0) continue;
}

void idle(const sockaddr_in& address, unsigned long count) {
  for (unsigned long made = 0; made < count; ++made) {
    const int fd = must_connect(address, kIdle);
    char byte = 0;
    if (recv(fd, &byte, 1, 0) != 1) give_up("an idle connection");
  }
  stay();
}

/// As much as it gets, by `count` uploads, until standard input ends.
void greedy(const sockaddr_in& address, unsigned long count) {
  for (unsigned long made = 0; made < count; ++made) {
    std::thread([fd = must_connect(address, kUpload)] {
      const std::vector<char> block(kBlock, 'x');
      while (write_whole(fd, block.data(), block.size())) continue;
    }).detach();
  }
  stay();
  _exit(0);
}

/// Downloads that are never read.
void slow(const sockaddr_in& address, unsigned long count) {
  for (unsigned long made = 0; made < count; ++made) must_connect(address, kDownload);
  stay();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 3 ? argv[1] : "";
  const double seconds = argc > 4 ? std::strtod(argv[4], nullptr) : 1;
  const unsigned long count = argc > 4 ? std::strtoul(argv[argc - 1], nullptr, 10) : 1;
  if (mode.empty()) {
    std::fprintf(stderr,
                 "usage: kai-traffic serve ADDRESS PORT\n"
                 "       kai-traffic upload|download|round-trips ADDRESS PORT SECONDS\n"
                 "       kai-traffic connections ADDRESS PORT SECONDS THREADS\n"
                 "       kai-traffic idle|greedy|slow ADDRESS PORT COUNT\n");
    return 2;
  }
  const sockaddr_in address = address_of(argv[2], argv[3]);
  if (mode == "serve") return serve(address);
  if (mode == "upload") upload(address, seconds);
  if (mode == "download") download(address, seconds);
  if (mode == "round-trips") round_trips(address, seconds);
  if (mode == "connections") connections(address, seconds, count);
  if (mode == "idle") idle(address, count);
  if (mode == "greedy") greedy(address, count);
  if (mode == "slow") slow(address, count);
  return 0;
}
