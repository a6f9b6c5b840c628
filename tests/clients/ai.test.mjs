// Vercel's AI SDK, with exo as an OpenAI-compatible provider.

import assert from "node:assert/strict";
import { test } from "node:test";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const exo = createOpenAICompatible({
  name: "exo",
  baseURL: process.env.EXO_BASE_URL,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const common = { model: exo("exo-demo"), temperature: 0, maxOutputTokens: 60, maxRetries: 0 };
const ask = "What is the weather in Paris?";

function weather(asked) {
  return tool({
    description: "Returns the weather in a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      asked.push(city);
      return "sunny, 21 degrees";
    },
  });
}

test("text, whole and streamed, is the same", async () => {
  const whole = await generateText({ ...common, prompt: "Hello" });
  assert.ok(whole.text);
  assert.ok(whole.usage.outputTokens > 0);
  const stream = streamText({ ...common, prompt: "Hello" });
  const pieces = [];
  for await (const piece of stream.textStream) pieces.push(piece);
  assert.ok(pieces.length > 1);
  assert.equal(pieces.join(""), whole.text);
  assert.equal((await stream.usage).outputTokens, whole.usage.outputTokens);
});

test("a loop of tools", async () => {
  const asked = [];
  const result = await generateText({
    ...common,
    prompt: ask,
    tools: { get_weather: weather(asked) },
    stopWhen: stepCountIs(3),
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber ? "auto" : "required" }),
  });
  assert.equal(asked.length, 1);
  assert.equal(result.steps.length, 2);
  assert.equal(result.steps[0].finishReason, "tool-calls");
  assert.ok(result.text);
});

test("a call that is streamed", async () => {
  const asked = [];
  const stream = streamText({
    ...common,
    prompt: ask,
    tools: { get_weather: weather(asked) },
    toolChoice: { type: "tool", toolName: "get_weather" },
  });
  const kinds = new Set();
  for await (const part of stream.fullStream) kinds.add(part.type);
  assert.equal(asked.length, 1);
  for (const kind of ["tool-input-start", "tool-input-delta", "tool-call", "tool-result"]) {
    assert.ok(kinds.has(kind), kind);
  }
});

test("an answer of a form", async () => {
  const schema = z.object({ city: z.enum(["Paris", "Rome"]), sunny: z.boolean() });
  const output = Output.object({ schema });
  const whole = await generateText({ ...common, prompt: ask, output });
  assert.ok(schema.safeParse(whole.output).success);
  const stream = streamText({ ...common, prompt: ask, output });
  let last;
  for await (const part of stream.partialOutputStream) last = part;
  assert.deepEqual(last, whole.output);
});

test("an error is the SDK's own, with what exo says", async () => {
  const asking = generateText({ ...common, temperature: 9, prompt: "Hello" });
  await assert.rejects(asking, (error) => {
    assert.ok(APICallError.isInstance(error));
    assert.equal(error.statusCode, 400);
    return error.message.includes("temperature");
  });
});
