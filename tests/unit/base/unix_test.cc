#include "base/unix.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include <doctest/doctest.h>

namespace kai {
namespace {

/// A directory of its own for one test, gone at its end.
struct ScratchDirectory {
  std::string path = [] {
    std::string name = (std::filesystem::temp_directory_path() / "kai-unix-test-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    return name;
  }();
  ~ScratchDirectory() {
    std::error_code ignored;  // a destructor has nobody to tell
    std::filesystem::remove_all(path, ignored);
  }
};

void make_file(const std::string& path, std::string_view bytes) {
  const Fd fd(open(path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  REQUIRE(fd.valid());
  REQUIRE(write_all(fd.get(), bytes).has_value());
}

TEST_CASE("open_at opens close-on-exec and names the path that it could not open") {
  const ScratchDirectory scratch;
  make_file(scratch.path + "/there", "x");
  const auto there = open_at(AT_FDCWD, scratch.path + "/there", O_RDONLY);
  REQUIRE(there.has_value());
  CHECK((fcntl(there->get(), F_GETFD) & FD_CLOEXEC) != 0);
  const auto missing = open_at(AT_FDCWD, scratch.path + "/missing", O_RDONLY);
  REQUIRE_FALSE(missing.has_value());
  CHECK(missing.error().error_number == ENOENT);
  CHECK(missing.error().context == scratch.path + "/missing");
}

TEST_CASE("open_at with RESOLVE_BENEATH and NO_SYMLINKS does not leave the directory") {
  const ScratchDirectory scratch;
  make_file(scratch.path + "/outside", "x");
  std::filesystem::create_directory(scratch.path + "/inside");
  std::filesystem::create_symlink("../outside", scratch.path + "/inside/link");
  const Fd inside(open((scratch.path + "/inside").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  REQUIRE(inside.valid());
  const auto error_of = [&](const std::string& name, std::uint64_t resolve) {
    const auto opened = open_at(inside.get(), name, O_RDONLY, resolve);
    return opened ? 0 : opened.error().error_number;
  };
  CHECK(error_of("../outside", RESOLVE_BENEATH) == EXDEV);
  CHECK(error_of("link", RESOLVE_BENEATH) == EXDEV);
  CHECK(error_of("link", RESOLVE_NO_SYMLINKS) == ELOOP);
  CHECK(error_of(scratch.path + "/outside", RESOLVE_BENEATH) == EXDEV);
  CHECK(error_of("link", 0) == 0);  // the same link is followed where nothing forbids it
}

TEST_CASE("a pidfd signals its process, also when that is gone") {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    pause();
    _exit(0);
  }
  const auto pidfd = open_pidfd(child);
  REQUIRE(pidfd.has_value());
  CHECK(signal_pidfd(pidfd->get(), SIGKILL).has_value());
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  CHECK(signal_pidfd(pidfd->get(), SIGKILL).has_value());
}

TEST_CASE("packets keep their borders and carry descriptors, close-on-exec") {
  auto pair = socket_pair(SOCK_SEQPACKET);
  REQUIRE(pair.has_value());
  auto pipe = make_pipe();
  REQUIRE(pipe.has_value());
  const std::array<int, 2> fds = {pipe->first.get(), pipe->second.get()};
  REQUIRE(send_packet(pair->first.get(), "with descriptors", fds).has_value());
  REQUIRE(send_packet(pair->first.get(), "without").has_value());

  const auto with = receive_packet(pair->second.get(), 64);
  REQUIRE(with.has_value());
  CHECK(with->bytes == "with descriptors");
  REQUIRE(with->fds.size() == 2);
  CHECK((fcntl(with->fds[0].get(), F_GETFD) & FD_CLOEXEC) != 0);
  REQUIRE(write_all(with->fds[1].get(), "through").has_value());
  pipe->second.reset();
  std::array<char, 16> buffer;
  CHECK(read(pipe->first.get(), buffer.data(), buffer.size()) == 7);

  const auto without = receive_packet(pair->second.get(), 64);
  REQUIRE(without.has_value());
  CHECK(without->bytes == "without");
  CHECK(without->fds.empty());

  pair->first.reset();
  const auto end = receive_packet(pair->second.get(), 64);
  REQUIRE(end.has_value());
  CHECK(end->bytes.empty());
}

TEST_CASE("a packet over the limit is an error, and its descriptors are not leaked") {
  auto pair = socket_pair(SOCK_SEQPACKET);
  REQUIRE(pair.has_value());
  auto pipe = make_pipe();
  REQUIRE(pipe.has_value());
  const std::array<int, 1> fds = {pipe->second.get()};
  REQUIRE(send_packet(pair->first.get(), std::string(65, 'x'), fds).has_value());
  CHECK_FALSE(receive_packet(pair->second.get(), 64).has_value());
  pipe->second.reset();
  char byte = 0;
  CHECK(read(pipe->first.get(), &byte, 1) == 0);  // end of file: the copy that came with the packet is closed
}

TEST_CASE("too many descriptors are refused, and a full socket says EAGAIN") {
  auto pair = socket_pair(SOCK_SEQPACKET | SOCK_NONBLOCK);
  REQUIRE(pair.has_value());
  const std::vector<int> fds(kMaxPacketFds + 1, pair->first.get());
  CHECK_FALSE(send_packet(pair->first.get(), "x", fds).has_value());
  const std::string bytes(32 << 10, 'x');
  Result<> sent;
  for (int count = 0; sent && count < 1000; ++count) sent = send_packet(pair->first.get(), bytes);
  REQUIRE_FALSE(sent.has_value());
  CHECK(sent.error().error_number == EAGAIN);
}

TEST_CASE("files are read whole up to a limit, which is exact") {
  const ScratchDirectory scratch;
  const std::string path = scratch.path + "/file";
  make_file(path, std::string(20'000, 'x'));
  CHECK(read_file(path, 20'000).value().size() == 20'000);
  const auto over = read_file(path, 19'999);
  REQUIRE_FALSE(over.has_value());
  CHECK(over.error().error_number == EFBIG);
}

TEST_CASE("write_file writes to what is there and makes nothing") {
  const ScratchDirectory scratch;
  const std::string path = scratch.path + "/file";
  const auto missing = write_file(path, "x");
  REQUIRE_FALSE(missing.has_value());
  CHECK(missing.error().error_number == ENOENT);
  make_file(path, "");
  REQUIRE(write_file(path, "bytes").has_value());
  CHECK(read_file(path).value() == "bytes");
}

TEST_CASE("a sealed memfd is read from its start and cannot be changed") {
  const auto fd = sealed_memfd("test", "content");
  REQUIRE(fd.has_value());
  CHECK(read_all(fd->get(), 64).value() == "content");
  CHECK(pwrite(fd->get(), "x", 1, 0) < 0);
  CHECK(errno == EPERM);
  CHECK(ftruncate(fd->get(), 0) < 0);
  CHECK(errno == EPERM);
}

TEST_CASE("set_nonblocking") {
  auto pipe = make_pipe();
  REQUIRE(pipe.has_value());
  REQUIRE(set_nonblocking(pipe->first.get()).has_value());
  char byte = 0;
  CHECK(read(pipe->first.get(), &byte, 1) < 0);
  CHECK(errno == EAGAIN);
  CHECK_FALSE(set_nonblocking(-1).has_value());
}

TEST_CASE("the program knows the directory that it stands in") {
  const auto directory = program_directory();
  REQUIRE(directory.has_value());
  CHECK(std::filesystem::is_directory(*directory));
  CHECK(directory->front() == '/');
}

}  // namespace
}  // namespace kai
