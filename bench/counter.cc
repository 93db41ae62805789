// The C++ agent of bench/upgrades.py: counts its messages, through all its versions.
#include <string>

#include <kai/agent.hpp>

namespace {

class Counter : public kai::Agent {
  void on_init() override { version_ = manifest()["version"].get<std::string>(); }
  kai::Json save_state() override { return {{"count", count_}}; }
  void restore_state(const kai::Json& state) override { count_ = state["count"].get<int>(); }
  kai::Json on_message(const kai::Message& /*msg*/) override { return {{"count", ++count_}, {"version", version_}}; }

  std::string version_;
  int count_ = 0;
};

}  // namespace

KAI_AGENT(Counter);
