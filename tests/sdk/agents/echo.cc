// The smallest agent, which tests link in ways of their own.
#include <kai/agent.hpp>

class Echo : public kai::Agent {
  kai::Json on_message(const kai::Message& msg) override { return msg.payload; }
};

KAI_AGENT(Echo);
