"""Which sequences are rows of one micro-batch: pure."""

from collections.abc import Collection, Iterator


class RowGroups:
    """Groups of sequences, by number. A group has rows, or it is none."""

    def __init__(self) -> None:
        self._rows: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __getitem__(self, group: int) -> tuple[int, ...]:
        """The sequences of a group, in the order of its rows; none if there is no such group."""
        return tuple(self._rows.get(group, ()))

    @property
    def sizes(self) -> list[int]:
        """How many rows each group has."""
        return [len(rows) for rows in self._rows.values()]

    def add(self, name: int, group: int) -> None:
        """Make a sequence the last row of a group."""
        self._rows.setdefault(group, []).append(name)

    def remove(self, name: int) -> int | None:
        """Take a sequence out of its group, and tell which it was."""
        for group, rows in self._rows.items():
            if name in rows:
                rows.remove(name)
                if not rows:
                    del self._rows[group]
                return group
        return None

    def clear(self) -> None:
        self._rows.clear()

    def smallest(self, wanted: int) -> int:
        """The group that a new row belongs to, where so many groups are wanted."""
        if len(self) < wanted:
            return next(group for group in range(wanted) if group not in self._rows)
        return self._ordered()[0]

    def move(self, wanted: int, busy: Collection[int]) -> tuple[int, int] | None:
        """The next row that changes its group on the way to so many groups of equal size, and to
        which it goes: the smallest group is given up while there are too many, else the largest
        gives a row away. None while rows of that group are being computed."""
        ordered = self._ordered()
        source = ordered[0] if len(self) > wanted else ordered[-1]
        if source in busy:
            return None
        # A group that gives its rows away is no place for them.
        target = ordered[1] if len(self) > wanted else self.smallest(wanted)
        name = self._rows[source][-1]
        self.remove(name)
        self.add(name, target)
        return name, target

    def _ordered(self) -> list[int]:
        """The groups, from the fewest rows to the most."""
        return sorted(self._rows, key=lambda group: len(self._rows[group]))
