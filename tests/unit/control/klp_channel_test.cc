// One channel alone, with the test as its agent-host at the other end of the socket.
#include "supervisor/control/klp_channel.h"

#include <sys/socket.h>

#include <deque>

#include <doctest/doctest.h>

#include "base/text.h"
#include "base/unix.h"
#include "tests/unit/control/signing_keys.h"

namespace kai {
namespace {

KlpTerms terms() {
  KlpTerms terms;
  terms.agent_id = "b";
  terms.identity = {"1.0.0", {"echo"}, {}};
  terms.runner_protocol = true;
  terms.in_flight = 2;
  return terms;
}

struct Host {
  explicit Host(KlpTerms with = terms(), KlpChannel::Begin begin = KlpChannel::Begin::kHello) {
    auto sockets = std::move(*socket_pair(SOCK_STREAM));
    channel.emplace(loop, std::move(sockets.first), std::move(with), handlers(), begin);
    stream.emplace(loop, std::move(sockets.second), StreamLimits{},
                   FrameStream::Handlers{.frame =
                                             [this](std::string_view body) {
                                               klp::Envelope envelope;
                                               envelope.ParseFromArray(body.data(), static_cast<int>(body.size()));
                                               if (envelope.has_message()) {
                                                 messages.emplace_back().ParseFromString(envelope.message());
                                               }
                                               said.push_back(std::move(envelope));
                                             },
                                         .closed = [this](const std::string&, bool) { hung_up = true; }});
  }

  KlpChannel::Handlers handlers() {
    KlpChannel::Handlers made;
    made.accepted = [this] { events += "accepted "; };
    made.refused = [this](const std::string& why) { refusal = why; };
    made.resumed = [this](const klp::Resume&) { events += "resumed "; };
    made.runner_hello = [] {};
    made.started = [this] { events += "started "; };
    made.start_failed = [](const klp::StartFailed&) {};
    made.message = [this](klp::Message&& message) { taken.push_back(std::move(message)); };
    made.log = [](const klp::AgentLog&) {};
    made.health = [](klp::HealthReport&&) {};
    made.exit = [](const klp::Exit&) {};
    made.closed = [this](const std::string& why, bool) { closed = why; };
    made.rejected = [this](const klp::Message&, const Failure& failure) { rejected += failure.code + " "; };
    return made;
  }

  void until(const std::function<bool()>& met) {
    bool late = false;
    Timer guard(loop);
    guard.start(std::chrono::seconds(30), [&late] { late = true; });
    loop.run_until([&] { return late || met(); });
    REQUIRE_FALSE(late);
  }

  static klp::Hello hello(const std::string& key = {}) {
    klp::Hello hello;
    hello.set_agent_id("b");
    hello.set_version("1.0.0");
    hello.add_capabilities("echo");
    hello.set_runner_protocol(true);
    hello.set_public_key(key);
    return hello;
  }
  void say(const klp::Envelope& envelope) { stream->send(envelope.SerializeAsString()); }
  void say_hello(const std::string& key = {}) {
    klp::Envelope envelope;
    *envelope.mutable_hello() = hello(key);
    say(envelope);
  }
  void resume(klp::Resume::Phase phase, const std::string& key = {}) {
    klp::Envelope envelope;
    *envelope.mutable_resume()->mutable_hello() = hello(key);
    envelope.mutable_resume()->set_phase(phase);
    say(envelope);
  }
  void serve(const std::string& key = {}) {
    say_hello(key);
    klp::Envelope envelope;
    envelope.mutable_started();
    say(envelope);
    until([&] { return channel->phase() == Phase::kServing; });
  }
  klp::Message message(klp::Type type, const std::string& to = "a") {
    klp::Message made;
    made.set_protocol("klp/1.0");
    made.set_id(new_uuid());
    made.set_type(type);
    made.set_to(to);
    made.set_timestamp(iso_now());
    return made;
  }
  void say(const klp::Message& message, const std::string& signature = {}) {
    klp::Envelope envelope;
    message.SerializeToString(envelope.mutable_message());
    envelope.set_signature(signature);
    say(envelope);
  }
  void answer(const klp::Message& request) {
    klp::Message response = message(klp::RESPONSE, request.from());
    response.set_correlation_id(request.id());
    response.set_payload(request.payload());
    say(response);
  }
  /// A request of somebody's to the agent; `name` stands in `outcomes` with what became of it.
  void ask(const std::string& name, klp::Priority priority = klp::NORMAL, std::uint32_t ttl = 0,
           std::chrono::milliseconds deadline = std::chrono::seconds(20), std::size_t bytes = 0) {
    klp::Message request;
    request.set_from("operator");
    request.set_capability(name);
    request.mutable_metadata()->set_priority(priority);
    request.mutable_metadata()->set_ttl_seconds(ttl);
    request.set_payload(std::string(bytes, 'x'));
    channel->request(std::move(request), deadline, [this, name](const Outcome<klp::Message>& outcome) {
      outcomes += name + ":" + (outcome ? "ok" : outcome.error().code) + " ";
    });
  }
  std::string received() const {
    std::string names;
    for (const klp::Message& each : messages) names += each.capability() + " ";
    return names;
  }

