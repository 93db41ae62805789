#include "kaictl/password.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "base/fd.h"
#include "base/unix.h"
#include "package/minisign.h"

namespace kai {
namespace {

constexpr std::size_t kMaxPassword = 1024;  // as minisign has it

/// No echo while this lives. A signal that would end or stop this process has to wait until there is echo again.
class SilentTerminal {
 public:
  explicit SilentTerminal(int terminal) : terminal_(terminal) {
    sigset_t held;
    sigemptyset(&held);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP}) sigaddset(&held, signal);
    sigprocmask(SIG_BLOCK, &held, &mask_);
    signals_ = Fd(signalfd(-1, &held, SFD_CLOEXEC));
    if (!signals_ || tcgetattr(terminal_, &before_) < 0) return;
    termios silent = before_;
    silent.c_lflag &= ~static_cast<tcflag_t>(ECHO | ECHOE | ECHOK | ECHONL);
    silent_ = tcsetattr(terminal_, TCSAFLUSH, &silent) == 0;
  }
  SilentTerminal(const SilentTerminal&) = delete;
  SilentTerminal& operator=(const SilentTerminal&) = delete;
  ~SilentTerminal() {
    if (silent_) tcsetattr(terminal_, TCSAFLUSH, &before_);
    sigprocmask(SIG_SETMASK, &mask_, nullptr);
  }
  [[nodiscard]] bool is_silent() const { return silent_; }

  /// The next byte; false: the input or the patience ended.
  bool read_byte(char& byte) const {
    std::array<pollfd, 2> ready = {{{signals_.get(), POLLIN, 0}, {terminal_, POLLIN, 0}}};
    while (poll(ready.data(), ready.size(), -1) < 0) {
      if (errno != EINTR) return false;
    }
    return ready[0].revents == 0 && read(terminal_, &byte, 1) == 1;
  }

 private:
  int terminal_;
  bool silent_ = false;
  termios before_{};
  sigset_t mask_{};
  Fd signals_;
};

}  // namespace

Outcome<std::string> ask_password(const std::string& prompt, const std::string& hint) {
  const Fd terminal(open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!terminal) return fail("INTERNAL", "there is no terminal to ask for the password on", hint);
  const SilentTerminal silence(terminal.get());
  if (!silence.is_silent()) return fail("INTERNAL", "the terminal would show the password", hint);
  if (auto asked = write_all(terminal.get(), prompt); !asked) return local_failure("cannot ask", asked.error());
  std::string password;
  password.reserve(kMaxPassword);  // it never moves, and leaves no copy behind
  for (;;) {
    char letter = 0;
    const bool is_read = silence.read_byte(letter);
    if (is_read && letter != '\n' && password.size() < kMaxPassword) {
      password += letter;
      continue;
    }
    static_cast<void>(write_all(terminal.get(), "\n"));
    if (is_read && letter == '\n') return password;
    package::wipe(password);
    return fail("INTERNAL",
                is_read ? "the password is longer than 1024 bytes, which no minisign key has" : "no password was given",
                hint);
  }
}

}  // namespace kai
