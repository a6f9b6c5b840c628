// Reading memory before it is used.
#pragma once

#include <cstdint>

#include "simd.h"

namespace exo::EXO_ISA {

// The processor's own prefetchers stop at the end of every page of 4 KiB, and what they have not
// asked for by then is waited for: 100 ns and more, each time.
constexpr int64_t kAhead = 4096, kLine = 64;

// Begin to fetch what comes kAhead bytes after the `bytes` from `at`, which are about to be read.
// What lies there need not exist.
EXO_INLINE void fetch_ahead(const void* at, int64_t bytes) {
  const char* from = static_cast<const char*>(at) + kAhead;
  for (int64_t line = 0; line < bytes; line += kLine) __builtin_prefetch(from + line);
}

}  // namespace exo::EXO_ISA
