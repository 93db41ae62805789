#include "agent-host/json_rpc.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "agent-host/limits.h"

namespace kai {

TEST_CASE("lines, however they are cut") {
  const std::string stream = "one\n\ntwo\nthree";
  for (std::size_t piece = 1; piece <= stream.size(); ++piece) {
    LineDecoder decoder;
    std::string lines;
    for (std::size_t at = 0; at < stream.size(); at += piece) {
      decoder.feed(std::string_view(stream).substr(at, piece));
      while (const auto line = decoder.next()) lines += std::string(*line) + "|";
    }
    CHECK(lines == "one||two|");
    CHECK_FALSE(decoder.overlong());
  }
}

TEST_CASE("the limit of a line is exact, with and without its end") {
  LineDecoder exact;
  exact.feed(std::string(kMaxLineBytes, 'x') + "\n");
  CHECK(exact.next()->size() == kMaxLineBytes);
  LineDecoder over;
  over.feed(std::string(kMaxLineBytes + 1, 'x'));
  CHECK_FALSE(over.next());
  CHECK(over.overlong());
  LineDecoder later;
  later.feed("first\n" + std::string(kMaxLineBytes + 1, 'x') + "\n");
  CHECK(later.next() == "first");
  CHECK_FALSE(later.next());
  CHECK(later.overlong());
}

TEST_CASE("the four kinds of message") {
  const auto request = parse_rpc(R"({"jsonrpc":"2.0","id":"a","method":"klp.send","params":{"x":1}})");
  REQUIRE(request);
  CHECK(request->kind == RpcMessage::Kind::kRequest);
  CHECK(request->id == "\"a\"");
  CHECK(request->method == "klp.send");
  CHECK(request->content->text() == "{\"x\":1}");
  const auto notification = parse_rpc(R"({"method":"log","jsonrpc":"2.0"})");
  REQUIRE(notification);
  CHECK(notification->kind == RpcMessage::Kind::kNotification);
  CHECK_FALSE(notification->content);
  const auto result = parse_rpc(R"({"jsonrpc":"2.0","id":7,"result":null})");
  REQUIRE(result);
  CHECK(result->kind == RpcMessage::Kind::kResult);
  CHECK(result->content->is_null());
  const auto error = parse_rpc(R"({"jsonrpc":"2.0","id":7,"error":{"code":1}})");
  REQUIRE(error);
  CHECK(error->kind == RpcMessage::Kind::kError);
}

TEST_CASE("faults, and who can be told of them") {
  const auto fault = [](std::string_view line) {
    const auto message = parse_rpc(line);
    REQUIRE_FALSE(message);
    return message.error();
  };
  CHECK(fault("x").code == RpcCode::kParseError);
  CHECK(fault("[]").code == RpcCode::kInvalidRequest);
  CHECK(fault(R"({"jsonrpc":"2.0","id":5,"method":1})").id == "5");
  CHECK(fault(R"({"id":"a","method":"m"})").id == "\"a\"");
  CHECK(fault(R"({"jsonrpc":"2.0","id":null,"method":"m"})").id.empty());
  CHECK(fault(R"({"jsonrpc":"2.0","id":[1],"method":"m"})").id.empty());
  CHECK(fault(R"({"jsonrpc":"2.0","id":")" + std::string(200, 'x') + R"(","method":"m"})").id.empty());
  CHECK(fault(R"({"jsonrpc":"2.0","id":5,"result":1,"error":{}})").id.empty());  // an answer gets no answer
  CHECK(fault(R"({"jsonrpc":"2.0","id":5,"method":"m","params":[1]})").id == "5");
}

TEST_CASE("what is sent is JSON on one line") {
  const KlpError error{"DENIED", "no\n\"grant\"", "{\"a\":\n1}", true};
  for (const std::string& line : {rpc_request(1, "init", "{\"a\":1}"), rpc_notification("message", "{}"),
                                  rpc_result("\"x\"", "[]"), rpc_error("5", RpcCode::kAgentError, error)}) {
    REQUIRE(line.find('\n') == line.size() - 1);
    const auto json = nlohmann::json::parse(line);
    CHECK(json["jsonrpc"] == "2.0");
  }
  const auto sent = nlohmann::json::parse(rpc_error("5", RpcCode::kAgentError, error));
  CHECK(sent["error"] == nlohmann::json::parse(R"({"code": -32000, "message": "no\n\"grant\"",
    "data": {"code": "DENIED", "details": {"a": 1}, "retryable": true}})"));
}

}  // namespace kai
