import OpenAI from "openai";

const client = new OpenAI({ baseURL: {{quote .Base "/v1"}}, apiKey: {{if .Key}}process.env.INFERD_HTTP_KEY{{else}}"unused"{{end}} });
const answer = await client.chat.completions.create({
  model: {{quote .Model}},
  messages: [{ role: "user", content: "Why is the sky blue?" }],
});
console.log(answer.choices[0].message.content);
