// memory_writer PATH durable|volatile: writes n/0, n/1, … into the context at PATH without end, 16 in flight, and
// prints the number of each when it is acknowledged. The test kills it.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/unix.h"
#include "supervisor/memory/sqlite_store.h"

namespace {

constexpr std::size_t kInFlight = 16;

class Writer {
 public:
  explicit Writer(kai::MemoryStore& store) : store_(store) {}
  void write_next() {
    const std::string number = std::to_string(next_++);
    kai::klp::MemoryRequest request;
    kai::klp::MemoryWrite& write = *request.mutable_set()->add_writes();
    write.set_key("n/" + number);
    write.set_value(number);
    store_.perform(std::move(request), [this, number](kai::klp::MemoryAnswer&& answer) {
      if (!answer.has_written() || !kai::write_all(STDOUT_FILENO, number + "\n")) std::_Exit(1);
      write_next();
    });
  }

 private:
  kai::MemoryStore& store_;
  std::uint64_t next_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const std::string path = argv[1];
  const bool durable = std::string(argv[2]) == "durable";
  auto clock = kai::ExpiryClock::load(path + ".clock", kai::machine_time().value());
  if (!clock) return 1;
  kai::EventLoop loop;
  kai::MemoryTerms terms{"writer", 64 << 20, 0, {}, {}};
  auto store = kai::make_sqlite_store(loop, *clock, terms, {.path = path, .durable = durable});
  Writer writer(*store);
  store->open([&](kai::MemoryOutcome<>&& opened) {
    if (!opened) std::_Exit(1);
    for (std::size_t i = 0; i < kInFlight; ++i) writer.write_next();
  });
  loop.run_until([] { return false; });
}
