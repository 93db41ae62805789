// Answers every message with its own payload.
#include <kai/agent.hpp>

class Echo : public kai::Agent {
  void on_start() override { log.info("ready to echo"); }

  kai::Json on_message(const kai::Message& msg) override { return msg.payload; }
};

KAI_AGENT(Echo);
