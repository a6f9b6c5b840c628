"""Joining a cluster by a token, before the daemon starts."""

from pathlib import Path

from exo.errors import ConfigError, RequestError
from exo.p2p.secret_file import ClusterSecret, SecretFile
from exo.p2p.tokens import decode_token


def join(path: Path, token: str) -> ClusterSecret:
    """Keep what a join token says in the file at `path`, for this start and those to come.

    Raises:
        ConfigError: it is mistyped.
        HomeError: the file cannot be written.
    """
    try:
        read = decode_token(token.strip())
    except RequestError as error:
        raise ConfigError(error.message, hint=error.hint) from error
    kept = ClusterSecret(name=read.cluster, secret=read.secret, addresses=read.addresses)
    SecretFile(path).save(kept)
    return kept
