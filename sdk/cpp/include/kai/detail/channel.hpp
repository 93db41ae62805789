// JSON-RPC 2.0, one document a line, in both directions over one socket; one thread. Writes wait until the host has
// taken them: that is the backpressure. Nothing here grows without bound.
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "kai/abi.h"
#include "kai/message.hpp"

namespace kai::detail {

inline constexpr std::size_t kMaxLine = (1u << 20) + (64u << 10);  // bytes, without the LF
inline constexpr std::size_t kMaxDepth = 256;       // of nesting: what nlohmann/json writes back, it recurses over
inline constexpr std::size_t kMaxWaiting = 256;     // requests that came while a hook waited for the host
inline constexpr std::size_t kMaxText = 16u << 10;  // bytes of an error's or log record's text

inline constexpr int kParseError = -32700;
inline constexpr int kInvalidRequest = -32600;
inline constexpr int kMethodNotFound = -32601;
inline constexpr int kInvalidParams = -32602;
inline constexpr int kServerError = -32000;

/// The host has closed the channel. Not a std::exception, so that an agent does not catch it by accident.
struct ChannelClosed {};

/// The host has discarded the version whose hook waited for it. Not a std::exception either.
struct Discarded {};

/// An answer that the SDK itself gives; on_error does not see it.
struct RpcFault {
  RpcFault(int code, const std::string& message, const std::string& klp_code = "INVALID", bool retryable = false)
      : body({{"code", code}, {"message", message}, {"data", {{"code", klp_code}}}}) {
    if (retryable) body["data"]["retryable"] = true;
  }
  Json body;
};

inline std::string clip(const std::string& text) {
  return text.size() <= kMaxText ? text : text.substr(0, kMaxText) + "…";
}

/// Whether the host means the version that was loaded beside the serving one.
inline bool is_of_next(const Json& request) {
  return request.at("params").value("next", Json()) == true;
}

class Channel {
 public:
  /// `serve_health` answers a health request; it may itself ask the host.
  explicit Channel(std::function<void(const Json&)> serve_health) : serve_health_(std::move(serve_health)) {}
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  /// Goes on where another session, or nobody, has got to. is_next: on loan, as the version beside the serving one.
  void take(const kai_channel& state, bool is_next) {
    fd_ = state.fd;
    next_id_ = state.next_id;
    is_next_ = is_next;
    waiting_.clear();
    line_.clear();
    line_size_ = 0;
    accept({state.unread, state.unread_size});
    line_size_ = std::max(line_size_, state.last_line_bytes);
    if (line_size_ > kMaxLine) line_.clear();
  }

  /// Where this session has got to, for the next one.
  void give(kai_channel& state) {
    unread_.clear();
    for (const Json& request : waiting_) unread_ += request.dump() + "\n";
    unread_ += line_;
    state = {fd_, unread_.data(), unread_.size(), line_size_, next_id_};
  }

  /// What the agent still asks fails, from any thread.
  void close() { is_open_ = false; }

  void put_back(Json request) { waiting_.push_front(std::move(request)); }

  /// The next request or notification. Throws ChannelClosed.
  Json next_request() {
    for (;;) {
      if (!waiting_.empty()) {
        Json request = std::move(waiting_.front());
        waiting_.pop_front();
        return request;
      }
      receive();
    }
  }

  /// Asks the host and waits for its answer; what comes meanwhile waits its turn, but for health: an agent that waits
  /// for another one is not hung; and for discard. Throws AgentError, ChannelClosed, Discarded.
  Json call(const std::string& method, const Json& params) {
    if (!is_open_)
      throw AgentError(method + ": another version of the agent has taken over from this one", "NOT_RUNNING");
    const std::int64_t id = next_id_++;
    const std::string line = encode({{"jsonrpc", "2.0"}, {"id", id}, {"method", method}, {"params", params}});
    if (line.empty()) throw AgentError(method + ": the params do not fit a line", "TOO_LARGE");
    write(line);
    calls_.emplace(id, std::nullopt);
    answer_health();  // one that came together with the hook's own request
    while (!calls_.at(id)) {
      if (is_discarded()) {
        calls_.erase(id);
        throw Discarded();
      }
      receive();
      answer_health();
    }
    const Json answer = *std::move(calls_.extract(id).mapped());
    if (const auto error = answer.find("error"); error != answer.end()) throw_error(*error);
    return answer.value("result", Json::object());
  }

  void log(const char* level, const std::string& message, const Json& fields) {
    if (!is_open_) return;
    Json params = {{"level", level}, {"message", clip(message)}};
    if (fields.is_object()) params["fields"] = fields;
    Json record = {{"jsonrpc", "2.0"}, {"method", "log"}, {"params", params}};
    std::string line = encode(record, Json::error_handler_t::replace);
    if (line.empty()) {
      record["params"]["fields"] = {{"fieldsLost", "too long"}};
      line = encode(record, Json::error_handler_t::replace);
    }
    write(line);
  }

  /// Throws Json::exception for text that is not UTF-8, and RpcFault for what does not fit a line.
  void answer(const Json& id, const std::string& method, const Json& result) {
    const std::string line = encode({{"jsonrpc", "2.0"}, {"id", id}, {"result", result}});
    if (line.empty()) {
      throw RpcFault(kServerError,
                     "the answer to " + method + " is over the limit of a line, " + std::to_string(kMaxLine) +
                         " bytes: send less, or in parts",
                     "TOO_LARGE");
    }
    write(line);
  }

