// A context in a file of SQLite: the backends memory, sqlite and indexeddb. Requests wait in a queue; what waits is
// carried out together by one job on a worker thread, in one transaction (group commit), and answered after its commit.
//
//   sqlite_store.cc   the queue, IndexedDB's turns (schedule.h), answers: on the loop's thread
//   sqlite_job.cc     what the worker thread does with a batch
//   memory_file*.cc   the file
//   entries*.cc       keys and values in it; indexed_db*.cc the databases
#pragma once

#include <memory>
#include <string>

#include "supervisor/loop/event_loop.h"
#include "supervisor/memory/expiry_clock.h"
#include "supervisor/memory/store.h"

namespace kai {

struct SqliteFile {
  std::string path;  ///< PATH, PATH-wal and PATH-shm are the context's
  bool durable =
      true;  ///< a commit waits for the disk; false (backend memory): it survives the process, not the machine
  bool indexed_db = false;  ///< backend indexeddb
};

/// `clock` must outlive it and the jobs that its end leaves (EventLoop::finish_work). A store that is made for the same
/// path afterwards waits for the end of this one before it opens the file.
std::unique_ptr<MemoryStore> make_sqlite_store(EventLoop& loop, const ExpiryClock& clock, MemoryTerms terms,
                                               SqliteFile file);

}  // namespace kai
