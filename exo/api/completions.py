"""`/v1/completions`, `/tokenize` and `/detokenize`."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from aiohttp import web

from exo import __version__
from exo.api.access import Access
from exo.api.answers import Collected
from exo.api.chat_adapter import to_messages
from exo.api.chat_format import structured
from exo.api.chat_views import UsageView
from exo.api.completion_schema import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
    DetokenizeRequest,
    DetokenizeView,
    TokenizeRequest,
    TokenizeView,
)
from exo.api.context import Context, context_of
from exo.api.dry import dry
from exo.api.merging import Numbered, merged
from exo.api.routes import Route, json_response, read_body
from exo.api.sampling import sampling_of, stops_of
from exo.api.sse import EventStream
from exo.cluster.state import Instance
from exo.errors import RequestError
from exo.inference.ids import new_id
from exo.inference.messages import Finished
from exo.inference.types import Delta, GenerateRequest, Stats, TokenLogprob, ToolUse
from exo.models.card import ModelCard, Task

# OpenAI's default, for this endpoint only.
_MAX_TOKENS = 16


class _Completion:
    """One request on its way through the API. Answers are numbered prompt by prompt."""

    def __init__(self, body: CompletionRequest, model: str, echoes: Sequence[str]) -> None:
        self.id = new_id("cmpl")
        self._created = int(time.time())
        self._model = model
        self._n = body.n or 1
        self._echoes = echoes
        self._lengths = [0] * (self._n * len(body.prompts))
        self._wants_logprobs = body.logprobs is not None
        self.wants_usage = body.stream_options is not None and body.stream_options.include_usage

    def number(self, prompt: int, index: int) -> int:
        return prompt * self._n + index

    def event(self, choices: list[CompletionChoice], usage: UsageView | None = None) -> Completion:
        return Completion(
            id=self.id,
            created=self._created,
            model=self._model,
            system_fingerprint=f"exo-{__version__}",
            choices=choices,
            usage=usage,
        )

    def begins(self) -> list[CompletionChoice]:
        """The prompts, where they are to be told as well."""
        return [
            CompletionChoice(index=n, text=text, logprobs=None, finish_reason=None)
            for n in range(len(self._lengths))
            if (text := self._echo(n))
        ]

    def _echo(self, number: int) -> str:
        return self._echoes[number // self._n] if self._echoes else ""

    def choice(self, prompt: int, delta: Delta) -> CompletionChoice:
        """What is new of an answer."""
        number = self.number(prompt, delta.index)
        return CompletionChoice(
            index=number,
            text=delta.text,
            logprobs=self._logprobs(number, delta.logprobs),
            finish_reason=delta.finish_reason,
        )

    def whole(self, answers: Sequence[Collected], usage: UsageView) -> Completion:
        choices = [
            CompletionChoice(
                index=number,
                text=self._echo(number) + answer.text,
                logprobs=self._logprobs(number, answer.logprobs),
                finish_reason=answer.finish_reason,
            )
            for number, answer in enumerate(answers)
        ]
        return self.event(choices, usage)

    def _logprobs(self, number: int, found: Sequence[TokenLogprob]) -> CompletionLogprobs | None:
        if not self._wants_logprobs:
            return None
        offsets: list[int] = []
        for token in found:
            offsets.append(self._lengths[number])
            self._lengths[number] += len(token.token)
        return CompletionLogprobs(
            tokens=[token.token for token in found],
            text_offset=offsets,
            token_logprobs=[token.logprob for token in found],
            top_logprobs=[
                {each.token: each.logprob for each in (token, *token.top)} for token in found
            ],
        )


async def create(request: web.Request) -> web.StreamResponse:
    context = context_of(request)
    body = await read_body(request, CompletionRequest)
    stops_of(body.stop)
    if body.structured_outputs is not None:
        structured(body.structured_outputs)
    stream = EventStream(request) if body.stream else None
    instance = await context.begin(body.model, stream=stream)
    prompts = body.prompts
    check_tokens(prompts, instance.card)
    echoes = [await _text_of(context, instance, each) for each in prompts] if body.echo else []
    completion = _Completion(body, instance.card.model_id, echoes)
    asked = [_generate(body, instance.card, prompt) for prompt in prompts]
    outputs = merged([context.generate(instance, each) for each in asked])
    async with aclosing(outputs):
        for _ in asked:
            await anext(outputs)  # Accepted; or a refusal, which still can be an HTTP status.
        if stream is not None:
            return await _stream(stream, completion, outputs)
        answers = [Collected() for _ in range(len(prompts) * (body.n or 1))]
        stats: list[Stats] = []
        async for number, output in outputs:
            if isinstance(output, Delta):
                answers[completion.number(number, output.index)].add(output)
            elif isinstance(output, Finished):
                stats.append(output.stats)
    return json_response(completion.whole(answers, UsageView.of_all(stats)))


def _generate(body: CompletionRequest, card: ModelCard, prompt: str | list[int]) -> GenerateRequest:
    return GenerateRequest(
        request_id=new_id("cmpl"),
        prompt=prompt,
        sampling=sampling_of(body, card),
        max_tokens=body.max_tokens or _MAX_TOKENS,
        stop=stops_of(body.stop),
        n=body.n or 1,
        logprobs=body.logprobs,
        use_prefix_cache=body.use_prefix_cache,
        format=structured(body.structured_outputs) if body.structured_outputs else None,
    )


def check_tokens(
    prompts: Sequence[str | list[int]], card: ModelCard, param: str = "prompt"
) -> None:
    """Raises:
    RequestError: one has a token that the model does not have.
    """
    for prompt in prompts:
        if not isinstance(prompt, str) and max(prompt, default=0) >= card.vocab_size:
            raise RequestError(
                f"{max(prompt)} is no token of {card.model_id}: those are the numbers from 0 to "
                f"{card.vocab_size - 1}.",
                param=param,
            )


async def _stream(
    stream: EventStream, completion: _Completion, outputs: AsyncIterator[Numbered]
) -> web.StreamResponse:
    await stream.open()
    stats: list[Stats] = []

    async def send(numbered: Numbered) -> None:
        prompt, output = numbered
        if isinstance(output, Delta) and (output.text or output.finish_reason or output.logprobs):
            await tell(completion.event([completion.choice(prompt, output)]))
        elif isinstance(output, Finished):
            stats.append(output.stats)

    async def tell(event: Completion) -> None:
        data = event.model_dump(mode="json")
        if not completion.wants_usage:
            del data["usage"]
        await stream.send(data)

    for choice in completion.begins():
        await tell(completion.event([choice]))
    if await stream.forward(outputs, send):
        if completion.wants_usage:
            await tell(completion.event([], UsageView.of_all(stats)))
        await stream.done()
    return stream.response


# Tokens.


async def tokenize(request: web.Request) -> web.Response:
    context = context_of(request)
    body = await read_body(request, TokenizeRequest)
    # Messages are for a chat template, which what makes vectors has none of.
    task = Task.EMBEDDING if body.messages is None else Task.TEXT
    instance = await context.begin(body.model, task)
    tools = [tool.model_dump(exclude_none=True) for tool in body.tools or ()]
    messages = body.messages or []
    asked = GenerateRequest(
        request_id=new_id("tok"),
        messages=to_messages(messages),
        prompt=body.prompt,
        special=body.add_special_tokens,
        tool_use=ToolUse(tools=tools) if tools else None,
        template=body.chat_template_kwargs or {},
        continues=bool(messages)
        and messages[-1].role == "assistant"
        and body.continue_final_message is not False,
        dry=True,
    )
    found = await dry(context, instance, asked)
    return json_response(
        TokenizeView(
            count=found.prompt_tokens,
            max_model_len=instance.card.context_length,
            tokens=found.prompt,
        )
    )


async def detokenize(request: web.Request) -> web.Response:
    context = context_of(request)
    body = await read_body(request, DetokenizeRequest)
    instance = await context.begin(body.model, Task.EMBEDDING)
    check_tokens([body.tokens], instance.card, "tokens")
    return json_response(DetokenizeView(prompt=await _text_of(context, instance, body.tokens)))


async def _text_of(context: Context, instance: Instance, prompt: str | list[int]) -> str:
    if isinstance(prompt, str):
        return prompt
    asked = GenerateRequest(request_id=new_id("tok"), prompt=prompt, dry=True)
    return (await dry(context, instance, asked)).text


_ERRORS = (400, 404, 429, 500, 503, 507)
ROUTES = [
    Route("POST", "/v1/completions", create, "Go on with a text", Completion, "chat",
          body=CompletionRequest, streams=Completion, errors=_ERRORS, access=Access.INFERENCE),
    Route("POST", "/tokenize", tokenize, "A text or messages as a model's tokens", TokenizeView,
          "chat", body=TokenizeRequest, errors=_ERRORS, access=Access.INFERENCE),
    Route("POST", "/detokenize", detokenize, "Tokens as text", DetokenizeView, "chat",
          body=DetokenizeRequest, errors=_ERRORS, access=Access.INFERENCE),
]  # fmt: skip
