"""What splitters tell, as tests compare it."""

from exo.inference.speech.speech import Called, Piece, Said, Speech, Thought
from exo.inference.speech.splitters import open_splitter


def told(speech: Speech, *texts: str) -> list[Piece]:
    """What is told of a text, with pieces of a kind joined."""
    splitter = open_splitter(speech)
    pieces = [piece for text in texts for piece in splitter.push(text)]
    joined: list[Piece] = []
    for piece in [*pieces, *splitter.finish()]:
        last = joined[-1] if joined else None
        match last, piece:
            case (Said(), Said()) | (Thought(), Thought()):
                joined[-1] = type(last)(last.text + piece.text)
            case (Called(index, arguments, name), Called(same, more, None)) if index == same:
                joined[-1] = Called(index, arguments + more, name)
            case _:
                joined.append(piece)
    return joined
