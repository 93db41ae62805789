// kai-starts SOCKET ID...: starts registered agents one right after the other, prints how long each took in
// microseconds, a line each, and stops them. No start of a kaictl process is in a figure.
#include <cstdio>
#include <vector>

#include "bench/control_client.h"
#include "bench/report.h"

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: kai-starts SOCKET ID...\n");
    return 2;
  }
  const std::vector<std::string> agents(argv + 2, argv + argc);
  auto client = kai::bench::ControlClient::connect(argv[1]);
  const auto failed = [](const kai::Error& error) {
    std::fprintf(stderr, "kai-starts: %s\n", error.message().c_str());
    return 1;
  };
  if (!client) return failed(client.error());
  for (const std::string& agent : agents) {
    const kai::bench::Clock::time_point begin = kai::bench::Clock::now();
    if (auto started = client->call(kai::bench::start_request(agent)); !started) return failed(started.error());
    std::printf("%.1f\n", kai::bench::microseconds_since(begin));
  }
  for (const std::string& agent : agents) {
    if (auto stopped = client->call(kai::bench::stop_request(agent)); !stopped) return failed(stopped.error());
  }
  return 0;
}
