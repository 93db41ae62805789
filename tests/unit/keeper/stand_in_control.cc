// Stands in kai-control's place, or kai-egress's, below a real kaid: gives its end of the channel to the test
// (keeper_test.cc), which listens on the abstract socket that the file test-socket beside it names, followed by
// "-egress" for the latter, and lives as long as the test wants it to. Neither environment nor /proc leads there.
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <span>
#include <string>
#include <string_view>

#include "base/unix.h"

int main(int, char** argv) {
  constexpr int kChannel = 3;
  const std::string_view path = reinterpret_cast<const char*>(getauxval(AT_EXECFN));
  std::string name;
  if (!std::getline(std::ifstream(std::string(path.substr(0, path.rfind('/'))) + "/test-socket"), name)) return 1;
  if (std::string_view(argv[0]) == "kai-egress") name += "-egress";
  const kai::Fd test(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::size_t length = std::min(name.size(), sizeof address.sun_path - 1);
  std::memcpy(address.sun_path + 1, name.data(), length);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
  if (connect(test.get(), reinterpret_cast<const sockaddr*>(&address), size) < 0) return 1;
  if (!kai::send_packet(test.get(), "channel", std::span(&kChannel, 1))) return 1;
  char byte = 0;
  while (read(test.get(), &byte, 1) > 0) {  // until the test lets go
  }
  return 0;
}
