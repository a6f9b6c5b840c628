"""Which texts are computed together for their vectors: pure."""

from collections.abc import Sequence


def batches(lengths: Sequence[int], limit: int, *, rows: int) -> list[list[int]]:
    """The numbers of the texts that are computed together. Each batch is a rectangle as wide as
    its longest text; it holds at most `limit` tokens, or one text. At most `rows` are in one."""
    found: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda n: lengths[n], reverse=True):
        last = found[-1] if found else []
        width = lengths[last[0]] if last else 0
        if last and len(last) < rows and (len(last) + 1) * width <= limit:
            last.append(number)
        else:
            found.append([number])
    return found
