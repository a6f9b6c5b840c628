#include "primitives.h"

#include <cstring>
#include <numeric>
#include <stdexcept>

#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/primitives.h"
#include "packing.h"

namespace exo {

namespace {

const Kernels*& chosen() {
  static const Kernels* kernels = find_kernels("");
  return kernels;
}

Type type_of(mx::Dtype dtype) {
  if (dtype == mx::float32) return Type::Float32;
  if (dtype == mx::bfloat16) return Type::BFloat16;
  if (dtype == mx::float16) return Type::Float16;
  throw std::invalid_argument("The kernels compute float32, bfloat16 and float16 only.");
}

const void* data(const mx::array& a) {
  return a.data<char>();
}

// Copy any strided array, element by element, into contiguous memory.
void gather_elements(const mx::array& from, char* to) {
  const auto& shape = from.shape();
  const auto& strides = from.strides();
  const size_t size = from.itemsize();
  std::vector<int64_t> index(shape.size(), 0);
  const char* at = from.data<char>();
  for (size_t i = 0; i < from.size(); ++i, to += size) {
    std::memcpy(to, at, size);
    for (int axis = int(shape.size()) - 1; axis >= 0; --axis) {
      at += strides[axis] * size;
      if (++index[axis] < shape[axis]) break;
      at -= strides[axis] * size * shape[axis];
      index[axis] = 0;
    }
  }
}

// One operation at evaluation: on the stream's thread, after what came before it.
struct Task {
  mx::cpu::CommandEncoder& encoder;

  explicit Task(const mx::Stream& stream) : encoder(mx::cpu::get_command_encoder(stream)) {}

  static void allocate(mx::array& out) {
    out.set_data(mx::allocator::malloc(out.nbytes()));
  }

  mx::array copy(const mx::array& a) {
    mx::array whole(a.shape(), a.dtype(), nullptr, {});
    allocate(whole);
    encoder.add_temporary(whole);
    encoder.dispatch([from = mx::array::unsafe_weak_copy(a),
                      to = mx::array::unsafe_weak_copy(whole)]() mutable {
      gather_elements(from, to.data<char>());
    });
    return whole;
  }

  mx::array contiguous(const mx::array& a) {
    return a.flags().row_contiguous ? a : copy(a);
  }

  // With the elements of its last axis beside each other.
  mx::array rows(const mx::array& a) {
    return a.ndim() == 0 || a.shape(-1) == 1 || a.strides(-1) == 1 ? a : copy(a);
  }

  // `go` may hold arrays by weak copies only: MLX keeps those that it knows of.
  template <class Go>
  void run(Go&& go) {
    encoder.dispatch(std::forward<Go>(go));
  }
};

mx::array weak(const mx::array& a) {
  return mx::array::unsafe_weak_copy(a);
}

class Base : public mx::UnaryPrimitive {
 public:
  using mx::UnaryPrimitive::UnaryPrimitive;
  void eval_gpu(const std::vector<mx::array>&, mx::array&) override {
    throw std::runtime_error("These kernels are for the CPU.");
  }
};

class PackQuantized : public Base {
 public:
  PackQuantized(mx::Stream s, Format f, int64_t n, int64_t k) : Base(s), f_(f), n_(n), k_(k) {}
  DEFINE_NAME(PackQuantized)

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    Task task(stream());
    Task::allocate(out);
    std::vector<mx::array> in;
    for (const auto& input : inputs) in.push_back(weak(task.contiguous(input)));
    task.run([f = f_, n = n_, k = k_, in, out = weak(out)]() mutable {
      const int64_t bytes = packed_bytes(f, n, k), codes = n * k * f.bits / 8;
      const int64_t scales = n * (k / f.group) * (f.fp4 ? 1 : size_of(f.scales));
      for (int64_t e = 0; e * bytes < int64_t(out.size()); ++e) {
        const auto part = [&](size_t i, int64_t size) -> const uint8_t* {
          return i < in.size() ? in[i].data<uint8_t>() + e * size : nullptr;
        };
        const Codes from{part(0, codes), part(1, scales), part(2, scales), n, k};
        pack(f, from, out.data<uint8_t>() + e * bytes);
      }
    });
  }

