#include "base/result.h"

#include <fcntl.h>

#include <doctest/doctest.h>

#include "base/fd.h"
#include "base/unix.h"

namespace kai {
namespace {

TEST_CASE("an error reads as one line: operation, what it was tried on, the kernel's reason") {
  CHECK(Error{"openat2", ENOENT, "/agent/main.ts"}.message() == "openat2 /agent/main.ts: No such file or directory");
  CHECK(Error{"mount /proc", EPERM, ""}.message() == "mount /proc: Operation not permitted");
  CHECK(Error{"frame", 0, "too long"}.message() == "frame too long");
}

TEST_CASE("errno_failure keeps the errno of the call before it") {
  errno = EXDEV;
  const Result<int> failed = errno_failure("openat2", "../x");
  errno = 0;
  REQUIRE_FALSE(failed.has_value());
  CHECK(failed.error().error_number == EXDEV);
  CHECK(failed.error().what == "openat2");
  CHECK(failed.error().context == "../x");
}

TEST_CASE("failure carries no errno") {
  const Result<> failed = failure("request", "no such agent");
  REQUIRE_FALSE(failed.has_value());
  CHECK(failed.error().error_number == 0);
}

bool is_open(int fd) {
  return fcntl(fd, F_GETFD) >= 0;
}

TEST_CASE("Fd closes what it owns, once, and gives it away on release and move") {
  auto made = make_pipe();
  REQUIRE(made.has_value());
  const int reading = made->first.get();
  const int writing = made->second.get();
  CHECK((fcntl(reading, F_GETFD) & FD_CLOEXEC) != 0);

  Fd moved = std::move(made->first);
  CHECK(moved.get() == reading);
  CHECK(is_open(reading));
  moved.reset();
  CHECK_FALSE(is_open(reading));
  CHECK_FALSE(moved.valid());

  const int released = made->second.release();
  CHECK(released == writing);
  CHECK(is_open(writing));
  { const Fd last(released); }
  CHECK_FALSE(is_open(writing));
}

TEST_CASE("an Fd moved into another closes the one that was there") {
  auto made = make_pipe();
  REQUIRE(made.has_value());
  const int reading = made->first.get();
  const int writing = made->second.get();
  made->first = std::move(made->second);
  CHECK_FALSE(is_open(reading));
  CHECK(is_open(writing));
  CHECK(made->first.get() == writing);
}

}  // namespace
}  // namespace kai
