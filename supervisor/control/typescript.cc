#include "supervisor/control/typescript.h"

#include <fcntl.h>

#include <cerrno>

#include "base/text.h"
#include "base/unix.h"
#include "policies/compile.h"
#include "supervisor/control/instance.h"

namespace kai {
namespace {

constexpr std::size_t kMaxBundleBytes = 64U << 20;
constexpr std::size_t kMaxErrorBytes = 64U << 10;  // of the compiler's messages; the rest is cut
constexpr std::chrono::milliseconds kDeadline{60'000};

/// What one pipe brings, up to a limit.
class Capture {
 public:
  Capture(EventLoop& loop, std::size_t limit) : loop_(loop), limit_(limit) {}

  Result<Fd> open() {
    auto ends = make_pipe();
    if (!ends) return tl::unexpected(ends.error());
    fd_ = std::move(ends->first);
    if (const auto set = set_nonblocking(fd_.get()); !set) return tl::unexpected(set.error());
    poll_ = std::make_unique<Poll>(loop_, fd_.get(), [this](int) { read_some(); });
    poll_->watch(UV_READABLE);
    return std::move(ends->second);
  }

  // After the end of the writers.
  void finish() {
    while (read_some()) {
    }
  }

  [[nodiscard]] bool over_limit() const { return over_; }
  std::string bytes;

 private:
  bool read_some() {
    if (!fd_) return false;
    auto& buffer = loop_.scratch();
    const ssize_t count = read(fd_.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) return true;
    if (count < 0 && errno == EAGAIN) return false;
    if (count <= 0) {
      poll_.reset();
      fd_.reset();
      return false;
    }
    const std::size_t room = limit_ - bytes.size();
    over_ |= static_cast<std::size_t>(count) > room;
    bytes.append(buffer.data(), std::min(static_cast<std::size_t>(count), room));
    return true;
  }

  EventLoop& loop_;
  std::size_t limit_;
  bool over_ = false;
  Fd fd_;
  std::unique_ptr<Poll> poll_;
};

spec::SandboxSpec compiler_spec(const std::string& id, const Policy& policy, const std::string& entry) {
  const std::vector<std::string> argv = {
      "/usr/bin/esbuild",    "/agent/" + entry, "--bundle",           "--platform=node",     "--format=esm",
      "--packages=external", "--target=node18", "--sourcemap=inline", "--log-level=warning", "--color=false"};
  spec::SandboxSpec spec = compile_run(id, policy, argv, {});
  spec::Mount& mount = *spec.add_mounts();
  mount.set_kind(spec::Mount::DESCRIPTOR);
  mount.set_target("/agent");
  mount.set_read_only(true);
  spec.set_cwd("/agent");
  return spec;
}

std::string last_8(const std::string& uuid) {
  return uuid.substr(uuid.size() - 8);
}

/// One compilation; it lives until its sandbox has ended.
class Job : public std::enable_shared_from_this<Job> {
 public:
  Job(Environment& environment, std::function<void(Outcome<std::string>)> done)
      : environment_(environment),
        id_("job-" + last_8(new_uuid())),
        done_(std::move(done)),
        bundle_(environment.loop, kMaxBundleBytes),
        messages_(environment.loop, kMaxErrorBytes),
        denials_(environment.loop, environment.log, environment.audit, id_),
        deadline_(environment.loop) {}

  Result<> start(int package, const std::string& entry) {
    const PolicyRef policy = environment_.policies.own_jobs();
    Compiled job;
    job.spec = compiler_spec(id_, *policy, entry);
    auto sandbox = prepare_sandbox(job, policy);
    if (!sandbox) return tl::unexpected(sandbox.error());
    std::vector<Fd> descriptors;
    descriptors.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    for (Capture* capture : {&bundle_, &messages_}) {
      auto writer = capture->open();
      if (!writer) return tl::unexpected(writer.error());
      descriptors.push_back(std::move(*writer));
    }
    descriptors.emplace_back(fcntl(package, F_DUPFD_CLOEXEC, 0));
    auto slot = environment_.registry.lease_slot();
    if (!slot) return tl::unexpected(slot.error());
    slot_ = *slot;
    Instance::Handlers handlers;
    handlers.ended = [self = shared_from_this()](const End& end) { self->on_ended(end); };
    instance_ =
        std::make_unique<Instance>(environment_.loop, environment_.keeper, *sandbox, slot_, std::move(descriptors),
                                   denials_, std::move(handlers), Instance::Lasts::kEndsWithControl);
    deadline_.start(kDeadline, [this] {
      late_ = true;
      instance_->kill();
    });
    return {};
  }

 private:
  void on_ended(const End& end) {
    deadline_.stop();
    bundle_.finish();
    messages_.finish();
    environment_.registry.return_slot(slot_);
    instance_.reset();
    done_(outcome(end));
  }

  Outcome<std::string> outcome(const End& end) {
    const std::string hint = "Mend the package and register it again";
    if (late_) return refuse("TIMEOUT", "compiling the TypeScript took longer than 60 s", hint);
    if (end.cause == Cause::kSetup) {
      return refuse("INTERNAL", "the TypeScript compiler could not be run: " + end.message,
                    "Is esbuild installed (scripts/bootstrap)? See 'kaictl doctor'");
    }
    if (!end.clean()) {
      return refuse("INVALID",
                    "the TypeScript does not compile: " + (messages_.bytes.empty() ? end.message : messages_.bytes),
                    hint);
    }
    if (bundle_.over_limit()) return refuse("TOO_LARGE", "the compiled TypeScript has more than 64 MB", hint);
    return std::move(bundle_.bytes);
  }

  Environment& environment_;
  std::string id_;
  std::function<void(Outcome<std::string>)> done_;
  Capture bundle_, messages_;
  std::uint32_t slot_ = 0;
  bool late_ = false;
  DenialLog denials_;
  Timer deadline_;
  std::unique_ptr<Instance> instance_;
};

}  // namespace

bool is_typescript(std::string_view entry) {
  return entry.ends_with(".ts") || entry.ends_with(".mts");
}

void compile_typescript(Environment& environment, int package, const std::string& entry,
                        std::function<void(Outcome<std::string>)> done) {
  const auto job = std::make_shared<Job>(environment, done);
  if (const auto started = job->start(package, entry); !started) {
    done(refuse("INTERNAL", "the TypeScript compiler could not be run: " + started.error().message()));
  }
}

}  // namespace kai
