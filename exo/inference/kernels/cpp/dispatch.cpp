// Chooses the kernels by what this machine's processor can execute.
#include <cstring>

#include "kernels.h"

namespace exo {

#if defined(__x86_64__)
namespace avx512vnni {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
#elif defined(__aarch64__)
namespace neon {
extern const Kernels kernels;
}
#endif

const Kernels* find_kernels(const char* name) {
  const auto wanted = [name](const Kernels& k) { return !*name || !std::strcmp(name, k.name); };
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool f16 = __builtin_cpu_supports("f16c");
  const bool avx2 = f16 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq");
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  if (vnni && wanted(avx512vnni::kernels)) return &avx512vnni::kernels;
  if (avx512 && wanted(avx512::kernels)) return &avx512::kernels;
  if (avx2 && wanted(avx2::kernels)) return &avx2::kernels;
#elif defined(__aarch64__)
  if (wanted(neon::kernels)) return &neon::kernels;
#endif
  return nullptr;
}

}  // namespace exo
