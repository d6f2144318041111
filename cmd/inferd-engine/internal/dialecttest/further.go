package dialecttest

// further are short templates in the notations of the families that have no template in templates.
var further = map[string]string{
	"deepseek-r1": `{{ bos_token }}{% for t in tools %}{{ t | tojson }}{{ '\n' }}{% endfor %}{% for m in messages %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% elif m.role == 'tool' %}<｜tool▁output▁begin｜>{{ m.content }}<｜tool▁output▁end｜>` +
		`{% elif m.role == 'assistant' %}<｜Assistant｜>{{ m.content }}{% for c in m.tool_calls %}{{ '<｜tool▁calls▁begin｜>' if loop.first else '\n' }}<｜tool▁call▁begin｜>function<｜tool▁sep｜>{{ c.function.name }}` + "\n```json\n" +
		`{{ c.function.arguments | tojson }}` + "\n```" + `<｜tool▁call▁end｜>{% if loop.last %}<｜tool▁calls▁end｜>{% endif %}{% endfor %}<｜end▁of▁sentence｜>{% else %}{{ m.content }}{% endif %}{% endfor %}` +
		`{% if add_generation_prompt %}<｜Assistant｜><think>{{ '\n' }}{% endif %}`,
	"deepseek-v3.2": `{{ bos_token }}{% for t in tools %}{{ t | tojson }}{{ '\n' }}{% endfor %}{% for m in messages %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% elif m.role == 'tool' %}<function_results>{{ m.content }}</function_results>` +
		`{% elif m.role == 'assistant' %}<｜Assistant｜>{% if m.reasoning_content %}<think>{{ m.reasoning_content }}{% endif %}</think>{{ m.content }}{% if m.tool_calls %}{{ '\n\n' }}<｜DSML｜function_calls>{{ '\n' }}{% for c in m.tool_calls %}<｜DSML｜invoke name="{{ c.function.name }}">
{% for k, v in c.function.arguments.items() %}<｜DSML｜parameter name="{{ k }}" string="{{ 'true' if v is string else 'false' }}">{{ v if v is string else v | tojson }}</｜DSML｜parameter>
{% endfor %}</｜DSML｜invoke>
{% endfor %}</｜DSML｜function_calls>{% endif %}<｜end▁of▁sentence｜>{% else %}{{ m.content }}{% endif %}{% endfor %}` +
		`{% if add_generation_prompt %}<｜Assistant｜>{% if thinking %}<think>{% else %}</think>{% endif %}{% endif %}`,
	"kimi-k2": `{% if tools %}<|im_system|>tool_declare<|im_middle|>{{ tools | tojson }}<|im_end|>{% endif %}{% for m in messages %}<|im_{{ 'system' if m.role == 'tool' else m.role }}|>{{ m.role }}<|im_middle|>` +
		`{% if m.role == 'tool' %}## Return of {{ m.tool_call_id }}{{ '\n' }}{% endif %}{{ m.content }}{% if m.tool_calls %}<|tool_calls_section_begin|>{% for c in m.tool_calls %}<|tool_call_begin|>{{ c.id }}<|tool_call_argument_begin|>` +
		`{{ c.function.arguments | tojson }}<|tool_call_end|>{% endfor %}<|tool_calls_section_end|>{% endif %}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>{% endif %}`,
	"glm": `[gMASK]<sop>{% if tools %}<|system|>{% for t in tools %}{{ '\n' }}{{ t | tojson }}{% endfor %}{% endif %}{% for m in messages %}{% if m.role == 'tool' %}<|observation|>{{ '\n' }}<tool_response>{{ m.content }}</tool_response>` +
		`{% elif m.role == 'assistant' %}<|assistant|>{{ '\n' }}<think>{{ m.reasoning_content or '' }}</think>{% if m.content %}{{ '\n' + m.content }}{% endif %}{% for c in m.tool_calls %}{{ '\n' }}<tool_call>{{ c.function.name }}
{% for k, v in c.function.arguments.items() %}<arg_key>{{ k }}</arg_key>
<arg_value>{{ v if v is string else v | tojson }}</arg_value>
{% endfor %}</tool_call>{% endfor %}{% else %}<|{{ m.role }}|>{{ '\n' + m.content }}{% endif %}{% endfor %}` +
		`{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is defined and not enable_thinking %}{{ '\n' }}<think></think>{% endif %}{% endif %}`,
	"seed-oss": `{% if tools %}<seed:bos>system{% for t in tools %}{{ '\n' }}{{ t | tojson }}{% endfor %}<seed:eos>{% endif %}{% for m in messages %}<seed:bos>{{ m.role }}
{% if m.reasoning_content %}<seed:think>{{ m.reasoning_content }}</seed:think>{% endif %}{{ m.content }}{% for c in m.tool_calls %}{{ '\n' }}<seed:tool_call>
<function={{ c.function.name }}>
{% for k, v in c.function.arguments.items() %}<parameter={{ k }}>{{ v if v is string else v | tojson }}</parameter>
{% endfor %}</function>
</seed:tool_call>{% endfor %}<seed:eos>{% endfor %}{% if add_generation_prompt %}<seed:bos>assistant
{% if thinking_budget == 0 %}<seed:think>
<seed:cot_budget_reflect>The budget is 0.</seed:cot_budget_reflect>
</seed:think>{% endif %}{% endif %}`,
	"minimax-m2": `{% if tools %}]~!b[]~b]system{% for t in tools %}{{ '\n' }}<tool>{{ t | tojson }}</tool>{% endfor %}[e~[
{% endif %}{% for m in messages %}{% if m.role == 'assistant' %}]~b]ai
{% if m.reasoning_content %}<think>
{{ m.reasoning_content }}
</think>

{% endif %}{{ m.content }}{% for c in m.tool_calls %}{% if loop.first %}{{ '\n' }}<minimax:tool_call>{{ '\n' }}{% endif %}<invoke name="{{ c.function.name }}">
{% for k, v in c.function.arguments.items() %}<parameter name="{{ k }}">{{ v if v is string else v | tojson }}</parameter>
{% endfor %}</invoke>
{% if loop.last %}</minimax:tool_call>{% endif %}{% endfor %}{% elif m.role == 'tool' %}]~b]tool
<response>{{ m.content }}</response>{% else %}]~b]{{ m.role }}
{{ m.content }}{% endif %}[e~[
{% endfor %}{% if add_generation_prompt %}]~b]ai
<think>
{% endif %}`,
	"devstral": `{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% elif m.role == 'system' %}[SYSTEM_PROMPT]{{ m.content }}[/SYSTEM_PROMPT]` +
		`{% elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]{% else %}{{ m.content }}{% for c in m.tool_calls %}[TOOL_CALLS]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}{% endfor %}</s>{% endif %}{% endfor %}`,
	// This template writes no calls, like the model's own.
	"granite-3.3": `{% if tools %}<|start_of_role|>system<|end_of_role|>Calls are <|tool_call|> and a list.<|end_of_text|>
<|start_of_role|>available_tools<|end_of_role|>{{ tools | tojson }}<|end_of_text|>
{% endif %}{% if thinking %}<|start_of_role|>system<|end_of_role|>Write <think></think><response></response>.<|end_of_text|>
{% endif %}{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>
{% endfor %}{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}`,
	"command-r7b": `{% if tools %}<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{{ tools | tojson }}<|END_OF_TURN_TOKEN|>{% endif %}{% for m in messages %}<|START_OF_TURN_TOKEN|>{% if m.role == 'tool' %}<|SYSTEM_TOKEN|><|START_TOOL_RESULT|>{{ m.content }}<|END_TOOL_RESULT|>` +
		`{% elif m.role == 'assistant' %}<|CHATBOT_TOKEN|>{% if m.reasoning_content %}<|START_THINKING|>{{ m.reasoning_content }}<|END_THINKING|>{% endif %}{% if m.tool_calls %}<|START_ACTION|>[{% for c in m.tool_calls %}{{ '\n    ' }}` +
		`{"tool_call_id": "{{ loop.index0 }}", "tool_name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}{% if not loop.last %},{% endif %}{% endfor %}{{ '\n' }}]<|END_ACTION|>{% else %}<|START_RESPONSE|>{{ m.content }}<|END_RESPONSE|>{% endif %}` +
		`{% else %}<|{{ m.role | upper }}_TOKEN|>{{ m.content }}{% endif %}<|END_OF_TURN_TOKEN|>{% endfor %}{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}`,
	"nemotron-nano-v2": `{% set ns = namespace(think=true) %}{% for m in messages %}{% if m.role == 'system' and '/no_think' in m.content %}{% set ns.think = false %}{% endif %}{% endfor %}{% if tools %}<SPECIAL_10>System
<AVAILABLE_TOOLS>{{ tools | tojson }}</AVAILABLE_TOOLS>
{% endif %}{% for m in messages %}{% if m.role == 'system' %}<SPECIAL_10>System
{{ m.content | replace('/no_think', '') }}
{% elif m.role == 'assistant' %}<SPECIAL_11>Assistant
{{ m.content }}{% for c in m.tool_calls %}{{ '\n<TOOLCALL>[' if loop.first else ', ' }}{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}{% if loop.last %}]</TOOLCALL>{% endif %}{% endfor %}
<SPECIAL_12>
{% else %}<SPECIAL_11>User
{% if m.role == 'tool' %}<TOOL_RESPONSE>[{{ m.content }}]</TOOL_RESPONSE>{% else %}{{ m.content }}{% endif %}
{{ '\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}<SPECIAL_11>Assistant
{% if ns.think %}<think>
{% else %}<think></think>{% endif %}{% endif %}`,
	"apertus": `<|developer_start|>Deliberation: {{ 'enabled' if enable_thinking else 'disabled' }}{% for t in tools %}{{ '\n' }}{{ t | tojson }}{% endfor %}<|developer_end|>{% for m in messages %}{% if m.role == 'tool' %}<|user_start|>[{{ m.content }}]<|user_end|>{% else %}<|{{ m.role }}_start|>` +
		`{% if m.thinking %}<|inner_prefix|>{{ m.thinking }}<|inner_suffix|>{% endif %}{{ m.content }}{% for c in m.tool_calls %}{{ '<|tools_prefix|>[' if loop.first else ', ' }}{"{{ c.function.name }}": {{ c.function.arguments | tojson }}}{% if loop.last %}]<|tools_suffix|>{% endif %}{% endfor %}` +
		`<|{{ m.role }}_end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant_start|>{% endif %}`,
	"apriel": `{% if tools %}<|system|>
{{ tools | tojson }}
<|end|>
{% endif %}{% for m in messages %}<|{{ 'tool_result' if m.role == 'tool' else m.role }}|>
{{ m.content }}{% for c in m.tool_calls %}{{ '\n<tool_calls>[' if loop.first else ', ' }}{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}{% if loop.last %}]</tool_calls>{% endif %}{% endfor %}
<|end|>
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}`,
	"functiongemma": `{% macro lit(v) %}{% if v is string %}<escape>{{ v }}<escape>{% elif v is mapping %}{{ '{' }}{% for k, x in v | dictsort %}{{ k }}:{{ lit(x) }}{% if not loop.last %},{% endif %}{% endfor %}{{ '}' }}{% elif v is sequence %}[{% for x in v %}{{ lit(x) }}{% if not loop.last %},{% endif %}{% endfor %}]{% else %}{{ v | tojson }}{% endif %}{% endmacro %}` +
		`{% if tools %}<start_of_turn>developer
{% for t in tools %}<start_function_declaration>{{ t | tojson }}<end_function_declaration>{% endfor %}<end_of_turn>
{% endif %}{% for m in messages %}{% if m.role == 'tool' %}<start_function_response>response:{{ m.name }}{value:<escape>{{ m.content }}<escape>}<end_function_response>{% else %}<start_of_turn>{{ {'assistant': 'model', 'system': 'developer'}.get(m.role, m.role) }}
{{ m.content }}{% for c in m.tool_calls %}<start_function_call>call:{{ c.function.name }}{{ '{' }}{% for k, v in c.function.arguments | dictsort %}{{ k }}:{{ lit(v) }}{% if not loop.last %},{% endif %}{% endfor %}{{ '}' }}<end_function_call>{% endfor %}<end_of_turn>
{% endif %}{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}`,
	"llama4-pythonic": `{% if tools %}<|header_start|>system<|header_end|>{% for t in tools %}{{ '\n\n' }}{{ t | tojson }}{% endfor %}<|eot|>{% endif %}{% for m in messages %}<|header_start|>{{ 'ipython' if m.role == 'tool' else m.role }}<|header_end|>

{% if m.tool_calls %}[{% for c in m.tool_calls %}{{ c.function.name }}({% for k, v in c.function.arguments.items() %}{{ k }}={{ v | tojson }}{% if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}){% if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}]` +
		`{% else %}{{ m.content }}{% endif %}<|eot|>{% endfor %}{% if add_generation_prompt %}<|header_start|>assistant<|header_end|>

{% endif %}`,
	"phi4-mini": `{% if tools %}<|system|><|tool|>{{ tools | tojson }}<|/tool|><|end|>{% endif %}{% for m in messages %}<|{{ 'tool_response' if m.role == 'tool' else m.role }}|>{{ m.content }}` +
		`{% for c in m.tool_calls %}{{ '<|tool_call|>[' if loop.first else ', ' }}{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}{% if loop.last %}]<|/tool_call|>{% endif %}{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}`,
}
