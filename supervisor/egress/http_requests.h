// What an agent sends on one HTTP/1 connection (RFC 9112): every request has to name the host that was connected to,
// and its length has to be beyond doubt, or the next one could hide from this reader. Pure; its input is hostile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kai::egress {

inline constexpr std::size_t kMaxRequestHeadBytes = 32 << 10;

class HttpRequests {
 public:
  /// `host`: canonical name, or an address as Address's text; `port`: the one connected to. A Host may leave out
  /// port 80.
  HttpRequests(std::string host, std::uint16_t port);

  struct Step {
    std::size_t forward = 0;  ///< so many leading bytes may go on; the rest is shown again, with what follows
    std::string fault;        ///< not empty: the connection ends here. One sentence that says what was sent
  };
  /// `bytes` begins right after what earlier steps forwarded. A head is forwarded once it is whole and right; bodies as
  /// they come. No progress with kMaxRequestHeadBytes is a fault. Costs what is new, however small the pieces are.
  Step take(std::string_view bytes);

  /// Between two requests: an agent that closes here closes well.
  [[nodiscard]] bool idle() const { return state_ == State::kRequestLine && scanned_ == 0; }
  [[nodiscard]] std::uint64_t requests() const { return requests_; }

 private:
  enum class State { kRequestLine, kFields, kBody, kChunkSize, kChunkData, kChunkEnd, kTrailers, kRefused };

  /// What a head says that decides where its request ends.
  struct Head {
    bool http_1_0 = false;
    bool has_host = false;
    bool chunked = false;
    std::optional<std::uint64_t> content_length;
  };

  std::size_t take_data(std::string_view bytes);
  std::size_t take_lines(std::string_view bytes);
  bool take_byte(std::string_view line, char byte);
  bool take_line(std::string_view line);
  void take_request_line(std::string_view line);
  void take_field(std::string_view line);
  void take_host(std::string_view value);
  void take_content_length(std::string_view value);
  void take_transfer_encoding(std::string_view value);
  void take_connection(std::string_view value);
  void take_upgrade(std::string_view value);
  void take_expect(std::string_view value);
  void take_chunk_size(std::string_view line);
  void end_head();
  void begin(State state);
  void refuse(std::string_view what);
  [[nodiscard]] bool is_host(std::string_view value) const;

  std::string host_;
  std::uint16_t port_;
  std::uint64_t requests_ = 0;
  State state_ = State::kRequestLine;
  Head head_;
  std::size_t scanned_ = 0;      // bytes that were shown, may not go on yet, and are not looked at again
  std::size_t line_ = 0;         // where among them the line begins that is not whole yet
  std::size_t section_ = 0;      // bytes of this head, these trailers or this chunk-size line, against their limit
  std::uint64_t data_left_ = 0;  // of the body or chunk
  std::string fault_;
};

}  // namespace kai::egress
