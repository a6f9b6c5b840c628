"""A master's reign."""

from pydantic import BaseModel, ConfigDict


class Term(BaseModel):
    """Ordered by number, then by the master's id, so that the two halves of a partition never
    share one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    master_id: str

    def __lt__(self, other: "Term") -> bool:
        return self._key() < other._key()

    def __le__(self, other: "Term") -> bool:
        return self._key() <= other._key()

    def _key(self) -> tuple[int, str]:
        return self.number, self.master_id
