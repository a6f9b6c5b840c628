// What Python sees.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "pool.h"
#include "primitives.h"

namespace nb = nanobind;
using namespace nb::literals;
using mlx::core::array;

namespace {

exo::Type type_named(const std::string& name) {
  if (name == "float32") return exo::Type::Float32;
  if (name == "bfloat16") return exo::Type::BFloat16;
  if (name == "float16") return exo::Type::Float16;
  throw std::invalid_argument("Not a type of the kernels: " + name);
}

}  // namespace

NB_MODULE(_kernels, m) {
  nb::class_<exo::Packed>(m, "Packed");
  m.def(
      "quantized",
      [](int64_t n, int64_t k, int bits, int group, bool fp4, const std::string& scales) {
        const exo::Format format{bits, group, fp4, type_named(scales)};
        return exo::Packed{format, format.scales, n, k};
      },
      "n"_a, "k"_a, "bits"_a, "group"_a, "fp4"_a, "scales"_a);
  m.def(
      "dense",
      [](int64_t n, int64_t k, const std::string& type) {
        return exo::Packed{std::nullopt, type_named(type), n, k};
      },
      "n"_a, "k"_a, "type"_a);
  m.def("pack_quantized", &exo::pack_quantized, "codes"_a, "scales"_a, "biases"_a.none(), "bits"_a, "group"_a);
  m.def("pack_dense", &exo::pack_dense, "weight"_a);
  m.def("matmul", &exo::matmul, "x"_a, "packed"_a, "shape"_a);
  m.def("gather_matmul", &exo::gather_matmul, "x"_a, "packed"_a, "experts"_a, "shape"_a);
  m.def("take_rows", &exo::take_rows, "packed"_a, "rows"_a, "shape"_a);
  m.def("rms_norm", &exo::rms_norm, "x"_a, "weight"_a.none(), "epsilon"_a);
  m.def("gated", &exo::gated, "gate"_a, "up"_a);
  m.def(
      "rope", &exo::rope, "x"_a, "dims"_a, "traditional"_a, "scale"_a, "offset"_a, "inverse"_a);
  m.def(
      "attention", &exo::attention, "q"_a, "k"_a, "v"_a, "scale"_a, "causal"_a, "mask"_a.none(),
      "sinks"_a.none());
  m.def(
      "read_memory",
      [](array& a) {
        a.eval();
        return exo::kernels()->read_memory(a.data<char>(), a.nbytes());
      },
      "array"_a);
  m.def(
      "multiply_in_registers",
      [](int64_t count, bool integers) {
        return exo::kernels()->multiply_in_registers(count, integers);
      },
      "count"_a, "integers"_a);
  m.def("set_threads", [](int threads) { exo::Pool::shared().resize(threads); }, "threads"_a);
  m.def("threads", [] { return exo::Pool::shared().size(); });
  m.def("use", &exo::use_kernels, "name"_a);
  m.def("name", [] { return std::string(exo::kernels() ? exo::kernels()->name : ""); });
  m.def("mlx_version", [] { return std::string(MLX_VERSION); });
}
