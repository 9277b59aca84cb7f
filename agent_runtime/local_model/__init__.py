"""The parts of the built-in model: its weights, its engine, and the analysis of a question for a tool call.

`models/local.py` combines them; nothing here depends on agents, their files or the server.
"""