 private:
  Format f_;
  int64_t n_, k_;
};

class PackDense : public Base {
 public:
  using Base::Base;
  DEFINE_NAME(PackDense)

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    Task task(stream());
    Task::allocate(out);
    task.run([in = weak(task.contiguous(inputs[0])), out = weak(out)]() mutable {
      const Type type = type_of(in.dtype());
      const int64_t n = in.shape(-2), k = in.shape(-1), bytes = packed_bytes(type, n, k);
      for (int64_t e = 0; e * bytes < int64_t(out.size()); ++e) {
        const auto* from = in.data<uint8_t>() + e * n * k * size_of(type);
        pack(type, from, n, k, out.data<uint8_t>() + e * bytes);
      }
    });
  }
};

void multiply(
    const Packed& as, const uint8_t* packed, const void* x, void* out, Type type, int64_t rows,
    const int32_t* x_rows, const int32_t* out_rows) {
  if (as.format) {
    kernels()->quantized(
        {*as.format, packed, x, out, type, rows, as.n, as.k, x_rows, out_rows});
  } else {
    kernels()->dense({as.type, packed, x, out, type, rows, as.n, as.k, x_rows, out_rows});
  }
}

int64_t packed_bytes(const Packed& as) {
  return as.format ? packed_bytes(*as.format, as.n, as.k) : packed_bytes(as.type, as.n, as.k);
}

class Matmul : public Base {
 public:
  Matmul(mx::Stream s, Packed as) : Base(s), as_(as) {}
  DEFINE_NAME(PackedMatmul)

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    Task task(stream());
    Task::allocate(out);
    task.run([as = as_, x = weak(task.contiguous(inputs[0])), packed = weak(inputs[1]),
              out = weak(out)]() mutable {
      const int64_t rows = out.size() / as.n;
      multiply(
          as, packed.data<uint8_t>(), data(x), out.data<char>(), type_of(x.dtype()), rows, nullptr,
          nullptr);
    });
  }

 private:
  Packed as_;
};

class GatherMatmul : public Base {
 public:
  GatherMatmul(mx::Stream s, Packed as) : Base(s), as_(as) {}
  DEFINE_NAME(PackedGatherMatmul)

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    Task task(stream());
    Task::allocate(out);
    task.run([as = as_, x = weak(task.contiguous(inputs[0])), packed = weak(inputs[1]),
              experts = weak(task.contiguous(inputs[2])), out = weak(out)]() mutable {
      const int64_t count = packed.shape(0), rows = out.shape(-2);
      const auto sources = broadcast_rows(x.shape(), out.shape());
      const auto* chosen = experts.data<uint32_t>();
      // Rows by expert, so that each matrix is read once.
      std::vector<std::vector<int32_t>> x_rows(count), out_rows(count);
      for (size_t i = 0; i < sources.size(); ++i) {
        // An index past the end would read what is not a matrix; its rows are left 0.
        if (chosen[i] >= count) {
          const size_t bytes = rows * as.n * out.itemsize();
          std::memset(out.data<char>() + i * bytes, 0, bytes);
          continue;
        }
        for (int64_t m = 0; m < rows; ++m) {
          x_rows[chosen[i]].push_back(int32_t(sources[i] * rows + m));
          out_rows[chosen[i]].push_back(int32_t(i * rows + m));
        }
      }
      const int64_t bytes = packed_bytes(as);
      for (int64_t e = 0; e < count; ++e) {
        if (x_rows[e].empty()) continue;
        multiply(
            as, packed.data<uint8_t>() + e * bytes, data(x), out.data<char>(), type_of(x.dtype()),
            x_rows[e].size(), x_rows[e].data(), out_rows[e].data());
      }
    });
  }

  // For each matrix of the result, that of x which it is made from.
  static std::vector<int64_t> broadcast_rows(const mx::Shape& x, const mx::Shape& out) {
    const int axes = int(out.size()) - 2, missing = int(out.size()) - int(x.size());
    const int64_t count =
        std::accumulate(out.begin(), out.end() - 2, int64_t(1), std::multiplies<>());
    std::vector<int64_t> sources(count);
    for (int64_t i = 0; i < count; ++i) {
      int64_t rest = i, step = 1;
      for (int axis = axes - 1; axis >= 0; --axis) {
        const int64_t at = rest % out[axis];
        rest /= out[axis];
        if (axis < missing) continue;
        const int64_t size = x[axis - missing];
        if (size > 1) sources[i] += at * step;
        step *= size;
      }
    }
    return sources;
  }

 private:
  Packed as_;
};

