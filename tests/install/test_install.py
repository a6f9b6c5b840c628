"""install.sh, offline: on a PATH of the few tools it needs and of stand-ins for the rest."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "install.sh"
TOOLS = [
    "awk", "bash", "cat", "chmod", "date", "df", "dirname", "env", "grep", "head", "ln",
    "mkdir", "mktemp", "mv", "readlink", "rm", "rmdir", "sed", "sleep", "sort", "tee", "touch",
    "tr", "uname",
]  # fmt: skip

# What `uv sync` makes, as far as install.sh looks at it: `exo`, and the `python` that probes.
WORKING_UV = """
[ "$1" = --version ] && echo "uv 99.0.0 (made up)" && exit
echo "$@" >>"$HOME/uv-arguments"
bin=$UV_PROJECT_ENVIRONMENT/bin
mkdir -p "$bin"
printf '#!/bin/sh\\necho "%s $1"\\n' "${UV_PROJECT_ENVIRONMENT##*/}" >"$bin/exo"
printf '#!/bin/sh\\necho "{}"\\n' >"$bin/python"
chmod +x "$bin/exo" "$bin/python"
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the stand-ins are of Linux's tools"
)


class Machine:
    """A made-up computer: a home, a prefix and a PATH."""

    def __init__(self, folder: Path) -> None:
        self.home, self.path, self.prefix = folder / "home", folder / "path", folder / "prefix"
        self.home.mkdir()
        self.path.mkdir()
        self.share = self.prefix / "share" / "exo"
        self.link = self.prefix / "bin" / "exo"
        for tool in TOOLS:
            (self.path / tool).symlink_to(shutil.which(tool) or pytest.skip(f"no {tool}"))
        self.put("python3", f'exec "{Path(sys.executable).resolve()}" "$@"')
        self.put("getconf", "echo glibc 2.36")
        self.put("df", "echo Header; echo /dev/sda1 999999999 1 99999999 1% /")
        self.put("nvidia-smi", "exit 9")
        self.put("uv", WORKING_UV)

    def put(self, name: str, script: str) -> None:
        path = self.path / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def system(self, name: str, machine: str) -> None:
        self.put("uname", f'case $1 in -s) echo "{name}" ;; *) echo "{machine}" ;; esac')

    def run(self, *arguments: str, prefix: bool = True) -> subprocess.CompletedProcess[str]:
        where = ["--prefix", str(self.prefix)] if prefix else []
        return subprocess.run(
            [str(SCRIPT), *arguments, *where],
            env={"PATH": str(self.path), "HOME": str(self.home), "TMPDIR": str(self.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def fails(self, *arguments: str, code: int = 1) -> str:
        """Run, expect this exit code and nothing left behind; the message."""
        before = self.files()
        done = self.run(*arguments)
        assert done.returncode == code, done.stdout + done.stderr
        assert self.files() == before
        return done.stderr

    def succeeds(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def files(self) -> set[Path]:
        """What is on its disk, but for empty folders and the notes of the uv stand-in."""
        found = (*self.prefix.rglob("*"), *self.home.rglob("*"))
        return {path for path in found if path.is_symlink() or path.is_file()} - {
            self.home / "uv-arguments"
        }

    def uv_arguments(self) -> str:
        return (self.home / "uv-arguments").read_text()

    def exo(self) -> str:
        done = subprocess.run([self.link, "hello"], capture_output=True, text=True, check=True)
        return done.stdout.strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_help(machine: Machine) -> None:
    for option in ("--help", "-h"):
        done = machine.run(option, prefix=False)
        assert done.returncode == 0
        assert done.stderr == ""
        for name in ("--cpu", "--cuda", "--prefix", "--dev", "--uninstall"):
            assert name in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bogus"], "unknown option: --bogus"),
        (["extra"], "unknown option: extra"),
        (["--cuda", "11"], "unknown option: 11"),
        (["--cpu", "--cuda"], "exclude each other"),
    ],
)
def test_wrong_usage(machine: Machine, arguments: list[str], message: str) -> None:
    error = machine.fails(*arguments, code=2)
    assert message in error
    assert "Usage:" in error


def test_prefix_without_a_folder(machine: Machine) -> None:
    done = machine.run("--prefix", prefix=False)
    assert done.returncode == 2
    assert "--prefix needs a folder" in done.stderr


@pytest.mark.parametrize(
    ("system", "processor", "message"),
    [
        ("Darwin", "x86_64", "does not run on Macs with an Intel processor"),
        ("MINGW64_NT-10.0", "x86_64", "WSL 2"),
        ("CYGWIN_NT-10.0", "x86_64", "WSL 2"),
        ("Linux", "armv7l", "does not run on Linux armv7l"),
        ("FreeBSD", "amd64", "does not run on FreeBSD"),
    ],
)
def test_refused_systems(machine: Machine, system: str, processor: str, message: str) -> None:
    machine.system(system, processor)
    assert message in machine.fails()


def test_refused_rosetta(machine: Machine) -> None:
    machine.system("Darwin", "x86_64")
    machine.put("sysctl", "echo 1")
    assert "arch -arm64" in machine.fails()


@pytest.mark.parametrize(("version", "fits"), [("13.7", False), ("14.0", True), ("26.1", True)])
def test_macos_version(machine: Machine, version: str, fits: bool) -> None:
    machine.system("Darwin", "arm64")
    machine.put("sw_vers", f"echo {version}")
    # Stands for an Arm Python, which the test's own one is not.
    machine.put("python3", "true")
    machine.put("uv", "exit 1")
    done = machine.run()
    assert done.returncode == 1
    assert ("needs macOS 14" in done.stderr) is not fits
    assert ("exo will compute on: metal (Apple silicon)." in done.stdout) is fits


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo glibc 2.31", "this system has 2.31"),
        ("exit 1", "this system has none"),
    ],
)
def test_refused_libc(machine: Machine, script: str, message: str) -> None:
    machine.put("getconf", script)
    error = machine.fails()
    assert "glibc 2.35 or newer" in error
    assert message in error


