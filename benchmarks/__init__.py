"""How fast the product is, beside its peers and beside what the machine allows: `benchmarks/run`."""
