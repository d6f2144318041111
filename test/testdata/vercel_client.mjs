// Vercel's ai against a daemon, through its providers for OpenAI (chats and Responses), for interfaces
// like OpenAI's, and for Anthropic: node vercel_client.mjs BASE_URL MODULES. It prints the name of
// each case that holds, and ends with an error at the first that does not.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [baseURL, modules] = process.argv.slice(2);
const require = createRequire(modules + "/");
const { APICallError, embedMany, generateText, jsonSchema, Output, stepCountIs, streamText, tool } = require("ai");
const openai = require("@ai-sdk/openai").createOpenAI({ baseURL, apiKey: "unused" });
const compatible = require("@ai-sdk/openai-compatible").createOpenAICompatible({ name: "inferd", baseURL, includeUsage: true, supportsStructuredOutputs: true });
const anthropic = require("@ai-sdk/anthropic").createAnthropic({ baseURL, apiKey: "unused" });
const providers = {
  chat: (name) => openai.chat(name),
  responses: (name) => openai.responses(name),
  compatible: (name) => compatible(name),
  anthropic: (name) => anthropic(name),
};
const base = (kind, model = "gen") => ({ model: providers[kind](model), prompt: "hi", maxRetries: 0 });

async function each(f) {
  for (const kind of Object.keys(providers)) {
    try {
      await f(kind);
    } catch (e) {
      throw new Error(kind, { cause: e });
    }
  }
}

async function said(stream) {
  let text = "";
  for await (const part of stream) {
    if (part.type === "error") throw part.error;
    if (part.type === "text-delta") text += part.text;
  }
  return text;
}

const look = (seen) =>
  tool({
    description: "looks",
    inputSchema: jsonSchema({ type: "object", properties: { place: { type: "string" } }, required: ["place"], additionalProperties: false }),
    execute: async ({ place }) => (seen.push(place), "a cat"),
  });

const cases = {
  async text() {
    await each(async (kind) => {
      const answer = await generateText(base(kind));
      assert.deepEqual([answer.text, answer.finishReason], ["Hello", "stop"]);
    });
  },
  async stream() {
    await each(async (kind) => assert.equal(await said(streamText(base(kind)).fullStream), "Hello"));
  },
  async usage() {
    await each(async (kind) => {
      const stream = streamText(base(kind));
      await said(stream.fullStream);
      for (const used of [(await generateText(base(kind))).usage, await stream.usage]) {
        assert.deepEqual([used.inputTokens, used.outputTokens], [7, 2]);
      }
    });
  },
  async keepAlive() {
    await Promise.all(Object.keys(providers).map(async (kind) => assert.equal(await said(streamText(base(kind, "slow-start")).fullStream), "a", kind)));
  },
  async toolRoundTrip() {
    await each(async (kind) => {
      const seen = [];
      const more = { tools: { look: look(seen) }, stopWhen: stepCountIs(5) };
      assert.equal((await generateText({ ...base(kind, "loop"), ...more })).text, "a cat");
      assert.equal(await said(streamText({ ...base(kind, "loop"), ...more }).fullStream), "a cat");
      assert.deepEqual(seen, ["Oslo", "Oslo"]);
    });
  },
  async structuredOutput() {
    const schema = jsonSchema({ type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false });
    await each(async (kind) => {
      const answer = await generateText({ ...base(kind, "json"), output: Output.object({ schema }) });
      assert.deepEqual(answer.output, { city: "Oslo" });
    });
  },
  async embeddings() {
    for (const model of [openai.embedding("vec"), compatible.embeddingModel("vec")]) {
      assert.deepEqual((await embedMany({ model, values: ["a", "bcd"], maxRetries: 0 })).embeddings, [[0.5, 1], [0.25, 0.5]]);
    }
  },
  async errors() {
    await each(async (kind) => {
      await assert.rejects(generateText(base(kind, "gpt-9")), (e) => APICallError.isInstance(e) && e.statusCode === 404 && /gpt-9/.test(e.message));
      const status = kind === "anthropic" ? 529 : 503;
      await assert.rejects(generateText(base(kind, "down")), (e) => e.statusCode === status && e.isRetryable);
      await assert.rejects(said(streamText({ ...base(kind, "down"), onError() {} }).fullStream), (e) => e.statusCode === status);
    });
  },
  async errorInTheMiddle() {
    await each(async (kind) => {
      const model = kind === "anthropic" ? "drop-too" : "drop"; // an entry that fails three times rests
      let text = "";
      const failed = [];
      for await (const part of streamText({ ...base(kind, model), onError() {} }).fullStream) {
        if (part.type === "error") failed.push(part.error);
        if (part.type === "text-delta") text += part.text;
        if (part.type === "finish") assert.equal(part.finishReason, "error");
      }
      assert.equal(text, "ab");
      assert.ok(failed.length > 0 && /terminal/.test(JSON.stringify(failed) + failed[0].message), JSON.stringify(failed));
    });
  },
  async abortFreesTheSlot() {
    await each(async (kind) => {
      for (let i = 0; i < 2; i++) {
        const gone = new AbortController();
        const limit = setTimeout(() => gone.abort(new Error("the slot is not free")), 300000);
        for await (const part of streamText({ ...base(kind, "slow"), abortSignal: gone.signal }).fullStream) {
          if (part.type === "abort" || part.type === "error") assert.fail(part.type);
          if (part.type === "text-delta") break;
        }
        clearTimeout(limit);
        gone.abort();
      }
      await assert.rejects(generateText({ ...base(kind, "slow"), abortSignal: AbortSignal.timeout(500) }), (e) => e.name === "TimeoutError");
    });
  },
};

for (const [name, run] of Object.entries(cases)) {
  await run();
  console.log(name);
}
