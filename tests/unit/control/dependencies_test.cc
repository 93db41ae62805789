#include "supervisor/control/dependencies.h"

#include <doctest/doctest.h>

namespace kai {
namespace {

using Ids = std::vector<std::string>;

std::string cycle(const DependencyGraph& graph, const Ids& wanted) {
  const auto order = start_order(graph, wanted);
  return order ? "" : order.error().context;
}

TEST_CASE("each starts behind what it depends on, once") {
  const DependencyGraph graph = {
      {"web", {"db", "cache"}}, {"cache", {"db"}}, {"db", {}}, {"lonely", {}}, {"odd", {"unregistered"}}};
  CHECK(start_order(graph, {"web"}).value() == Ids{"db", "cache", "web"});
  CHECK(start_order(graph, {"web", "db", "web"}).value() == Ids{"db", "cache", "web"});
  CHECK(start_order(graph, {"lonely", "cache"}).value() == Ids{"lonely", "db", "cache"});
  CHECK(start_order(graph, {"odd"}).value() == Ids{"unregistered", "odd"});
  CHECK(start_order(graph, {}).value().empty());
}

TEST_CASE("a cycle is named, from where it closes") {
  CHECK(cycle({{"a", {"b"}}, {"b", {"a"}}}, {"a"}) == "a → b → a");
  CHECK(cycle({{"a", {"a"}}}, {"a"}) == "a → a");
  CHECK(cycle({{"start", {"x", "a"}}, {"x", {}}, {"a", {"b"}}, {"b", {"c"}}, {"c", {"a"}}}, {"start"}) ==
        "a → b → c → a");
  CHECK(cycle({{"a", {"b"}}, {"b", {"a"}}, {"c", {}}}, {"c"}).empty());
}

TEST_CASE("a long chain needs no deep stack") {
  DependencyGraph graph;
  for (int at = 0; at < 100'000; ++at) graph["a" + std::to_string(at)] = {"a" + std::to_string(at + 1)};
  CHECK(start_order(graph, {"a0"}).value().size() == 100'001);
}

}  // namespace
}  // namespace kai
