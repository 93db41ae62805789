#include "supervisor/egress/http_requests.h"

#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <utility>

#include <arpa/inet.h>

#include "base/text.h"

namespace kai::egress {
namespace {

constexpr std::size_t kMaxChunkLine = 1024;      // a size and its extensions, which nobody uses
constexpr std::size_t kMaxLengthDigits = 18;     // below 2^60
constexpr std::size_t kMaxChunkSizeDigits = 15;  // below 2^60
constexpr std::size_t kMaxQuoted = 100;

constexpr char lower(char byte) {
  return byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte - 'A' + 'a') : byte;
}

/// Field names, tokens and host names: ASCII, in any case.
bool same(std::string_view left, std::string_view right) {
  return std::equal(left.begin(), left.end(), right.begin(), right.end(),
                    [](char one, char other) { return lower(one) == lower(other); });
}

bool is_digit(char byte) {
  return byte >= '0' && byte <= '9';
}
bool is_blank(char byte) {
  return byte == ' ' || byte == '\t';
}

/// RFC 9110 5.6.2.
bool is_token(std::string_view text) {
  const auto tchar = [](char byte) {
    return is_digit(byte) || (lower(byte) >= 'a' && lower(byte) <= 'z') ||
           (byte != '\0' && std::strchr("!#$%&'*+-.^_`|~", byte) != nullptr);
  };
  return !text.empty() && std::all_of(text.begin(), text.end(), tchar);
}

/// Without the optional whitespace at both ends.
std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

/// For a message: what the agent wrote, cut, and harmless to a terminal.
std::string quoted(std::string_view text) {
  return '"' + escape_for_terminal(clip_utf8(text, kMaxQuoted)) + (text.size() > kMaxQuoted ? "…\"" : "\"");
}

/// Fields that say whose a request is or where it ends. In trailers they come too late: who honours them there, and who
/// does not, read two different requests.
constexpr std::array<std::string_view, 8> kForbiddenTrailers = {
    "host", "content-length", "transfer-encoding", "connection", "upgrade", "expect", "te", "trailer"};

/// "Transfer_Encoding": servers that hand on fields as CGI variables cannot tell it from the one with a hyphen.
bool is_lookalike(std::string_view name) {
  const auto alike = [name](std::string_view field) {
    return std::equal(name.begin(), name.end(), field.begin(), field.end(),
                      [](char one, char other) { return (one == '_' ? '-' : lower(one)) == other; });
  };
  return name.find('_') != name.npos && (alike("content-length") || alike("transfer-encoding"));
}

constexpr std::string_view kUncheckable =
    "; what is spoken after that could not be checked: use https, or have the policy's networkLimit.allowedProtocols "
    "allow tcp";

}  // namespace

HttpRequests::HttpRequests(std::string host, std::uint16_t port) : host_(std::move(host)), port_(port) {}

HttpRequests::Step HttpRequests::take(std::string_view bytes) {
  std::size_t taken = 0;
  while (taken < bytes.size() && state_ != State::kRefused) {
    const bool data = state_ == State::kBody || state_ == State::kChunkData;
    const std::size_t more = data ? take_data(bytes.substr(taken)) : take_lines(bytes.substr(taken));
    if (more == 0) break;
    taken += more;
  }
  return {taken, fault_};
}

std::size_t HttpRequests::take_data(std::string_view bytes) {
  const std::uint64_t size = std::min<std::uint64_t>(data_left_, bytes.size());
  data_left_ -= size;
  if (data_left_ == 0) begin(state_ == State::kBody ? State::kRequestLine : State::kChunkEnd);
  return static_cast<std::size_t>(size);
}

/// How many bytes may go on: a whole head, or a line of a chunked body. 0: there is no whole one yet.
std::size_t HttpRequests::take_lines(std::string_view bytes) {
  while (scanned_ < bytes.size()) {
    const char byte = bytes[scanned_];
    const std::string_view line = bytes.substr(line_, scanned_ - line_);
    const std::size_t limit = state_ == State::kChunkSize ? kMaxChunkLine : kMaxRequestHeadBytes;
    ++scanned_;
    ++section_;
    if (take_byte(line, byte)) {
      line_ = scanned_;
      if (take_line(line.substr(0, line.size() - 1))) {
        line_ = 0;
        return std::exchange(scanned_, 0);
      }
    } else if (section_ >= limit && state_ != State::kRefused) {
      refuse(state_ == State::kChunkSize ? "has a chunk size with extensions of more than 1 KB"
                                         : "has a head, or trailers, of more than 32 KB");
    }
    if (state_ == State::kRefused) break;
  }
  return 0;
}

