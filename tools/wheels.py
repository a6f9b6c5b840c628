"""Puts the compiled CPU kernels into exo's wheel: `make wheels`.

The wheel that comes out is for this Python, this machine and the MLX that exo pins; the one without
kernels, which runs anywhere, stays beside it.
"""

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from exo.inference.kernels import built


def main() -> None:
    folder = Path(sys.argv[1])
    reason = built.why_not()
    if reason is not None:
        sys.exit(f"The kernels cannot go into a wheel: {reason}. First: make kernels")
    (pure,) = folder.glob("exo-*-py3-none-any.whl")
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    with tempfile.TemporaryDirectory() as work:
        _wheel("unpack", str(pure), "--dest", work)
        (unpacked,) = Path(work).iterdir()
        package = unpacked / "exo" / "inference" / "kernels"
        for name in (built.LIBRARY, built.RECORD):
            shutil.copyfile(built.FOLDER / name, package / name)
        _set_tag(next(unpacked.glob("*.dist-info")) / "WHEEL", f"{python}-{python}-{platform}")
        _wheel("pack", str(unpacked), "--dest-dir", str(folder))


def _set_tag(file: Path, tag: str) -> None:
    kept = [
        line
        for line in file.read_text().splitlines()
        if line and not line.startswith(("Tag:", "Root-Is-Purelib:"))
    ]
    file.write_text("\n".join([*kept, "Root-Is-Purelib: false", f"Tag: {tag}", ""]))


def _wheel(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "wheel", *arguments], check=True)


if __name__ == "__main__":
    main()
