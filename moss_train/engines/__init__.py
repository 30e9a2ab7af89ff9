"""What trains the model: built modules, their gradient buffers and optimizers. `megatron` is the one engine."""
