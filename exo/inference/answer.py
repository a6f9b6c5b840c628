"""One answer in the making: from sampled tokens to text, thoughts and calls."""

from collections.abc import Sequence

from exo.inference.engine import Engine, Sampled
from exo.inference.speech.speech import PLAIN, Piece, Said, Speech, State, Thought
from exo.inference.speech.splitters import open_splitter
from exo.inference.text import StopBuffer
from exo.inference.types import Delta, FinishReason, GenerateRequest, TokenLogprob, ToolCall


class Answer:
    """Answer `index` of a request: its text so far, and whether it is complete. Stop strings are
    looked for in what is said, not in thoughts or calls."""

    def __init__(
        self, request: GenerateRequest, index: int, engine: Engine, speech: Speech = PLAIN
    ) -> None:
        self.request_id = request.request_id
        self.index = index
        self.tokens = 0
        self.reasoning_tokens = 0
        self._engine = engine
        self._wants_logprobs = request.logprobs is not None
        self._detokenizer = engine.detokenizer()
        self._splitter = open_splitter(speech)
        self._stop = StopBuffer(request.stop)

    def add(self, sampled: Sampled) -> Delta:
        """Take in one token; the delta's finish_reason is set when the answer is complete."""
        self.tokens += 1
        self.reasoning_tokens += self._splitter.state is State.THINKING
        says = self._splitter.state is State.SAYING
        reason = sampled.finish_reason
        if reason is not FinishReason.STOP:
            self._detokenizer.add_token(sampled.token)
        if reason is not None:
            self._detokenizer.finalize()
        pieces = self._splitter.push(self._detokenizer.last_segment)
        if reason is not None:
            pieces += self._splitter.finish()
        text = "".join(self._stop.push(piece.text) for piece in pieces if isinstance(piece, Said))
        if self._stop.stopped:
            reason = FinishReason.STOP
        elif reason is not None or self._splitter.complete:
            reason = reason or FinishReason.STOP
            text += self._stop.flush()
        says = says or self._splitter.state is State.SAYING
        return Delta(
            request_id=self.request_id,
            index=self.index,
            text=text,
            reasoning="".join(piece.text for piece in pieces if isinstance(piece, Thought)),
            calls=_calls(pieces),
            token_ids=[sampled.token],
            logprobs=self._logprobs(sampled) if says else [],
            finish_reason=self._reason(reason),
            stop=self._stop.stop,
        )

    def _reason(self, reason: FinishReason | None) -> FinishReason | None:
        called = self._splitter.calls and reason is FinishReason.STOP and not self._stop.stopped
        return FinishReason.TOOL_CALLS if called else reason

    def _logprobs(self, sampled: Sampled) -> list[TokenLogprob]:
        if not self._wants_logprobs or sampled.finish_reason is FinishReason.STOP:
            return []
        top = [self._logprob(token, value) for token, value in sampled.top]
        chosen = self._logprob(sampled.token, sampled.logprob or 0.0)
        return [chosen.model_copy(update={"top": top})]

    def _logprob(self, token: int, value: float) -> TokenLogprob:
        text, raw = self._engine.token_text(token)
        return TokenLogprob(token=text, raw=raw, logprob=value)


def _calls(pieces: Sequence[Piece]) -> list[ToolCall]:
    return [
        ToolCall(index=piece.index, name=piece.name, arguments=piece.arguments)
        for piece in pieces
        if not isinstance(piece, Said | Thought)
    ]
