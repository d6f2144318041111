// The stock JavaScript client of Anthropic against a daemon: node anthropic_client.mjs URL MODULES. It
// prints the name of each case that holds, and ends with an error at the first that does not.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

const [baseURL, modules] = process.argv.slice(2);
const Anthropic = createRequire(modules + "/")("@anthropic-ai/sdk").default;
const client = new Anthropic({ baseURL, apiKey: "unused", maxRetries: 0 });
const messages = [{ role: "user", content: "hi" }];
const tools = [{ name: "look", input_schema: { type: "object", properties: {} } }];
const ask = (more) => ({ model: "gen", max_tokens: 9, messages, ...more });

const cases = {
  async text() {
    const answer = await client.messages.create(ask());
    assert.deepEqual([answer.content[0].text, answer.stop_reason, answer.usage.input_tokens, answer.usage.output_tokens], ["Hello", "end_turn", 7, 2]);
  },
  async stream() {
    const stream = client.messages.stream(ask());
    let said = "";
    stream.on("text", (text) => (said += text));
    const final = await stream.finalMessage();
    assert.deepEqual([said, final.content[0].text, final.usage.input_tokens, final.usage.output_tokens], ["Hello", "Hello", 7, 2]);
  },
  async toolRoundTrip() {
    const answer = await client.messages.stream(ask({ model: "tool", tools })).finalMessage();
    const [use] = answer.content;
    assert.deepEqual([answer.stop_reason, use.id, use.name, use.input], ["tool_use", "mock-call-1", "look", {}]);
    const result = { type: "tool_result", tool_use_id: use.id, content: "a cat" };
    const again = [...messages, { role: "assistant", content: answer.content }, { role: "user", content: [result] }];
    assert.equal((await client.messages.create(ask({ messages: again, tools }))).content[0].text, "Hello");
  },
  async thinking() {
    const answer = await client.messages.stream(ask({ model: "thinks", thinking: { type: "adaptive" } })).finalMessage();
    assert.deepEqual(answer.content.map((b) => b.thinking ?? b.text), ["hm, so", "Hello"]);
    assert.ok(answer.content[0].signature);
    const again = [...messages, { role: "assistant", content: answer.content }, { role: "user", content: "go on" }];
    assert.equal((await client.messages.create(ask({ messages: again }))).content[0].text, "Hello");
  },
  async structuredOutput() {
    const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
    const answer = await client.messages.create(ask({ model: "json", output_config: { format: { type: "json_schema", schema } } }));
    assert.deepEqual(JSON.parse(answer.content[0].text), { city: "Oslo" });
  },
  async countTokens() {
    assert.equal((await client.messages.countTokens({ model: "gen", messages, tools })).input_tokens, 7);
  },
  async models() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    assert.ok(names.includes("gen"));
  },
  async errors() {
    await assert.rejects(client.messages.create(ask({ model: "claude-9" })), Anthropic.NotFoundError);
    await assert.rejects(client.messages.create(ask({ messages: [] })), Anthropic.BadRequestError);
    await assert.rejects(client.messages.create(ask({ model: "down", stream: true })), (e) => e.status === 529 && e.error.error.type === "overloaded_error");
  },
  async errorInTheMiddle() {
    await assert.rejects(client.messages.stream(ask({ model: "drop" })).finalMessage(), Anthropic.APIError);
  },
  async keepAlive() {
    assert.equal((await client.messages.stream(ask({ model: "slow-start" })).finalMessage()).content[0].text, "a");
  },
  async abortFreesTheSlot() {
    for (let i = 0; i < 3; i++) {
      const stream = await client.messages.create(ask({ model: "slow", max_tokens: 1000, stream: true }), { signal: AbortSignal.timeout(300000) });
      for await (const event of stream) if (event.type === "content_block_delta") break;
      stream.controller.abort();
      await sleep(50);
    }
  },
};

for (const [name, run] of Object.entries(cases)) {
  await run();
  console.log(name);
}
