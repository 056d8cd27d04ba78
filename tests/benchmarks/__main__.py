"""`python -m tests.benchmarks [NAME …]`: run every benchmark of this folder, or those named, one after another."""

import importlib
import pkgutil
import sys

import tests.benchmarks

names = sys.argv[1:] or sorted(
    each.name for each in pkgutil.iter_modules(tests.benchmarks.__path__) if each.name[0] != "_"
)
for name in names:
    print(f"== {name}", flush=True)
    importlib.import_module(f"tests.benchmarks.{name}").main()
