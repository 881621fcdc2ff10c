"""Write the bundled example file again: python -m pipeline.example."""

from __future__ import annotations

from pipeline.example import path, write

if __name__ == "__main__":
    print(f"{path()}: {write(path())} bytes")
