// The stock JavaScript client of OpenAI against a daemon: node openai_client.mjs BASE_URL MODULES. It
// prints the name of each case that holds, and ends with an error at the first that does not.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

const [baseURL, modules] = process.argv.slice(2);
const OpenAI = createRequire(modules + "/")("openai").default;
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const messages = [{ role: "user", content: "hi" }];
const parameters = { type: "object", properties: {} };

const cases = {
  async chat() {
    const answer = await client.chat.completions.create({ model: "gen", messages });
    assert.equal(answer.choices[0].message.content, "Hello");
    assert.equal(answer.choices[0].finish_reason, "stop");
    assert.equal(answer.usage.total_tokens, 9);
  },
  async chatStream() {
    const stream = client.chat.completions.stream({ model: "gen", messages, stream_options: { include_usage: true } });
    const final = await stream.finalChatCompletion();
    assert.equal(final.choices[0].message.content, "Hello");
    assert.equal((await stream.totalUsage()).total_tokens, 9);
  },
  async chatTool() {
    const tools = [{ type: "function", function: { name: "look", parameters } }];
    const answer = await client.chat.completions.stream({ model: "tool", messages, tools }).finalChatCompletion();
    const [call] = answer.choices[0].message.tool_calls;
    assert.deepEqual([call.id, call.function.name, call.function.arguments], ["mock-call-1", "look", "{}"]);
    const again = [...messages, answer.choices[0].message, { role: "tool", tool_call_id: call.id, content: "a cat" }];
    assert.equal((await client.chat.completions.create({ model: "gen", messages: again, tools })).choices[0].message.content, "Hello");
  },
  async embeddings() {
    const answer = await client.embeddings.create({ model: "vec", input: ["a", "bcd"] }); // it asks for base64
    assert.deepEqual(answer.data[0].embedding, [0.5, 1]);
    const floats = await client.embeddings.create({ model: "vec", input: ["a", "bcd"], encoding_format: "float" });
    assert.deepEqual(floats.data[0].embedding, [0.5, 1]);
  },
  async response() {
    const answer = await client.responses.create({ model: "gen", input: "hi", instructions: "be brief" });
    assert.equal(answer.output_text, "Hello");
    assert.equal(answer.status, "completed");
    assert.equal(answer.usage.total_tokens, 9);
  },
  async responseStream() {
    const events = [];
    for await (const event of await client.responses.create({ model: "gen", input: "hi", stream: true })) events.push(event);
    assert.deepEqual(events.map((e) => e.sequence_number), events.map((_, i) => i));
    assert.equal(events.filter((e) => e.type === "response.output_text.delta").map((e) => e.delta).join(""), "Hello");
    assert.equal((await client.responses.stream({ model: "gen", input: "hi" }).finalResponse()).output_text, "Hello");
  },
  async responseTool() {
    const tools = [{ type: "function", name: "look", parameters, strict: false }, { type: "custom", name: "patch" }, { type: "web_search" }];
    const answer = await client.responses.stream({ model: "tool", input: "hi", tools }).finalResponse();
    const [call] = answer.output;
    assert.deepEqual([call.type, call.call_id, call.name, call.arguments], ["function_call", "mock-call-1", "look", "{}"]);
    const input = [...messages, ...answer.output, { type: "function_call_output", call_id: call.call_id, output: "a cat" }];
    assert.equal((await client.responses.create({ model: "gen", input, tools })).output_text, "Hello");
    const [custom] = (await client.responses.create({ model: "custom", input: "hi", tools })).output;
    assert.deepEqual([custom.type, custom.name], ["custom_tool_call", "patch"]);
  },
  async responseReasoning() {
    const answer = await client.responses.stream({ model: "thinks", input: "hi", reasoning: { effort: "high", summary: "auto" } }).finalResponse();
    assert.equal(answer.output[0].summary[0].text, "hm, so");
    assert.equal(answer.output_text, "Hello");
  },
  async structuredOutput() {
    const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
    const answer = await client.responses.parse({ model: "json", input: "hi", text: { format: { type: "json_schema", name: "place", schema } } });
    assert.deepEqual(JSON.parse(answer.output_text), { city: "Oslo" });
  },
  async errors() {
    await assert.rejects(client.responses.create({ model: "gpt-9", input: "hi" }), (e) => e.status === 404 && e.code === "model_not_found");
    await assert.rejects(client.responses.create({ model: "gen", input: "hi", previous_response_id: "x" }), (e) => e.status === 400 && e.param === "previous_response_id");
    await assert.rejects(client.chat.completions.create({ model: "down", messages, stream: true }), (e) => e.status === 503);
  },
  async errorInTheMiddle() {
    await assert.rejects(async () => {
      for await (const _ of await client.chat.completions.create({ model: "drop", messages, stream: true }));
    }, OpenAI.APIError);
    const events = [];
    for await (const event of await client.responses.create({ model: "drop", input: "hi", stream: true })) events.push(event);
    assert.equal(events.at(-1).type, "response.failed");
  },
  async abortFreesTheSlot() {
    for (let i = 0; i < 3; i++) {
      const stream = await client.responses.create({ model: "slow", input: "hi", stream: true }, { signal: AbortSignal.timeout(300000) });
      for await (const event of stream) if (event.type === "response.output_text.delta") break;
      stream.controller.abort();
      await sleep(50);
    }
  },
};

for (const [name, run] of Object.entries(cases)) {
  await run();
  console.log(name);
}
