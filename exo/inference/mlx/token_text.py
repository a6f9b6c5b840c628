"""A single token as text and as bytes, for logprobs."""

from transformers.convert_slow_tokenizer import bytes_to_unicode

from exo.inference.mlx.adapter import TokenizerWrapper


class TokenText:
    """Maps a token to the text it shows and to its bytes, which may be part of a character."""

    def __init__(self, tokenizer: TokenizerWrapper) -> None:
        self._tokenizer = tokenizer
        self._bytes = {character: byte for byte, character in bytes_to_unicode().items()}

    def __call__(self, token: int) -> tuple[str, bytes]:
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if piece.startswith("<0x") and piece.endswith(">") and len(piece) == 6:
            raw = bytes([int(piece[3:5], 16)])  # A byte of a SentencePiece vocabulary.
        elif "▁" in piece:
            raw = piece.replace("▁", " ").encode()
        elif all(character in self._bytes for character in piece):
            raw = bytes(self._bytes[character] for character in piece)
        else:
            raw = self._tokenizer.decode([token]).encode()
        return raw.decode(errors="replace"), raw
