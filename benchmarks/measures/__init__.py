"""What is measured, one file a subject. Each has `measure(scale: Scale) -> list[Row]`; `run.py` lists them."""
