"""Python functions as tools: the JSON Schema comes from the signature and the docstring."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import importlib.util
import inspect
import logging
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
    """One function. A synchronous function runs in a thread, an asynchronous one on the event loop.

    A call that raises is retried up to `retries` times, within one time-out; a ToolError goes to the model at once.
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
        self._arguments, description = _arguments_model(function)
        self.direct = direct
        self.guarded = guarded
        self.timeout_seconds = timeout_seconds
        self.spec = ToolSpec(function.__name__, description, _schema(self._arguments))

    async def __aenter__(self) -> FunctionTool:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Validate the arguments and run the function; the result is its string, or JSON of any other value."""
        try:
            validated = self._arguments.model_validate(arguments)
        except ValidationError as error:
            raise ToolError(_validation_message(error)) from None
        values = {field.removeprefix(_PREFIX): getattr(validated, field) for field in validated.model_fields_set}
        for retries_left in range(self._retries, 0, -1):
            try:
                return await self._run(values)
            except ToolError:
                raise
            except Exception as error:  # a tool is the user's code and may raise anything
                _log.info("%s failed (%s); %d retries left", self.spec.name, type(error).__name__, retries_left)
        return await self._run(values)

    async def _run(self, values: Mapping[str, Any]) -> str:
        if inspect.iscoroutinefunction(self._function):
            result = await self._function(**values)
        else:
            result = await asyncio.to_thread(self._function, **values)
        if isinstance(result, str):
            return result
        return "Done." if result is None else to_json(result, fallback=str, inf_nan_mode="null").decode()


def import_function(reference: str, folder: Path) -> Function:
    """The function `module:function`, from a module in the agent file's folder or an installed one.

    Raises:
        ImportError: the function cannot be imported or cannot be a tool; the message is one sentence.
    """
    module_name, _, function_name = reference.partition(":")
    try:
        module = _import_module(module_name, folder)
    except Exception as error:  # the user's module may raise anything
        raise ImportError(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from error
    function = getattr(module, function_name, None)
    if function is None:
        raise ImportError(f"{module_name} has no function {function_name}")
    if not callable(function):
        raise ImportError(f"{function_name} in {module_name} is not a function")
    try:
        _arguments_model(cast("Function", function))
    except Exception as error:  # pydantic and typing raise many types for invalid annotations
        raise ImportError(f"{function_name} cannot be a tool: {error}") from error
    return cast("Function", function)


def _import_module(name: str, folder: Path) -> ModuleType:
    file = folder.resolve() / Path(*name.split(".")).with_suffix(".py")
    if not file.is_file():
        return importlib.import_module(name)
    # Two agents in one process may both have an orders.py, and an edited module must be loaded again.
    identity = f"{file} {file.stat().st_mtime_ns}"
    unique = f"_myagent_{hashlib.sha256(identity.encode()).hexdigest()[:12]}_{file.stem}"
    if unique in sys.modules:
        return sys.modules[unique]
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # so that it can import the modules beside it
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


@lru_cache(maxsize=1024)  # a function is inspected when the file is checked and when each agent opens it
def _arguments_model(function: Function) -> tuple[type[BaseModel], str]:
    """The model that validates the arguments, and the description of the tool."""
    hints = get_type_hints(function, include_extras=True)
    description, documented = _docstring(function)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"the parameter {name} must be a keyword parameter")
        annotation = hints.get(name, Any)
        default: Any = ... if parameter.default is parameter.empty else parameter.default
        described = _annotated_description(annotation) or documented.get(name)
        fields[_PREFIX + name] = (annotation, Field(default, alias=name, description=described))
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
    return create_model(function.__name__, __config__=config, **fields), description


def _docstring(function: Function) -> tuple[str, dict[str, str]]:
    """The description of a function and of its parameters, from a docstring in any common style."""
    text = inspect.getdoc(function) or ""
    if "\n" not in text:  # no sections: the parser need not be imported
        return text or function.__name__.replace("_", " "), {}
    import docstring_parser

    try:
        parsed = docstring_parser.parse(text)
    except docstring_parser.ParseError:
        return text, {}
    parameters = {
        parameter.arg_name: " ".join(parameter.description.split())
        for parameter in parsed.params
        if parameter.description
    }
    return (parsed.description or function.__name__.replace("_", " ")).strip(), parameters


def _annotated_description(annotation: Any) -> str | None:
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
    """Titles repeat the names, and the model reads every token of a schema with every call."""
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


def _validation_message(error: ValidationError) -> str:
    parts = (
        f"{'.'.join(map(str, item['loc'])) or 'arguments'}: {item['msg']}"
        for item in error.errors(include_url=False, include_context=False)
    )
    return "The arguments are invalid: " + "; ".join(parts) + "."
