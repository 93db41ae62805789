// Private data: exact file systems as root, measured directories else.
#include "supervisor/keeper/disks.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "supervisor/keeper/directory_watch.h"
#include "supervisor/keeper/disk_image.h"
#include "supervisor/keeper/loop_device.h"

namespace {

namespace fs = std::filesystem;
using kai::Fd;
using kai::keeper::Disks;

struct Scratch {
  Scratch() {
    std::string name = (fs::temp_directory_path() / "kai-disks-XXXXXX").string();
    path = mkdtemp(name.data());
  }
  ~Scratch() { fs::remove_all(path); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  fs::path path;
};

kai::spec::Disk limit(std::uint64_t megabytes, std::uint64_t inodes) {
  kai::spec::Disk disk;
  disk.set_size_bytes(megabytes << 20);
  disk.set_inodes(inodes);
  return disk;
}

Fd create(const Fd& directory, const std::string& name) {
  return Fd(openat(directory.get(), name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
}

/// How many bytes go into a new file until the file system is full.
std::uint64_t fill(const Fd& directory, const std::string& name) {
  const Fd file = create(directory, name);
  const std::string block(64 << 10, 'x');
  std::uint64_t total = 0;
  for (ssize_t wrote = 0; (wrote = write(file.get(), block.data(), block.size())) > 0;) {
    total += static_cast<std::uint64_t>(wrote);
  }
  CHECK(errno == ENOSPC);
  return total;
}

/// Whether some loop device still has a file below `directory`.
bool attached_below(const fs::path& directory) {
  for (const auto& block : fs::directory_iterator("/sys/block")) {
    std::ifstream backing(block.path() / "loop" / "backing_file");
    std::string name;
    if (std::getline(backing, name) && name.starts_with(directory.string())) return true;
  }
  return false;
}

}  // namespace

TEST_SUITE("disks of agents" * doctest::skip(geteuid() != 0)) {
  TEST_CASE("the size is the limit, and so is the number of files") {
    for (const auto& [megabytes, inodes] : {std::pair{1, 32}, {16, 1000}, {64, 16384}, {300, 5000}}) {
      CAPTURE(megabytes);
      const Scratch scratch;
      Disks disks(scratch.path.string(), true);
      REQUIRE(disks.why_not() == "");
      const auto wanted = limit(static_cast<std::uint64_t>(megabytes), static_cast<std::uint64_t>(inodes));
      const auto data = disks.open("agent", wanted);
      REQUIRE_MESSAGE(data, (data ? "" : data.error().message()));
      CHECK(data->kind == kai::starter::MOUNT);
      const auto space = disks.space("agent");
      REQUIRE(space);
      CHECK(space->bytes == wanted.size_bytes());
      CHECK(space->free_bytes >= wanted.size_bytes() / 100 * 95);
      CHECK(space->free_inodes == wanted.inodes());
    }
  }

  TEST_CASE("every start sees the same data, and what one fills the other finds full") {
    const Scratch scratch;
    Disks disks(scratch.path.string(), true);
    {
      const auto first = disks.open("agent", limit(8, 100));
      const auto second = disks.open("agent", limit(8, 100));
      REQUIRE(first);
      REQUIRE(second);
      struct statfs status {};
      REQUIRE(fstatfs(first->fd.get(), &status) == 0);
      CHECK(status.f_type == EXT4_SUPER_MAGIC);
      constexpr long kFlags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
      CHECK((status.f_flags & kFlags) == kFlags);
      const std::uint64_t wrote = fill(first->fd, "big");
      CHECK(wrote <= 8 << 20);
      CHECK(wrote > 7 << 20);
      CHECK(faccessat(second->fd.get(), "big", F_OK, 0) == 0);
      CHECK(disks.space("agent")->free_bytes < 64 << 10);
      CHECK(fs::exists(scratch.path / "disks" / "agent.img"));
    }
    CHECK(attached_below(scratch.path));
    CHECK(disks.open("agent", limit(8, 100)));  // the kept mount is still there
  }

  TEST_CASE("data outlives the keeper, and nothing stays attached") {
    const Scratch scratch;
    {
      Disks disks(scratch.path.string(), true);
      const auto data = disks.open("agent", limit(4, 100));
      REQUIRE(data);
      REQUIRE(create(data->fd, "kept"));
    }
    CHECK_FALSE(attached_below(scratch.path));
    Disks disks(scratch.path.string(), true);
    const auto data = disks.open("agent", limit(4, 100));
    REQUIRE(data);
    CHECK(faccessat(data->fd.get(), "kept", F_OK, 0) == 0);
    REQUIRE(disks.drop("agent"));
    CHECK_FALSE(fs::exists(scratch.path / "disks" / "agent.img"));
    CHECK(disks.drop("agent"));  // nothing there: fine
  }

  TEST_CASE("one file has one loop device") {
    const Scratch scratch;
    Disks disks(scratch.path.string(), true);
    REQUIRE(disks.open("agent", limit(4, 100)));
    const Fd image(open((scratch.path / "disks/agent.img").c_str(), O_RDWR | O_CLOEXEC));
    const auto one = kai::keeper::attach_loop_device(image.get());
    const auto other = kai::keeper::attach_loop_device(image.get());
    REQUIRE(one);
    REQUIRE(other);
    CHECK(one->path == other->path);
  }

  TEST_CASE("a larger limit is followed, a smaller one refused with what to do") {
    const Scratch scratch;
    Disks disks(scratch.path.string(), true);
    {
      const auto data = disks.open("agent", limit(8, 100));
      REQUIRE(data);
      REQUIRE(create(data->fd, "kept"));
      const auto in_use = disks.open("agent", limit(200, 100));
      REQUIRE_FALSE(in_use);
      CHECK(in_use.error().message().find("still in use") != std::string::npos);
    }
    const auto larger = disks.open("agent", limit(200, 100));
    REQUIRE_MESSAGE(larger, (larger ? "" : larger.error().message()));
    CHECK(faccessat(larger->fd.get(), "kept", F_OK, 0) == 0);
    CHECK(disks.space("agent")->bytes >= (200ULL << 20) / 100 * 97);
    CHECK(disks.space("agent")->free_inodes == 99);  // and "kept"
    const auto smaller = disks.open("agent", limit(8, 100));
    REQUIRE_FALSE(smaller);
    CHECK(smaller.error().message().find("cannot be made smaller") != std::string::npos);
    const auto inodes = disks.open("agent", limit(200, 101));
    REQUIRE_FALSE(inodes);
    CHECK(inodes.error().message().find("was made for 100 files") != std::string::npos);
  }

  TEST_CASE("a disk directory that is not the keeper's own is not trusted") {
    const Scratch scratch;
    Disks disks(scratch.path.string(), true);
    fs::create_directory(scratch.path / "elsewhere");
    fs::create_directory_symlink(scratch.path / "elsewhere", scratch.path / "disks");
    CHECK_FALSE(disks.open("agent", limit(4, 100)));
    fs::remove(scratch.path / "disks");
    REQUIRE(mkdir((scratch.path / "disks").c_str(), 0755) == 0);
    const auto open_to_all = disks.open("agent", limit(4, 100));
    REQUIRE_FALSE(open_to_all);
    CHECK(open_to_all.error().message().find("chmod 700") != std::string::npos);
    REQUIRE(chmod((scratch.path / "disks").c_str(), 0700) == 0);
    REQUIRE(symlink("/etc/passwd", (scratch.path / "disks/agent.img").c_str()) == 0);
    CHECK_FALSE(disks.open("agent", limit(4, 100)));
  }

  TEST_CASE("what is mounted in an agent's data is not removed with it") {
    const Scratch scratch;
    Disks disks(scratch.path.string(), false);
    REQUIRE(disks.open("agent", limit(4, 100)));
    const fs::path mounted = scratch.path / "data/agent/a/b";
    fs::create_directories(mounted);
    REQUIRE(mount("none", mounted.c_str(), "tmpfs", 0, "size=1m") == 0);
    std::ofstream(mounted / "kept") << "x";
    const auto dropped = disks.drop("agent");
    REQUIRE_FALSE(dropped);
    CHECK(dropped.error().error_number == EBUSY);
    CHECK(fs::exists(mounted / "kept"));
    CHECK(umount(mounted.c_str()) == 0);
    CHECK(disks.drop("agent"));
  }

  TEST_CASE("a full host disk is told, and leaves nothing half made") {
    const Scratch scratch;
    REQUIRE(mount("none", scratch.path.c_str(), "tmpfs", 0, "size=1m") == 0);
    {
      Disks disks(scratch.path.string(), true);
      const auto data = disks.open("agent", limit(64, 16384));
      REQUIRE_FALSE(data);
      INFO(data.error().message());
      CHECK(data.error().message().find("the host's disk is full") != std::string::npos);
      CHECK(fs::is_empty(scratch.path / "disks"));
    }
    CHECK(umount(scratch.path.c_str()) == 0);
  }
}

TEST_CASE("without file systems of their own: a directory, which is measured") {
  const Scratch scratch;
  Disks disks(scratch.path.string(), false);
  CHECK_FALSE(disks.exact());
  auto data = disks.open("agent", limit(4, 100));
  REQUIRE(data);
  CHECK(data->kind == kai::starter::DIRECTORY);
  CHECK_FALSE(disks.space("agent"));
  const fs::path top = scratch.path / "data" / "agent";
  fs::create_directories(top / "a" / "b");
  std::ofstream(top / "a" / "file") << std::string(100'000, 'x');
  fs::create_hard_link(top / "a" / "file", top / "a" / "again");
  fs::create_symlink("/usr", top / "a" / "out");
  std::ofstream(top / "a" / "b" / "hidden") << "x";
  REQUIRE(chmod((top / "a" / "b").c_str(), 0) == 0);  // as its owner, who hides something

  kai::keeper::DirectoryWatch watch(std::move(data->readable));
  const auto now = kai::keeper::DirectoryWatch::Clock::now();
  watch.tick(now);
  CHECK_FALSE(watch.measuring());
  CHECK(watch.usage().inodes == 5);  // a, file, out, b, hidden
  CHECK(watch.usage().bytes >= 100'000);
  CHECK(watch.usage().bytes < 200'000);
  std::ofstream(top / "more") << "x";
  watch.tick(now);  // not yet time
  CHECK(watch.usage().inodes == 5);
  watch.tick(now + std::chrono::seconds(10));
  CHECK(watch.usage().inodes == 6);

  REQUIRE(chmod((top / "a" / "b").c_str(), 0500) == 0);
  const auto dropped = disks.drop("agent");
  CHECK_MESSAGE(dropped, (dropped ? "" : dropped.error().message()));
  CHECK_FALSE(fs::exists(top));
  CHECK(fs::exists("/usr"));
}

TEST_CASE("a large directory is measured in slices, a bottomless one ends") {
  const Scratch scratch;
  Disks disks(scratch.path.string(), false);
  auto data = disks.open("agent", limit(4, 100));
  REQUIRE(data);
  for (int at = 0; at < 2500; ++at) std::ofstream(scratch.path / "data/agent" / std::to_string(at));
  kai::keeper::DirectoryWatch watch(std::move(data->readable));
  const auto now = kai::keeper::DirectoryWatch::Clock::now();
  watch.tick(now);
  CHECK(watch.measuring());
  CHECK(watch.usage().inodes >= 900);
  while (watch.measuring()) watch.tick(now);
  CHECK(watch.usage().inodes == 2500);

  Fd deep(open((scratch.path / "data/agent").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  for (std::size_t at = 0; at <= kai::keeper::kMaxDirectoryDepth; ++at) {
    REQUIRE(mkdirat(deep.get(), "d", 0700) == 0);
    deep.reset(openat(deep.get(), "d", O_PATH | O_DIRECTORY | O_CLOEXEC));
  }
  do {
    watch.tick(now + std::chrono::seconds(10));
  } while (watch.measuring());
  CHECK(watch.too_deep());
}

TEST_CASE("data is removed however deep it is, and nothing beside it") {
  const Scratch scratch;
  Disks disks(scratch.path.string(), false);
  REQUIRE(disks.open("agent", limit(4, 100)));
  const fs::path top = scratch.path / "data/agent";
  fs::create_directory(scratch.path / "beside");
  std::ofstream(scratch.path / "beside/kept") << "x";
  fs::create_directory(top / "~0");  // names that a removal could want
  std::ofstream(top / "~0/full") << "x";
  std::ofstream(top / "~1") << "x";
  const std::string out = (scratch.path / "beside").string();
  Fd deep(open(top.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (int at = 0; at < 1000; ++at) {
    REQUIRE(mkdirat(deep.get(), "d", 0700) == 0);
    REQUIRE(mkdirat(deep.get(), "empty", 0) == 0);
    REQUIRE(symlinkat(out.c_str(), deep.get(), "out") == 0);
    REQUIRE(create(deep, "file"));
    Fd below(openat(deep.get(), "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (at % 3 == 0) REQUIRE(fchmod(deep.get(), at % 2 == 0 ? 0 : 0500) == 0);
    deep = std::move(below);
  }
  const auto dropped = disks.drop("agent");
  CHECK_MESSAGE(dropped, (dropped ? "" : dropped.error().message()));
  CHECK_FALSE(fs::exists(top));
  CHECK(fs::exists(scratch.path / "beside/kept"));
}