  void answer_error(const Json& id, const Json& body) {
    write(encode({{"jsonrpc", "2.0"}, {"id", id}, {"error", body}}, Json::error_handler_t::replace));
  }

 private:
  /// Empty: too long.
  static std::string encode(const Json& document, Json::error_handler_t invalid = Json::error_handler_t::strict) {
    std::string line = document.dump(-1, ' ', false, invalid);
    if (line.size() > kMaxLine) return {};
    return line += '\n';
  }

  void write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent >= 0) {
        bytes.remove_prefix(static_cast<std::size_t>(sent));
      } else if (errno != EINTR) {
        throw ChannelClosed();
      }
    }
  }

  bool is_discarded() const {
    return is_next_ && std::any_of(waiting_.begin(), waiting_.end(),
                                   [](const Json& request) { return request.at("method") == "discard"; });
  }

  void answer_health() {
    if (answering_health_) return;  // a health check that waits for the host is not asked again meanwhile
    std::deque<Json> asked;
    for (auto at = waiting_.begin(); at != waiting_.end();) {
      const bool health = at->at("method") == "health" && is_of_next(*at) == is_next_;
      if (health) asked.push_back(std::move(*at));
      at = health ? waiting_.erase(at) : at + 1;
    }
    answering_health_ = true;
    for (const Json& request : asked) serve_health_(request);
    answering_health_ = false;
  }

  /// Reads what is there, waiting for some of it.
  void receive() {
    std::array<char, 64u << 10> buffer;
    const ssize_t got = ::recv(fd_, buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) return;
    if (got <= 0) throw ChannelClosed();
    accept({buffer.data(), static_cast<std::size_t>(got)});
  }

  void accept(std::string_view data) {
    for (std::size_t end = 0; (end = data.find('\n')) != std::string_view::npos; data.remove_prefix(end + 1)) {
      append(data.substr(0, end));
      const std::string line = std::move(line_);
      const std::size_t size = line_size_;
      line_.clear();
      line_size_ = 0;
      take_line(line, size);
    }
    append(data);
  }

  void append(std::string_view part) {
    line_size_ += part.size();
    if (line_size_ > kMaxLine) {
      line_.clear();  // only counted on, up to its LF
    } else {
      line_ += part;
    }
  }

  void take_line(const std::string& line, std::size_t size) {
    if (size > kMaxLine) {
      const std::string message =
          "a line of " + std::to_string(size) + " bytes; the limit is " + std::to_string(kMaxLine);
      return answer_error(nullptr, RpcFault(kInvalidRequest, message, "TOO_LARGE").body);
    }
    Json document = too_deep(line) ? Json(Json::value_t::discarded) : Json::parse(line, nullptr, false);
    if (document.is_discarded()) {
      return answer_error(nullptr, RpcFault(kParseError, "not a JSON document in UTF-8 of at most 256 levels").body);
    }
    const Json id = document.is_object() ? document.value("id", Json()) : Json();
    if (!document.is_object() || document.value("jsonrpc", Json()) != "2.0" ||
        !(id.is_null() || id.is_string() || id.is_number())) {
      return refuse_shape(nullptr);
    }
    if (document.value("method", Json()).is_string()) return enqueue(std::move(document), id);
    if (!document.contains("result") && !document.contains("error")) return refuse_shape(id);
    if (!id.is_number_integer()) return;
    if (const auto call = calls_.find(id.get<std::int64_t>()); call != calls_.end()) call->second = std::move(document);
  }

  void enqueue(Json document, const Json& id) {
    if (!document.contains("params")) document["params"] = Json::object();
    if (!document["params"].is_object()) {
      if (!id.is_null()) answer_error(id, RpcFault(kInvalidParams, "params is not an object").body);
    } else if (waiting_.size() < kMaxWaiting) {
      waiting_.push_back(std::move(document));
    } else if (!id.is_null()) {
      answer_error(id, RpcFault(kServerError, "too many requests wait for the agent's thread", "BUSY", true).body);
    }
  }

  void refuse_shape(const Json& id) {
    answer_error(id, RpcFault(kInvalidRequest, "not a JSON-RPC 2.0 request or answer").body);
  }

  [[noreturn]] static void throw_error(const Json& error) {
    const Json data = error.value("data", Json::object());
    throw AgentError(error.value("message", ""), data.value("code", "INTERNAL"), data.value("details", Json()),
                     data.value("retryable", false));
  }

  static bool too_deep(std::string_view json) {
    std::size_t depth = 0;
    bool in_string = false;
    for (std::size_t at = 0; at < json.size(); ++at) {
      const char c = json[at];
      if (in_string) {
        if (c == '\\') ++at;
        if (c == '"') in_string = false;
      } else if (c == '"') {
        in_string = true;
      } else if (c == '[' || c == '{') {
        if (++depth > kMaxDepth) return true;
      } else if ((c == ']' || c == '}') && depth > 0) {
        --depth;
      }
    }
    return false;
  }

  int fd_ = -1;
  bool is_next_ = false;
  std::atomic<bool> is_open_ = true;
  std::string unread_;  // of give()
  std::string line_;    // that is being read
  std::size_t line_size_ = 0;
  std::deque<Json> waiting_;
  std::int64_t next_id_ = 1;
  std::map<std::int64_t, std::optional<Json>> calls_;  // at most two: a hook's, and that of a health check within
  std::function<void(const Json&)> serve_health_;
  bool answering_health_ = false;
};

}  // namespace kai::detail
