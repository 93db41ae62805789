#include "supervisor/control/dependencies.h"

#include <algorithm>

namespace kai {
namespace {

/// Depth first, with a stack of its own: how deep dependencies go is said by whoever writes manifests.
class Walk {
 public:
  explicit Walk(const DependencyGraph& graph) : graph_(graph) {}

  Result<> add(const std::string& wanted) {
    if (marks_[wanted] == Mark::kDone) return {};
    enter(wanted);
    while (!path_.empty()) {
      Step& step = path_.back();
      if (step.next == step.needs->size()) {
        marks_[step.id] = Mark::kDone;
        order_.push_back(std::move(step.id));
        path_.pop_back();
        continue;
      }
      const std::string& need = (*step.needs)[step.next++];
      const Mark mark = marks_[need];
      if (mark == Mark::kOnPath) return failure("the agents depend on each other in a circle", cycle_from(need));
      if (mark == Mark::kNew) enter(need);
    }
    return {};
  }
  std::vector<std::string> take_order() { return std::move(order_); }

 private:
  enum class Mark { kNew, kOnPath, kDone };
  struct Step {
    std::string id;
    const std::vector<std::string>* needs;
    std::size_t next = 0;
  };

  void enter(const std::string& id) {
    static const std::vector<std::string> nothing;
    const auto found = graph_.find(id);
    marks_[id] = Mark::kOnPath;
    path_.push_back({id, found == graph_.end() ? &nothing : &found->second});
  }

  [[nodiscard]] std::string cycle_from(const std::string& id) const {
    std::string text;
    auto at = std::find_if(path_.begin(), path_.end(), [&](const Step& step) { return step.id == id; });
    for (; at != path_.end(); ++at) text += at->id + " → ";
    return text + id;
  }

  const DependencyGraph& graph_;
  std::map<std::string, Mark> marks_;
  std::vector<Step> path_;
  std::vector<std::string> order_;
};

}  // namespace

Result<std::vector<std::string>> start_order(const DependencyGraph& graph, const std::vector<std::string>& wanted) {
  Walk walk(graph);
  for (const std::string& id : wanted) {
    if (auto added = walk.add(id); !added) return tl::unexpected(added.error());
  }
  return walk.take_order();
}

}  // namespace kai
