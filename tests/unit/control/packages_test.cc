#include "supervisor/control/packages.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include <doctest/doctest.h>

#include "base/text.h"
#include "base/unix.h"
#include "tests/unit/control/tar_builder.h"
#include "tests/unit/control/temp_directory.h"

namespace kai {
namespace {

namespace fs = std::filesystem;

/// A store of its own for each test.
struct Store {
  Store() : store(open()) {}
  [[nodiscard]] PackageStore open() const {
    auto opened = PackageStore::open(path());
    REQUIRE(opened);
    return std::move(*opened);
  }
  [[nodiscard]] std::string path() const { return directory / "packages"; }
  [[nodiscard]] Result<StagedPackage> stage(const std::string& tar, const PackageLimits& limits = {}) const {
    const auto memory = sealed_memfd("tar", tar);
    REQUIRE(memory);
    return store.stage(memory->get(), limits);
  }
  [[nodiscard]] StagedPackage staged(const std::string& tar) const {
    auto package = stage(tar);
    REQUIRE_MESSAGE(package, (package ? "" : package.error().message()));
    return std::move(*package);
  }
  [[nodiscard]] std::string sealed(const std::string& tar) const {
    auto name = store.seal(staged(tar), "a");
    REQUIRE_MESSAGE(name, (name ? "" : name.error().message()));
    return *name;
  }
  /// Of a sealed package.
  [[nodiscard]] std::string place(const std::string& name) const { return path() + "/a/" + name; }
  [[nodiscard]] std::ptrdiff_t count() const {
    return std::distance(fs::directory_iterator(path() + "/a"), fs::directory_iterator());
  }
  /// The refusal's message; checks that nothing is left behind.
  [[nodiscard]] std::string refusal(const std::string& tar, const PackageLimits& limits = {}) const {
    const auto package = stage(tar, limits);
    CHECK_FALSE(package);
    CHECK(fs::is_empty(path()));
    if (package) return "";
    CHECK(package.error().error_number == 0);
    CHECK(escape_for_terminal(package.error().message()) == package.error().message());
    return package.error().message();
  }

