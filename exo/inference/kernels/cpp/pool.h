// The threads that kernels share their work among.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace exo {

// One caller at a time; a second one that comes meanwhile computes alone. A worker that wakes too
// late finds nothing to join, and nobody waits for it.
class Pool {
 public:
  static Pool& shared();
  ~Pool();

  // How many threads compute, the caller included.
  void resize(int threads);
  int size() const { return size_.load(std::memory_order_relaxed); }

  // Call `work(begin, end)` for ranges of at most `grain` until [0, count) is done. Each thread has
  // a part of its own, which it goes through in order, so that what it fetches ahead of a range is
  // its own next range; then it helps the others.
  template <class Work>
  void run(int64_t count, int64_t grain, Work&& work) {
    if (size() < 2 || count <= grain || !busy_.try_lock()) {
      if (count > 0) work(int64_t(0), count);
      return;
    }
    std::lock_guard<std::mutex> done(busy_, std::adopt_lock);
    job_.call = [](void* context, int64_t begin, int64_t end) {
      (*static_cast<std::remove_reference_t<Work>*>(context))(begin, end);
    };
    job_.context = const_cast<void*>(static_cast<const void*>(&work));
    job_.grain = grain;
    const int64_t parts = int64_t(parts_.size());
    for (int64_t i = 0; i < parts; ++i) {
      parts_[i].next.store(count * i / parts, std::memory_order_relaxed);
      parts_[i].end = count * (i + 1) / parts;
    }
    open();
    claim(0);
    close();
  }

 private:
  struct Job {
    void (*call)(void*, int64_t, int64_t) = nullptr;
    void* context = nullptr;
    int64_t grain = 1;
  };
  struct alignas(64) Part {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  void open();
  void claim(size_t own);
  void close();
  void work_forever();
  void stop();

  // The number of the job << 16 | 0x8000 while it can be joined | how many workers have joined.
  std::atomic<uint64_t> state_{0};
  // The number of the job, which sleeping workers wait on.
  std::atomic<uint32_t> number_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<int> size_{1};
  std::atomic<bool> ending_{false};
  Job job_;
  std::vector<Part> parts_{1};
  std::mutex busy_;
  std::vector<std::thread> workers_;
};

}  // namespace exo
