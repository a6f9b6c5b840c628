from typing import Any

class QwenVisionLanguageTokenizer:
    processor: Any
    max_length: int
    def __init__(self, *, processor: Any, max_length: int, use_picture_prefix: bool) -> None: ...
