// The stock ollama client for JavaScript against a daemon: node ollama_client.mjs HOST. It prints the
// name of each case that holds, and ends with an error at the first that does not.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(process.argv[3] + "/");
const { Ollama } = require("ollama");
const client = new Ollama({ host: process.argv[2] });
const messages = [{ role: "user", content: "hi" }];

async function run(name, f) {
  await f();
  console.log(name);
}

const join = async (stream, of) => {
  let text = "";
  let last;
  for await (const part of stream) {
    text += of(part);
    last = part;
  }
  assert.equal(last.done, true);
  return text;
};

await run("chat", async () => {
  const answer = await client.chat({ model: "gen", messages });
  assert.deepEqual([answer.message.content, answer.done_reason, answer.eval_count], ["Hello", "stop", 2]);
  const stream = await client.chat({ model: "gen", messages, stream: true, options: { num_ctx: 99 } });
  assert.equal(await join(stream, (p) => p.message.content), "Hello");
});

await run("generate", async () => {
  assert.equal((await client.generate({ model: "gen", prompt: "hi" })).response, "Hello");
  assert.equal((await client.generate({ model: "gen", prompt: "a", suffix: "b" })).response, "Hello");
  const stream = await client.generate({ model: "gen", prompt: "hi", stream: true });
  assert.equal(await join(stream, (p) => p.response), "Hello");
});

await run("tools, thinking and format", async () => {
  const tools = [{ type: "function", function: { name: "look", description: "looks", parameters: { type: "object", properties: {} } } }];
  const answer = await client.chat({ model: "tool", messages, tools });
  assert.deepEqual(answer.message.tool_calls[0].function.arguments, {});
  const again = [...messages, answer.message, { role: "tool", tool_name: "look", content: "a cat" }];
  assert.equal((await client.chat({ model: "gen", messages: again, tools })).message.content, "Hello");
  assert.equal((await client.chat({ model: "thinks", messages, think: true })).message.thinking, "hm, so");
  assert.deepEqual(JSON.parse((await client.chat({ model: "json", messages, format: { type: "object" } })).message.content), { city: "Oslo" });
});

await run("embeddings", async () => {
  assert.deepEqual((await client.embed({ model: "vec", input: ["a", "bcd"] })).embeddings, [[0.5, 1], [0.25, 0.5]]);
  assert.deepEqual((await client.embeddings({ model: "vec", prompt: "a" })).embedding, [0.5, 1]);
});

await run("models", async () => {
  assert.ok((await client.list()).models.some((m) => m.name === "gen:latest"));
  assert.ok((await client.ps()).models.length > 0);
  assert.ok((await client.show({ model: "gen" })).capabilities.includes("completion"));
  assert.equal((await client.pull({ model: "gen" })).status, "success");
});

await run("errors", async () => {
  await assert.rejects(client.chat({ model: "llama3", messages }), (e) => e.status_code === 404 && /not found/.test(e.message));
  await assert.rejects(client.chat({ model: "down", messages, stream: true }), (e) => e.status_code === 503);
  const stream = await client.chat({ model: "drop", messages, stream: true });
  let text = "";
  await assert.rejects(async () => {
    for await (const part of stream) text += part.message.content;
  }, /terminal/);
  assert.equal(text, "ab");
});

await run("an abort frees the slot", async () => {
  const stream = await client.chat({ model: "slow", messages, stream: true });
  for await (const part of stream) {
    assert.equal(part.message.content, "a");
    break;
  }
  stream.abort();
  const again = await client.generate({ model: "slow", prompt: "hi", stream: true });
  const limit = setTimeout(() => again.abort(), 300000);
  for await (const part of again) {
    assert.equal(part.response, "a");
    break;
  }
  clearTimeout(limit);
  again.abort();
});