  EventLoop loop;
  std::string events, refusal, closed, rejected, outcomes;
  std::deque<klp::Message> taken;     // by control, from the host
  std::deque<klp::Message> messages;  // that control sent
  std::deque<klp::Envelope> said;     // by control
  bool hung_up = false;
  std::optional<KlpChannel> channel;
  std::optional<FrameStream> stream;
};

TEST_CASE("two in flight, two more wait, by priority") {
  Host host;
  host.serve();
  host.ask("n1");
  host.ask("n2");
  host.ask("l1", klp::LOW);
  host.ask("n3");
  host.ask("l2", klp::LOW);  // four are there, and none is less urgent
  CHECK(host.outcomes == "l2:BUSY ");
  host.ask("h1", klp::HIGH);  // drives out l1
  CHECK(host.outcomes == "l2:BUSY l1:BUSY ");
  host.ask("u1", klp::URGENT);  // drives out n3
  host.until([&] { return host.messages.size() == 2; });
  CHECK(host.received() == "n1 n2 ");
  host.answer(host.messages[0]);
  host.until([&] { return host.messages.size() == 3; });
  host.answer(host.messages[1]);
  host.until([&] { return host.messages.size() == 4; });
  CHECK(host.received() == "n1 n2 u1 h1 ");
  CHECK(host.outcomes == "l2:BUSY l1:BUSY n3:BUSY n1:ok n2:ok ");
}

TEST_CASE("what waits ends by its ttl or its deadline, what is in flight by its deadline alone") {
  Host host;
  host.serve();
  const auto soon = std::chrono::milliseconds(1500);
  host.ask("f1", klp::NORMAL, 1, soon);
  host.ask("f2", klp::NORMAL, 0, std::chrono::seconds(20));
  host.ask("w1", klp::NORMAL, 1);
  host.ask("w2", klp::NORMAL, 0, std::chrono::milliseconds(50));
  host.until([&] { return host.outcomes.size() >= 3 * std::string("f1:TIMEOUT ").size(); });
  CHECK(host.outcomes == "w2:TIMEOUT w1:EXPIRED f1:TIMEOUT ");
  CHECK(host.received() == "f1 f2 ");
}

TEST_CASE("the host is told how much of the deadline is left, and the sender's metadata") {
  Host host;
  host.serve();
  host.ask("n1", klp::HIGH, 7, std::chrono::milliseconds(5000));
  host.until([&] { return host.messages.size() == 1; });
  const klp::Message& request = host.messages.front();
  CHECK(request.deadline_ms() <= 5000);
  CHECK(request.deadline_ms() > 0);
  CHECK(request.metadata().priority() == klp::HIGH);
  CHECK(request.metadata().ttl_seconds() == 7);
  CHECK(parse_uuid_v7(request.id()));
}

TEST_CASE("large requests wait for room, and do not end the channel of one that reads slowly") {
  KlpTerms many = terms();
  many.in_flight = 64;
  Host host(many);
  host.serve();
  for (int at = 0; at < 64; ++at) {
    host.ask("n" + std::to_string(at), klp::NORMAL, 0, std::chrono::seconds(20), kMaxFrameBytes);
  }
  // Some are on the wire, some wait, for the rest there was no room. Nothing was read in between.
  CHECK(host.outcomes.find("BUSY") != std::string::npos);
  CHECK(host.closed.empty());
  const std::size_t busy = static_cast<std::size_t>(std::count(host.outcomes.begin(), host.outcomes.end(), ':'));
  host.until([&] { return host.messages.size() == 64 - busy; });
  for (const klp::Message& request : std::deque<klp::Message>(host.messages)) host.answer(request);
  host.until(
      [&] { return static_cast<std::size_t>(std::count(host.outcomes.begin(), host.outcomes.end(), ':')) == 64; });
  CHECK(host.closed.empty());
}

TEST_CASE("events beyond what an agent reads are lost, answers become BUSY; the channel stays") {
  Host host;
  host.serve();
  klp::Message event = host.message(klp::EVENT, "topic:x");
  event.set_payload(std::string(100'000, 'x'));
  int delivered = 0;
  while (host.channel->deliver(event)) ++delivered;
  CHECK(delivered == 10);
  klp::Message small = host.message(klp::EVENT, "topic:x");
  for (int at = 0; at < 2000; ++at) static_cast<void>(host.channel->deliver(small));
  const klp::Message request = host.message(klp::REQUEST);
  klp::Message response;
  response.set_payload(std::string(kMaxFrameBytes, 'x'));
  for (int at = 0; at < 20; ++at) host.channel->reply(request, response);
  CHECK(host.closed.empty());
  host.until([&] { return !host.messages.empty() && host.messages.back().type() == klp::ERROR; });
  CHECK(host.messages.back().error().code() == "BUSY");
  CHECK(host.messages.back().correlation_id() == request.id());
}

TEST_CASE("replays, ids that are none and foreign protocols are told to whom it concerns") {
  Host host;
  host.serve();
  const klp::Message event = host.message(klp::EVENT, "topic:x");
  host.say(event);
  host.say(event);
  klp::Message nameless = host.message(klp::REQUEST);
  nameless.set_id("42");
  host.say(nameless);
  host.until([&] { return host.messages.size() == 2; });
  CHECK(host.taken.size() == 1);
  CHECK(host.taken.front().from() == "b");
  CHECK(host.messages[0].error().code() == "REPLAY");
  CHECK(host.messages[0].correlation_id() == event.id());
  CHECK(host.messages[0].from() == "kaid");
  CHECK(host.messages[1].error().code() == "INVALID");
  CHECK(host.messages[1].correlation_id() == "42");
  CHECK(host.rejected == "REPLAY ");
  host.ask("n1");
  host.until([&] { return host.messages.size() == 3; });
  klp::Message response = host.message(klp::RESPONSE);
  response.set_id(event.id());
  response.set_correlation_id(host.messages[2].id());
  host.say(response);
  host.until([&] { return !host.outcomes.empty(); });
  CHECK(host.outcomes == "n1:REPLAY ");
}

TEST_CASE("two senders with one id do not get each other's answers") {
  Host host;
  host.serve();
  klp::Message request;
  request.set_id(new_uuid());
  request.set_from("a");
  std::string first, second;
  host.channel->request(request, std::chrono::seconds(20),
                        [&](const Outcome<klp::Message>& outcome) { first = outcome ? "ok" : outcome.error().code; });
  host.channel->request(request, std::chrono::seconds(20),
                        [&](const Outcome<klp::Message>& outcome) { second = outcome ? "ok" : outcome.error().code; });
  CHECK(second == "REPLAY");
  host.until([&] { return host.messages.size() == 1; });
  host.answer(host.messages.front());
  host.until([&] { return !first.empty(); });
  CHECK(first == "ok");
}

TEST_CASE("when it stops, what waits fails at once; what is in flight may still be answered") {
  Host host;
  host.serve();
  host.ask("f1");
  host.ask("f2");
  host.ask("w1");
  host.channel->stop(std::chrono::seconds(1));
  CHECK(host.outcomes == "w1:NOT_RUNNING ");
  host.until([&] { return host.messages.size() == 2; });
  host.answer(host.messages.front());
  host.until([&] { return host.outcomes == "w1:NOT_RUNNING f1:ok "; });
  host.channel->fail_all({"AGENT_CRASHED", "gone", {}, {}, true});
  CHECK(host.outcomes == "w1:NOT_RUNNING f1:ok f2:AGENT_CRASHED ");
}

TEST_CASE("an agent's own error is from it, with its details; codes that are kaid's are not its to say") {
  Host host;
  host.serve();
  Outcome<klp::Message> got;
  std::string code;
  for (const char* said : {"CONFLICT", "QUARANTINED"}) {
    CAPTURE(said);
    code.clear();
    host.channel->request({}, std::chrono::seconds(20), [&](const Outcome<klp::Message>& outcome) {
      REQUIRE_FALSE(outcome);
      CHECK(outcome.error().from == "b");
      CHECK(outcome.error().details_json == "{\"at\":1}");
      code = outcome.error().code;
    });
    const std::size_t seen = host.messages.size();
    host.until([&] { return host.messages.size() == seen + 1; });
    klp::Message error = host.message(klp::ERROR);
    error.set_correlation_id(host.messages.back().id());
    error.mutable_error()->set_code(said);
    error.mutable_error()->set_details_json("{\"at\":1}");
    host.say(error);
    host.until([&] { return !code.empty(); });
    CHECK(code == (std::string(said) == "CONFLICT" ? "CONFLICT" : "AGENT_ERROR"));
  }
}

template <typename Key>
void check_signed(Crypto crypto) {
  const Key key(3), other(4);
  KlpTerms with = terms();
  with.crypto = crypto;
  Host host(with);
  host.serve(key.public_key());
  CHECK(host.channel->public_key() == key.public_key());

  const klp::Message right = host.message(klp::EVENT, "topic:x");
  const klp::Message wrong = host.message(klp::REQUEST);
  host.say(wrong);
  host.say(wrong, other.sign(wrong.SerializeAsString()));
  host.say(wrong, key.sign(right.SerializeAsString()));
  host.say(right, key.sign(right.SerializeAsString()));
  host.until([&] { return host.taken.size() == 1 && host.messages.size() == 3; });
  CHECK(host.taken.front().id() == right.id());
  for (const klp::Message& error : host.messages) CHECK(error.error().code() == "BAD_SIGNATURE");
  CHECK(host.rejected == "BAD_SIGNATURE BAD_SIGNATURE BAD_SIGNATURE ");

  host.ask("n1");
  host.until([&] { return host.messages.size() == 4; });
  host.answer(host.messages.back());  // not signed
  host.until([&] { return !host.outcomes.empty(); });
  CHECK(host.outcomes == "n1:BAD_SIGNATURE ");

  klp::Message old = host.message(klp::EVENT, "topic:x");
  old.set_timestamp(iso_time(unix_ms() - 60'000));
  host.say(old, key.sign(old.SerializeAsString()));
  host.until([&] { return host.messages.size() == 5; });
  CHECK(host.messages.back().error().code() == "EXPIRED");
}

TEST_CASE("messages of an agent with a key are signed, each of them") {
  SUBCASE("ed25519") {
    check_signed<test::Ed25519Key>(Crypto::kEd25519);
  }
  SUBCASE("secp256k1") {
    check_signed<test::Secp256k1Key>(Crypto::kSecp256k1);
  }
}

TEST_CASE("a hello without its key, or with one that is none, is refused") {
  KlpTerms with = terms();
  with.crypto = Crypto::kEd25519;
  std::string key;
  SUBCASE("none") {}
  SUBCASE("too short") {
    key = std::string(31, 'k');
  }
  SUBCASE("of another kind") {
    key = test::Secp256k1Key().public_key();
  }
  SUBCASE("one where the manifest says none") {
    with.crypto = Crypto::kNone;
    key = test::Ed25519Key().public_key();
  }
  Host host(with);
  host.say_hello(key);
  host.until([&] { return !host.refusal.empty() && !host.said.empty(); });
  CHECK(host.said.front().refused().code() == "DENIED");
  CHECK(host.channel->public_key().empty());
}

TEST_CASE("a channel in the place of a lost one: Resume, or a hello that nobody had answered") {
  SUBCASE("serving") {
    Host host(terms(), KlpChannel::Begin::kResume);
    host.resume(klp::Resume::SERVING);
    host.until([&] { return host.said.size() == 1; });
    CHECK(host.said.front().has_resumed());
    CHECK(host.events == "resumed ");
    CHECK(host.channel->phase() == Phase::kServing);
    host.ask("n1");
    host.until([&] { return host.messages.size() == 1; });
    host.answer(host.messages.front());
    host.until([&] { return host.outcomes == "n1:ok "; });
  }
  SUBCASE("starting") {
    Host host(terms(), KlpChannel::Begin::kResume);
    host.resume(klp::Resume::STARTING);
    klp::Envelope started;
    started.mutable_started();
    host.say(started);
    host.until([&] { return host.channel->phase() == Phase::kServing; });
    CHECK(host.events == "resumed started ");
  }
  SUBCASE("stopping") {
    Host host(terms(), KlpChannel::Begin::kResume);
    host.resume(klp::Resume::STOPPING);
    host.until([&] { return host.channel->phase() == Phase::kClosing; });
  }
  SUBCASE("a hello") {
    Host host(terms(), KlpChannel::Begin::kResume);
    host.serve();
    CHECK(host.events == "accepted started ");
  }
}

TEST_CASE("a Resume that is none") {
  SUBCASE("on a channel of its own") {
    Host host;
    host.resume(klp::Resume::SERVING);
    host.until([&] { return !host.closed.empty(); });
    CHECK(host.closed.find("not lost") != std::string::npos);
  }
  SUBCASE("twice") {
    Host host(terms(), KlpChannel::Begin::kResume);
    host.resume(klp::Resume::SERVING);
    host.resume(klp::Resume::SERVING);
    host.until([&] { return !host.closed.empty(); });
  }
  SUBCASE("with another key") {
    KlpTerms with = terms();
    with.crypto = Crypto::kEd25519;
    with.known_public_key = test::Ed25519Key(1).public_key();
    Host host(with, KlpChannel::Begin::kResume);
    host.resume(klp::Resume::SERVING, test::Ed25519Key(2).public_key());
    host.until([&] { return !host.refusal.empty() && !host.said.empty(); });
    CHECK(host.said.front().has_refused());
    CHECK(host.refusal.find("another public key") != std::string::npos);
  }
  SUBCASE("of another version") {
    KlpTerms with = terms();
    with.identity.version = "2.0.0";
    Host host(with, KlpChannel::Begin::kResume);
    host.resume(klp::Resume::SERVING);
    host.until([&] { return !host.refusal.empty(); });
  }
}

}  // namespace
}  // namespace kai
