// A native agent that runs the probe beside it and answers with what that printed.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <kai/agent.hpp>

class Escape : public kai::Agent {
  kai::Json on_message(const kai::Message&) override {
    std::string output;
    FILE* probe = popen((std::string("/agent/probe run ") + std::getenv("ESCAPE_ATTEMPTS")).c_str(), "r");
    std::array<char, 4096> piece{};
    while (probe != nullptr && std::fgets(piece.data(), piece.size(), probe) != nullptr) output += piece.data();
    if (probe != nullptr) (void)pclose(probe);
    return {{"output", output}};
  }
};

KAI_AGENT(Escape);