def test_no_python_that_fits(machine: Machine) -> None:
    machine.put("python3", "exit 1")
    machine.put("python3.12", "exit 1")
    assert "exo needs Python 3.11 to 3.14" in machine.fails()
    machine.put("apt-get", "exit 1")
    assert "sudo apt install python3.11" in machine.fails()


def test_a_python_of_another_name(machine: Machine) -> None:
    (machine.path / "python3").rename(machine.path / "python3.12")
    machine.put("python3", "exit 1")
    machine.succeeds("--cpu")
    assert f"--python {machine.path / 'python3.12'}" in machine.uv_arguments()


def test_full_disk(machine: Machine) -> None:
    machine.put("df", "echo Header; echo /dev/sda1 999999999 1 2048000 1% /")
    machine.succeeds("--cpu")
    error = machine.fails("--cuda", "13")
    assert "has 2000 MB free, exo needs about 6000 MB" in error


def test_a_prefix_that_cannot_be_written(machine: Machine) -> None:
    # Not a matter of permissions, which do not bind root.
    machine.prefix.write_text("a file")
    assert "cannot be written. Choose another place: --prefix" in machine.fails()


def test_a_command_of_that_name_is_not_overwritten(machine: Machine) -> None:
    machine.link.parent.mkdir(parents=True)
    machine.link.write_text("another exo")
    assert "is not exo's" in machine.fails()
    assert machine.link.read_text() == "another exo"


@pytest.mark.parametrize(
    ("card", "line"),
    [
        ("580.65.06, 9.0", "cuda13 (NVIDIA driver 580.65.06)."),
        ("590.1, 12.0\n590.1, 8.9", "cuda13 (NVIDIA driver 590.1)."),
        ("550.54.14, 8.9", "cuda12 (NVIDIA driver 550.54.14, CUDA 13 needs 580)."),
        ("535.183.01, 8.9", "cpu (the NVIDIA driver 535.183.01 is too old, CUDA 12 needs 550)."),
        ("580.65.06, 6.1", "cpu (the NVIDIA card has compute capability 6.1, MLX needs 7.5)."),
        ("580.65.06, [N/A]", "cuda13 (NVIDIA driver 580.65.06)."),
        ("garbage", "cpu (no NVIDIA driver answers)."),
    ],
)
def test_what_the_driver_can_do(machine: Machine, card: str, line: str) -> None:
    machine.put("nvidia-smi", f"printf '{card}\\n'")
    assert f"exo will compute on: {line}" in machine.succeeds()
    assert f"--extra {line.partition(' ')[0]} " in machine.uv_arguments()


@pytest.mark.skipif(
    Path("/proc/driver/nvidia/version").exists(), reason="there is an NVIDIA driver"
)
def test_no_driver(machine: Machine) -> None:
    assert "exo will compute on: cpu (no NVIDIA driver answers)." in machine.succeeds()
    assert "--cuda 12 or --cuda 13" in machine.fails("--cuda")
    (machine.path / "nvidia-smi").unlink()
    assert "exo will compute on: cpu (no NVIDIA driver answers)." in machine.succeeds()


