// A package directory as a tar: what is in it, in which order, and what is refused.
#include "kaictl/package_tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>

#include <doctest/doctest.h>

#include "base/unix.h"
#include "tests/unit/kaictl/fake_daemon.h"

namespace kai::test {
namespace {

namespace fs = std::filesystem;

struct Entry {
  std::string name, content;
  mode_t type = 0;
  mode_t mode = 0;
};

std::vector<Entry> entries_of(const std::string& tar) {
  const std::unique_ptr<archive, int (*)(archive*)> reader(archive_read_new(), archive_read_free);
  archive_read_support_format_tar(reader.get());
  REQUIRE(archive_read_open_memory(reader.get(), tar.data(), tar.size()) == ARCHIVE_OK);
  std::vector<Entry> entries;
  archive_entry* entry = nullptr;
  while (archive_read_next_header(reader.get(), &entry) == ARCHIVE_OK) {
    Entry found{archive_entry_pathname(entry), "", archive_entry_filetype(entry), archive_entry_perm(entry)};
    CHECK(archive_entry_uid(entry) == 0);
    CHECK(archive_entry_gid(entry) == 0);
    CHECK(archive_entry_mtime(entry) == 0);
    if (found.type == AE_IFLNK) found.content = archive_entry_symlink(entry);
    if (found.type == AE_IFREG) {
      found.content.resize(static_cast<std::size_t>(archive_entry_size(entry)));
      const la_ssize_t count = archive_read_data(reader.get(), found.content.data(), found.content.size());
      CHECK(count == static_cast<la_ssize_t>(found.content.size()));
    }
    entries.push_back(std::move(found));
  }
  return entries;
}

void write(const std::string& path, const std::string& content) {
  std::ofstream(path) << content;
}

std::string packed(const std::string& directory) {
  const auto fd = pack_directory(directory);
  REQUIRE(fd);
  return *read_all(fd->get(), 64 << 20);
}

TEST_CASE("names are relative and sorted, links are stored, ids, times and modes are normalized") {
  const ScratchDirectory package;
  fs::create_directories(package / "lib/inner");
  write(package / "main.ts", "code");
  write(package / "lib/inner/\xc3\xa4.txt", "umlaut");
  write(package / "run.sh", "#!");
  fs::permissions(package / "run.sh", fs::perms::owner_all);
  fs::permissions(package / "main.ts", fs::perms(0600));
  fs::create_symlink("../../etc/passwd", package / "out");
  fs::create_symlink(".", package / "loop");
  write(package / std::string(150, 'n'), "a name that needs a pax record");
  const auto entries = entries_of(packed(package.path() + "/"));
  std::vector<std::string> names;
  for (const Entry& entry : entries) names.push_back(entry.name);
  CHECK(names == std::vector<std::string>{"lib/", "lib/inner/", "lib/inner/\xc3\xa4.txt", "loop", "main.ts",
                                          std::string(150, 'n'), "out", "run.sh"});
  CHECK(entries[4].content == "code");
  CHECK(entries[4].mode == 0644);
  CHECK(entries[6].type == AE_IFLNK);
  CHECK(entries[6].content == "../../etc/passwd");
  CHECK(entries[7].mode == 0755);
}

TEST_CASE("the same files make the same bytes") {
  const ScratchDirectory one;
  const ScratchDirectory other;
  write(one / "b", "2");
  write(one / "a", "1");
  write(other / "a", "1");
  write(other / "b", "2");
  fs::last_write_time(other / "a", fs::file_time_type::clock::now() - std::chrono::hours(48));
  CHECK(packed(one.path()) == packed(other.path()));
}

TEST_CASE("devices, FIFOs and sockets are refused by name") {
  const ScratchDirectory package;
  fs::create_directory(package / "sub");
  SUBCASE("FIFO") {
    REQUIRE(mkfifo((package / "sub/odd").c_str(), 0600) == 0);
  }
  SUBCASE("socket") {
    const Fd socket(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    (package / "sub/odd").copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  }
  const auto result = pack_directory(package.path());
  REQUIRE_FALSE(result);
  CHECK(result.error().exit_code == kExitRefused);
  CHECK(result.error().message.find(package / "sub/odd") != std::string::npos);
}

TEST_CASE("names that are not UTF-8 are refused") {
  const ScratchDirectory package;
  write(package / "a\xff", "");
  CHECK(pack_directory(package.path()).error().code == "INVALID");
}

TEST_CASE("size, number and depth are bounded") {
  const ScratchDirectory package;
  write(package / "a", "12345");
  write(package / "b", "12345");
  fs::create_directories(package / "c/d/e");
  CHECK(pack_directory(package.path(), {.bytes = 10}));
  CHECK(pack_directory(package.path(), {.bytes = 9}).error().code == "TOO_LARGE");
  CHECK(pack_directory(package.path(), {.entries = 5}));
  CHECK(pack_directory(package.path(), {.entries = 4}).error().code == "TOO_LARGE");
  CHECK(pack_directory(package.path(), {.depth = 3}));
  CHECK(pack_directory(package.path(), {.depth = 2}).error().code == "TOO_LARGE");
  // A sparse file is as large as it says.
  fs::resize_file(package / "a", std::uintmax_t{600} << 20);
  CHECK(pack_directory(package.path()).error().code == "TOO_LARGE");
}

TEST_CASE("a file that the operator may not read is named, with exit code 1") {
  const ScratchDirectory package;
  write(package / "secret", "x");
  fs::permissions(package / "secret", fs::perms::none);
  fs::permissions(package.path(), fs::perms(0755));
  // Root reads everything: an ordinary user has to try.
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    constexpr uid_t kNobody = 65534;
    if (geteuid() == 0 && setresuid(kNobody, kNobody, kNobody) < 0) _exit(100);
    const auto result = pack_directory(package.path());
    if (result) _exit(101);
    const bool named = result.error().message.find(package / "secret") != std::string::npos &&
                       result.error().message.find("Permission denied") != std::string::npos;
    _exit(named ? result.error().exit_code : 102);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WEXITSTATUS(status) == kExitFailed);
}

}  // namespace
}  // namespace kai::test