class TakeRows : public Base {
 public:
  TakeRows(mx::Stream s, Packed as) : Base(s), as_(as) {}
  DEFINE_NAME(PackedTakeRows)

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    Task task(stream());
    Task::allocate(out);
    task.run([as = as_, packed = weak(inputs[0]), rows = weak(task.contiguous(inputs[1])),
              out = weak(out)]() mutable {
      const auto* index = rows.data<uint32_t>();
      auto* to = out.data<float>();
      const auto* from = packed.data<uint8_t>();
      for (size_t i = 0; i < rows.size(); ++i, to += as.k) {
        // MLX does not look either; but nothing outside of the matrix may be read.
        const int64_t row = std::min<int64_t>(index[i], as.n - 1);
        as.format ? unpack_row(*as.format, from, as.k, row, to)
                  : unpack_row(as.type, from, as.k, row, to);
      }
    });
  }

 private:
  Packed as_;
};

class RmsNorm : public Base {
 public:
  RmsNorm(mx::Stream s, float epsilon) : Base(s), epsilon_(epsilon) {}
  DEFINE_NAME(FastRmsNorm)

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    Task task(stream());
    Task::allocate(out);
    const bool weighted = inputs.size() > 1;
    task.run([x = weak(task.contiguous(inputs[0])),
              weight = weak(task.contiguous(inputs[weighted ? 1 : 0])), weighted, out = weak(out),
              epsilon = epsilon_]() mutable {
      const int64_t size = x.shape(-1);
      kernels()->norm(
          {data(x), weighted ? data(weight) : nullptr, out.data<char>(), type_of(x.dtype()),
           type_of(weight.dtype()), size ? int64_t(x.size()) / size : 0, size, epsilon});
    });
  }

 private:
  float epsilon_;
};

class GatedUnit : public Base {
 public:
  using Base::Base;
  DEFINE_NAME(FastGatedUnit)

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    Task task(stream());
    Task::allocate(out);
    task.run([gate = weak(task.contiguous(inputs[0])), up = weak(task.contiguous(inputs[1])),
              out = weak(out)]() mutable {
      kernels()->gated(
          {data(gate), data(up), out.data<char>(), type_of(gate.dtype()), int64_t(out.size())});
    });
  }
};

class RotaryPositions : public Base {
 public:
  RotaryPositions(mx::Stream s, int dims, bool traditional, float scale)
      : Base(s), dims_(dims), traditional_(traditional), scale_(scale) {}
  DEFINE_NAME(FastRotaryPositions)

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    Task task(stream());
    Task::allocate(out);
    task.run([x = weak(task.rows(inputs[0])), offset = weak(task.contiguous(inputs[1])),
              inverse = weak(task.contiguous(inputs[2])), out = weak(out), dims = dims_,
              traditional = traditional_, scale = scale_]() mutable {
      const auto& s = x.strides();
      kernels()->rope(
          {data(x), out.data<char>(), type_of(x.dtype()), x.shape(0), x.shape(1), x.shape(2),
           x.shape(3), dims, {s[0], s[1], s[2]}, traditional, scale, inverse.data<float>(),
           offset.data<int32_t>(), offset.size() > 1});
    });
  }

 private:
  int dims_;
  bool traditional_;
  float scale_;
};

class CachedAttention : public Base {
 public:
  CachedAttention(mx::Stream s, float scale, Mask mask, bool sinks)
      : Base(s), scale_(scale), mask_(mask), sinks_(sinks) {}
  DEFINE_NAME(FastAttention)