def test_asked_for(machine: Machine) -> None:
    machine.put("nvidia-smi", "echo 580.65.06, 9.0")
    assert "cpu (asked for with --cpu)" in machine.succeeds("--cpu")
    assert "cuda12 (asked for with --cuda 12)" in machine.succeeds("--cuda", "12")
    assert "cuda13 (NVIDIA driver 580.65.06)" in machine.succeeds("--cuda")


def test_installs_then_upgrades(machine: Machine) -> None:
    said = machine.succeeds("--cpu")
    assert f'export PATH="{machine.link.parent}:$PATH"' in said
    assert "--frozen --extra cpu --extra image" in machine.uv_arguments()
    assert "--no-dev --no-editable" in machine.uv_arguments()
    first = machine.exo()
    assert first == f"{(machine.share / 'env').readlink()} hello"

    machine.succeeds("--cpu")
    assert machine.exo() != first
    assert len(list(machine.share.glob("env-*"))) == 1
    assert list(machine.home.glob("exo-install*")) == []


def test_a_path_that_has_the_prefix(machine: Machine) -> None:
    machine.prefix = machine.path.parent
    machine.path = machine.path.rename(machine.prefix / "bin")
    assert "not on your PATH" not in machine.succeeds("--cpu")


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ("echo 'error: dns error: failed to lookup'; exit 2", "Check the connection"),
        ("echo 'No space left on device (os error 28)'; exit 2", "the disk is full"),
        ("echo 'something else'; exit 2", "the lines above say why"),
        (f'{WORKING_UV}\necho "exit 1" >>"$bin/exo"', "does not start"),
        (f"{WORKING_UV}\nprintf '#!/bin/sh\\necho no libcuda; exit 1' >$bin/python", "no libcuda"),
        # Half an environment, then killed.
        (f"{WORKING_UV}\nkill -9 $$", "the lines above say why"),
    ],
)
def test_a_failed_upgrade_leaves_the_old_one(machine: Machine, failure: str, message: str) -> None:
    machine.succeeds("--cpu")
    before = machine.exo()
    version = '[ "$1" = --version ] && echo "uv 99.0.0" && exit\n'
    machine.put("uv", version + failure)
    error = machine.fails("--cpu")
    assert message in error
    assert machine.exo() == before


def test_a_failed_first_installation_leaves_nothing(machine: Machine) -> None:
    machine.put("uv", 'echo "uv 99.0.0"; [ "$1" = --version ]')
    machine.fails("--cpu")
    assert machine.files() == set()


def test_interrupted(machine: Machine) -> None:
    machine.succeeds("--cpu")
    before = machine.exo()
    # As Ctrl-C does: install.sh and what it started get the signal.
    machine.put("uv", '[ "$1" = --version ] && echo "uv 99.0.0" && exit\nkill -INT 0; sleep 60')
    files = machine.files()
    done = subprocess.run(
        [str(SCRIPT), "--cpu", "--prefix", str(machine.prefix)],
        env={"PATH": str(machine.path), "HOME": str(machine.home), "TMPDIR": str(machine.home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=60,
        start_new_session=True,
    )
    assert done.returncode != 0
    assert machine.files() == files
    assert machine.exo() == before


def test_an_environment_in_use_stays(machine: Machine) -> None:
    machine.succeeds("--cpu")
    old = (machine.share / "env").resolve()
    # A process that has a file of the old environment in its memory, as the daemon would.
    sleeper = old / "bin" / "daemon"
    shutil.copy(shutil.which("sleep") or "", sleeper)
    with subprocess.Popen([sleeper, "600"]) as daemon:
        try:
            assert "exo stop && exo start" in machine.succeeds("--cpu")
            assert sleeper.exists()
            assert "First: exo stop" in machine.fails("--uninstall")
        finally:
            daemon.kill()
    machine.succeeds("--cpu")
    assert not old.exists()


def test_uninstall(machine: Machine) -> None:
    machine.succeeds("--cpu")
    (machine.share / "models").mkdir()
    (machine.share / "models" / "model.safetensors").touch()
    assert "exo is removed." in machine.succeeds("--uninstall")
    assert machine.files() == {machine.share / "models" / "model.safetensors"}
    assert "not installed" in machine.succeeds("--uninstall")


def test_uninstall_leaves_a_command_that_is_not_exos(machine: Machine) -> None:
    machine.link.parent.mkdir(parents=True)
    machine.link.write_text("another exo")
    machine.succeeds("--uninstall")
    assert machine.link.exists()


def test_outside_of_a_clone(machine: Machine, tmp_path: Path) -> None:
    shutil.copy(SCRIPT, tmp_path / "install.sh")
    done = subprocess.run(
        [tmp_path / "install.sh"],
        env={"PATH": str(machine.path), "HOME": str(machine.home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "run it from a clone" in done.stderr
