"""The Agent in a script or a notebook: real processes that end by themselves."""

import asyncio
import signal
import sys
from pathlib import Path
from textwrap import dedent

from agent_runtime import Agent
from agent_runtime.models.scripted import ScriptedModel
from tests.agents import Ended, running, write_agent

START = """
from agent_runtime import Agent, ModelError
from agent_runtime.models.scripted import ScriptedModel
model = ScriptedModel(["Hello Ada.", "You are Ada."])
agent = Agent(config="agent.yaml", model=model)
"""


async def script(folder: Path, text: str, **sections: object) -> Ended:
    """Run a script beside an agent file that remembers in SQLite; at most 20 seconds."""
    write_agent(folder, **{"agent_type": "stateful", "session": {"store": "sqlite:///sessions.db"}, **sections})
    command = [sys.executable, "-W", "error", "-c", START + dedent(text)]
    async with asyncio.timeout(20), running(command, folder) as process:
        out, err = await process.communicate()
        return Ended(process.returncode or 0, out.decode(), err.decode())


async def test_a_script_asks_and_ends_without_closing_anything(tmp_path: Path) -> None:
    ended = await script(tmp_path, 'print(agent.chat("I am Ada."))\n')
    assert ended == Ended(0, "Hello Ada.\n", "")


async def test_all_calls_of_a_script_are_one_conversation(tmp_path: Path) -> None:
    ended = await script(
        tmp_path,
        """
        agent.chat("I am Ada.")
        print(agent.chat("Who am I?"))
        print([message.content for message in model.asked[1].messages])
        """,
    )
    assert ended == Ended(0, "You are Ada.\n['I am Ada.', 'Hello Ada.', 'Who am I?']\n", "")


async def test_a_session_has_the_name_that_the_script_gives_it(tmp_path: Path) -> None:
    await script(tmp_path, 'agent.chat("I am Ada.", session_id="ada")')
    ended = await script(
        tmp_path,
        """
        agent.chat("Who am I?", session_id="ada")
        print([message.content for message in model.asked[0].messages])
        """,
    )
    assert ended == Ended(0, "['I am Ada.', 'Hello Ada.', 'Who am I?']\n", "")


async def test_chat_works_where_a_loop_is_running_already_as_in_a_notebook(tmp_path: Path) -> None:
    ended = await script(
        tmp_path,
        """
        import asyncio
        async def cell():
            return agent.chat("I am Ada.")
        print(asyncio.run(cell()))
        """,
    )
    assert ended == Ended(0, "Hello Ada.\n", "")


async def test_threads_may_share_an_agent(tmp_path: Path) -> None:
    ended = await script(
        tmp_path,
        """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(2) as pool:
            print(sorted(pool.map(lambda name: agent.chat("I am Ada.", session_id=name), "ab")))
        """,
    )
    assert ended == Ended(0, "['Hello Ada.', 'You are Ada.']\n", "")


async def test_a_script_may_close_the_agent_and_use_it_again(tmp_path: Path) -> None:
    ended = await script(
        tmp_path,
        """
        with agent:
            print(agent.chat("I am Ada."))
        print(agent.is_open)
        print(agent.chat("Who am I?"))
        agent.close()
        agent.close()
        """,
    )
    assert ended == Ended(0, "Hello Ada.\nFalse\nYou are Ada.\n", "")


async def test_a_script_that_fails_ends_with_its_own_error(tmp_path: Path) -> None:
    ended = await script(tmp_path, 'agent.chat("I am Ada.")\nraise SystemExit("enough")\n')
    assert (ended.status, ended.out, ended.err) == (1, "", "enough\n")


async def test_an_error_of_the_model_is_raised_in_the_script(tmp_path: Path) -> None:
    ended = await script(
        tmp_path,
        """
        agent = Agent("agent.yaml", model=ScriptedModel([ModelError("the model is away")]))
        try:
            agent.chat("hello")
        except ModelError as error:
            print(error)
        """,
    )
    assert ended == Ended(0, "the model is away\n", "")


async def test_the_product_name_imports_the_same_agent(tmp_path: Path) -> None:
    ended = await script(tmp_path, "import myagent\nprint(myagent.Agent is Agent)\n")
    assert ended == Ended(0, "True\n", "")


async def test_an_async_script_that_forgets_to_close_ends_cleanly(tmp_path: Path) -> None:
    ended = await script(
        tmp_path,
        """
        import asyncio
        print(asyncio.run(agent.run("I am Ada.")).answer)
        """,
    )
    assert ended == Ended(0, "Hello Ada.\n", "")


async def test_ctrl_c_ends_a_script_that_waits_for_an_answer(tmp_path: Path) -> None:
    write_agent(tmp_path)
    code = START + dedent(
        """
        import asyncio
        class Silent(ScriptedModel):
            async def stream(self, messages, tools=(), *, stop=()):
                print("asked", flush=True)
                await asyncio.Event().wait()
                yield ""
        Agent("agent.yaml", model=Silent([])).chat("hello")
        """
    )
    async with asyncio.timeout(20), running([sys.executable, "-c", code], tmp_path) as process:
        assert process.stdout
        assert await process.stdout.readline() == b"asked\n"
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert process.returncode == -signal.SIGINT
    assert err.decode().rstrip().endswith("KeyboardInterrupt")


async def test_chat_in_a_test_of_asynchronous_code_does_not_need_this_loop(tmp_path: Path) -> None:
    with Agent(write_agent(tmp_path), model=ScriptedModel(["Hello."]), environment={}) as agent:
        assert agent.chat("Hi") == "Hello."
