"""One answer in the making: from sampled tokens to text."""

from exo.inference.engine import Engine, Sampled
from exo.inference.text import StopBuffer
from exo.inference.types import Delta, FinishReason, GenerateRequest, TokenLogprob


class Answer:
    """Answer `index` of a request: its text so far, and whether it is complete."""

    def __init__(self, request: GenerateRequest, index: int, engine: Engine) -> None:
        self.request_id = request.request_id
        self.index = index
        self.tokens = 0
        self._engine = engine
        self._wants_logprobs = request.logprobs is not None
        self._detokenizer = engine.detokenizer()
        self._stop = StopBuffer(request.stop)

    def add(self, sampled: Sampled) -> Delta:
        """Take in one token; the delta's finish_reason is set when the answer is complete."""
        self.tokens += 1
        reason = sampled.finish_reason
        if reason is not FinishReason.STOP:
            self._detokenizer.add_token(sampled.token)
        if reason is not None:
            self._detokenizer.finalize()
        text = self._stop.push(self._detokenizer.last_segment)
        if self._stop.stopped:
            reason = FinishReason.STOP
        elif reason is not None:
            text += self._stop.flush()
        return Delta(
            request_id=self.request_id,
            index=self.index,
            text=text,
            token_ids=[sampled.token],
            logprobs=self._logprobs(sampled),
            finish_reason=reason,
        )

    def _logprobs(self, sampled: Sampled) -> list[TokenLogprob]:
        if not self._wants_logprobs or sampled.finish_reason is FinishReason.STOP:
            return []
        top = [self._logprob(token, value) for token, value in sampled.top]
        chosen = self._logprob(sampled.token, sampled.logprob or 0.0)
        return [chosen.model_copy(update={"top": top})]

    def _logprob(self, token: int, value: float) -> TokenLogprob:
        text, raw = self._engine.token_text(token)
        return TokenLogprob(token=text, raw=raw, logprob=value)
