"""Follows instances through llguidance, token by token, for maskbench.

The first line of the input has the vocabulary; each further one a schema and the tokens of its
instances. Each is answered with a line: an error, or the times of the masks in nanoseconds of
thread CPU time, and whether each instance was taken.
"""

import base64
import ctypes
import json
import sys
import time

import llguidance


class Vocabulary:
    """What LLTokenizer asks of a tokenizer."""

    def __init__(self, tokens):
        self.eos_token_id = next(i for i, t in enumerate(tokens) if t["control"])
        self.bos_token_id = None
        self.tokens = []
        self.special_token_ids = []
        for i, t in enumerate(tokens):
            piece = base64.b64decode(t["bytes"] or "")
            if t["control"] or not piece:
                self.special_token_ids.append(i)
                piece = b"\xff<[%d]>" % i
            self.tokens.append(piece)

        self.ids = {piece: i for i, piece in reversed(list(enumerate(self.tokens)))}
        self.longest = max(map(len, self.tokens))
        self.spent = 0  # nanoseconds, which do not count as llguidance's

    def __call__(self, text):
        """Tokenises forced text by the longest match, as the instances are."""
        begin = time.thread_time_ns()
        ids, at = [], 0
        while at < len(text):
            for end in range(min(len(text), at + self.longest), at, -1):
                if text[at:end] in self.ids:
                    ids.append(self.ids[text[at:end]])
                    break
            at = end
        self.spent += time.thread_time_ns() - begin
        return ids


def main():
    setup = json.loads(sys.stdin.readline())
    vocabulary = Vocabulary(setup["tokens"])
    tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(vocabulary))
    keep = setup["masks"]
    size = (len(setup["tokens"]) + 31) // 32 * 4
    mask = ctypes.create_string_buffer(size)
    address = ctypes.addressof(mask)
    clock = time.thread_time_ns
    print("true", flush=True)

    def follow(start, instance, answer, keep):
        matcher = start.deep_copy()
        for token in instance["tokens"]:
            begin, spent = clock(), vocabulary.spent
            matcher.unsafe_compute_mask_ptr(address, size)
            answer["masks"].append(clock() - begin - (vocabulary.spent - spent))
            if keep:
                answer["bitmasks"].append(base64.b64encode(mask.raw).decode())
            if matcher.is_error() or not ord(mask[token >> 3]) >> (token & 7) & 1:
                return False
            if not matcher.consume_token(token):
                return False
        return matcher.is_accepting()

    for line in sys.stdin:
        question = json.loads(line)
        answer = {"error": "", "masks": [], "taken": [], "bitmasks": []}
        begin = clock()
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(question["schema"]))
            matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
            answer["error"] = matcher.get_error()
        except Exception as e:  # a grammar that is refused, whatever the reason
            answer["error"] = str(e) or "refused"
        answer["start"] = clock() - begin
        left = keep
        if not answer["error"]:
            for instance in question["instances"] or []:
                answer["taken"].append(follow(matcher, instance, answer, left and instance["valid"]))
                left = left and not instance["valid"]
        print(json.dumps(answer), flush=True)


main()
