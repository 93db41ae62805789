// Hostile streams of requests: any bytes. However they are cut, the same bytes go on and the same is decided; and every
// head that went on has one Host, which is the right one.
#include "supervisor/egress/http_requests.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/text.h"

namespace {

using kai::egress::HttpRequests;

void require(bool holds) {
  if (!holds) __builtin_trap();
}

struct Seen {
  std::size_t forwarded = 0;
  std::string fault;
  std::uint64_t requests = 0;
  bool idle = false;
  bool operator==(const Seen&) const = default;
};

Seen show(std::string_view stream, std::size_t piece) {
  HttpRequests reader("a.b", 80);
  Seen seen;
  for (std::size_t end = 0; end < stream.size() && seen.fault.empty();) {
    end = std::min(end + piece, stream.size());
    const std::string_view shown = stream.substr(seen.forwarded, end - seen.forwarded);
    const std::uint64_t before = reader.requests();
    const HttpRequests::Step step = reader.take(shown);
    require(step.forward <= shown.size());
    require(!step.fault.empty() || shown.size() - step.forward < kai::egress::kMaxRequestHeadBytes);
    if (reader.requests() > before) {
      std::string gone(shown.substr(0, step.forward));
      std::transform(gone.begin(), gone.end(), gone.begin(),
                     [](char byte) { return byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte + 32) : byte; });
      require(gone.find("\r\nhost:") != gone.npos && gone.find("a.b") != gone.npos);
    }
    seen.forwarded += step.forward;
    seen.fault = step.fault;
  }
  require(kai::is_utf8(seen.fault) && seen.fault.size() < 1000);
  seen.requests = reader.requests();
  seen.idle = reader.idle();
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view stream(reinterpret_cast<const char*>(data) + 1, size - 1);
  const Seen whole = show(stream, std::max<std::size_t>(stream.size(), 1));
  require(show(stream, 1 + data[0]) == whole);  // the first byte says how the stream is cut
  require(show(stream, 1) == whole);
  return 0;
}
