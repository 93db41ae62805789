// kai-neighbour SOCKET AGENT SECONDS: echo after echo of AGENT for so long; prints `N P50 P99` in microseconds.
// bench/neighbour.py runs it beside floods.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "bench/control_client.h"

int main(int argc, char** argv) {
  using namespace kai;
  using Clock = std::chrono::steady_clock;
  if (argc != 4) {
    (void)std::fprintf(stderr, "usage: kai-neighbour SOCKET AGENT SECONDS\n");
    return 2;
  }
  auto client = bench::ControlClient::connect(argv[1]);
  if (!client) {
    (void)std::fprintf(stderr, "kai-neighbour: %s\n", client.error().message().c_str());
    return 1;
  }
  const control::Request request = bench::send_request(argv[2], "echo", R"("twenty bytes of text")");
  std::vector<double> microseconds;
  const auto end = Clock::now() + std::chrono::seconds(std::atoi(argv[3]));
  for (auto start = Clock::now(); start < end; start = Clock::now()) {
    if (const auto answer = client->call(request); !answer) {
      (void)std::fprintf(stderr, "kai-neighbour: %s\n", answer.error().message().c_str());
      return 1;
    }
    microseconds.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  std::sort(microseconds.begin(), microseconds.end());
  if (microseconds.empty()) return 1;
  const std::size_t count = microseconds.size();
  std::printf("%zu %.1f %.1f\n", count, microseconds[count / 2], microseconds[count * 99 / 100]);
  return 0;
}
