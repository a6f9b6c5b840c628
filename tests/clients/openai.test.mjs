// The `openai` npm package, unchanged but for its base URL. `test_npm.py` starts the daemon
// and runs this with its address in EXO_BASE_URL.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI, { APIError, BadRequestError, NotFoundError } from "openai";

const client = new OpenAI({ baseURL: process.env.EXO_BASE_URL, apiKey: "none", maxRetries: 0 });
const MODEL = "exo-demo";
// Random weights: what is drawn differs with the seed.
const RANDOM = "tiny";
const messages = [{ role: "user", content: "How do I start exo?" }];

const ask = (fields = {}) =>
  client.chat.completions.create({ model: MODEL, messages, temperature: 0, max_tokens: 40, ...fields });
const content = (completion, index = 0) => completion.choices[index].message.content;

async function streamed(fields = {}) {
  const chunks = [];
  for await (const chunk of await ask({ ...fields, stream: true })) chunks.push(chunk);
  return chunks;
}

function joined(chunks, index = 0) {
  const choices = chunks.flatMap((chunk) => chunk.choices).filter((c) => c.index === index);
  return choices.map((choice) => choice.delta.content ?? "").join("");
}

test("models", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.includes(MODEL));
  assert.equal((await client.models.retrieve(MODEL)).id, MODEL);
});

test("chat", async () => {
  const completion = await ask();
  assert.equal(completion.object, "chat.completion");
  assert.equal(completion.choices.length, 1);
  assert.match(content(completion), /exo/);
  assert.equal(completion.choices[0].finish_reason, "stop");
  const { prompt_tokens, completion_tokens, total_tokens } = completion.usage;
  assert.equal(total_tokens, prompt_tokens + completion_tokens);
});

test("streamed chat", async () => {
  const chunks = await streamed({ stream_options: { include_usage: true } });
  assert.ok(chunks.length > 5);
  assert.equal(chunks[0].choices[0].delta.role, "assistant");
  assert.ok(chunks.every((chunk) => chunk.object === "chat.completion.chunk"));
  assert.equal(joined(chunks), content(await ask()));
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.ok(chunks.at(-1).usage.completion_tokens > 0);
  assert.ok(chunks.slice(0, -1).every((chunk) => !chunk.usage));
});

test("the client's own accumulator of streams", async () => {
  const runner = client.chat.completions.stream({ model: MODEL, messages, temperature: 0, max_tokens: 40 });
  assert.equal(await runner.finalContent(), content(await ask()));
  const { finish_reason } = (await runner.finalChatCompletion()).choices[0];
  assert.equal(finish_reason, "stop");
});

test("n=2", async () => {
  const wanted = { model: RANDOM, n: 2, temperature: 1, seed: 11 };
  const completion = await ask(wanted);
  assert.deepEqual(completion.choices.map((choice) => choice.index), [0, 1]);
  assert.notEqual(content(completion, 0), content(completion, 1));
  const chunks = await streamed(wanted);
  assert.deepEqual([0, 1].map((i) => joined(chunks, i)), [0, 1].map((i) => content(completion, i)));
});

test("logprobs", async () => {
  const completion = await ask({ logprobs: true, top_logprobs: 3, max_tokens: 8 });
  const tokens = completion.choices[0].logprobs.content;
  assert.equal(tokens.map((token) => token.token).join(""), content(completion));
  for (const { token, logprob, top_logprobs } of tokens) {
    assert.ok(logprob <= 0);
    assert.equal(top_logprobs.length, 3);
    assert.equal(top_logprobs[0].token, token);
  }
});

test("stop, also within tokens", async () => {
  const whole = content(await ask());
  for (const length of [1, 2, 5, 11]) {
    const stop = whole.slice(9, 9 + length);
    const expected = whole.slice(0, whole.indexOf(stop));
    assert.equal(content(await ask({ stop })), expected);
    assert.equal(joined(await streamed({ stop: [stop, "never said"] })), expected);
  }
});

test("seed", async () => {
  const drawn = async (seed) => content(await ask({ model: RANDOM, temperature: 1, seed }));
  const first = await drawn(7);
  assert.equal(await drawn(7), first);
  assert.notEqual(await drawn(8), first);
});

test("errors are the client's own classes", async () => {
  await assert.rejects(ask({ model: "exo-dmeo" }), (error) => {
    assert.ok(error instanceof NotFoundError);
    assert.equal(error.status, 404);
    assert.equal(error.code, "model_not_found");
    assert.equal(error.param, "model");
    assert.match(error.message, /exo-demo/);
    return true;
  });
  await assert.rejects(ask({ temperature: 3 }), (error) => {
    assert.ok(error instanceof BadRequestError);
    assert.equal(error.param, "temperature");
    assert.ok(error.requestID);
    return true;
  });
  await assert.rejects(ask({ model: "exo-dmeo", stream: true }), NotFoundError);
  await assert.rejects(ask({ max_tokens: 100_000 }), /1024/);
  await assert.rejects(client.models.retrieve("no-such-model"), NotFoundError);
  const long = [{ role: "user", content: "a".repeat(2 * 2 ** 20) }];
  await assert.rejects(ask({ messages: long }), (error) => {
    assert.ok(error instanceof APIError);
    assert.equal(error.status, 413);
    return true;
  });
});

test("a stream that is given up", async () => {
  const stream = await ask({ model: RANDOM, max_tokens: 2000, stream: true });
  for await (const chunk of stream) {
    assert.ok(chunk.id);
    break;
  }
  assert.ok(content(await ask()));
});
