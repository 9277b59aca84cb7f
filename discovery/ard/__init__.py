"""Agentic Resource Discovery, an optional surface."""
