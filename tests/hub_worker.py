# SPDX-License-Identifier: Apache-2.0
"""A process whose environment says where the Hub is, read by huggingface_hub at import: calls in, answers out, as JSON lines."""

import dataclasses
import json
import sys

import slm
from slm import hub


def main() -> None:
    for line in sys.stdin:
        name, arguments, keywords = json.loads(line)
        try:
            answer = {"value": CALLS[name](*arguments, **keywords)}
        except Exception as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        print(json.dumps(answer), flush=True)


def resolve(*arguments, **keywords):
    located = hub.resolve(*arguments, **keywords)
    return [str(located.path), located.commit]


def load(source, **keywords):
    with slm.load(source, **keywords) as model:
        return [model.info.revision, model.generate([1, 2, 3], max_tokens=4).tokens]


def forward(source, ids, **keywords):
    with slm.load(source, **keywords) as model:
        return [model.info.revision, int(model.forward(ids, logits="last").logits.argmax())]


def tokenizer(source, **keywords):
    return slm.load_tokenizer(source, **keywords).vocab_size


def inspect(source, **keywords):
    info = slm.inspect(source, **keywords)
    return {field.name: str(getattr(info, field.name)) for field in dataclasses.fields(info)}


CALLS = {function.__name__: function for function in (resolve, load, forward, tokenizer, inspect)}

if __name__ == "__main__":
    main()
