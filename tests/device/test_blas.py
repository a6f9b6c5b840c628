import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from exo.device import blas

linux = pytest.mark.skipif(sys.platform != "linux", reason="OpenBLAS is for Linux CPUs only")


@linux
def test_the_library_has_the_names_that_mlx_looks_for(tmp_path: Path):
    library = blas.prepare_blas(tmp_path)
    assert library is not None
    assert ctypes.CDLL(str(library)).cblas_sgemm
    assert list(tmp_path.iterdir()) == [library]


@linux
def test_it_is_made_once(tmp_path: Path):
    first = blas.prepare_blas(tmp_path)
    assert first is not None
    made = first.stat().st_mtime_ns
    assert blas.prepare_blas(tmp_path) == first
    assert first.stat().st_mtime_ns == made


@linux
def test_mlx_multiplies_right_with_it(tmp_path: Path):
    environment = blas.blas_environment(tmp_path)
    assert int(environment["OPENBLAS_NUM_THREADS"]) >= 1
    program = (
        "import mlx.core as mx, numpy as np\n"
        "a, b = np.random.rand(2, 64, 64).astype('float32')\n"
        "assert np.allclose(np.array(mx.array(a) @ mx.array(b)), a @ b, atol=1e-4)\n"
        "maps = open('/proc/self/maps').read()\n"
        f"assert {str(environment['LD_PRELOAD'])!r} in maps\n"
    )
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


@linux
def test_without_its_parts_the_reference_blas_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(blas, "_patchelf", lambda: None)
    assert blas.blas_environment(tmp_path) == {}


@linux
def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert blas.blas_environment(tmp_path / "file" / "cache") == {}
