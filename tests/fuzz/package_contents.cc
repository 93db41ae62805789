// A package's archive as kaictl package reads it, from whoever made it: never a crash, nothing unbounded, and what is
// taken can be written anew and reads the same.
#include "kaictl/package_contents.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/fd.h"
#include "base/unix.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const kai::Fd tar(memfd_create("fuzz", MFD_CLOEXEC));
  if (!tar || !kai::write_all(tar.get(), std::string_view(reinterpret_cast<const char*>(data), size))) __builtin_trap();
  const auto contents = kai::read_contents(tar.get(), "input");
  if (!contents) {
    if (contents.error().message.empty()) __builtin_trap();
    return 0;
  }
  const kai::Fd out(memfd_create("fuzz", MFD_CLOEXEC));
  const kai::OwnFiles own = {{"SHA256SUMS", kai::package::format_sums(contents->entries)}};
  if (!out || !kai::write_archive(tar.get(), *contents, own, 0, out.get())) __builtin_trap();
  const auto again = kai::read_contents(out.get(), "output");
  // Zeros compress to a bomb, which is the one thing that may be refused now.
  if (again &&
      (again->entries != contents->entries || again->sums != own.at("SHA256SUMS") || again->id != contents->id)) {
    __builtin_trap();
  }
  return 0;
}
