"""A script: blocking calls, no configuration beyond where the provider is and where its key comes from."""

import os
import sys

from drivers.sync_driver import RemoteEngine
from sansio import Deployment, ExecuteBatch, Message, Secret

deployment = Deployment(
    name="chat",
    model="gpt-4o",
    runtime_config={
        "endpoint": os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1"),
        "api_key": Secret.from_env("OPENAI_API_KEY"),
    },
)
question = ExecuteBatch(messages=[Message(role="user", content=" ".join(sys.argv[1:]) or "hello")])

with RemoteEngine(deployment) as engine:
    with engine.stream(question) as chunks:
        for chunk in chunks:
            print(chunk.text_delta, end="", flush=True)
    print()
    print(engine.generate(question).usage)
