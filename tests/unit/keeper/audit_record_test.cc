// Audit records, in the kernel's form and in others.
#include "supervisor/keeper/audit_record.h"

#include <string>

#include <doctest/doctest.h>

#include "supervisor/keeper/kernel_audit.h"

using kai::keeper::parse_audit_record;

TEST_CASE("records as Documentation/admin-guide/LSM/landlock.rst has them") {
  const auto access = parse_audit_record(1423,
                                         "audit(1729738800.268:30): domain=195ba459b blockers=fs.refer,fs.make_reg "
                                         "path=\"/usr/bin\" dev=\"vda2\" ino=351");
  REQUIRE(access);
  CHECK(access->serial == 30);
  CHECK(access->domain == 0x195ba459b);
  CHECK(access->blockers == "fs.refer,fs.make_reg");
  CHECK(access->path == "/usr/bin");
  const auto domain = parse_audit_record(1424,
                                         "audit(1729738800.268:30): domain=195ba459b status=allocated mode=enforcing "
                                         "pid=300 uid=0 exe=\"/root/x\" comm=\"x\"");
  REQUIRE(domain);
  CHECK(domain->pid == 300);
  CHECK_FALSE(domain->deallocated);
  const auto gone = parse_audit_record(1424, "audit(1729738800.324:31): domain=195ba459b status=deallocated denials=3");
  REQUIRE(gone);
  CHECK(gone->deallocated);
  const auto call = parse_audit_record(1300,
                                       "audit(1729738800.268:30): arch=c000003e syscall=257 success=no exit=-13 "
                                       "ppid=298 pid=301 comm=\"cat\" exe=\"/bin/cat\"");
  REQUIRE(call);
  CHECK(call->pid == 301);
  CHECK(call->comm == "cat");
  const auto net =
      parse_audit_record(1423, "audit(1729738800.268:31): domain=1 blockers=net.connect_tcp daddr=127.0.0.1 dest=80");
  REQUIRE(net);
  CHECK(net->path == "127.0.0.1:80");
}

TEST_CASE("names that a process chose do not become fields") {
  const auto hex = parse_audit_record(1423, "audit(1.2:3): domain=1 blockers=fs.read_file path=2F612062223D");
  REQUIRE(hex);
  CHECK(hex->path == "/a b\"=");
  const auto quoted = parse_audit_record(1300, "audit(1.2:3): pid=5 comm=\"a pid=1 domain=7\"");
  REQUIRE(quoted);
  CHECK(quoted->pid == 5);
  CHECK(quoted->comm == "a pid=1 domain=7");
  const auto odd = parse_audit_record(1300, "audit(1.2:3): pid=5 comm=(null)");
  REQUIRE(odd);
  CHECK(odd->comm == "(null)");
}

TEST_CASE("anything else is no record") {
  for (const char* text :
       {"", "audit(", "audit(1.2:3)", "audit(1.2:x): domain=1", "audit(:): domain=1", "): :audit(",
        "audit(1.2:3): ", "audit(1.2:3): domain=", "audit(1.2:3): domain=zz", "audit(1): a:3): domain=1",
        "audit(1.2:3): path=\"", "audit(1.2:3): =", "audit(1.2:99999999999999999999999): domain=1"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_audit_record(1423, text));
  }
  CHECK_FALSE(parse_audit_record(1305, "audit(1.2:3): domain=1"));
}

TEST_CASE("a budget lets some through a second, and counts the rest") {
  kai::keeper::Budget budget(20);
  const auto now = std::chrono::steady_clock::now();
  int told = 0;
  for (int at = 0; at < 100; ++at) told += budget.take(now) ? 1 : 0;
  CHECK(told == 20);
  CHECK(budget.take_dropped() == 80);
  CHECK(budget.take_dropped() == 0);
  CHECK(budget.take(now + std::chrono::seconds(1)));
}
