"""Settings and the places on disk.

A setting is taken from the first of: a command-line flag, the environment (`EXO_` + its name in
capitals), `config.toml`, the default below. On disk, with `EXO_HOME=H` (without it, the platform's
own config, data and state folders):

    H/config.toml               settings
    H/data/identity.key         the node's Ed25519 key (0600)
    H/data/machine.json         which machine the key was made on
    H/data/cluster.json         the cluster's secret, once it is locked (0600)
    H/data/term.json            the highest term of a master that this node has seen
    H/data/state.db             the event log and its snapshots (SQLite)
    H/data/models/              model folders, in mlx-lm layout
    H/data/images/              pictures whose address was asked for, for an hour
    H/data/responses/           responses that clients may come back to (0600)
    H/state/exo.lock            held by the running daemon
    H/state/daemon.json         pid and address of the running daemon
    H/state/local.key           lets this device's command line use its API (0600)
    H/state/device.json         the last measurement of this device
    H/state/cache/              what can be made again
    H/state/logs/exo.log        the log, rotated
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from exo.errors import ConfigError, HomeError

API_PORT = 52415
P2P_PORT = 52416


class Settings(BaseModel):
    """One node's settings. Field descriptions are the reference in `docs/config.md`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(API_PORT, ge=0, le=65535, description="Port of the API; 0 picks a free one.")
    insecure: bool = Field(
        False,
        description="Answer without a key on an address beyond loopback too, in a network that you "
        "trust.",
    )
    require_keys: bool = Field(
        False, description="Ask for a key on loopback too, such as behind a proxy or a tunnel."
    )
    name: str | None = Field(None, description="Name of this node; the host name if not set.")
    cluster_name: str = Field(
        "exo", min_length=1, max_length=64, description="Name of the cluster."
    )
    p2p_host: str = Field(
        "", description="Address for links with other nodes; every address if not set."
    )
    p2p_port: int = Field(
        P2P_PORT, ge=0, le=65535, description="Port for links with other nodes; 0 picks a free one."
    )
    peers: tuple[str, ...] = Field(
        (),
        description="Multiaddrs of other nodes, such as `/ip4/10.0.0.2/tcp/52416`, for networks "
        "without multicast; separated by commas in the environment.",
    )
    ring_encryption: bool = Field(
        True,
        description="Encrypt what the nodes of one model send each other. Switch it off only on a "
        "cable that nobody else can reach, and on all of its nodes.",
    )
    discovery: bool = Field(True, description="Find other nodes, and be found, by mDNS.")
    eligible: bool = Field(True, description="Whether this node may become the master.")
    mlx_links: bool = Field(
        False,
        description="Allow instances whose nodes are linked by `mx.distributed`, which neither "
        "encrypts nor authenticates: for a network that you trust. Tensor sharding needs it.",
    )
    models_dir: Path | None = Field(
        None, description="Folder with model folders, instead of the one in the data folder."
    )
    auto_place: bool = Field(
        True, description="Place a known model when a request first asks for it."
    )
    auto_place_wait: float = Field(
        60.0, ge=0, description="Seconds that a request waits for its model to be ready."
    )
    auto_place_stream_wait: float = Field(
        600.0,
        ge=0,
        description="The same for a stream, which is told meanwhile how far the model is.",
    )
    keep_alive: float = Field(
        1800.0,
        ge=-1,
        description="Seconds after its last request until a model that a request placed is "
        "unloaded; -1 for never. What `exo instance create` placed is pinned, and stays.",
    )
    max_queue: int = Field(
        256, ge=0, description="Requests that may wait for a slot of one instance before 429."
    )
    request_timeout: float = Field(
        3600.0,
        ge=0,
        description="Seconds that a request for an answer may take, its wait included; 0 for no "
        "limit. The header `X-Exo-Timeout` of a request may ask for less.",
    )
    max_body_mb: int = Field(32, ge=1, description="Largest request body, in MiB.")
    images_mb: int = Field(
        512,
        ge=0,
        description="Disk space for pictures that are fetched by their address, in MiB; the oldest "
        "make room for new ones.",
    )
    responses_mb: int = Field(
        128,
        ge=0,
        description="Disk space for the responses of `/v1/responses`, in MiB; the oldest make room "
        "for new ones. 0 stores none.",
    )
    drain_seconds: float = Field(
        10.0, ge=0, description="Seconds that open requests get to finish when the daemon stops."
    )
    memory_fraction: float = Field(
        0.8, gt=0, le=1, description="Share of the device's available memory that exo may use."
    )
    prefix_cache_mb: int = Field(
        512, ge=0, description="Memory for reusing the computed prefixes of prompts, in MiB."
    )
    spare_runners: int = Field(
        1, ge=0, le=8, description="Runner processes kept started ahead, so that a restart is fast."
    )
    kernels: str = Field(
        "on",
        pattern="^(on|off|avx2|avx512|avx512vnni|avx512amx|neon)$",
        description="exo's kernels on a Linux CPU: on, off, or those of one instruction set.",
    )
    engine: str = Field(
        "mlx",
        pattern=r"^(mlx|[\w.]+:\w+)$",
        description="What computes: mlx, or the `module:Class` of another engine.",
    )
    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error."
    )

    @field_validator("peers", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [p for p in re.split(r"[,\s]+", value) if p] if isinstance(value, str) else value


@dataclass(frozen=True)
class Paths:
    """Where exo keeps what. Nothing is created until `prepare`."""

    config: Path
    data: Path
    state: Path

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def identity(self) -> Path:
        return self.data / "identity.key"

    @property
    def machine(self) -> Path:
        return self.data / "machine.json"

    @property
    def cluster(self) -> Path:
        return self.data / "cluster.json"

    @property
    def term(self) -> Path:
        return self.data / "term.json"

    @property
    def database(self) -> Path:
        return self.data / "state.db"

    @property
    def models(self) -> Path:
        return self.data / "models"

    @property
    def images(self) -> Path:
        return self.data / "images"

    @property
    def responses(self) -> Path:
        return self.data / "responses"

    @property
    def lock(self) -> Path:
        return self.state / "exo.lock"

    @property
    def daemon(self) -> Path:
        return self.state / "daemon.json"

    @property
    def local_key(self) -> Path:
        return self.state / "local.key"

    @property
    def device(self) -> Path:
        return self.state / "device.json"

    @property
    def cache(self) -> Path:
        return self.state / "cache"

    @property
    def log(self) -> Path:
        return self.state / "logs" / "exo.log"

    def prepare(self) -> None:
        """Create the folders, private to the user.

        Raises:
            HomeError: a folder cannot be created or written.
        """
        for folder in (self.config, self.data, self.models, self.state, self.log.parent):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                probe = folder / f".write-test-{os.getpid()}"
                probe.touch()
                probe.unlink()
            except OSError as error:
                raise HomeError(
                    f"exo cannot write to {folder}: {error.strerror}.",
                    hint="Make it writable and free some space, or set EXO_HOME to another folder.",
                ) from error


def find_paths(env: Mapping[str, str] = os.environ) -> Paths:
    """The folders that the environment asks for."""
    if home := env.get("EXO_HOME"):
        root = Path(home).expanduser().absolute()
        return Paths(config=root, data=root / "data", state=root / "state")
    import platformdirs  # noqa: PLC0415  not needed, and not paid for, when EXO_HOME is set

    return Paths(
        config=Path(platformdirs.user_config_dir("exo", False)),
        data=Path(platformdirs.user_data_dir("exo", False)),
        state=Path(platformdirs.user_state_dir("exo", False)),
    )


def load_settings(
    paths: Paths,
    flags: Mapping[str, Any] | None = None,
    env: Mapping[str, str] = os.environ,
) -> Settings:
    """Combine flag > environment > file > default. A flag of None is not given.

    Raises:
        ConfigError: the file cannot be read, or a value is wrong or unknown.
    """
    values = _read_file(paths.config_file)
    sources = dict.fromkeys(values, str(paths.config_file))
    for name in Settings.model_fields:
        variable = f"EXO_{name.upper()}"
        if variable in env:
            values[name], sources[name] = env[variable], variable
    for name, value in (flags or {}).items():
        if value is not None:
            values[name], sources[name] = value, f"--{name.replace('_', '-')}"
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "config"
        raise ConfigError(
            f"The setting '{name}' from {sources.get(name, 'the defaults')} is wrong: "
            f"{first['msg']}.",
            hint="docs/config.md lists the settings.",
        ) from error


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}  # What is wrong with the home, `Paths.prepare` says.
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}.", hint="Mend or remove the file."
        ) from error
