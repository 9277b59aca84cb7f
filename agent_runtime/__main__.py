"""`python -m agent_runtime` is `myagent`."""

from agent_runtime.cli.main import main

main()
