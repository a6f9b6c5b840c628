"""Which steps copy what is in caches, beside what they compute: pure."""

from collections.abc import Iterable

from exo.inference.steps import Decode, Step


class Copies:
    """Rows that join, leave or are kept have caches copied: in the step that says so, or, of a
    group that this step does not compute, in the group's next one. Such steps take longer than
    their rows do. (Taken for usual ones, 8 rows were thought to take 89 ms that take 48.)"""

    def __init__(self) -> None:
        self._put_off: set[int] = set()

    def in_step(self, step: Step, groups: Iterable[int]) -> bool:
        """Whether a step has copies to make; `groups` are all there are."""
        if step.ops:
            self._put_off.update(groups)
        found = bool(step.ops)
        if isinstance(step.work, Decode):
            found = found or step.work.group in self._put_off
            self._put_off.discard(step.work.group)
        return found

    def clear(self) -> None:
        """Forget all groups."""
        self._put_off.clear()
