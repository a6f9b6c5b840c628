"""Which steps copy what is in caches, beside what they compute: pure."""

from collections.abc import Iterable

from exo.inference.steps import Close, Decode, Join, Keep, Step


class Copies:
    """Rows that join, leave or are kept have caches copied: in the step that says so, or, of a
    group that this step does not compute, in the group's next one. Such steps take longer than
    their rows do. (Taken for usual ones, 8 rows were thought to take 89 ms that take 48.) What is
    taken out after a wrong draft is part of what drafts take."""

    def __init__(self) -> None:
        self._put_off: set[int] = set()

    def in_step(self, step: Step, groups: Iterable[int]) -> bool:
        """Whether a step has copies to make; `groups` are all there are."""
        found = any(isinstance(op, Join | Keep | Close) for op in step.ops)
        # Groups that have ended are forgotten.
        self._put_off = set(groups) if found else self._put_off.intersection(groups)
        if isinstance(step.work, Decode):
            found = found or step.work.group in self._put_off
            self._put_off.discard(step.work.group)
        return found

    def clear(self) -> None:
        """Forget all groups."""
        self._put_off.clear()
