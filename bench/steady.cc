// kai-steady SOCKET AGENT CAPABILITY RATE: numbered messages to AGENT, RATE a second whether it answers or not, until
// its standard input ends; then it waits for what is not answered yet, and prints a line for each message:
// {"number", "due", "answered", "answer" or "error"}, times in nanoseconds of CLOCK_MONOTONIC.
//
// `due` is when the message was to be sent: what holds up the sender counts as a wait of the message.
#include <poll.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench/control_client.h"
#include "bench/report.h"

namespace {

using kai::bench::Clock;
using kai::bench::ControlClient;

// A connection may have 256 requests in progress (supervisor/control/connection.cc), and a pause may be long.
constexpr std::size_t kConnections = 4;

std::int64_t nanoseconds(Clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

bool stdin_ended() {
  pollfd waiting{0, POLLIN, 0};
  return poll(&waiting, 1, 0) > 0;
}

struct Answer {
  std::uint64_t number;
  Clock::time_point at;
  kai::control::Response response;
};

/// One connection: the thread that sends and the one that receives use different halves of it.
class Lane {
 public:
  Lane(ControlClient client, std::size_t place) : client_(std::move(client)), place_(place) {}

  bool send(const kai::control::Request& request) {
    const auto sent = client_.send(request);
    if (!sent) (void)std::fprintf(stderr, "kai-steady: %s\n", sent.error().message().c_str());
    return sent.has_value();
  }

  /// To be called before the last one is sent, so that its answer finds this.
  void ends_with(std::uint64_t total) { total_ = total; }

  void receive_all() {
    while (answers.size() != total_) {
      auto response = client_.receive();
      const Clock::time_point now = Clock::now();
      if (!response) {
        (void)std::fprintf(stderr, "kai-steady: %s\n", response.error().message().c_str());
        return;
      }
      if (response->id() == 0) {  // of the connection, which ends with it
        (void)std::fprintf(stderr, "kai-steady: %s\n", response->failed().message().c_str());
        return;
      }
      const std::uint64_t number = (response->id() - 1) * kConnections + place_;
      answers.push_back({number, now, std::move(*response)});
    }
  }

  std::vector<Answer> answers;

 private:
  ControlClient client_;
  std::size_t place_;
  std::atomic<std::uint64_t> total_{UINT64_MAX};
};

void print(const Answer& answer, Clock::time_point due) {
  nlohmann::json line = {{"number", answer.number}, {"due", nanoseconds(due)}, {"answered", nanoseconds(answer.at)}};
  if (answer.response.has_failed()) {
    line["error"] = answer.response.failed().code() + ": " + answer.response.failed().message();
  } else {
    line["answer"] = nlohmann::json::parse(answer.response.done().json()).at("payload");
  }
  std::printf("%s\n", line.dump().c_str());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    (void)std::fprintf(stderr, "usage: kai-steady SOCKET AGENT CAPABILITY RATE\n");
    return 2;
  }
  std::vector<std::unique_ptr<Lane>> lanes;
  for (std::size_t place = 0; place < kConnections; ++place) {
    auto client = ControlClient::connect(argv[1]);
    if (!client) {
      (void)std::fprintf(stderr, "kai-steady: %s\n", client.error().message().c_str());
      return 1;
    }
    lanes.push_back(std::make_unique<Lane>(std::move(*client), place));
  }
  std::vector<std::thread> receivers;
  receivers.reserve(kConnections);
  for (const auto& lane : lanes) receivers.emplace_back([&lane = *lane] { lane.receive_all(); });

  const kai::control::Request request = kai::bench::send_request(argv[2], argv[3], "{}");
  const std::chrono::nanoseconds period(1'000'000'000 / std::atoi(argv[4]));
  const Clock::time_point began = Clock::now();
  const auto due = [&](std::uint64_t number) { return began + period * static_cast<std::int64_t>(number); };
  bool over = false;
  for (std::uint64_t number = 0; !over || number % kConnections != 0; ++number) {
    if (!over && number % kConnections == 0 && stdin_ended()) {
      over = true;
      for (const auto& lane : lanes) lane->ends_with(number / kConnections + 1);
    }
    std::this_thread::sleep_until(due(number));
    if (!lanes[number % kConnections]->send(request)) std::_Exit(1);  // with the receivers, which wait on
  }
  for (std::thread& receiver : receivers) receiver.join();
  for (const auto& lane : lanes) {
    for (const Answer& answer : lane->answers) print(answer, due(answer.number));
  }
  return 0;
}
