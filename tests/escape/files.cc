// The host's files, mounts and devices; and files of the agent's own that would become more than files.
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <string>

#include "tests/escape/attempts.h"

// glibc's <sys/mount.h> clashes with <linux/mount.h> in 2.36.
extern "C" int mount(const char*, const char*, const char*, unsigned long, const void*) noexcept;
extern "C" int umount2(const char*, int) noexcept;

namespace kai::escape {
namespace {

std::string in_writable(const char* name) {
  return setting("WRITABLE") + "/" + name;
}

/// A copy of this program where the agent may write.
std::string copy_of_program() {
  const std::string path = in_writable("program");
  const std::string program = contents("/proc/self/exe");
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
  if (fd < 0 || write(fd, program.data(), program.size()) != static_cast<ssize_t>(program.size())) return {};
  (void)close(fd);
  return path;
}

/// What `probe whoami` of this program says as a child: its effective uid, or -errno.
long run_whoami(const std::string& path, int fd = -1) {
  const pid_t child = fork();
  if (child == 0) {
    char argument[] = "whoami";
    char* arguments[] = {argument, argument, nullptr};
    char* none[] = {nullptr};
    if (fd >= 0) {
      (void)syscall(SYS_execveat, fd, "", arguments, none, AT_EMPTY_PATH);
    } else {
      (void)execve(path.c_str(), arguments, none);
    }
    _exit(errno == 0 ? 255 : errno);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -EIO;
  const int code = WEXITSTATUS(status);
  return code >= 200 ? code - 200 : -code;  // probe.cc: 200 as root, 201 as anybody else
}

}  // namespace

Verdict dot_dot() {
  std::string path = "/tmp";
  for (int up = 0; up < 40; ++up) path += "/..";
  return open_path(path + setting("FILE"), O_RDONLY);
}

Verdict create(const std::string& path) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return refused(path);
  (void)unlink(path.c_str());
  return escaped(path);
}

Verdict text_in(const std::string& path, const std::string& wanted) {
  const std::string text = contents(path);
  if (text.empty()) return refused(path);
  const std::size_t at = text.find(wanted);
  if (at == std::string::npos) return refused_as("not-there");
  const std::size_t start = text.rfind('\n', at) + 1;
  return escaped(text.substr(start, text.find('\n', at) - start));
}

// Whose directories are behind the mounts: this run's, and kaid's state.
Verdict host_path_in_mounts() {
  const std::string state = setting("STATE");
  const Verdict first = text_in("/proc/self/mountinfo", setting("DIRECTORY"));
  return first.escaped ? first : text_in("/proc/self/mountinfo", state.substr(0, state.rfind('/')));
}

// Its time of change, as a running program cannot be opened for writing anywhere (ETXTBSY).
Verdict change_own_program() {
  return by_result(utimensat(AT_FDCWD, "/proc/self/exe", nullptr, 0));
}

// As the attack on runc did: hold the program by descriptor until nobody runs it, then open it for writing.
Verdict write_program_after_its_end() {
  // tac, as few others run it: a program that anybody runs cannot be opened for writing (ETXTBSY).
  std::array<int, 2> input{};
  if (pipe2(input.data(), O_CLOEXEC) < 0) return refused("pipe2");
  const pid_t child = fork();
  if (child == 0) {
    (void)dup2(input[0], STDIN_FILENO);  // from which nothing comes
    char program[] = "tac";
    char* arguments[] = {program, nullptr};
    (void)execv("/usr/bin/tac", arguments);
    _exit(errno);
  }
  const std::string path = "/proc/" + std::to_string(child) + "/exe";
  int held = -1;
  char link[64] = {};
  while (std::strstr(link, "/tac") == nullptr) {
    if (readlink(path.c_str(), link, sizeof link - 1) < 0) return refused(path);
    (void)sched_yield();
  }
  held = open(path.c_str(), O_PATH | O_CLOEXEC);
  const int why = errno;
  (void)kill(child, SIGKILL);
  (void)waitpid(child, nullptr, 0);
  errno = why;
  if (held < 0) return refused(path);
  return by_result(open(("/proc/self/fd/" + std::to_string(held)).c_str(), O_WRONLY | O_CLOEXEC), "/usr/bin/tac");
}

Verdict hard_link_into_writable() {
  char program[512] = {};
  if (readlink("/proc/self/exe", program, sizeof program - 1) < 0) return refused("readlink");
  const std::string target = in_writable("link");
  const int result = link(program, target.c_str());
  const int why = errno;
  (void)unlink(target.c_str());
  errno = why;
  return by_result(result, program);
}

Verdict rename_writable() {
  const std::string from = setting("WRITABLE");
  const std::string to = from + "-moved";
  if (rename(from.c_str(), to.c_str()) < 0) return refused(from);
  (void)rename(to.c_str(), from.c_str());
  return escaped(from);
}

Verdict run_from_writable() {
  const std::string path = copy_of_program();
  if (path.empty()) return refused("copy");
  const long result = run_whoami(path);
  (void)unlink(path.c_str());
  if (result >= 0) return escaped(path);
  errno = static_cast<int>(-result);
  return refused(path);
}

Verdict map_executable_from_writable() {
  const std::string path = copy_of_program();
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  (void)unlink(path.c_str());
  if (fd < 0) return refused("copy");
  return by_result(mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED ? -1 : 0);
}

Verdict run_from_memory() {
  const int fd = static_cast<int>(syscall(SYS_memfd_create, "kai-escape", 0));
  if (fd < 0) return refused("memfd_create");
  const std::string program = contents("/proc/self/exe");
  if (write(fd, program.data(), program.size()) < 0) return refused("write");
  const long result = run_whoami({}, fd);
  errno = static_cast<int>(-result);
  return result >= 0 ? escaped("ran from memory") : refused("execveat");
}

// run.py has put a set-user-ID root copy of this program into /usr, where the agent sees it.
Verdict set_id_program() {
  const long result = run_whoami("/usr/local/games/kai-escape-suid");
  if (result < 0) {
    errno = static_cast<int>(-result);
    return refused("/usr/local/games/kai-escape-suid");
  }
  return result == 0 ? escaped("ran as root") : refused_as("unchanged", "ran as the caller");
}

// A set-id file matters when the host sees it: run.py looks at ESCAPE_DIRECTORY, which the agent does not have.
Verdict set_id_file() {
  const std::string path = setting("DIRECTORY") + "/writable/set-id";
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
  if (fd < 0) return errno == ENOENT ? refused_as("not-there", path) : refused(path);
  const int result = fchmod(fd, 04755);
  (void)unlink(path.c_str());
  return by_result(result, path);
}

Verdict device_node() {
  const std::string path = in_writable("null");
  const long result = syscall(SYS_mknodat, AT_FDCWD, path.c_str(), S_IFCHR | 0600, makedev(1, 3));
  if (result < 0) return refused();
  (void)unlink(path.c_str());
  return escaped("null");
}

namespace {

/// A struct file_handle with room behind it.
class Handle {
 public:
  Handle() { head()->handle_bytes = MAX_HANDLE_SZ; }
  file_handle* head() { return reinterpret_cast<file_handle*>(bytes_.data()); }
  long name(const char* path) {
    int mount_id = 0;
    return syscall(SYS_name_to_handle_at, AT_FDCWD, path, head(), &mount_id, 0);
  }

