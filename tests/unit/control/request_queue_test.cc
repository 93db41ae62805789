#include "supervisor/control/request_queue.h"

#include <doctest/doctest.h>

namespace kai {
namespace {

QueuedRequest request(const std::string& id, klp::Priority priority = klp::NORMAL, std::size_t bytes = 0) {
  QueuedRequest made;
  made.message.set_id(id);
  made.message.mutable_metadata()->set_priority(priority);
  made.message.set_payload(std::string(bytes, 'x'));
  made.deadline = 1000;
  return made;
}

std::string ids(const std::vector<QueuedRequest>& requests) {
  std::string joined;
  for (const QueuedRequest& each : requests) joined += each.message.id() + " ";
  return joined;
}

TEST_CASE("the more urgent first, then the older") {
  RequestQueue queue(16, 1000);
  for (const auto& [id, priority] : {std::pair{"n1", klp::NORMAL},
                                     {"l1", klp::LOW},
                                     {"u1", klp::URGENT},
                                     {"h1", klp::HIGH},
                                     {"n2", klp::NORMAL},
                                     {"u2", klp::URGENT},
                                     {"x", static_cast<klp::Priority>(99)}}) {
    CHECK(queue.push(request(id, priority)).empty());
  }
  CHECK(queue.front()->message.id() == "u1");
  CHECK(queue.pop().message.id() == "u1");
  CHECK(ids(queue.take_all()) == "u2 h1 n1 n2 x l1 ");
  CHECK(queue.front() == nullptr);
}

TEST_CASE("a full queue gives up the newest of the least urgent, or the one that comes") {
  RequestQueue queue(3, 1000);
  for (const char* id : {"n1", "n2"}) CHECK(queue.push(request(id)).empty());
  CHECK(queue.push(request("l1", klp::LOW)).empty());
  CHECK(ids(queue.push(request("l2", klp::LOW))) == "l2 ");
  CHECK(ids(queue.push(request("n3"))) == "l1 ");
  CHECK(ids(queue.push(request("n4"))) == "n4 ");
  CHECK(ids(queue.push(request("u1", klp::URGENT))) == "n3 ");
  CHECK(ids(queue.push(request("h1", klp::HIGH))) == "n2 ");
  CHECK(ids(queue.push(request("h2", klp::HIGH))) == "n1 ");
  CHECK(ids(queue.push(request("h3", klp::HIGH))) == "h3 ");
  CHECK(ids(queue.take_all()) == "u1 h1 h2 ");
}

TEST_CASE("bytes are bounded too, and nobody is driven out for nothing") {
  RequestQueue queue(16, 100);
  CHECK(queue.push(request("n1", klp::NORMAL, 60)).empty());
  CHECK(queue.push(request("l1", klp::LOW, 20)).empty());
  CHECK(queue.push(request("l2", klp::LOW, 20)).empty());
  CHECK(ids(queue.push(request("h1", klp::HIGH, 101))) == "h1 ");
  CHECK(ids(queue.push(request("n2", klp::NORMAL, 41))) == "n2 ");
  CHECK(queue.size() == 3);
  CHECK(ids(queue.push(request("n3", klp::NORMAL, 40))) == "l1 l2 ");
  CHECK(ids(queue.push(request("h2", klp::HIGH, 100))) == "n1 n3 ");
  queue.pop();
  CHECK(queue.push(request("n4", klp::NORMAL, 100)).empty());
}

TEST_CASE("deadline and ttl end what waits") {
  RequestQueue queue(16, 1000);
  CHECK_FALSE(queue.first_end());
  QueuedRequest with_ttl = request("t");
  with_ttl.expires = 500;
  CHECK(queue.push(request("d")).empty());
  CHECK(queue.push(std::move(with_ttl)).empty());
  CHECK(queue.first_end() == 500);
  CHECK(queue.take_ended(499).empty());
  const auto expired = queue.take_ended(500);
  CHECK(ids(expired) == "t ");
  CHECK(expired.front().expired(500));
  CHECK(queue.first_end() == 1000);
  const auto late = queue.take_ended(1000);
  CHECK(ids(late) == "d ");
  CHECK_FALSE(late.front().expired(1000));
  CHECK(queue.size() == 0);
}

}  // namespace
}  // namespace kai