  void eval_cpu(const std::vector<mx::array>& inputs, mx::array& out) override {
    Task task(stream());
    Task::allocate(out);
    const bool masked = mask_ == Mask::Bool || mask_ == Mask::Additive;
    task.run([q = weak(task.rows(inputs[0])), k = weak(task.rows(inputs[1])),
              v = weak(task.rows(inputs[2])), mask = weak(inputs[masked ? 3 : 0]),
              sinks = weak(task.contiguous(inputs[sinks_ ? inputs.size() - 1 : 0])),
              out = weak(out), masked, kind = mask_, scale = scale_,
              has_sinks = sinks_]() mutable {
      Attention a{
          q.data<float>(), data(k), data(v), type_of(k.dtype()), out.data<float>(),
          masked ? data(mask) : nullptr, has_sinks ? sinks.data<float>() : nullptr, kind,
          q.shape(0), q.shape(1), k.shape(1), q.shape(2), k.shape(2), q.shape(3), v.shape(3), {},
          {}, {}, {}, scale};
      std::copy_n(q.strides().begin(), 3, a.q_strides);
      std::copy_n(k.strides().begin(), 3, a.k_strides);
      std::copy_n(v.strides().begin(), 3, a.v_strides);
      if (masked) std::copy_n(mask.strides().begin(), 4, a.mask_strides);
      kernels()->attention(a);
    });
  }

 private:
  float scale_;
  Mask mask_;
  bool sinks_;
};

mx::Stream stream() {
  return mx::to_stream(mx::StreamOrDevice{});
}

template <class P, class... Arguments>
mx::array make(
    mx::Shape shape, mx::Dtype dtype, std::vector<mx::array> inputs, Arguments... arguments) {
  return mx::array(
      std::move(shape), dtype, std::make_shared<P>(stream(), arguments...), std::move(inputs));
}

void check(bool holds, const char* otherwise) {
  if (!holds) throw std::invalid_argument(otherwise);
}

// Experts, if any, then blocks of columns, then the bytes of a block.
mx::Shape packed_shape(const mx::array& weight, int64_t block, int64_t bytes) {
  check(weight.ndim() == 2 || weight.ndim() == 3, "A weight has two axes, or three with experts.");
  mx::Shape shape(weight.shape().begin(), weight.shape().end() - 2);
  const int64_t blocks = (weight.shape(-2) + block - 1) / block;
  shape.push_back(int(blocks));
  shape.push_back(int(blocks ? bytes / blocks : 0));
  return shape;
}

}  // namespace

const Kernels* kernels() {
  return chosen();
}

bool use_kernels(const std::string& name) {
  const Kernels* found = find_kernels(name.c_str());
  if (found) chosen() = found;
  return found;
}

mx::array pack_quantized(
    const mx::array& codes, const mx::array& scales, const std::optional<mx::array>& biases,
    int bits, int group) {
  const bool fp4 = !biases;
  const int64_t n = codes.shape(-2), k = int64_t(codes.shape(-1)) * 32 / bits;
  check(codes.dtype() == mx::uint32, "Codes are held in uint32.");
  check(k % group == 0 && scales.shape(-1) == k / group, "Codes and scales do not fit.");
  const Format format{bits, group, fp4, fp4 ? Type::BFloat16 : type_of(scales.dtype())};
  std::vector<mx::array> inputs{codes, scales};
  if (biases) inputs.push_back(mx::astype(*biases, scales.dtype()));
  return make<PackQuantized>(
      packed_shape(codes, 16, packed_bytes(format, n, k)), mx::uint8, inputs, format, n, k);
}

mx::array pack_dense(const mx::array& weight) {
  const int64_t bytes =
      packed_bytes(type_of(weight.dtype()), weight.shape(-2), weight.shape(-1));
  return make<PackDense>(packed_shape(weight, 64, bytes), mx::uint8, {weight});
}

mx::array matmul(const mx::array& x, const mx::array& packed, const Packed& as) {
  type_of(x.dtype());
  check(x.ndim() > 0 && x.shape(-1) == as.k, "The last axis does not fit the matrix.");
  check(packed.nbytes() == size_t(packed_bytes(as)), "The packed matrix has another size.");
  mx::Shape shape = x.shape();
  shape.back() = int(as.n);
  return make<Matmul>(shape, x.dtype(), {x, packed}, as);
}

