"""The engine: one coroutine from a message to an answer, the dialects it speaks, and what it keeps of a run."""

from agent_runtime.engine.formats import DIALECTS
from agent_runtime.engine.history import recall
from agent_runtime.engine.loop import Engine
from agent_runtime.engine.run_state import Checkpoint, RunState
from agent_runtime.engine.structured_output import AnswerSchema, StructuredOutput, read_schema
from agent_runtime.engine.untrusted import unmarked

__all__ = [
    "DIALECTS",
    "AnswerSchema",
    "Checkpoint",
    "Engine",
    "RunState",
    "StructuredOutput",
    "read_schema",
    "recall",
    "unmarked",
]
