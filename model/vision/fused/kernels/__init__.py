"""The Triton forms of what lies between a tower layer's products. Importing a module of this package needs Triton."""