  TempDirectory directory;
  PackageStore store;
};

bool has(const std::string& text, const std::string& part) {
  INFO(text);
  const bool found = text.find(part) != std::string::npos;
  CHECK(found);
  return found;
}

mode_t mode_of(const std::string& path) {
  struct stat status {};
  REQUIRE(lstat(path.c_str(), &status) == 0);
  return status.st_mode & 07777;
}

TarBuilder package() {
  TarBuilder tar;
  tar.file("manifest.json", R"({"id":"a"})");
  return tar;
}

TEST_CASE("a package is staged, sealed under its content's name, and readable by everybody") {
  const Store store;
  const mode_t old = umask(077);
  auto package = store.staged(TarBuilder()
                                  .directory("./")
                                  .file("./manifest.json", R"({"id":"a"})", 0600)
                                  .directory("./bin/")
                                  .file("./bin/run", "#!/bin/sh\n", 04755)
                                  .file("deep/er/data.bin", std::string(1 << 20, '\0'))
                                  .symlink("node_modules/.bin/run", "../../bin/run")
                                  .bytes());
  CHECK(package.manifest() == R"({"id":"a"})");
  const auto name = store.store.seal(std::move(package), "a");
  umask(old);
  REQUIRE(name);
  CHECK(name->size() == 64);
  const std::string root = store.place(*name);
  CHECK(mode_of(root) == 0755);
  CHECK(mode_of(root + "/deep/er") == 0755);
  CHECK(mode_of(root + "/manifest.json") == 0444);
  CHECK(mode_of(root + "/bin/run") == 0555);  // no set-user-id
  CHECK(fs::read_symlink(root + "/node_modules/.bin/run") == "../../bin/run");
  CHECK(fs::file_size(root + "/deep/er/data.bin") == 1 << 20);
  CHECK(store.store.list().value() == std::vector<std::string>{"a/" + *name});
  CHECK(store.count() == 1);
}

TEST_CASE("every tar format, gzipped or not, and any order give the same package") {
  const Store store;
  std::set<std::string> names;
  for (const TarFormat format : {TarFormat::kPax, TarFormat::kGnu, TarFormat::kUstar}) {
    for (const bool gzip : {false, true}) {
      TarBuilder tar(format, gzip);
      tar.file("lib/ünï.txt", "one")
          .directory("lib")
          .file("manifest.json", "{}")
          .file(std::string(90, 'd') + "/" + std::string(90, 'f'));
      names.insert(store.sealed(tar.bytes()));
    }
  }
  names.insert(store.sealed(TarBuilder()
                                .file("manifest.json", "{}")
                                .directory("lib")
                                .file("lib/ünï.txt", "one")
                                .file(std::string(90, 'd') + "/" + std::string(90, 'f'))
                                .bytes()));
  REQUIRE(names.size() == 1);
  CHECK(fs::exists(store.place(*names.begin()) + "/lib/ünï.txt"));
  CHECK(store.store.list()->size() == 1);
}

TEST_CASE("the name changes with each thing that an agent could tell apart") {
  const Store store;
  std::set<std::string> names;
  names.insert(store.sealed(package().file("a", "1").bytes()));
  names.insert(store.sealed(package().file("a", "2").bytes()));
  names.insert(store.sealed(package().file("b", "1").bytes()));
  names.insert(store.sealed(package().file("a", "1", 0755).bytes()));
  names.insert(store.sealed(package().file("a", "1").directory("d").bytes()));
  names.insert(store.sealed(package().symlink("a", "1").bytes()));
  names.insert(store.sealed(package().symlink("a", "2").bytes()));
  names.insert(store.sealed(package().directory("a").bytes()));
  CHECK(names.size() == 8);
}

TEST_CASE("a tar of one directory is that directory") {
  const Store store;
  const std::string flat = store.sealed(package().file("src/a", "1").symlink("l", "src/a").bytes());
  auto package = store.staged(TarBuilder()
                                  .file("cal-1.0/manifest.json", R"({"id":"a"})")
                                  .file("cal-1.0/src/a", "1")
                                  .symlink("cal-1.0/l", "src/a")
                                  .bytes());
  CHECK(package.manifest() == R"({"id":"a"})");
  CHECK(package.entries().contains("src/a"));
  CHECK(store.store.seal(std::move(package), "a").value() == flat);
  CHECK(store.count() == 1);
  const std::string other = store.sealed(TarBuilder().file("top/manifest.json", "{}").bytes());
  CHECK(fs::is_regular_file(store.place(other) + "/manifest.json"));
  CHECK(store.count() == 2);

  const Store empty;
  has(empty.refusal(TarBuilder().file("a/manifest.json").file("b/x").bytes()), "no manifest.json at its root");
  has(empty.refusal(TarBuilder().file("x/y").bytes()), "no manifest.json");
  has(empty.refusal(TarBuilder().file("a/manifest.json").symlink("a/l", "../outside").bytes()), "leaves the package");
}

TEST_CASE("refused: names that leave the package, or that a person cannot trust") {
  const Store store;
  has(store.refusal(package().file("/etc/passwd").bytes()), "/etc/passwd: the name is absolute");
  has(store.refusal(package().file("../x").bytes()), "leaves the package (..)");
  has(store.refusal(package().file("a/../../x").bytes()), "(..)");
  has(store.refusal(package().file("a/..").bytes()), "(..)");
  has(store.refusal(package().directory("..").bytes()), "(..)");
  has(store.refusal(package().file("a\nb").bytes()), "a\\nb: the name has a control character");
  has(store.refusal(package().file("a\033[2J").bytes()), "control character");
  has(store.refusal(package().file("a\xC2\x9b").bytes()), "control character");
  has(store.refusal(TarBuilder(TarFormat::kGnu).file("manifest.json").file("a\xff").bytes()), "not UTF-8");
  has(store.refusal(package().file(std::string(256, 'n')).bytes()), "longer than 255 bytes");
  std::string deep;
  for (int at = 0; at < 65; ++at) deep += "d/";
  has(store.refusal(package().file(deep + "f").bytes()), "nested deeper than 64");
  std::string longest;
  for (int at = 0; at < 5; ++at) longest += std::string(250, 'n') + "/";
  has(store.refusal(package().file(longest + "f").bytes()), "longer than 1024 bytes");
  has(store.refusal(package().file(".kai/main.mjs").bytes()), ".kai is kAI's own");
  has(store.refusal(package().file("./.kai").bytes()), ".kai is kAI's own");
  has(store.refusal(package().file(".").bytes()), "the package's own directory");
}

TEST_CASE("refused: what is no file, directory or symlink") {
  const Store store;
  for (const mode_t type : {mode_t{S_IFCHR}, mode_t{S_IFBLK}, mode_t{S_IFIFO}}) {
    has(store.refusal(package().add({"dev", "", type | 0666}).bytes()), "dev: is a device, fifo or socket");
  }
  has(store.refusal(package().file("a").add({"b", "", S_IFREG | 0644, "", "a"}).bytes()), "b: is a hard link");
  has(store.refusal(package().add({"b", "", S_IFREG | 0644, "", "/etc/shadow"}).bytes()), "b: is a hard link");
}

TEST_CASE("refused: the same name twice, in every combination") {
  const Store store;
  const std::string twice = "a: is in the tar more than once";
  has(store.refusal(package().file("a").file("a").bytes()), twice);
  has(store.refusal(package().file("a").file("./a").bytes()), twice);
  has(store.refusal(package().file("a").directory("a").bytes()), twice);
  has(store.refusal(package().directory("a").file("a").bytes()), twice);
  has(store.refusal(package().directory("a").directory("a/").bytes()), twice);
  has(store.refusal(package().symlink("a", "b").directory("a").bytes()), twice);
  has(store.refusal(package().symlink("a", "b").file("a").bytes()), twice);
  has(store.refusal(package().directory("a").symlink("a", "b").bytes()), twice);
  has(store.refusal(package().file("a/b").file("a").bytes()), twice);
  has(store.refusal(package().file("a").file("a/b").bytes()), "a/b: is below a, which is no directory");
  has(store.refusal(package().directory("d").symlink("a", "d").file("a/b").bytes()),
      "is below a, which is no directory");
  // A directory that its files came before is named once.
  CHECK(store.stage(package().file("a/b").directory("a").bytes()));
  has(store.refusal(package().file("a/b").directory("a").directory("a").bytes()), twice);
}

TEST_CASE("symlinks: those that stay inside are kept, the others refused") {
  const Store store;
  for (const std::string target : {"/etc/passwd", "..", "../x", "a/../..", "a/../b", "./../x", "d/up/../x", "x\ny"}) {
    INFO(target);
    CHECK_FALSE(store.stage(package().symlink("l", target).bytes()));
    CHECK(fs::is_empty(store.path()));
  }
  has(store.refusal(package().symlink("l", "/etc/passwd").bytes()), "l: is a symlink with an absolute target");
  has(store.refusal(package().symlink("a/l", "../../x").bytes()), "a/l: is a symlink that leaves the package");
  has(store.refusal(package().symlink("manifest", "x").symlink("l", std::string(1025, 'x')).bytes()), "1024 bytes");
  for (const std::string target : {".", "nothing", "a/b", "./a", "l"}) {
    INFO(target);
    CHECK(store.stage(package().symlink("l", target).bytes()));
  }
  CHECK(store.stage(package().symlink("a/b/l", "../../x").bytes()));
}

TEST_CASE("a file behind a symlink of the tar is never written to") {
  const Store store;
  const std::string outside = store.directory / "outside";
  fs::create_directory(outside);
  const auto tar = package().symlink("evil", outside).file("evil/pwned").bytes();
  has(store.refusal(tar), "is below evil, which is no directory");
  CHECK(fs::is_empty(outside));
}

TEST_CASE("bombs: sizes, counts and names have limits") {
  const Store store;
  PackageLimits limits;
  limits.total_bytes = 3 << 20;
  limits.file_bytes = 2 << 20;
  limits.entries = 10;
  const std::string mb(1 << 20, '\0');
  has(store.refusal(package().file("a", mb + mb + "x").bytes(), limits), "a: is larger than 2 MB");
  has(store.refusal(package().file("a", mb).file("b", mb).file("c", mb).bytes(), limits), "larger than 3 MB unpacked");
  TarBuilder many = package();
  for (int at = 0; at < 10; ++at) many.file("f" + std::to_string(at));
  has(store.refusal(many.bytes(), limits), "more than 10 files and directories");
  limits.entries = 100;
  limits.path_bytes = 1 << 10;
  TarBuilder named = package();
  for (int at = 0; at < 10; ++at) named.file(std::string(200, 'n') + std::to_string(at));
  has(store.refusal(named.bytes(), limits), "names add up");

  TarBuilder gzipped(TarFormat::kPax, true);
  gzipped.file("manifest.json").file("bomb", std::string(64 << 20, '\0'));
  const std::string bomb = gzipped.bytes();
  CHECK(bomb.size() < 1 << 20);
  has(store.refusal(bomb, limits), "bomb: is larger than");
}

TEST_CASE("bombs: what unpacks to far more than it is") {
  const Store store;
  PackageLimits limits;
  limits.ratio_from = 1 << 20;
  const std::string zeros(4 << 20, '\0');
  const std::string why = "unpacks to more than 100 times its size";
  has(store.refusal(TarBuilder(TarFormat::kPax, true).file("manifest.json").file("bomb", zeros).bytes(), limits), why);
  // Its holes are in no byte of the tar.
  has(store.refusal(package().add({"s", zeros, S_IFREG | 0644, "", "", 1 << 20}).bytes(), limits), why);
  // Nothing but headers, which are mostly zeros.
  TarBuilder headers(TarFormat::kUstar, true);
  headers.file("manifest.json");
  for (int at = 0; at < 4000; ++at) headers.file("d/" + std::to_string(at), "");
  const std::string many = headers.bytes();
  limits.ratio = 10;
  has(store.refusal(many, limits), "unpacks to more than 10 times its size");
  // Small packages and those that are not compressed are what they are.
  limits = {};
  CHECK(store.stage(many));
  CHECK(store.stage(TarBuilder(TarFormat::kPax, true).file("manifest.json").file("a", zeros).bytes()));
  limits.ratio_from = 0;
  CHECK(store.stage(package().file("a", zeros).bytes(), limits));
}

TEST_CASE("a size that lies is refused before anything is read") {
  const Store store;
  const std::string end(1024, '\0');
  const auto manifest = TarBuilder(TarFormat::kUstar).file("manifest.json", "{}").bytes().substr(0, 1024);
  has(store.refusal(manifest + raw_tar_header("big", '0', "77777777777") + end), "big: is larger than 512 MB");
  // Base 256, as gnu writes over 8 GB: 2^62 bytes.
  std::string huge("\x80\0\0\0\x40\0\0\0\0\0\0\0", 12);
  has(store.refusal(manifest + raw_tar_header("huge", '0', huge) + end), "refused");
  // More than there is: cut off.
  const auto cut = store.stage(manifest + raw_tar_header("cut", '0', "00000010000") + end);
  REQUIRE_FALSE(cut);
  has(cut.error().message(), "cannot be read as a tar");
  CHECK(fs::is_empty(store.path()));
}

TEST_CASE("a sparse file comes whole, its holes as zeros that count") {
  const Store store;
  std::string content(3 << 20, '\0');
  content.replace(1 << 20, 4, "data");
  const std::string plain = store.sealed(package().file("s", content).bytes());
  const std::string tar = package().add({"s", content, S_IFREG | 0644, "", "", 1 << 20}).bytes();
  CHECK(tar.size() < 1 << 20);
  CHECK(store.sealed(tar) == plain);
  PackageLimits limits;
  limits.total_bytes = 2 << 20;
  const Store empty;
  has(empty.refusal(tar, limits), "s: the package is larger than 2 MB unpacked");
}

TEST_CASE("what is no tar is refused, and so is every other format that libarchive knows") {
  const Store store;
  for (const std::string& bytes :
       {std::string(), std::string("hello"), std::string(10240, 'x'), std::string(10240, '\0'),
        std::string("\x1f\x8b\x08\0\0\0\0\0garbage", 15), std::string("PK\x03\x04") + std::string(2000, 'x')}) {
    CHECK_FALSE(store.stage(bytes));
    CHECK(fs::is_empty(store.path()));
  }
  const auto good = package().file("a", std::string(100'000, 'a')).bytes();
  for (const std::size_t length : {std::size_t{700}, std::size_t{5000}, good.size() / 2})
    CHECK_FALSE(store.stage(good.substr(0, length)));
  const auto pipe = make_pipe();
  REQUIRE(pipe);
  const auto from_pipe = store.store.stage(pipe->first.get());
  REQUIRE_FALSE(from_pipe);
  has(from_pipe.error().message(), "not a regular file");
  CHECK(fs::is_empty(store.path()));
}

TEST_CASE("manifest.json is a regular file of at most 1 MB") {
  const Store store;
  has(store.refusal(TarBuilder().directory("manifest.json").bytes()), "manifest.json: is not a regular file");
  has(store.refusal(TarBuilder().file("m").symlink("manifest.json", "m").bytes()),
      "manifest.json: is not a regular file");
  has(store.refusal(TarBuilder().file("manifest.json", std::string((1 << 20) + 1, ' ')).bytes()),
      "is larger than 1024 KB");
  CHECK(store.staged(TarBuilder().file("manifest.json", std::string(1 << 20, ' ')).bytes()).manifest().size() ==
        1 << 20);
}

TEST_CASE("the tar is read from its start, wherever its descriptor stands") {
  const Store store;
  const auto memory = sealed_memfd("tar", package().bytes());
  REQUIRE(memory);
  lseek(memory->get(), 0, SEEK_END);
  CHECK(store.store.stage(memory->get()));
  CHECK(store.store.stage(memory->get()));
}

TEST_CASE("files are added before sealing, and belong to the content") {
  const Store store;
  const std::string without = store.sealed(package().bytes());
  auto staged = store.staged(package().file("lib/a").bytes());
  REQUIRE(staged.add_file(".kai/main.mjs", "export {}"));
  CHECK_FALSE(staged.add_file(".kai/main.mjs", "again"));
  CHECK_FALSE(staged.add_file("manifest.json", "other"));
  CHECK_FALSE(staged.add_file("../x", "outside"));
  CHECK_FALSE(staged.add_file("manifest.json/x", "below a file"));
  CHECK(staged.read(".kai/main.mjs", 100).value() == "export {}");
  const auto name = store.store.seal(std::move(staged), "a");
  REQUIRE(name);
  CHECK(*name != without);
  const std::string root = store.place(*name);
  CHECK(mode_of(root + "/.kai") == 0755);
  CHECK(mode_of(root + "/.kai/main.mjs") == 0444);
  CHECK(read_file(root + "/.kai/main.mjs").value() == "export {}");
}

TEST_CASE("the staged directory can be given to a job") {
  const Store store;
  const auto staged = store.staged(TarBuilder().file("top/manifest.json", "{}").file("top/main.ts", "code").bytes());
  const Fd file(openat(staged.directory(), "main.ts", O_RDONLY | O_CLOEXEC));
  REQUIRE(file);
  CHECK(read_all(file.get(), 100).value() == "code");
}

TEST_CASE("what is not sealed is gone, and what a crash left is removed at the next start") {
  const Store store;
  {
    auto staged = store.staged(package().file("a/b/c").bytes());
    CHECK_FALSE(fs::is_empty(store.path()));
    auto moved = std::move(staged);
    CHECK(moved.entries().contains("a/b/c"));
  }
  CHECK(fs::is_empty(store.path()));

  const std::string kept = store.sealed(package().bytes());
  const std::string outside = store.directory / "outside";
  fs::create_directories(outside + "/precious");
  fs::create_directories(store.path() + "/.staging-left/a/b");
  fs::create_directory_symlink(outside, store.path() + "/.staging-left/a/link");
  fs::create_directory_symlink(outside, store.path() + "/.staging-link");
  CHECK(store.open().list());
  CHECK(fs::exists(outside + "/precious"));
  CHECK(store.count() == 1);
  CHECK(store.store.list().value() == std::vector<std::string>{"a/" + kept});
}

TEST_CASE("packages are removed one by one, or all that nothing refers to") {
  const Store store;
  const std::string a = store.sealed(package().file("a/b", "1").bytes());
  const std::string b = store.sealed(package().file("b", "1").bytes());
  const std::string c = store.sealed(package().file("c", "1").bytes());
  CHECK(store.store.size("a", a).value() == 11);
  REQUIRE(store.store.remove("a", a));
  REQUIRE(store.store.remove("a", a));
  CHECK_FALSE(store.store.has("a", a));
  CHECK(store.store.size("a", a).value() == 0);
  CHECK_FALSE(fs::exists(store.place(a)));
  REQUIRE(store.store.remove("nobody", a));
  CHECK_FALSE(store.store.remove("a", "../packages"));
  CHECK_FALSE(store.store.remove("a", ""));
  CHECK_FALSE(store.store.remove("a", std::string(64, '.')));
  CHECK_FALSE(store.store.remove("..", b));
  CHECK_FALSE(store.store.remove("a/../a", b));
  CHECK_FALSE(store.store.remove("", b));
  REQUIRE(store.store.remove_unreferenced({"a/" + c}));
  CHECK(store.store.list().value() == std::vector<std::string>{"a/" + c});
  CHECK(store.sealed(package().file("b", "1").bytes()) == b);
}

TEST_CASE("each agent has packages of its own, whatever is in those of others") {
  const Store store;
  const std::string tar = package().file("x", "1").bytes();
  const auto of_a = store.store.seal(store.staged(tar), "a");
  const auto of_b = store.store.seal(store.staged(tar), "b");
  REQUIRE(of_a);
  REQUIRE(of_b);
  CHECK(*of_a == *of_b);
  CHECK(store.store.list().value() == std::vector<std::string>{"a/" + *of_a, "b/" + *of_b});
  REQUIRE(store.store.remove("a", *of_a));
  CHECK(store.store.has("b", *of_b));
  for (const std::string name : {"", "..", ".hidden", "a/b", "-rf", "a\n", "kaid "}) {
    INFO(name);
    CHECK_FALSE(store.store.seal(store.staged(tar), name));
  }
  // Nothing but a directory is an agent's.
  fs::create_directory_symlink(store.directory / "packages", store.path() + "/c");
  CHECK_FALSE(store.store.seal(store.staged(tar), "c"));
}

TEST_CASE("a package goes in one step, and its bytes after that") {
  const Store store;
  const std::string name = store.sealed(package().bytes());
  CHECK_FALSE(store.store.held("a", name));
  {
    const auto hold = store.store.hold("a", name);
    const auto other = store.store.hold("a", name);
    CHECK(store.store.held("a", name));
    CHECK_FALSE(store.store.held("b", name));
  }
  CHECK_FALSE(store.store.held("a", name));
  const auto aside = store.store.set_aside("a", name);
  REQUIRE(aside);
  CHECK_FALSE(store.store.has("a", name));
  CHECK(fs::exists(store.path() + "/" + *aside));
  CHECK(store.store.set_aside("a", name).value().empty());
  REQUIRE(store.store.remove_aside(*aside));
  CHECK_FALSE(fs::exists(store.path() + "/" + *aside));
  CHECK_FALSE(store.store.remove_aside("a"));
  CHECK(fs::exists(store.path() + "/a"));
}

TEST_CASE("what a kaid before this one kept under the hash alone is moved to its agent") {
  const Store store;
  const std::string used = store.sealed(package().file("x", "1").bytes());
  const std::string unused = store.sealed(package().file("x", "2").bytes());
  fs::rename(store.place(used), store.path() + "/" + used);
  fs::rename(store.place(unused), store.path() + "/" + unused);
  REQUIRE(store.store.remove_unreferenced({"a/" + used}));
  CHECK(store.store.list().value() == std::vector<std::string>{"a/" + used});
  CHECK(read_file(store.place(used) + "/x").value() == "1");
  CHECK_FALSE(fs::exists(store.path() + "/" + unused));
  REQUIRE(store.store.remove_unreferenced({}));
  CHECK(fs::is_empty(store.path()));
}

TEST_CASE("a store that cannot be made is an error") {
  const TempDirectory directory;
  CHECK_FALSE(PackageStore::open(directory / "no/such/parent"));
  fs::create_directory_symlink("/tmp", directory / "link");
  CHECK_FALSE(PackageStore::open(directory / "link"));
}

TEST_CASE("modules of node_modules, as npm and its links lay them out") {
  const Store store;
  const auto staged =
      store.staged(package()
                       .file("node_modules/date-fns/package.json", R"({"name":"date-fns","version":"2.30.0"})")
                       .file("node_modules/@scope/x/package.json", R"({"deep":{"version":"9"},"version":"1.0.0"})")
                       .directory("node_modules/empty")
                       .file("node_modules/broken/package.json", "{")
                       .file("node_modules/nameless/package.json", R"({"version":1})")
                       .file("packages/local/package.json", R"({"version":"0.1.0"})")
                       .symlink("node_modules/local", "../packages/local")
                       .symlink("node_modules/loop", "loop")
                       .symlink("node_modules/dangling", "../nowhere")
                       .file("node_modules/bomb/package.json", std::string(900'000, '['))
                       .bytes());
  CHECK(staged.has_module("date-fns"));
  CHECK(staged.module_version("date-fns").value() == "2.30.0");
  CHECK(staged.module_version("@scope/x").value() == "1.0.0");
  CHECK(staged.module_version("local").value() == "0.1.0");
  for (const std::string name : {"empty", "loop", "dangling", "absent", "../../../etc", ""}) {
    INFO(name);
    CHECK_FALSE(staged.has_module(name));
    CHECK_FALSE(staged.module_version(name).value());
  }
  CHECK_FALSE(staged.module_version("broken"));
  CHECK_FALSE(staged.module_version("nameless"));
  CHECK_FALSE(staged.module_version("bomb"));
}

Manifest manifest_of(const std::string& entry, RuntimeKind kind) {
  Manifest manifest;
  manifest.entry = entry;
  manifest.runtime.kind = kind;
  return manifest;
}

TEST_CASE("the entry is a regular file that no symlink stands before") {
  const Store store;
  const auto staged = store.staged(package()
                                       .file("main.ts")
                                       .file("src/main.ts")
                                       .file("run.sh", "#!/bin/sh\n")
                                       .file("run", "#!/bin/sh\n", 0755)
                                       .symlink("link.ts", "main.ts")
                                       .symlink("code", "src")
                                       .bytes());
  const auto fault = [&](const std::string& entry, RuntimeKind kind = RuntimeKind::kNode) {
    const auto errors = check_package(staged, manifest_of(entry, kind)).errors;
    if (errors.empty()) return std::string();
    CHECK(errors.size() == 1);
    CHECK(errors[0].pointer == "/entry");
    return errors[0].message;
  };
  CHECK(fault("main.ts").empty());
  CHECK(fault("src/main.ts").empty());
  CHECK(fault("run", RuntimeKind::kExec).empty());
  has(fault("absent.ts"), "absent.ts is not in the package");
  has(fault("src"), "is a directory");
  has(fault("link.ts"), "is a symlink");
  has(fault("code/main.ts"), "behind a symlink");
  has(fault("main.ts/x"), "is not in the package");
  has(fault("run.sh", RuntimeKind::kExec), "chmod +x");
}

Dependency dependency(const std::string& name, const std::string& version, DependencyType type, bool required) {
  return {name, version, type, required};
}

TEST_CASE("a module is in node_modules at a version within its range, or the registration is refused") {
  const Store store;
  const auto staged = store.staged(package()
                                       .file("main.ts")
                                       .file("main.py")
                                       .file("node_modules/here/package.json", R"({"version":"1.4.2"})")
                                       .file("node_modules/old/package.json", R"({"version":"0.9.0"})")
                                       .file("node_modules/odd/package.json", "{}")
                                       .bytes());
  Manifest manifest = manifest_of("main.ts", RuntimeKind::kNode);
  manifest.dependencies = {dependency("here", "^1.0.0", DependencyType::kModule, true),
                           dependency("gone", "^1.0.0", DependencyType::kModule, true),
                           dependency("maybe", "^1.0.0", DependencyType::kModule, false),
                           dependency("db", ">= 3", DependencyType::kService, true),
                           dependency("@kai/agent", "^1.0.0", DependencyType::kModule, true),
                           dependency("old", "^1.0.0", DependencyType::kModule, true),
                           dependency("odd", "*", DependencyType::kModule, true),
                           dependency("here", "1.x || banana", DependencyType::kModule, false),
                           dependency("here", "2 - 3", DependencyType::kModule, false)};
  const auto [errors, warnings] = check_package(staged, manifest);
  REQUIRE(errors.size() == 4);
  CHECK(errors[0].pointer == "/dependencies/1");
  has(errors[0].message, "gone");
  has(errors[0].message, "npm ci");
  CHECK(errors[1].pointer == "/dependencies/5");
  has(errors[1].message, "0.9.0");
  has(errors[1].message, "^1.0.0");
  CHECK(errors[2].pointer == "/dependencies/6");
  CHECK(errors[3].pointer == "/dependencies/7/version");
  has(errors[3].message, "banana");
  REQUIRE(warnings.size() == 2);
  CHECK(warnings[0].pointer == "/dependencies/2");
  CHECK(warnings[1].pointer == "/dependencies/8");
  has(warnings[1].message, "1.4.2");
  manifest.runtime.kind = RuntimeKind::kNative;
  CHECK(check_package(staged, manifest).errors.empty());
}

std::string metadata(const std::string& name, const std::string& version) {
  return "Metadata-Version: 2.1\r\nName: " + name + "\r\nVersion: " + version + "\r\n\r\nVersion: 9\n";
}

struct PythonPackage {
  Store store;
  StagedPackage staged =
      store.staged(package()
                       .file("main.py")
                       .file("src/main.py")
                       .file("requests-2.31.0.dist-info/METADATA", metadata("requests", "2.31.0"))
                       .file("Zope_Interface-5.0.egg-info/PKG-INFO", metadata("zope.interface", "5.0"))
                       .file("distutils_made-1.0.egg-info", metadata("distutils-made", "1.0"))
                       .file("beta-2.0rc1.dist-info/METADATA", metadata("beta", "2.0rc1"))
                       .file("mute-1.0.dist-info/METADATA", "Name: mute\n\nVersion: 1.0\n")
                       .file("torn-1.0.dist-info/METADATA", metadata("torn", "1.0"))
                       .file("torn-2.0.dist-info/METADATA", metadata("torn", "2.0"))
                       .file("liar-1.0.dist-info/METADATA", metadata("other", "1.0"))
                       .file("huge-1.0.dist-info/METADATA", metadata("huge", "1.0") + std::string(2 << 20, ' '))
                       .file("vendor/site-packages/deep-3.0.dist-info/METADATA", metadata("deep", "3.0"))
                       .file("vendor/requests-1.0.dist-info/METADATA", metadata("requests", "1.0"))
                       .symlink("lib", "vendor/site-packages")
                       .symlink("linked-4.0.dist-info", "vendor/site-packages/deep-3.0.dist-info")
                       .bytes());
  Manifest manifest = manifest_of("main.py", RuntimeKind::kPython);

  /// The one finding about a dependency; "pointer: message", or nothing.
  std::string fault(const std::string& name, const std::string& version, bool required = true) {
    manifest.dependencies = {dependency("db", "1", DependencyType::kService, true),
                             dependency(name, version, DependencyType::kModule, required)};
    const auto [errors, warnings] = check_package(staged, manifest);
    CHECK(errors.size() + warnings.size() <= 1);
    if (!errors.empty()) return "error " + errors[0].pointer + ": " + errors[0].message;
    return warnings.empty() ? "" : "warning " + warnings[0].pointer + ": " + warnings[0].message;
  }
};

TEST_CASE_FIXTURE(PythonPackage, "a Python module is there at a version that its specifiers have") {
  CHECK(fault("requests", ">=2,<3").empty());
  CHECK(fault("Requests", "2.31").empty());
  CHECK(fault("requests", "*").empty());
  CHECK(fault("zope-interface", "~=5.0").empty());
  CHECK(fault("distutils.made", "==1.*").empty());
  CHECK(fault("beta", "*").empty());
  CHECK(fault("kai", "==7").empty());
  has(fault("requests", ">=3"), "error /dependencies/1: the module requests in the package has version '2.31.0'");
  has(fault("requests", "1.2.3"), "not within 1.2.3");
  has(fault("beta", ">=1"), "'2.0rc1'");
  has(fault("gone", "*"), "error /dependencies/1: the module gone is not in the package");
  has(fault("gone", "*"), "(/agent)");
  has(fault("gone", "*", false), "warning /dependencies/1: ");
  has(fault("requests", "^2.0", false), "error /dependencies/1/version: '^2.0' is no version specifier");
}

TEST_CASE_FIXTURE(PythonPackage, "metadata that does not say what it should is no version") {
  has(fault("mute", "*"), "does not say its Name and Version");
  has(fault("torn", "<2"), "'2.0'");
  CHECK(fault("torn", "<3").empty());
  has(fault("liar", "*"), "is not in the package");
  has(fault("other", "*"), "is not in the package");
  has(fault("linked", "*"), "is not in the package");
  has(fault("huge", "*"), "is larger than");
  has(fault("../../etc/passwd", "*"), "is not in the package");
}

TEST_CASE_FIXTURE(PythonPackage, "Python imports from the entry's directory and the package's part of PYTHONPATH") {
  has(fault("deep", "3.0"), "is not in the package");
  manifest.runtime.env = {"PYTHONPATH=/usr/lib:/agentx:/agent/vendor:lib:../..:nowhere"};
  CHECK(fault("deep", "3.0").empty());
  CHECK(fault("requests", "2.31.0").empty());  // the first directory's
  has(fault("gone", "1"), "(/agent, /agent/vendor, /agent/vendor/site-packages)");
  manifest.entry = "src/main.py";
  CHECK(fault("requests", "1.0").empty());
  has(fault("gone", "1"), "(/agent/src, /agent/vendor, /agent/vendor/site-packages)");
  manifest.runtime.env = {"PYTHONPATH=/agent/vendor:"};  // an empty one is the working directory
  has(fault("gone", "1"), "(/agent/src, /agent/vendor, /agent)");
}

TEST_CASE("what is looked at of Python's modules is bounded") {
  const Store store;
  auto tar = package();
  tar.file("main.py");
  std::string path = "PYTHONPATH=";
  for (int at = 0; at < 20; ++at) {
    tar.directory("d" + std::to_string(at));
    path += "d" + std::to_string(at) + ":";
    tar.file("many-" + std::to_string(at) + ".dist-info/METADATA", metadata("many", "1"));
  }
  const auto staged = store.staged(tar.bytes());
  Manifest manifest = manifest_of("main.py", RuntimeKind::kPython);
  manifest.dependencies = {dependency("many", "*", DependencyType::kModule, true)};
  has(check_package(staged, manifest).errors.at(0).message, "more than 16 times");
  manifest.runtime.env = {path};
  has(check_package(staged, manifest).errors.at(0).message, "more than 16 directories");
}

}  // namespace
}  // namespace kai
