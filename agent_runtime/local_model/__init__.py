"""What the model inside the process is made of: its weights, its engine, and the reading of a question for a tool call.

`models/local.py` joins them into a model; nothing here knows of agents, files or HTTP faces.
"""
