// What: the workers of thread_pool.h.
// Layout: a queue of jobs under one mutex; workers and callers take the next part of the first job.
// Source: own.
#include "thread_pool.h"

#include <system_error>
#include <thread>

#ifdef __unix__
#include <pthread.h>
#include <signal.h>
#endif

namespace rmr {
namespace {

// Never destroyed: workers may still sleep on it while the process ends.
ThreadPool* pool = new ThreadPool;

// Signals are for the host's own threads.
class BlockSignals {
#ifdef __unix__
 public:
  BlockSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~BlockSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
#endif
};

#ifdef __unix__
// A child of fork has none of the threads, and perhaps a locked mutex: it starts afresh.
const int renew_after_fork = pthread_atfork(nullptr, nullptr, [] { pool = new ThreadPool; });
#endif

}  // namespace

ThreadPool& ThreadPool::shared() { return *pool; }

void ThreadPool::run(int parts, const std::function<void(int)>& part) {
  Job job{&part, parts, 0, parts, {}};
  std::unique_lock<std::mutex> lock(mutex_);
  grow(parts - 1);
  jobs_.push_back(&job);
  wake_.notify_all();
  while (job.next < job.parts) run_one(job, lock);
  job.done.wait(lock, [&] { return job.unfinished == 0; });
}

void ThreadPool::run_one(Job& job, std::unique_lock<std::mutex>& lock) {
  const int i = job.next++;
  if (job.next == job.parts) {
    for (auto it = jobs_.begin(); it != jobs_.end(); ++it) {
      if (*it == &job) {
        jobs_.erase(it);
        break;
      }
    }
  }
  lock.unlock();
  (*job.part)(i);
  lock.lock();
  if (--job.unfinished == 0) job.done.notify_one();
}

void ThreadPool::grow(int workers) {
  if (workers_ >= workers) return;
  const BlockSignals blocked;
  try {
    for (; workers_ < workers; ++workers_) std::thread([this] { work(); }).detach();
  } catch (const std::system_error&) {
    // The system gives no more threads: the caller and those there are do all parts.
  }
}

void ThreadPool::work() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return !jobs_.empty(); });
    run_one(*jobs_.front(), lock);
  }
}

}  // namespace rmr
