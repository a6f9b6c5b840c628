// Reading memory before it is used.
#pragma once

#include <cstdint>

#include "simd.h"

namespace exo::EXO_ISA {

// The processor's own prefetchers stop at the end of every page of 4 KiB, and what they have not
// asked for by then is waited for: 100 ns and more, each time. So lines are asked for twice: from
// far ahead into the second cache, which takes as long as memory does, and from near by into the
// first, where few lines can be on their way at a time, and what lies there long is in the way of
// the activations.
constexpr int64_t kFar = 8192, kNear = 1024, kLine = 64;

// Begin to fetch what comes after the `bytes` from `at`, which are about to be read. What lies there
// need not exist.
EXO_INLINE void fetch_ahead(const void* at, int64_t bytes) {
  const char* from = static_cast<const char*>(at);
  for (int64_t line = 0; line < bytes; line += kLine) {
    __builtin_prefetch(from + line + kFar, 0, 2);
    __builtin_prefetch(from + line + kNear, 0, 3);
  }
}

}  // namespace exo::EXO_ISA
