"""What kernels of training and of inference share: the choice of a form, and functions that Triton compiles into both."""
