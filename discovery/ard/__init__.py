"""Agentic Resource Discovery (ARD): an optional API for clients and registries of that specification."""

from discovery.ard.routes import router

__all__ = ["router"]
