// kai-bench SOCKET PROGRAM KIND=ID...: the figures of scripts/bench, which has registered the agents: exec is PROGRAM,
// native, python and node are echo agents. Bounded: a fixed number of rounds, and at most 60 s a part.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench/control_client.h"
#include "bench/filter_cost.h"
#include "bench/launches.h"
#include "bench/raw_chain.h"
#include "bench/report.h"

namespace kai::bench {
namespace {

constexpr int kFastRounds = 40;  // exec, bwrap, bare
constexpr int kSlowEvery = 5;    // a round out of so many starts the interpreters too
constexpr int kRoundTrips = 2000;
constexpr int kThroughput = 20'000;  // messages
constexpr int kInFlight = 64;
constexpr std::chrono::seconds kPartLimit{60};
// operator → control → agent-host → runner, and back: three processes beside the one that asks.
constexpr int kProcessesOnTheWay = 3;

[[noreturn]] void give_up(const Error& error) {
  std::fprintf(stderr, "kai-bench: %s\n", error.message().c_str());
  std::exit(1);
}

template <typename T>
T must(Result<T> result) {
  if (!result) give_up(result.error());
  return std::move(*result);
}

/// Agent ids by kind.
using Agents = std::map<std::string, std::string>;

void measure_starts(ControlClient& client, const Agents& agents, const std::string& program) {
  Figure bare{"start bare program", {}};
  Figure bwrap{"start bwrap --unshare-all", {}};
  std::map<std::string, Figure> kinds;
  for (const auto& [kind, agent] : agents) kinds[kind] = {"start kai " + kind, {}};
  const std::vector<std::string> bwrap_command = bubblewrap_command(program);
  if (bwrap_command.empty()) std::printf("bwrap is not installed: no figure beside it\n");

  const Clock::time_point begin = Clock::now();
  for (int round = 0; round < kFastRounds && Clock::now() - begin < kPartLimit; ++round) {
    bare.samples.push_back(must(time_to_first_byte({program})));
    if (!bwrap_command.empty()) bwrap.samples.push_back(must(time_to_first_byte(bwrap_command)));
    for (const auto& [kind, agent] : agents) {
      if (kind != "exec" && round % kSlowEvery != 0) continue;
      const Clock::time_point start = Clock::now();
      must(client.call(start_request(agent)));
      kinds[kind].samples.push_back(microseconds_since(start));
      must(client.call(stop_request(agent)));
    }
  }
  print_figure(bare);
  print_figure(bwrap);
  for (const auto& [kind, figure] : kinds) print_figure(figure);
  print_ratio("kai exec / bwrap", kinds["exec"], bwrap);
  print_ratio("kai exec / bare", kinds["exec"], bare);
}

/// A JSON string of so many bytes.
std::string payload_of(std::size_t bytes) {
  return '"' + std::string(bytes - 2, 'x') + '"';
}

void measure_round_trips(ControlClient& client, const std::string& agent, std::size_t bytes) {
  const std::string size = std::to_string(bytes) + " B";
  Figure kai{"round trip kai native " + size, {}};
  Figure raw{"round trip raw socketpairs " + size, {}};
  RawChain chain = must(RawChain::make(kProcessesOnTheWay, bytes));
  const control::Request request = send_request(agent, "echo", payload_of(bytes));
  const Clock::time_point begin = Clock::now();
  for (int round = 0; round < kRoundTrips && Clock::now() - begin < kPartLimit; ++round) {
    raw.samples.push_back(must(chain.round_trip()));
    const Clock::time_point start = Clock::now();
    must(client.call(request));
    kai.samples.push_back(microseconds_since(start));
  }
  print_figure(raw);
  print_figure(kai);
  print_ratio("kai / raw", kai, raw);
}

void measure_throughput(ControlClient& client, const std::string& agent) {
  const control::Request request = send_request(agent, "echo", payload_of(200));
  int sent = 0;
  int received = 0;
  const Clock::time_point begin = Clock::now();
  while (sent < kInFlight) {
    must(client.send(request));
    ++sent;
  }
  while (received < sent) {
    const control::Response response = must(client.receive());
    if (response.has_failed()) give_up({response.failed().code(), 0, response.failed().message()});
    ++received;
    if (sent < kThroughput && Clock::now() - begin < kPartLimit) {
      must(client.send(request));
      ++sent;
    }
  }
  std::printf("%-36s %9.0f messages/s with %d in flight   n %d\n", "throughput kai native 200 B",
              received / (microseconds_since(begin) / 1e6), kInFlight, received);
}

/// KiB of Pss of one process.
Result<long> pss_of(long pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps_rollup");
  std::string name;
  while (file >> name) {
    long kib = 0;
    if (name == "Pss:" && file >> kib) return kib;
  }
  return failure("no Pss in smaps_rollup of", std::to_string(pid));
}

void measure_memory(ControlClient& client, const std::string& kind, const std::string& agent) {
  const auto status = nlohmann::json::parse(must(client.call(status_request(agent))));
  const long host = status.at("pid").get<long>();
  long runner = 0;
  std::ifstream children("/proc/" + std::to_string(host) + "/task/" + std::to_string(host) + "/children");
  for (long pid = 0; children >> pid;) runner += must(pss_of(pid));
  std::printf("%-36s agent-host %6ld KiB   runner %6ld KiB\n", ("PSS idle " + kind).c_str(), must(pss_of(host)),
              runner);
}

void print_call(const Figure& figure) {
  constexpr double kNanoseconds = 1000;
  std::printf("%-36s median %9.1f ns   min %9.1f ns   n %zu\n", figure.name.c_str(), figure.median() * kNanoseconds,
              figure.minimum() * kNanoseconds, figure.samples.size());
}

// In turns, as everything that is compared.
void measure_filter() {
  constexpr int kRounds = 9;
  std::map<std::string, Figure> getpid, prctl;
  for (int round = 0; round < kRounds; ++round) {
    for (const char* profile : {"", "base", "node"}) {
      const CallCost cost = must(cost_of_calls(profile));
      const std::string under = *profile == 0 ? "no filter" : "profile " + std::string(profile);
      getpid[profile].name = "getpid, " + under;
      getpid[profile].samples.push_back(cost.getpid);
      prctl[profile].name = "prctl, " + under;
      prctl[profile].samples.push_back(cost.prctl);
    }
  }
  for (const auto& [profile, figure] : getpid) print_call(figure);
  print_ratio("getpid filtered / not", getpid["base"], getpid[""]);
  for (const auto& [profile, figure] : prctl) print_call(figure);
  print_ratio("prctl filtered / not", prctl["base"], prctl[""]);
}

int run(const std::string& socket, const std::string& program, const Agents& agents) {
  measure_filter();
  ControlClient client = must(ControlClient::connect(socket));
  measure_starts(client, agents, program);
  for (const auto& [kind, agent] : agents) must(client.call(start_request(agent)));
  measure_round_trips(client, agents.at("native"), 200);
  measure_round_trips(client, agents.at("native"), 4096);
  measure_throughput(client, agents.at("native"));
  for (const auto& [kind, agent] : agents) measure_memory(client, kind, agent);
  for (const auto& [kind, agent] : agents) must(client.call(stop_request(agent)));
  return 0;
}

}  // namespace
}  // namespace kai::bench

int main(int argc, char** argv) {
  kai::bench::Agents agents;
  for (int at = 3; at < argc; ++at) {
    const std::string argument = argv[at];
    const std::size_t equals = argument.find('=');
    if (equals == std::string::npos) break;
    agents[argument.substr(0, equals)] = argument.substr(equals + 1);
  }
  if (agents.size() + 3 != static_cast<std::size_t>(argc) || !agents.contains("exec") || !agents.contains("native")) {
    std::fprintf(stderr, "usage: kai-bench SOCKET PROGRAM exec=ID native=ID [python=ID] [node=ID]\n");
    return 2;
  }
  return kai::bench::run(argv[1], argv[2], agents);
}
