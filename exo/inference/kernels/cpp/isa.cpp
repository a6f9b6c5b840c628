// All kernels for one instruction set: compiled once for each, with EXO_ISA as its name.
#include "attention.h"
#include "dense.h"
#include "elementwise.h"
#include "machine.h"
#include "quantized.h"

#define EXO_TEXT(name) #name
#define EXO_NAME(name) EXO_TEXT(name)

namespace exo::EXO_ISA {

extern const Kernels kernels;
const Kernels kernels = {
    EXO_NAME(EXO_ISA), run_quantized, run_dense, run_norm, run_gated, run_rope, run_attention,
    read_memory, multiply_in_registers,
};

}  // namespace exo::EXO_ISA