/// Whether `byte` ends `line`, which then has its CR at the end.
bool HttpRequests::take_byte(std::string_view line, char byte) {
  const bool after_cr = line.ends_with('\r');
  if (byte == '\n') {
    if (!after_cr) refuse("has a line that ends with LF alone, which not every server takes for an end");
    return after_cr;
  }
  if (after_cr) {
    refuse("has a CR without LF, which some servers take for the end of a line");
  } else if (state_ == State::kChunkEnd && byte != '\r') {
    refuse("has a chunk that is longer than its size says");
  } else if (state_ == State::kRequestLine && scanned_ == 1 && byte == '\x16') {
    refuse("is not there: what was sent instead looks like TLS, and this port is for http");
  } else if ((static_cast<unsigned char>(byte) < 0x20 && byte != '\t' && byte != '\r') || byte == '\x7f') {
    refuse("has a control character where HTTP has text");
  }
  return false;
}

/// Whether everything up to here may go on.
bool HttpRequests::take_line(std::string_view line) {
  switch (state_) {
    case State::kRequestLine:
      take_request_line(line);
      return false;
    case State::kFields:
      if (!line.empty()) {
        take_field(line);
        return false;
      }
      end_head();
      break;
    case State::kChunkSize:
      take_chunk_size(line);
      break;
    case State::kChunkEnd:
      begin(State::kChunkSize);
      break;
    case State::kTrailers:
      if (line.empty()) {
        begin(State::kRequestLine);
      } else {
        take_field(line);
      }
      break;
    case State::kBody:
    case State::kChunkData:
    case State::kRefused:
      return false;
  }
  return state_ != State::kRefused;
}

void HttpRequests::take_request_line(std::string_view line) {
  if (line.empty()) return refuse("begins with an empty line");
  const std::size_t first = line.find(' '), last = line.rfind(' ');
  if (first == line.npos) return refuse("is not HTTP/1: its first line is " + quoted(line));
  if (first == last) return refuse("has no version, as in HTTP/0.9: " + quoted(line));
  const std::string_view method = line.substr(0, first), target = line.substr(first + 1, last - first - 1),
                         version = line.substr(last + 1);
  if (version == "HTTP/2.0") return refuse("is in HTTP/2" + std::string(kUncheckable));
  if (version != "HTTP/1.1" && version != "HTTP/1.0") {
    return refuse("has the version " + quoted(version) + ", which is neither HTTP/1.0 nor HTTP/1.1");
  }
  if (!is_token(method)) return refuse("has a method that is no token: " + quoted(method));
  if (method == "CONNECT") return refuse("is a CONNECT: there is no proxy here, connect to the host itself");
  if (target.find_first_of(" \t") != target.npos) return refuse("has whitespace in its target: " + quoted(target));
  if (!target.starts_with('/') && !(target == "*" && method == "OPTIONS")) {
    return refuse("has the target " + quoted(target) +
                  ", which does not begin with \"/\": there is no proxy here, connect to the host itself");
  }
  head_ = {.http_1_0 = version == "HTTP/1.0"};
  state_ = State::kFields;
}

void HttpRequests::take_field(std::string_view line) {
  if (is_blank(line.front())) return refuse("has a header that goes on in the next line (obs-fold)");
  const std::size_t colon = line.find(':');
  if (colon == line.npos) return refuse("has a header line without a colon: " + quoted(line));
  const std::string_view name = line.substr(0, colon), value = trimmed(line.substr(colon + 1));
  if (!name.empty() && is_blank(name.back())) return refuse("has whitespace before a header's colon: " + quoted(name));
  if (!is_token(name)) return refuse("has a header whose name is no token: " + quoted(name));
  if (is_lookalike(name)) return refuse("has the header " + quoted(name) + ", which some servers read with a hyphen");
  if (state_ == State::kTrailers) {
    if (std::any_of(kForbiddenTrailers.begin(), kForbiddenTrailers.end(),
                    [name](std::string_view forbidden) { return same(name, forbidden); })) {
      refuse("has " + quoted(name) + " in its trailers, after its body");
    }
    return;
  }
  using Take = void (HttpRequests::*)(std::string_view);
  static constexpr std::array<std::pair<std::string_view, Take>, 6> kFields = {{
      {"host", &HttpRequests::take_host},
      {"content-length", &HttpRequests::take_content_length},
      {"transfer-encoding", &HttpRequests::take_transfer_encoding},
      {"connection", &HttpRequests::take_connection},
      {"upgrade", &HttpRequests::take_upgrade},
      {"expect", &HttpRequests::take_expect},
  }};
  for (const auto& [field, take] : kFields) {
    if (same(name, field)) (this->*take)(value);
  }
}

