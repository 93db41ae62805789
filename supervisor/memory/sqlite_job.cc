#include "supervisor/memory/sqlite_job.h"

namespace kai::sqlite {
namespace {

MemoryOutcome<> perform_alone(MemoryFile& context, Task& task) {
  if (std::holds_alternative<Open>(task.work)) return context.open();
  if (std::holds_alternative<Clear>(task.work)) return context.clear();
  if (auto* save = std::get_if<SaveTo>(&task.work)) return context.save(std::move(save->file), save->exported_at);
  if (auto* restore = std::get_if<RestoreFrom>(&task.work)) return context.restore(std::move(restore->file));
  context.end_session();
  return {};
}

// Requests on keys that follow each other go into one transaction.
void perform_keys(MemoryFile& context, std::vector<Task>& batch, std::size_t first, std::size_t end) {
  std::vector<const klp::MemoryRequest*> requests;
  for (std::size_t i = first; i < end; ++i) requests.push_back(batch[i].request());
  auto answers = context.perform(requests);
  for (std::size_t i = first; i < end; ++i) batch[i].said = std::move(answers[i - first]);
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
  for (std::size_t i = 0; i < batch.size();) {
    if (batch[i].is_key_value()) {
      std::size_t end = i + 1;
      while (end < batch.size() && batch[end].is_key_value()) ++end;
      perform_keys(context, batch, i, end);
      i = end;
      continue;
    }
    Task& task = batch[i++];
    if (task.request() != nullptr) {
      task.said = context.perform(task.request()->indexed_db());
    } else {
      task.outcome = perform_alone(context, task);
    }
  }
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

}  // namespace kai::sqlite
