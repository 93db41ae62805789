#include "supervisor/memory/sqlite_job.h"

namespace kai::sqlite {
namespace {

// What the answers of one job may have together before the rest waits for the next: 256 reads of 1 MiB are not held in
// memory at once.
constexpr std::size_t kAnswerBytes = 8 << 20;

MemoryOutcome<> perform_alone(MemoryFile& context, Task& task) {
  if (const auto* open = std::get_if<Open>(&task.work)) {
    if (open->after) open->after->wait();
    return context.open();
  }
  if (const auto* clear = std::get_if<Clear>(&task.work)) {
    if (clear->after) clear->after->wait();
    return context.clear();
  }
  if (auto* save = std::get_if<SaveTo>(&task.work)) return context.save(std::move(save->file), save->exported_at);
  if (auto* restore = std::get_if<RestoreFrom>(&task.work)) return context.restore(std::move(restore->file));
  context.end_session();
  return {};
}

// Requests on keys that follow each other go into one transaction. Where the last one ends that was carried out.
std::size_t perform_keys(MemoryFile& context, std::vector<Task>& batch, std::size_t first, std::size_t most_bytes) {
  std::vector<const klp::MemoryRequest*> requests;
  for (std::size_t i = first; i < batch.size() && batch[i].is_key_value(); ++i) requests.push_back(batch[i].request());
  auto answers = context.perform(requests, most_bytes);
  for (std::size_t i = 0; i < answers.size(); ++i) batch[first + i].said = std::move(answers[i]);
  return first + answers.size();
}

void perform_one(MemoryFile& context, Task& task) {
  if (task.request() != nullptr) {
    task.said = context.perform(task.request()->indexed_db());
  } else {
    task.outcome = perform_alone(context, task);
  }
}

}  // namespace

std::uint64_t begun_by(const Task& task) {
  return task.said.has_indexed_db() && task.said.indexed_db().has_begun() ? task.said.indexed_db().begun().transaction()
                                                                          : 0;
}

void perform_batch(Shared& shared) {
  const std::lock_guard<std::mutex> lock(shared.running);
  if (shared.context == nullptr) return;
  MemoryFile& context = *shared.context;
  std::vector<Task>& batch = shared.batch;
  std::size_t bytes = 0;
  std::size_t next = 0;
  while (next < batch.size() && bytes < kAnswerBytes) {
    if (shared.ended) return;
    const std::size_t first = next;
    if (batch[first].is_key_value()) {
      next = perform_keys(context, batch, first, kAnswerBytes - bytes);
    } else {
      perform_one(context, batch[first]);
      ++next;
    }
    for (std::size_t i = first; i < next; ++i) bytes += batch[i].said.ByteSizeLong();
  }
  shared.performed = next;
  shared.usage = context.usage();
  shared.over.clear();
  for (const Task& task : batch) {
    if (const std::uint64_t begun = begun_by(task); begun != 0) shared.asked.insert(begun);
  }
  for (const std::uint64_t transaction : shared.asked) {
    if (context.indexed_db() == nullptr || !context.indexed_db()->is_open(transaction)) shared.over.insert(transaction);
  }
  shared.done = true;
}

void close_file(Shared& shared, const std::latch* after) {
  const std::lock_guard<std::mutex> lock(shared.running);
  shared.context.reset();
  if (after != nullptr) after->wait();
}

}  // namespace kai::sqlite
