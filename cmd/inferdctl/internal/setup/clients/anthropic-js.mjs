import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: {{quote .Base}}, apiKey: {{if .Key}}process.env.INFERD_HTTP_KEY{{else}}"unused"{{end}} });
const answer = await client.messages.create({
  model: {{quote .Model}},
  max_tokens: 1024,
  messages: [{ role: "user", content: "Why is the sky blue?" }],
});
console.log(answer.content[0].text);
