#include "pool.h"

#include <algorithm>
#include <chrono>

namespace exo {

namespace {

constexpr uint64_t kOpen = 0x8000, kJoined = 0x7fff;
constexpr int kNumberShift = 16;
// Kernels of one step follow each other within microseconds, and waking a thread takes tens of
// them; but a thread that spins longer takes the core from the one that prepares the next step.
constexpr auto kSpin = std::chrono::microseconds(30);
constexpr int kSpinsPerLook = 32;

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

Pool& Pool::shared() {
  static Pool pool;
  return pool;
}

Pool::~Pool() {
  stop();
}

void Pool::resize(int threads) {
  std::lock_guard<std::mutex> hold(busy_);
  stop();
  ending_.store(false);
  size_.store(threads < 1 ? 1 : threads);
  parts_ = std::vector<Part>(size_.load());
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work_forever(); });
}

void Pool::stop() {
  ending_.store(true);
  number_.fetch_add(1);
  number_.notify_all();
  for (auto& worker : workers_) worker.join();
  workers_.clear();
}

void Pool::open() {
  const uint64_t number = (state_.load(std::memory_order_relaxed) >> kNumberShift) + 1;
  state_.store(number << kNumberShift | kOpen);
  number_.fetch_add(1);
  if (sleeping_.load() > 0) number_.notify_all();
}

void Pool::claim(size_t own) {
  for (size_t i = 0; i < parts_.size(); ++i) {
    Part& part = parts_[(own + i) % parts_.size()];
    for (;;) {
      const int64_t begin = part.next.fetch_add(job_.grain, std::memory_order_relaxed);
      if (begin >= part.end) break;
      job_.call(job_.context, begin, std::min(begin + job_.grain, part.end));
    }
  }
}

void Pool::close() {
  uint64_t state = state_.fetch_and(~kOpen);
  for (int spins = 0; state & kJoined; ++spins) {
    relax();
    // The last worker may have lost its core to another process.
    if (spins % 1024 == 1023) std::this_thread::yield();
    state = state_.load(std::memory_order_acquire);
  }
}

void Pool::work_forever() {
  uint32_t seen = number_.load();
  while (!ending_.load(std::memory_order_relaxed)) {
    uint64_t state = state_.load();
    if (state & kOpen && state_.compare_exchange_weak(state, state + 1)) {
      claim((state & kJoined) + 1);
      state_.fetch_sub(1, std::memory_order_acq_rel);
    }
    const auto until = std::chrono::steady_clock::now() + kSpin;
    int spins = 0;
    while (number_.load(std::memory_order_acquire) == seen) {
      relax();
      if (++spins % kSpinsPerLook == 0 && std::chrono::steady_clock::now() > until) {
        sleeping_.fetch_add(1);
        number_.wait(seen);
        sleeping_.fetch_sub(1);
      }
    }
    seen = number_.load();
  }
}

}  // namespace exo
