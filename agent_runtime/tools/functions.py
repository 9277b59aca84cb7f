"""Python functions as tools: the signature and the docstring make the JSON Schema."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import importlib.util
import inspect
import logging
import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import to_json

from agent_runtime.errors import ToolError
from agent_runtime.events import ToolSpec

_log = logging.getLogger(__name__)

Function = Callable[..., Any]
_PREFIX = "argument_"  # a parameter may be called `copy` or `schema`, which pydantic has methods for


class FunctionTool:
    """One function. Synchronous ones run in a thread, asynchronous ones are awaited.

    A call that raises is made again up to `retries` times, within the one time-out; ToolError is the model's to mend.
    """

    def __init__(
        self,
        function: Function,
        *,
        direct: bool = False,
        guarded: bool = False,
        timeout_seconds: float = 60,
        retries: int = 0,
    ) -> None:
        self._function = function
        self._retries = retries
        self._arguments = _arguments_model(function)
        self.direct = direct
        self.guarded = guarded
        self.timeout_seconds = timeout_seconds
        self.spec = ToolSpec(function.__name__, _summary(function), _schema(self._arguments))

    async def __aenter__(self) -> FunctionTool:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Check the arguments, run the function, and write its result as text: a string as it is, else JSON."""
        try:
            checked = self._arguments.model_validate(arguments)
        except ValidationError as error:
            raise ToolError(_complaint(error)) from None
        values = {field.removeprefix(_PREFIX): getattr(checked, field) for field in checked.model_fields_set}
        for left in range(self._retries, 0, -1):
            try:
                return await self._called(values)
            except ToolError:
                raise
            except Exception as error:  # a tool is foreign code: whatever it raises may pass
                _log.info("%s failed (%s); %d tries are left", self.spec.name, type(error).__name__, left)
        return await self._called(values)

    async def _called(self, values: Mapping[str, Any]) -> str:
        if inspect.iscoroutinefunction(self._function):
            return _written(await self._function(**values))
        return _written(await asyncio.to_thread(self._function, **values))


def import_function(reference: str, folder: Path) -> Function:
    """The function that `module:function` names: in a module beside the agent file, or an installed one.

    Raises:
        ImportError: with one sentence that says what is missing.
    """
    module_name, _, function_name = reference.partition(":")
    try:
        module = _module(module_name, folder)
    except Exception as error:  # a user's module may raise anything while it is imported
        raise ImportError(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from error
    function = getattr(module, function_name, None)
    if function is None:
        raise ImportError(f"{module_name} has no function {function_name}")
    if not callable(function):
        raise ImportError(f"{function_name} in {module_name} is not a function")
    try:
        _arguments_model(cast("Function", function))
    except Exception as error:  # pydantic and typing raise many kinds for annotations they cannot read
        raise ImportError(f"{function_name} cannot be a tool: {error}") from error
    return cast("Function", function)


def _module(name: str, folder: Path) -> ModuleType:
    file = folder.resolve() / Path(*name.split(".")).with_suffix(".py")
    if not file.is_file():
        return importlib.import_module(name)
    # Two agents of one process may each have an orders.py, and an edited one is another module than it was before.
    identity = f"{file} {file.stat().st_mtime_ns}"
    unique = f"_myagent_{hashlib.sha256(identity.encode()).hexdigest()[:12]}_{file.stem}"
    if unique in sys.modules:
        return sys.modules[unique]
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # so that the module finds its own neighbours
    spec = importlib.util.spec_from_file_location(unique, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[unique]
        raise
    return module


@lru_cache(maxsize=1024)  # a function is read when the file is checked, and when it is opened, by any number of agents
def _arguments_model(function: Function) -> type[BaseModel]:
    hints = get_type_hints(function, include_extras=True)
    documented = _documented_arguments(function)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"the parameter {name} must be a named one")
        annotation = hints.get(name, Any)
        default: Any = ... if parameter.default is parameter.empty else parameter.default
        described = _described(annotation) or documented.get(name)
        fields[_PREFIX + name] = (annotation, Field(default, alias=name, description=described))
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
    return create_model(function.__name__, __config__=config, **fields)


def _described(annotation: Any) -> str | None:
    """`Annotated[float, "in pounds"]`: a plain string in an annotation is the parameter's description."""
    if get_origin(annotation) is not Annotated:
        return None
    return next((extra for extra in get_args(annotation)[1:] if isinstance(extra, str)), None)


@lru_cache(maxsize=1024)
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = cast("dict[str, Any]", _without_titles(model.model_json_schema()))
    schema.pop("description", None)
    return schema


def _without_titles(node: Any) -> Any:
    """Titles repeat the names; every token of a schema is read by the model on every call."""
    if isinstance(node, list):
        return [_without_titles(item) for item in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    return {
        key: {name: _without_titles(inner) for name, inner in value.items()}
        if key in {"properties", "$defs"}
        else _without_titles(value)
        for key, value in cast("dict[str, Any]", node).items()
        if not (key == "title" and isinstance(value, str))
    }


def _summary(function: Function) -> str:
    text = inspect.getdoc(function) or function.__name__.replace("_", " ")
    return re.split(r"\n\s*(?:Args|Returns|Raises|Yields|Examples?):", text)[0].strip()


def _documented_arguments(function: Function) -> dict[str, str]:
    """The `Args:` section of a Google-style docstring."""
    section = re.search(r"\n\s*Args:\n(.*?)(?:\n\s*\n|\n\S|\Z)", inspect.getdoc(function) or "", re.DOTALL)
    if not section:
        return {}
    found: dict[str, str] = {}
    name = ""
    for line in section[1].splitlines():
        entry = re.match(r"\s{2,4}(\w+)(?:\s*\([^)]*\))?:\s*(.*)", line)
        if entry:
            name = entry[1]
            found[name] = entry[2].strip()
        elif name:
            found[name] += " " + line.strip()
    return found


def _complaint(error: ValidationError) -> str:
    parts = (
        f"{'.'.join(map(str, item['loc'])) or 'arguments'}: {item['msg']}"
        for item in error.errors(include_url=False, include_context=False)
    )
    return "The arguments do not fit: " + "; ".join(parts) + "."


def _written(result: Any) -> str:
    if isinstance(result, str):
        return result
    if result is None:
        return "Done."
    return to_json(result, fallback=str, inf_nan_mode="null").decode()
