// Chooses the kernels by what this machine's processor can execute.
#include <cstring>

#if defined(EXO_HAS_AVX512AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels.h"

namespace exo {

#if defined(__x86_64__)
#if defined(EXO_HAS_AVX512AMX)
namespace avx512amx {
extern const Kernels kernels;
}
#endif
#if defined(EXO_HAS_AVX512VNNI)
namespace avx512vnni {
extern const Kernels kernels;
}
#endif
#if defined(EXO_HAS_AVX512)
namespace avx512 {
extern const Kernels kernels;
}
#endif
#if defined(EXO_HAS_AVX2)
namespace avx2 {
extern const Kernels kernels;
}
#endif
#elif defined(__aarch64__)
namespace neon {
extern const Kernels kernels;
}
#endif

#if defined(EXO_HAS_AVX512AMX)
// Whether this process may use tiles: Linux keeps their state only of those that ask for it.
static bool may_use_tiles() {
  constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool granted = !syscall(SYS_arch_prctl, kRequest, kTileData);
  return granted;
}
#endif

const Kernels* find_kernels(const char* name) {
  const auto wanted = [name](const Kernels& k) { return !*name || !std::strcmp(name, k.name); };
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool f16 = __builtin_cpu_supports("f16c");
  const bool avx2 = f16 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  [[maybe_unused]] const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq");
  [[maybe_unused]] const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
#if defined(EXO_HAS_AVX512AMX)
  const bool amx = vnni && __builtin_cpu_supports("amx-tile") &&
      __builtin_cpu_supports("amx-int8") && __builtin_cpu_supports("amx-bf16");
  if (amx && wanted(avx512amx::kernels) && may_use_tiles()) return &avx512amx::kernels;
#endif
#if defined(EXO_HAS_AVX512VNNI)
  if (vnni && wanted(avx512vnni::kernels)) return &avx512vnni::kernels;
#endif
#if defined(EXO_HAS_AVX512)
  if (avx512 && wanted(avx512::kernels)) return &avx512::kernels;
#endif
#if defined(EXO_HAS_AVX2)
  if (avx2 && wanted(avx2::kernels)) return &avx2::kernels;
#endif
#elif defined(__aarch64__)
  if (wanted(neon::kernels)) return &neon::kernels;
#endif
  return nullptr;
}

}  // namespace exo
