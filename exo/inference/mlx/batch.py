"""The rows of a group."""

from dataclasses import dataclass

import mlx.core as mx

from exo.inference.mlx.adapter import Cache, as_batch, extend, extract, keep_rows


@dataclass
class Batch:
    """The caches of sequences that are computed together, and the sequences by row. `sampled` are
    the tokens that the last step sampled, (B,); 0 for a row that joined after it."""

    caches: list[Cache]
    rows: list[int]
    sampled: mx.array

    def row(self, name: int) -> "Batch":
        """A copy of one row."""
        at = self.rows.index(name)
        return Batch(as_batch(extract(self.caches, at)), [name], self.sampled[at : at + 1])

    def add(self, other: "Batch") -> None:
        """Add rows behind the last one."""
        extend(self.caches, other.caches)
        self.rows += other.rows
        self.sampled = mx.concatenate([self.sampled, other.sampled])

    def remove(self, name: int) -> None:
        """Drop a row; there are others."""
        kept = [at for at, row in enumerate(self.rows) if row != name]
        keep_rows(self.caches, kept)
        self.rows = [self.rows[at] for at in kept]
        self.sampled = self.sampled[mx.array(kept)]
