// What: sleeping worker threads that share the rows of one op.
// Layout: rows [0, count) are cut into `threads` equal stretches; the caller works too.
// Source: own. No OpenMP: its workers spin after each region and take the cores from an engine's own threads.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>

namespace rmr {

class ThreadPool {
 public:
  // The pool of this process. Its threads sleep between calls and live as long as the process; after a fork the
  // child starts with a new one.
  static ThreadPool& shared();

  // Calls part(0) .. part(parts - 1), each once, and returns when all are done. Safe from several threads. `part`
  // must not throw.
  void run(int parts, const std::function<void(int)>& part);

 private:
  struct Job {
    const std::function<void(int)>* part;
    int parts;
    int next;
    int unfinished;
    std::condition_variable done;
  };

  void grow(int workers);
  void work();
  void run_one(Job& job, std::unique_lock<std::mutex>& lock);

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job*> jobs_;
  int workers_ = 0;
};

// Calls body(begin, end) for `threads` equal stretches of [0, count). Which rows belong together depends on `count`
// and `threads` alone, and no op lets rows depend on each other, so the result does not depend on `threads`.
template <class Body>
void for_rows(int64_t count, int threads, const Body& body) {
  const int parts = count < threads ? static_cast<int>(count) : threads;
  if (parts <= 1) {
    body(static_cast<int64_t>(0), count);
    return;
  }
  ThreadPool::shared().run(parts, [&](int i) { body(count * i / parts, count * (i + 1) / parts); });
}

}  // namespace rmr
