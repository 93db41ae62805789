// The file of a snapshot: what is written is read back, tools of the system can look into it, and what is damaged or
// made by somebody else is refused before anything comes of it.
#include "supervisor/control/snapshot_file.h"

#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <vector>

#include <doctest/doctest.h>

#include "base/text.h"
#include "package/sums.h"
#include "tests/unit/control/tar_builder.h"
#include "tests/unit/control/temp_directory.h"

using namespace kai;

namespace {

namespace fs = std::filesystem;

constexpr const char* kMemory = "{\"format\":\"kai-memory/1\"}\n";

SnapshotHeader header_of(const std::string& id, bool has_state = true) {
  return {.id = id,
          .version = "1.2.3",
          .package = std::string(64, 'a'),
          .signer = "RWQ",
          .created_at = "2026-05-04T13:00:00.000Z",
          .kai = "0.1.0",
          .policy = "calendar",
          .has_state = has_state,
          .memory_type = "persistent",
          .memory_backend = "sqlite",
          .memory_entries = 2};
}

void write(const std::string& path, const std::string& text, mode_t mode = 0444) {
  fs::create_directories(fs::path(path).parent_path());
  const Fd file(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  REQUIRE(write_all(file.get(), text));
  REQUIRE(fchmod(file.get(), mode) == 0);
}

struct Fixture {
  Fixture() : scratch(open(directory.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    write(directory / "stored/manifest.json", "{}");
    write(directory / "stored/lib/zwölf.py", "print(12)\n");
    write(directory / ("stored/" + std::string(150, 'n') + "/" + std::string(120, 'm')), "deep");
    write(directory / "stored/bin/run", "#!/bin/sh\n", 0555);
    write(directory / "stored/.kai/main.mjs", "compiled");
    write(directory / "stored/lib/.kai/kept", "its own");
    fs::create_directories(directory / "stored/empty");
    fs::create_symlink("lib/zwölf.py", directory / "stored/link.py");
  }

  std::string write_one(bool has_state = true) {
    const std::string path = directory / "x.tar";
    const Fd file(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    SnapshotContent content;
    content.header = header_of("calendarAgent", has_state);
    content.package = Fd(open((directory / "stored").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    content.memory = std::move(*sealed_memfd("memory", kMemory));
    if (has_state) content.state = R"({"count":3})";
    content.policy = "{}\n";
    const auto written = write_snapshot_file(file.get(), content);
    REQUIRE_MESSAGE(written, (written ? "" : written.error().message()));
    CHECK(*written == fs::file_size(path));
    return path;
  }

  Result<SnapshotParts> read(const std::string& bytes, const SnapshotLimits& limits = {}) {
    return read_snapshot_file(sealed_memfd("snapshot", bytes)->get(), scratch.get(), limits);
  }
  std::string refusal(const std::string& bytes, const SnapshotLimits& limits = {}) {
    const auto parts = read(bytes, limits);
    if (parts) return "taken";
    CHECK(parts.error().error_number == 0);
    return parts.error().message();
  }

  TempDirectory directory;
  Fd scratch;
};

/// A tar with the members in their order and a SHA256SUMS that fits them.
struct Forged {
  std::vector<TarMember> members;

  Forged() {
    add("snapshot.json", to_json(header_of("calendarAgent")));
    add("package/manifest.json", "{}");
    add("memory.jsonl", kMemory);
    add("state.json", "{}");
    add("policy.yaml", "{}\n");
  }
  void add(const std::string& name, const std::string& content) { members.push_back({name, content}); }
  TarMember& operator[](const std::string& name) {
    for (TarMember& member : members) {
      if (member.name == name) return member;
    }
    throw std::runtime_error(name);
  }
  void drop(const std::string& name) {
    std::erase_if(members, [&](const TarMember& member) { return member.name == name; });
  }
  [[nodiscard]] std::string sums() const {
    package::Sums sums;
    for (const TarMember& member : members) {
      if (!S_ISREG(member.mode)) continue;
      package::Sha256 sum;
      crypto_hash_sha256(sum.data(), reinterpret_cast<const unsigned char*>(member.content.data()),
                         member.content.size());
      sums.files[member.name] = sum;
    }
    return package::format_sums(sums);
  }
  [[nodiscard]] std::string bytes(const std::vector<TarMember>& behind = {}) const {
    TarBuilder tar;
    for (const TarMember& member : members) tar.add(member);
    tar.file("SHA256SUMS", sums());
    for (const TarMember& member : behind) tar.add(member);
    return tar.bytes();
  }
};

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE_FIXTURE(Fixture, "what is written is read back") {
  for (const bool has_state : {true, false}) {
    const std::string bytes = *read_file(write_one(has_state));
    auto parts = read(bytes);
    REQUIRE_MESSAGE(parts, (parts ? "" : parts.error().message()));
    CHECK(to_json(parts->header) == to_json(header_of("calendarAgent", has_state)));
    CHECK(*read_all(parts->memory.get(), 1 << 20) == kMemory);
    CHECK(parts->state == (has_state ? R"({"count":3})" : ""));
    CHECK(parts->policy == "{}\n");
    const auto store = PackageStore::open(directory / "packages");
    REQUIRE(store);
    const auto package = store->stage(parts->package_tar.get());
    REQUIRE_MESSAGE(package, (package ? "" : package.error().message()));
    std::vector<std::string> names;
    for (const auto& [path, entry] : package->entries()) names.push_back(path);
    CHECK(names == std::vector<std::string>{"bin", "bin/run", "empty", "lib", "lib/.kai", "lib/.kai/kept",
                                            "lib/zwölf.py", "link.py", "manifest.json", std::string(150, 'n'),
                                            std::string(150, 'n') + "/" + std::string(120, 'm')});
    CHECK(package->entries().find("bin/run")->second.executable);
    CHECK_FALSE(package->entries().find("manifest.json")->second.executable);
    CHECK(package->entries().find("link.py")->second.target == "lib/zwölf.py");
  }
}

TEST_CASE_FIXTURE(Fixture, "tar(1) and sha256sum(1) can look into it") {
  const std::string path = write_one();
  const std::string out = directory / "out";
  fs::create_directories(out);
  CHECK(std::system(("tar xf " + path + " -C " + out + " 2>&1 | diff - /dev/null && cd " + out +
                     " && sha256sum --quiet -c SHA256SUMS && test -s snapshot.json && test -L package/link.py"
                     " && test ! -e package/.kai")
                        .c_str()) == 0);
}

TEST_CASE_FIXTURE(Fixture, "the parts of a snapshot that is read have no names") {
  const std::string bytes = *read_file(write_one());
  const auto parts = read(bytes);
  REQUIRE(parts);
  for (const auto& entry : fs::directory_iterator(directory.path())) {
    CHECK_FALSE(entry.path().filename().string().starts_with("."));
  }
}

TEST_CASE_FIXTURE(Fixture, "every byte of the content is under SHA256SUMS") {
  const std::string whole = *read_file(write_one());
  for (const std::string part : {"print(12)", R"("count":3)", "kai-memory", "#!/bin/sh", R"("createdAt":"2026)"}) {
    const std::size_t at = whole.find(part);
    REQUIRE(at != std::string::npos);
    std::string damaged = whole;
    damaged[at + 3] = static_cast<char>(damaged[at + 3] ^ 1);
    const std::string why = refusal(damaged);
    CHECK_MESSAGE(has(why, "the snapshot is refused"), part, ": ", why);
    CHECK(has(why, "nothing was changed"));
  }
}

TEST_CASE_FIXTURE(Fixture, "a snapshot that is cut off is refused, wherever") {
  const std::string whole = *read_file(write_one());
  const std::size_t sums = whole.rfind("SHA256SUMS");
  REQUIRE(sums != std::string::npos);
  for (std::size_t at = 0; at < sums; at += 256) CHECK(has(refusal(whole.substr(0, at)), "to its end"));
  // With a tar's proper end behind it.
  CHECK(has(refusal(whole.substr(0, sums) + std::string(1024, '\0')), "cut off"));
}

TEST_CASE_FIXTURE(Fixture, "what is no snapshot is refused") {
  CHECK(refusal(Forged().bytes()) == "taken");
  CHECK(has(refusal("no tar at all, but long enough to be looked at by libarchive"), "cannot be read as a tar"));
  TarBuilder package;
  package.file("manifest.json", "{}");
  CHECK(has(refusal(package.bytes()), "this is no snapshot of kaid's"));

  const auto forged = [this](const std::function<void(Forged&)>& change) {
    Forged made;
    change(made);
    return refusal(made.bytes());
  };
  CHECK(has(forged([](Forged& made) { made.drop("memory.jsonl"); }), "no memory.jsonl"));
  CHECK(has(forged([](Forged& made) { made.drop("state.json"); }), "disagree about whether there is a state"));
  CHECK(has(forged([](Forged& made) { made["state.json"].content = "{"; }), "state.json is no JSON"));
  CHECK(has(forged([](Forged& made) { made.add("more.txt", "x"); }), "more.txt is no part of a snapshot"));
  CHECK(has(forged([](Forged& made) { made.add("memory.jsonl", "x"); }), "more than once"));
  CHECK(has(forged([](Forged& made) { made.add("policy.yaml", "x"); }), "more than once"));
  CHECK(has(forged([](Forged& made) { made.add("package/manifest.json", "x"); }), "more than once"));
  CHECK(has(forged([](Forged& made) { made.add("snapshot.json", "{}"); }), "more than once"));
  CHECK(has(forged([](Forged& made) { made["snapshot.json"].content = "[]"; }), "no JSON object"));
  CHECK(has(forged([](Forged& made) { made["snapshot.json"].content = "{\"format\":2}"; }), "use a newer kaid"));
  CHECK(has(forged([](Forged& made) { made["snapshot.json"].content = to_json(header_of("../x")); }), "has an id"));
  CHECK(has(forged([](Forged& made) { made["snapshot.json"].content = to_json(header_of("kaid")); }), "has an id"));
  for (const char* field : {"\"version\"", "\"memory\"", "\"entries\"", "\"hasState\"", "\"policy\"", "\"format\""}) {
    std::string json = to_json(header_of("calendarAgent"));
    json.replace(json.find(field) + 1, 1, "_");
    CHECK(has(forged([&](Forged& made) { made["snapshot.json"].content = json; }), "snapshot.json"));
  }
}

TEST_CASE_FIXTURE(Fixture, "hostile members are refused") {
  const auto with = [this](const TarMember& member) {
    Forged made;
    made.members.push_back(member);
    return refusal(made.bytes());
  };
  CHECK(has(with({"package/../../etc/passwd", "x"}), "leaves the package"));
  CHECK(has(with({"/etc/passwd", "x"}), "absolute"));
  CHECK(has(with({"package/a\nb", "x"}), "control character"));
  CHECK(has(with({"package/fifo", "", S_IFIFO | 0644}), "device, fifo or socket"));
  CHECK(has(with({"package/device", "", S_IFCHR | 0644}), "device, fifo or socket"));
  CHECK(has(with({"package/hard", "", S_IFREG | 0644, "", "package/manifest.json"}), "hard link"));
  CHECK(has(with({"package/far", "", S_IFLNK | 0777, std::string(2000, 'x')}), "over 1024 bytes"));
  Forged linked;
  linked["memory.jsonl"] = {"memory.jsonl", "", S_IFLNK | 0777, "/etc/shadow"};
  CHECK(has(refusal(linked.bytes()), "is no regular file"));
  Forged directory_in_place;
  directory_in_place["policy.yaml"] = {"policy.yaml", "", S_IFDIR | 0755};
  CHECK(has(refusal(directory_in_place.bytes()), "is no regular file"));
  CHECK(has(refusal(Forged().bytes({{"package/late.py", "x"}})), "comes behind SHA256SUMS"));
  Forged file_in_place;
  file_in_place.members.insert(file_in_place.members.begin() + 1, TarMember{"package", "x"});
  CHECK(has(refusal(file_in_place.bytes()), "is no directory"));
}

TEST_CASE_FIXTURE(Fixture, "an unlisted or missing file is found") {
  Forged made;
  const std::string listed = made.sums();
  made.add("package/more.py", "x");
  TarBuilder unlisted;
  for (const TarMember& member : made.members) unlisted.add(member);
  unlisted.file("SHA256SUMS", listed);
  CHECK(has(refusal(unlisted.bytes()), "package/more.py"));

  TarBuilder missing;
  for (const TarMember& member : Forged().members) missing.add(member);
  missing.file("SHA256SUMS", made.sums());
  CHECK(has(refusal(missing.bytes()), "package/more.py"));

  TarBuilder nonsense;
  for (const TarMember& member : Forged().members) nonsense.add(member);
  nonsense.file("SHA256SUMS", "nonsense\n");
  CHECK(has(refusal(nonsense.bytes()), "SHA256SUMS"));
}

TEST_CASE_FIXTURE(Fixture, "sizes and counts have limits") {
  const std::string bytes = Forged().bytes();
  SnapshotLimits limits;
  limits.memory_bytes = 3;
  CHECK(has(refusal(bytes, limits), "memory.jsonl is larger"));
  limits = {};
  limits.package.total_bytes = 1;
  CHECK(has(refusal(bytes, limits), "makes its package too large"));
  limits = {};
  limits.package.entries = 0;
  CHECK(has(refusal(bytes, limits), "too many files"));
  limits = {};
  limits.package.path_bytes = 3;
  CHECK(has(refusal(bytes, limits), "too long names"));
  Forged large;
  large["state.json"].content = "\"" + std::string(kMaxSnapshotState, 'x') + "\"";
  CHECK(has(refusal(large.bytes()), "state.json is larger"));
  large = {};
  large["snapshot.json"].content = std::string(100'000, ' ');
  CHECK(has(refusal(large.bytes()), "snapshot.json is larger"));
}