mx::array gather_matmul(
    const mx::array& x, const mx::array& packed, const mx::array& experts, const Packed& as) {
  type_of(x.dtype());
  check(x.ndim() > 1 && x.shape(-1) == as.k, "The last axis does not fit the matrices.");
  check(
      packed.ndim() == 3 && packed.nbytes() == size_t(packed.shape(0) * packed_bytes(as)),
      "The packed matrices have another size.");
  const mx::Shape leading(x.shape().begin(), x.shape().end() - 2);
  mx::Shape shape = mx::broadcast_shapes(leading, experts.shape());
  const auto all = mx::astype(mx::broadcast_to(experts, shape), mx::uint32);
  shape.push_back(x.shape(-2));
  shape.push_back(int(as.n));
  return make<GatherMatmul>(shape, x.dtype(), {x, packed, all}, as);
}

mx::array take_rows(const mx::array& packed, const mx::array& rows, const Packed& as) {
  check(packed.nbytes() == size_t(packed_bytes(as)), "The packed matrix has another size.");
  mx::Shape shape = rows.shape();
  shape.push_back(int(as.k));
  return make<TakeRows>(shape, mx::float32, {packed, mx::astype(rows, mx::uint32)}, as);
}

mx::array rms_norm(const mx::array& x, const std::optional<mx::array>& weight, float epsilon) {
  type_of(x.dtype());
  std::vector<mx::array> inputs{x};
  if (weight) {
    type_of(weight->dtype());
    check(weight->ndim() == 1 && weight->size() == size_t(x.shape(-1)), "The weight does not fit.");
    inputs.push_back(*weight);
  }
  return make<RmsNorm>(x.shape(), x.dtype(), inputs, epsilon);
}

mx::array gated(const mx::array& gate, const mx::array& up) {
  type_of(gate.dtype());
  check(gate.dtype() == up.dtype() && gate.shape() == up.shape(), "Gate and up do not fit.");
  return make<GatedUnit>(gate.shape(), gate.dtype(), {gate, up});
}

mx::array rope(
    const mx::array& x, int dims, bool traditional, float scale, const mx::array& offset,
    const mx::array& inverse) {
  type_of(x.dtype());
  check(x.ndim() == 4 && dims % 2 == 0 && dims <= x.shape(3), "Not (batch, heads, length, size).");
  check(inverse.size() == size_t(dims / 2), "One angle for each pair.");
  check(offset.size() == 1 || offset.size() == size_t(x.shape(0)), "One offset for each sequence.");
  return make<RotaryPositions>(
      x.shape(), x.dtype(),
      {x, mx::astype(offset, mx::int32), mx::astype(inverse, mx::float32)}, dims, traditional,
      scale);
}

mx::array attention(
    const mx::array& q, const mx::array& k, const mx::array& v, float scale, bool causal,
    const std::optional<mx::array>& mask, const std::optional<mx::array>& sinks) {
  check(q.dtype() == mx::float32, "Queries are float32.");
  check(k.dtype() == v.dtype(), "Keys and values are of one type.");
  type_of(k.dtype());
  check(q.ndim() == 4 && k.ndim() == 4 && v.ndim() == 4, "Four axes each.");
  check(
      k.shape(0) == q.shape(0) && v.shape(0) == q.shape(0) && k.shape(1) == v.shape(1) &&
          k.shape(2) == v.shape(2) && k.shape(3) == q.shape(3) && q.shape(1) % k.shape(1) == 0,
      "Queries, keys and values do not fit.");
  check(q.shape(3) % 16 == 0 && v.shape(3) % 16 == 0, "Heads are multiples of sixteen.");
  std::vector<mx::array> inputs{q, k, v};
  Mask kind = causal ? Mask::Causal : Mask::None;
  if (mask) {
    kind = mask->dtype() == mx::bool_ ? Mask::Bool : Mask::Additive;
    const auto as = kind == Mask::Bool ? *mask : mx::astype(*mask, mx::float32);
    inputs.push_back(
        mx::broadcast_to(as, {q.shape(0), q.shape(1), q.shape(2), k.shape(2)}));
  }
  if (sinks) inputs.push_back(mx::astype(*sinks, mx::float32));
  return make<CachedAttention>(
      {q.shape(0), q.shape(1), q.shape(2), v.shape(3)}, mx::float32, inputs, scale, kind,
      sinks.has_value());
}

}  // namespace exo