/// host[:port] (RFC 9110 7.2); of an IPv6 address in brackets, in any spelling.
bool HttpRequests::is_host(std::string_view value) const {
  const bool bracketed = value.starts_with('[');
  const std::size_t end = bracketed ? value.find(']') : std::min(value.find(':'), value.size());
  if (end == value.npos) return false;
  std::string_view name = value.substr(0, end), port = value.substr(bracketed ? end + 1 : end);
  if (port.empty() ? port_ != 80 : port != ':' + std::to_string(port_)) return false;
  if (bracketed) {
    in6_addr named{}, meant{};
    return inet_pton(AF_INET6, std::string(name.substr(1)).c_str(), &named) == 1 &&
           inet_pton(AF_INET6, host_.c_str(), &meant) == 1 && std::memcmp(&named, &meant, sizeof(meant)) == 0;
  }
  if (name.ends_with('.')) name.remove_suffix(1);
  return same(name, host_);
}

void HttpRequests::take_host(std::string_view value) {
  if (head_.has_host) return refuse("has more than one Host");
  head_.has_host = true;
  if (is_host(value)) return;
  const std::string host = host_.find(':') == host_.npos ? host_ : '[' + host_ + ']';
  refuse("has the Host " + quoted(value) + ", and its connection is to " + host + ':' + std::to_string(port_));
}

void HttpRequests::take_content_length(std::string_view value) {
  if (head_.content_length) return refuse("has more than one Content-Length");
  const bool decimal = !value.empty() && value.size() <= kMaxLengthDigits &&
                       std::all_of(value.begin(), value.end(), is_digit) && (value == "0" || value.front() != '0');
  if (!decimal) return refuse("has a Content-Length that is no plain number: " + quoted(value));
  std::uint64_t length = 0;
  std::from_chars(value.data(), value.data() + value.size(), length);
  head_.content_length = length;
}

void HttpRequests::take_transfer_encoding(std::string_view value) {
  if (head_.chunked) return refuse("has more than one Transfer-Encoding");
  if (head_.http_1_0) return refuse("has Transfer-Encoding, which HTTP/1.0 does not have");
  if (!same(value, "chunked")) {
    return refuse("has the Transfer-Encoding " + quoted(value) + "; only \"chunked\" is beyond doubt");
  }
  head_.chunked = true;
}

/// Whoever honours a Connection that names one of the fields that count here takes that field away.
void HttpRequests::take_connection(std::string_view value) {
  while (!value.empty()) {
    const std::size_t comma = std::min(value.find(','), value.size());
    const std::string_view option = trimmed(value.substr(0, comma));
    value.remove_prefix(std::min(comma + 1, value.size()));
    if (same(option, "upgrade")) return take_upgrade("another protocol");
    if (same(option, "host") || same(option, "content-length") || same(option, "transfer-encoding")) {
      return refuse("has " + quoted(option) + " in Connection, so that a proxy would take that header away");
    }
  }
}

void HttpRequests::take_upgrade(std::string_view value) {
  refuse("asks to go on with " + quoted(value) + " (Upgrade)" + std::string(kUncheckable));
}

void HttpRequests::take_expect(std::string_view value) {
  if (!same(value, "100-continue")) refuse("has the Expect " + quoted(value) + ", which is not \"100-continue\"");
}

void HttpRequests::end_head() {
  if (!head_.has_host) return refuse("has no Host");
  if (head_.chunked && head_.content_length) {
    return refuse("has both Content-Length and Transfer-Encoding, so that its end is in doubt");
  }
  ++requests_;
  data_left_ = head_.content_length.value_or(0);
  if (head_.chunked) {
    begin(State::kChunkSize);
  } else {
    begin(data_left_ > 0 ? State::kBody : State::kRequestLine);
  }
}

void HttpRequests::take_chunk_size(std::string_view line) {
  const auto* const end = line.data() + std::min(line.find(';'), line.size());
  const auto digits = end - line.data();
  const auto [stopped, error] = std::from_chars(line.data(), end, data_left_, 16);
  // from_chars takes neither a sign for an unsigned number nor "0x" nor whitespace.
  if (error != std::errc{} || stopped != end || std::cmp_greater(digits, kMaxChunkSizeDigits)) {
    return refuse("has a chunk whose size is no plain hexadecimal number: " + quoted(line));
  }
  begin(data_left_ == 0 ? State::kTrailers : State::kChunkData);
}

void HttpRequests::begin(State state) {
  state_ = state;
  section_ = 0;
}

void HttpRequests::refuse(std::string_view what) {
  const bool in_head = state_ == State::kRequestLine || state_ == State::kFields;
  fault_ = "HTTP request " + std::to_string(requests_ + (in_head ? 1 : 0)) + ' ' + std::string(what);
  state_ = State::kRefused;
}

}  // namespace kai::egress
