"""DP-SGD on LoRA adapters: examples, mechanism, sampling, per-unit gradients, optimizer, loop."""
