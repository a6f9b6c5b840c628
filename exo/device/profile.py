"""The types of this room: what a device is, and its memory at one moment."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt

Kind = Literal["cpu", "metal", "cuda"]
DTYPES = ("float32", "bfloat16", "float16")


class Memory(BaseModel):
    """Memory of the device that computes, in bytes."""

    model_config = ConfigDict(frozen=True)

    total: int = Field(ge=0)
    available: int = Field(ge=0)


class DeviceProfile(BaseModel):
    """One device, as measured. It does not change while the machine stays the same."""

    model_config = ConfigDict(frozen=True)

    kind: Kind = Field(description="What computes.")
    name: str = Field(description="Name of the CPU or GPU.")
    cores: PositiveInt = Field(description="CPU cores that this process may use.")
    memory_total: PositiveInt = Field(
        description="Bytes: the machine's memory, what Metal recommends to use, or the card's."
    )
    flops: dict[str, FiniteFloat] = Field(
        description="Matrix multiplication, FLOP/s by dtype; with CPU kernels also `quantized`."
    )
    memory_bandwidth: FiniteFloat = Field(gt=0, description="Reading memory, bytes/s.")
    os: str = Field(description="Such as `Linux 6.1 x86_64`.")
    python: str = Field(description="Version of Python.")
    mlx: str = Field(description="Version of MLX.")
    kernels: str | None = Field(None, description="The CPU kernels in use, such as `avx512vnni`.")
    no_kernels: str | None = Field(None, description="On a CPU: why none are in use.")
    measured_at: str = Field(description="ISO 8601, UTC.")
    card: str | None = Field(
        None, description="With CUDA: the card's UUID, as the driver names it."
    )