 private:
  alignas(file_handle) std::array<char, 256> bytes_{};
};

}  // namespace

Verdict name_of_root() {
  return by_result(Handle().name("/usr"));
}

// The inode of ext4's root directory needs no name_to_handle_at: it is 2 everywhere (the "shocker" of 2014).
Verdict handle_of_root() {
  Handle handle;
  const int fd = open("/usr", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (handle.name("/usr") < 0) {
    handle.head()->handle_bytes = 8;
    handle.head()->handle_type = 1;  // FILEID_INO32_GEN
    const std::uint32_t inode = 2;
    std::memcpy(handle.head()->f_handle, &inode, sizeof inode);
  }
  return call(SYS_open_by_handle_at, fd, handle.head(), O_RDONLY);
}

Verdict mount_over_tmp() {
  return by_result(mount("tmpfs", "/tmp", "tmpfs", 0, nullptr));
}

Verdict unmount_tmp() {
  (void)mount("tmpfs", "/tmp", "tmpfs", 0, nullptr);  // outside there has to be one
  return by_result(umount2("/tmp", 2 /* MNT_DETACH */));
}

Verdict pivot() {
  (void)mount("tmpfs", "/tmp", "tmpfs", 0, nullptr);
  if (chdir("/tmp") < 0) return refused("chdir");
  return call(SYS_pivot_root, ".", ".");
}

Verdict make_writable_again() {
  mount_attr attributes{};
  attributes.attr_clr = MOUNT_ATTR_RDONLY;
  return call(SYS_mount_setattr, AT_FDCWD, "/", 0, &attributes, sizeof attributes);
}

Verdict enter_namespace() {
  const int fd = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);
  return call(SYS_setns, fd, CLONE_NEWUTS);
}

// What masks a path is a mount of /dev/null: a /dev/null of the agent's choice would unmask it.
Verdict replace_device() {
  (void)mount("tmpfs", "/dev", "tmpfs", 0, nullptr);  // outside: a throw-away /dev, so that the host keeps its own
  (void)mknod("/dev/null", S_IFREG | 0600, 0);
  if (unlink("/dev/null") < 0 && errno != EBUSY) return refused("unlink /dev/null");
  return by_result(symlink("/proc/sys/kernel/core_pattern", "/dev/null-new"));
}

Verdict immutable_file() {
  const std::string path = in_writable("flags");
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return refused(path);
  (void)unlink(path.c_str());
  int flags = FS_NODUMP_FL;
  return by_result(ioctl(fd, FS_IOC_SETFLAGS, &flags));
}

Verdict write_text(const std::string& path, const std::string& text) {
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return refused("open " + path);
  return by_result(write(fd, text.data(), text.size()), path);
}

Verdict in_cgroup_file(const char* name, const char* text) {
  return write_text(setting("CGROUP") + name, text);
}

Verdict own_cgroup_path() {
  const std::string text = contents("/proc/self/cgroup");
  if (text.empty()) return refused();
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    const std::string line = text.substr(at, end - at);
    if (!line.ends_with(":/")) return escaped(line);
    at = end + 1;
  }
  return refused_as("not-there", "every path is /");
}

Verdict rewrite_id_map() {
  (void)unshare(CLONE_NEWUSER);  // outside there is one to write
  return write_text("/proc/self/uid_map", "0 " + setting("UID") + " 1");
}

}  // namespace kai::escape
