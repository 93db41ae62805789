#include "audit/verify_file.h"

#include <unistd.h>

#include <vector>

#include "audit/export.h"
#include "base/unix.h"

namespace kai::audit {
namespace {

/// Lines of any length that ExportCheck may want to see; the rest of a longer one is not kept.
class Lines {
 public:
  explicit Lines(int file) : file_(file), buffer_(1 << 20) {}

  /// false: the end. `line` without its LF.
  Result<bool> next(std::string& line) {
    line.clear();
    bool any = false;
    for (;;) {
      if (begin_ == end_) {
        const ssize_t count = read(file_, buffer_.data(), buffer_.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return errno_failure("read the export");
        if (count == 0) return any;
        begin_ = 0;
        end_ = static_cast<std::size_t>(count);
      }
      any = true;
      const std::string_view rest(buffer_.data() + begin_, end_ - begin_);
      const std::size_t length = rest.find('\n');
      const std::string_view piece = rest.substr(0, length);
      // One more than the longest is enough to be refused.
      line.append(piece.substr(0, kMaxHeader + 1 - std::min(line.size(), kMaxHeader + 1)));
      begin_ += piece.size() + (length == std::string_view::npos ? 0 : 1);
      if (length != std::string_view::npos) return true;
    }
  }

 private:
  int file_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0, end_ = 0;
};

}  // namespace

Result<Report> verify_file(int file, int key, int remembered) {
  const auto key_text = read_all(key, kMaxNote);
  if (!key_text) return tl::unexpected(key_text.error());
  const auto public_key = PublicKey::parse(*key_text);
  if (!public_key) return tl::unexpected(public_key.error());
  std::string note;
  if (remembered >= 0) {
    auto text = read_all(remembered, kMaxNote);
    if (!text) return tl::unexpected(text.error());
    if (auto checkpoint = parse_checkpoint(*text); !checkpoint) return tl::unexpected(checkpoint.error());
    note = std::move(*text);
  }
  ExportCheck check(*public_key, note);
  Lines lines(file);
  std::string line;
  for (;;) {
    const auto more = lines.next(line);
    if (!more) return tl::unexpected(more.error());
    if (!*more || !check.line(line)) return check.finish();
  }
}

}  // namespace kai::audit
