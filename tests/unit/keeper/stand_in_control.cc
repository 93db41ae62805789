// Stands in kai-control's place below a real kaid: gives its end of the channel to the test (keeper_test.cc), which
// listens on the abstract socket KAI_TEST_SOCKET, and lives as long as the test wants it to.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <span>

#include "base/unix.h"

int main() {
  constexpr int kChannel = 3;
  const char* name = std::getenv("KAI_TEST_SOCKET");
  if (name == nullptr) return 1;
  const kai::Fd test(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::size_t length = std::min(std::strlen(name), sizeof address.sun_path - 1);
  std::memcpy(address.sun_path + 1, name, length);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
  if (connect(test.get(), reinterpret_cast<const sockaddr*>(&address), size) < 0) return 1;
  if (!kai::send_packet(test.get(), "channel", std::span(&kChannel, 1))) return 1;
  char byte = 0;
  while (read(test.get(), &byte, 1) > 0) {  // until the test lets go
  }
  return 0;
}
