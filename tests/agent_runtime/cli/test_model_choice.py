from fastapi import FastAPI

from agent_runtime.cli.stack import choose_model
from tests.serving import serve

NOWHERE = {"OLLAMA_HOST": "127.0.0.1:9"}


def ollama(*models: str) -> FastAPI:
    app = FastAPI()

    @app.get("/api/tags")
    async def tags() -> dict[str, list[dict[str, str]]]:
        return {"models": [{"name": model} for model in models]}

    return app


async def test_without_anything_better_it_is_the_built_in_model() -> None:
    choice = await choose_model(None, NOWHERE)
    assert choice.is_built_in
    assert choice.label == "the built-in model"


async def test_openai_comes_first_and_its_key_goes_into_a_variable_and_not_into_the_label() -> None:
    async with serve(ollama("llama3.2")) as address:
        choice = await choose_model(None, {"OPENAI_API_KEY": "sk-of-a-person", "OLLAMA_HOST": address})
    assert choice.environment["MYAGENT_MODEL_PROVIDER"] == "openai"
    assert choice.environment["MYAGENT_MODEL_API_KEY"] == "sk-of-a-person"
    assert choice.environment["MYAGENT_MODEL_ENDPOINT"] == "https://api.openai.com/v1"
    assert "sk-of-a-person" not in choice.label
    assert not choice.is_built_in


async def test_another_endpoint_and_another_model_can_be_named_for_the_key() -> None:
    choice = await choose_model(
        None, {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://vllm:8000/v1", "OPENAI_MODEL": "qwen"}
    )
    assert choice.environment["MYAGENT_MODEL_ENDPOINT"] == "http://vllm:8000/v1"
    assert choice.environment["MYAGENT_MODEL_NAME"] == "qwen"


async def test_an_ollama_that_answers_is_taken_with_its_first_model() -> None:
    async with serve(ollama("llama3.2", "qwen3")) as address:
        choice = await choose_model(None, {"OLLAMA_HOST": address})
        bare = await choose_model(None, {"OLLAMA_HOST": address.removeprefix("http://")})
    assert choice.environment["MYAGENT_MODEL_NAME"] == "llama3.2"
    assert choice.environment["MYAGENT_MODEL_ENDPOINT"] == f"{address}/v1"
    assert choice == bare


async def test_an_ollama_without_models_and_another_service_on_its_port_are_passed_over() -> None:
    async with serve(ollama()) as address:
        assert (await choose_model(None, {"OLLAMA_HOST": address})).is_built_in
    async with serve(FastAPI()) as address:
        assert (await choose_model(None, {"OLLAMA_HOST": address})).is_built_in


async def test_a_model_that_was_asked_for_wins() -> None:
    choice = await choose_model("owner/repo", {"OPENAI_API_KEY": "k", **NOWHERE})
    assert choice.environment == {"MYAGENT_MODEL_PROVIDER": "local", "MYAGENT_MODEL_NAME": "owner/repo"}
