// upgrade, rollback, versions, prune, snapshot, restore.
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/unix.h"
#include "tests/unit/kaictl/asked.h"

namespace kai::test {
namespace {

using nlohmann::json;

constexpr const char* kSoft =
    R"({"success":true,"type":"soft","rollbackAvailable":true,"from":"1.0.3","to":"1.1.0","targetVersion":"1.1.0",)"
    R"("how":"soft","steps":[{"step":"load","ms":12.44},{"step":"drain","ms":0.06},{"step":"start","ms":1234.5}],)"
    R"("messagesHeld":14,"pauseMs":3.21,"forced":false,"backup":"/var/lib/kai/backups/calendarAgent/1",)"
    R"("probationMs":30000,"id":"calendarAgent","warnings":[]})";

constexpr const char* kRefusedPlan =
    R"({"id":"calendarAgent","from":"1.0.3","to":"1.1.0","type":"hard","why":"its environment differs","allowed":false,)"
    R"("findings":[{"kind":"capability","weight":"note","pointer":"/capabilities","message":"x is gone","rule":""},)"
    R"({"kind":"widened","weight":"needs_force","pointer":"/memory/maxSize","message":"it asks for more","rule":"builtin"},)"
    R"({"kind":"widened","weight":"needs_force","pointer":"/security/crypto","message":"none\u001b[2J","rule":""},)"
    R"({"kind":"signer","weight":"refused","pointer":"","message":"it is not signed","rule":"10-a.yaml:4"}],)"
    R"("steps":["backup","load"],"warnings":[]})";

void put(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}
std::string content_of(const std::string& path) {
  return read_file(path).value_or("unread");
}
std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) names.push_back(entry.path().filename());
  return names;
}

TEST_CASE("upgrade: a directory is packed, and kaid is told that it is one") {
  const ScratchDirectory package;
  put(package / "manifest.json", "{}");
  const Asked asked = ask({"upgrade", "calendarAgent", package.path()}, kSoft);
  CHECK(asked.request.upgrade().id() == "calendarAgent");
  CHECK(asked.request.upgrade().directory());
  CHECK(asked.request.upgrade().label() == package.path());
  CHECK(asked.request.upgrade().type() == "soft");
  CHECK(asked.request.upgrade().version().empty());
  CHECK_FALSE(asked.request.upgrade().force());
  CHECK_FALSE(asked.request.upgrade().no_backup());
  CHECK_FALSE(asked.request.upgrade().dry_run());
  REQUIRE(asked.fds.size() == 1);
  CHECK(read_all(asked.fds[0].get(), 1 << 20)->find("manifest.json") != std::string::npos);
  CHECK(asked.result.exit_code == 0);
  CHECK(asked.result.err.empty());
  CHECK(asked.result.out ==
        "calendarAgent: upgraded from 1.0.3 to 1.1.0\n"
        "  how         soft: in the process that runs\n"
        "  steps       load 12 ms, drain 0.1 ms, start 1.2s\n"
        "  pause       3.2 ms: 14 messages waited, and went on\n"
        "  backup      /var/lib/kai/backups/calendarAgent/1\n"
        "  next        on probation for 30.0s: should it crash or fail its health check, kaid goes back by itself; "
        "kaictl rollback calendarAgent goes back to 1.0.3\n");
}

TEST_CASE("register: kaid is told whether it is a directory") {
  const ScratchDirectory directory;
  CHECK(ask({"register", directory.path()}, R"({"id":"a"})").request.register_().directory());
  put(directory / "a.tar.gz", "x");
  CHECK_FALSE(ask({"register", directory / "a.tar.gz"}, R"({"id":"a"})").request.register_().directory());
}

TEST_CASE("upgrade: an archive as it is, a version by its name") {
  const ScratchDirectory directory;
  put(directory / "a.tar.gz", "not looked at here");
  Asked asked = ask({"upgrade", "a", directory / "a.tar.gz", "--type", "hard", "--force", "--no-backup"}, kSoft);
  CHECK(asked.request.upgrade().type() == "hard");
  CHECK(asked.request.upgrade().force());
  CHECK(asked.request.upgrade().no_backup());
  CHECK_FALSE(asked.request.upgrade().directory());
  REQUIRE(asked.fds.size() == 1);
  CHECK(*read_all(asked.fds[0].get(), 100) == "not looked at here");

  asked = ask({"upgrade", "a", "1.1.0"}, kSoft);
  CHECK(asked.request.upgrade().version() == "1.1.0");
  CHECK(asked.request.upgrade().label().empty());
  CHECK(asked.fds.empty());

  CHECK(kaictl({"upgrade", "a", directory / "missing"}).exit_code == 4);
  CHECK(kaictl({"upgrade", "a", "missing.tar.gz"}).exit_code == 4);
  CHECK(kaictl({"upgrade", "a"}).exit_code == 2);
  CHECK(kaictl({"upgrade", "a", "1.1.0", "--type", "rollback"}).exit_code == 2);
}

TEST_CASE("upgrade: kaid's document as it is, and its refusals") {
  CHECK(ask({"-o", "json", "upgrade", "a", "1.1.0"}, kSoft).result.out == std::string(kSoft) + "\n");
  const std::vector<std::pair<std::string, int>> codes = {{"NOT_FOUND", 4}, {"DENIED", 5},      {"INVALID", 5},
                                                          {"UPGRADING", 1}, {"AGENT_ERROR", 1}, {"QUARANTINED", 6}};
  for (const auto& [code, exit_code] : codes) {
    const Asked asked = ask_refused({"upgrade", "a", "1.1.0"}, code, "no");
    CHECK(asked.result.exit_code == exit_code);
    CHECK(asked.result.out.empty());
    CHECK(is_one_line(asked.result.err));
  }
}

TEST_CASE("upgrade: what an operator reads of one that was hard, and had no message waiting") {
  json document = json::parse(kSoft);
  document["type"] = "hard";
  document["how"] = "hard";
  document["reason"] = "its environment differs";
  document["messagesHeld"] = 0;
  document["rollbackAvailable"] = false;
  document["probationMs"] = 0;
  document.erase("backup");
  CHECK(ask({"upgrade", "calendarAgent", "1.1.0"}, document.dump()).result.out ==
        "calendarAgent: upgraded from 1.0.3 to 1.1.0\n"
        "  how         hard: in a new process\n"
        "  why         its environment differs\n"
        "  steps       load 12 ms, drain 0.1 ms, start 1.2s\n"
        "  pause       none: no message had to wait\n");
  // An agent that is a program has neither of the hooks.
  document["steps"] = json::parse(R"([{"step":"sandbox","ms":1}])");
  document.erase("reason");
  CHECK(ask({"upgrade", "calendarAgent", "1.1.0"}, document.dump()).result.out ==
        "calendarAgent: upgraded from 1.0.3 to 1.1.0\n"
        "  how         hard: in a new process\n"
        "  steps       sandbox 1.0 ms\n"
        "  pause       none: no message had to wait\n");
  document["how"] = "replaced";
  document["steps"] = json::parse(R"([{"step":"check","ms":1}])");
  CHECK(ask({"upgrade", "calendarAgent", "1.1.0"}, document.dump()).result.out ==
        "calendarAgent: upgraded from 1.0.3 to 1.1.0\n"
        "  how         it does not run: the new version is what is started next\n"
        "  steps       check 1.0 ms\n");
  for (const char* odd : {"{}", "[]", R"({"steps":7,"messagesHeld":"x","pauseMs":{},"probationMs":-1})",
                          R"({"id":"\u001b[2J","steps":[1,{},{"step":"\u001b[2J","ms":"x"}]})"}) {
    const Asked asked = ask({"upgrade", "a", "1.1.0"}, odd);
    CHECK(asked.result.exit_code == 0);
    CHECK(asked.result.out.find('\x1b') == std::string::npos);
  }
}

TEST_CASE("upgrade --dry-run: the plan, the gravest first, and refused by the exit code") {
  const Asked refused = ask({"upgrade", "calendarAgent", "1.1.0", "--dry-run"}, kRefusedPlan);
  CHECK(refused.request.upgrade().dry_run());
  CHECK(refused.result.exit_code == 5);
  CHECK(refused.result.out ==
        "calendarAgent: from 1.0.3 to 1.1.0 is not done; nothing was changed\n"
        "  how         hard: in a new process\n"
        "  why         its environment differs\n"
        "  refused     signer: it is not signed (10-a.yaml:4)\n"
        "  needs force widened /memory/maxSize: it asks for more (builtin)\n"
        "              widened /security/crypto: none\\e[2J\n"
        "  notes       capability /capabilities: x is gone\n"
        "  steps       backup, load\n"
        "  next        mend what is refused; --force does not help there\n");
  const Asked as_json = ask({"-o", "json", "upgrade", "a", "1.1.0", "--dry-run"}, kRefusedPlan);
  CHECK(as_json.result.exit_code == 5);
  CHECK(as_json.result.out == std::string(kRefusedPlan) + "\n");

  json plan = json::parse(kRefusedPlan);
  plan["findings"].erase(3);
  CHECK(ask({"upgrade", "a", "1.1.0", "--dry-run"}, plan.dump()).result.out.find("--force does it") !=
        std::string::npos);
  plan["findings"].clear();
  plan["allowed"] = true;
  plan["type"] = "replace";
  plan["why"] = "";
  CHECK(ask({"upgrade", "a", "1.1.0", "--dry-run"}, plan.dump()).result.out ==
        "calendarAgent: from 1.0.3 to 1.1.0 can be done; nothing was changed\n"
        "  how         it does not run: the new version is what is started next\n"
        "  steps       backup, load\n");
}

TEST_CASE("upgrade --dry-run: what is refused because it was to be soft says --type hard") {
  json plan = json::parse(kRefusedPlan);
  plan["findings"].erase(3);
  plan["findings"].erase(1);
  plan["findings"].push_back({{"kind", "soft"}, {"weight", "refused"}, {"message", "its environment differs"}});
  const std::string before =
      "calendarAgent: from 1.0.3 to 1.1.0 is not done; nothing was changed\n"
      "  refused     soft: its environment differs\n";
  const std::string note = "  notes       capability /capabilities: x is gone\n";
  CHECK(ask({"upgrade", "a", "1.1.0", "--dry-run"}, plan.dump()).result.out ==
        before + "  needs force widened /security/crypto: none\\e[2J\n" + note +
            "  next        use --type hard, and where all that is meant, --force does it; the audit has who asked\n");
  const Asked forced = ask({"upgrade", "a", "1.1.0", "--force", "--dry-run"}, plan.dump());
  CHECK(forced.result.exit_code == 5);
  CHECK(forced.result.out ==
        before + "  forced      widened /security/crypto: none\\e[2J\n" + note + "  next        use --type hard\n");
  plan["findings"].push_back({{"kind", "signer"}, {"weight", "refused"}, {"message", "it is not signed"}});
  CHECK(ask({"upgrade", "a", "1.1.0", "--dry-run"}, plan.dump()).result.out.find("mend what is refused") !=
        std::string::npos);
}

TEST_CASE("upgrade: what is the text of a version is none of the working directory's names") {
  const ScratchDirectory directory;
  std::filesystem::create_directory(directory / "calendar");
  std::filesystem::create_directory(directory / "1.1.0");
  std::filesystem::create_directory(directory / "1.1.0-rc.1");
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(directory.path());
  for (const std::string version : {"1.1.0", "1.1.0-rc.1", "1.1.0+b", "1", "1.1", "nothing"}) {
    const Asked asked = ask({"upgrade", "a", version}, kSoft);
    CHECK(asked.request.upgrade().version() == version);
    CHECK(asked.fds.empty());
  }
  for (const std::string path : {"./1.1.0", "calendar"}) {
    const Asked asked = ask({"upgrade", "a", path}, kSoft);
    CHECK(asked.request.upgrade().label() == path);
    CHECK(asked.request.upgrade().directory());
  }
  std::filesystem::current_path(before);
}

TEST_CASE("rollback: to the version before, or to one by name") {
  json document = json::parse(kSoft);
  document["type"] = "rollback";
  document["from"] = "1.1.0";
  document["to"] = "1.0.3";
  document["rollbackAvailable"] = false;
  document["probationMs"] = 0;
  const Asked asked = ask({"rollback", "calendarAgent"}, document.dump());
  CHECK(asked.request.rollback().id() == "calendarAgent");
  CHECK(asked.request.rollback().version().empty());
  CHECK(asked.result.out.starts_with("calendarAgent: rolled back from 1.1.0 to 1.0.3\n"));
  CHECK(ask({"rollback", "a", "1.0.1"}, kSoft).request.rollback().version() == "1.0.1");
  CHECK(ask_refused({"rollback", "a"}, "NOT_FOUND", "there is no version before").result.exit_code == 4);
}

TEST_CASE("versions: a table, and why one was taken back") {
  const std::string document =
      R"({"id":"a","versions":[)"
      R"({"version":"1.0.3","package":"9f86d081884c7d659a2f","registeredAt":"2026-05-04T13:00:00.000Z",)"
      R"("active":true,"previous":false,"bytes":1434,"signer":"RWQf6L"},)"
      R"({"version":"1.1.0","package":"aa","registeredAt":"2026-05-05T13:00:00.000Z","active":false,"previous":true,)"
      R"("bytes":900,"bad":"it crashed\u001b"},)"
      R"({"version":"1.0.2","package":"bb","registeredAt":"2026-05-01T13:00:00.000Z","active":false,"previous":true},7]})";
  const Asked asked = ask({"versions", "a"}, document);
  CHECK(asked.request.versions().id() == "a");
  CHECK(asked.result.out ==
        "VERSION  STATE       REGISTERED                SIZE    PACKAGE       SIGNED BY\n"
        "1.0.3    active      2026-05-04T13:00:00.000Z  1.4 KB  9f86d081884c  RWQf6L\n"
        "1.1.0    taken back  2026-05-05T13:00:00.000Z  900 B   aa            -\n"
        "1.0.2    previous    2026-05-01T13:00:00.000Z  -       bb            -\n"
        "-        -           -                         -       -             -\n"
        "1.1.0 was taken back: it crashed\\e; it is not tried again until its package is another\n");
  CHECK(ask({"-o", "json", "versions", "a"}, document).result.out == document + "\n");
  CHECK(ask_refused({"versions", "a"}, "NOT_FOUND", "no").result.exit_code == 4);
}

TEST_CASE("prune: what was removed") {
  const Asked asked = ask({"prune", "a", "--keep", "2"}, R"({"id":"a","removed":["1.0.0","1.0.1"],"freedBytes":1434})");
  CHECK(asked.request.prune().id() == "a");
  CHECK(asked.request.prune().keep() == 2);
  CHECK(asked.result.out == "a: removed 1.0.0, 1.0.1 (1.4 KB freed)\n");
  const Asked none = ask({"prune", "a"}, R"({"id":"a","removed":[],"freedBytes":0})");
  CHECK(none.request.prune().keep() == 0);
  CHECK(none.result.out == "a: nothing was removed\n");
  CHECK(kaictl({"prune", "a", "--keep", "-1"}).exit_code == 2);
}

/// kaid writes `bytes` to the descriptor, and answers; empty `refusal`: with Done.
struct Written {
  Result result;
  control::Request request;
  bool private_empty_file = false;
};
Written written(std::vector<std::string> arguments, const std::string& bytes, const std::string& refusal = "") {
  Written seen;
  FakeDaemon daemon([&](Connection& connection) {
    std::vector<Fd> fds;
    if (!connection.receive(seen.request, fds) || fds.size() != 1) return;
    struct stat info {};
    seen.private_empty_file = fstat(fds[0].get(), &info) == 0 && S_ISREG(info.st_mode) && (info.st_mode & 077) == 0 &&
                              info.st_size == 0 && write_all(fds[0].get(), bytes).has_value();
    if (!refusal.empty()) return connection.failed(seen.request, refusal, "no");
    connection.done(seen.request, R"({"id":"a","version":"1.0.3","bytes":1434,"memoryEntries":12,"state":true})");
  });
  arguments.insert(arguments.begin(), {"--socket", daemon.socket()});
  seen.result = kaictl(arguments);
  daemon.join();
  return seen;
}

TEST_CASE("snapshot: a private file that is there when it is whole") {
  const ScratchDirectory directory;
  const std::string file = directory / "a.kai";
  const Written seen = written({"snapshot", "a", "--file", file}, "all of it");
  CHECK(seen.request.snapshot().id() == "a");
  CHECK(seen.private_empty_file);
  CHECK(seen.result.exit_code == 0);
  CHECK(seen.result.out ==
        "a 1.0.3: written to " + file + " (1.4 KB: package, 12 entries of memory, its saved state)\n");
  CHECK(content_of(file) == "all of it");
  struct stat info {};
  REQUIRE(stat(file.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
  CHECK(info.st_nlink == 1);
  CHECK(names_in(directory.path()) == std::vector<std::string>{"a.kai"});
}

TEST_CASE("snapshot: no file is overwritten unasked, and none is left by a failure") {
  const ScratchDirectory directory;
  const std::string file = directory / "a.kai";
  put(file, "before");
  const Result there = kaictl({"--socket", directory / "nobody", "snapshot", "a", "--file", file});
  CHECK(there.exit_code == 1);  // and not 3: it was not asked
  CHECK(there.err.find("--overwrite") != std::string::npos);
  CHECK(content_of(file) == "before");
  CHECK(written({"snapshot", "a", "--file", file, "--overwrite"}, "half", "UNAVAILABLE").result.exit_code == 1);
  CHECK(content_of(file) == "before");
  CHECK(written({"snapshot", "a", "--file", file, "--overwrite"}, "new").result.exit_code == 0);
  CHECK(content_of(file) == "new");
  CHECK(written({"snapshot", "a", "--file", directory / "b.kai"}, "half", "NOT_FOUND").result.exit_code == 4);
  CHECK(names_in(directory.path()) == std::vector<std::string>{"a.kai"});
  const Result nowhere = kaictl({"snapshot", "a", "--file", directory / "no/such"});
  CHECK(nowhere.exit_code == 4);
  CHECK(nowhere.err == "kaictl: cannot write " + (directory / "no/such") + ": there is no directory " +
                           (directory / "no") + " (NOT_FOUND). Make it, or give another name\n");
  CHECK(kaictl({"snapshot", "a", "--file", file + "/b.kai"}).exit_code == 4);
}

TEST_CASE("snapshot: one that came into being meanwhile stays") {
  const ScratchDirectory directory;
  const std::string file = directory / "a.kai";
  FakeDaemon daemon([&](Connection& connection) {
    control::Request request;
    std::vector<Fd> fds;
    if (!connection.receive(request, fds)) return;
    put(file, "another's");
    connection.done(request, R"({"id":"a","version":"1.0.3"})");
  });
  const Result result = kaictl({"--socket", daemon.socket(), "snapshot", "a", "--file", file});
  CHECK(result.exit_code == 1);
  CHECK(content_of(file) == "another's");
  CHECK(names_in(directory.path()) == std::vector<std::string>{"a.kai"});
}

TEST_CASE("snapshot: without a name it gets one of id, version and time") {
  const ScratchDirectory directory;
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(directory.path());
  const Written seen = written({"-o", "json", "snapshot", "a"}, "all of it");
  std::filesystem::current_path(before);
  REQUIRE(seen.result.exit_code == 0);
  const json document = json::parse(seen.result.out);
  const auto names = names_in(directory.path());
  REQUIRE(names.size() == 1);
  CHECK(document["file"] == names.front());
  CHECK(names.front().starts_with("a-1.0.3-20"));
  CHECK(names.front().ends_with("Z.kai"));
}

TEST_CASE("restore: kaictl opens the file itself") {
  const ScratchDirectory directory;
  put(directory / "a.kai", "all of it");
  const Asked asked =
      ask({"restore", directory / "a.kai"}, R"({"id":"a","version":"1.0.3","memoryEntries":1,"state":false})");
  CHECK(asked.request.restore().label() == directory / "a.kai");
  REQUIRE(asked.fds.size() == 1);
  CHECK(*read_all(asked.fds[0].get(), 100) == "all of it");
  CHECK(asked.result.out == "a 1.0.3: restored from " + (directory / "a.kai") +
                                " (package, 1 entry of memory); start it with: kaictl start a\n");
  CHECK(kaictl({"restore", directory / "missing"}).exit_code == 4);
  CHECK(kaictl({"restore", directory.path()}).exit_code == 5);
  const std::string fifo = directory / "fifo";
  REQUIRE(mkfifo(fifo.c_str(), 0600) == 0);
  CHECK(kaictl({"restore", fifo}).exit_code == 5);
}

}  // namespace
}  // namespace kai::test
