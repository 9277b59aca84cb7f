"""What is measured, one file a subject. Each has `async def measure(scale: Scale) -> list[Row]`; `run.py` lists them."""
