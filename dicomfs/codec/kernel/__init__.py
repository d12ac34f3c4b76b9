"""The codec kernel in C and how it is built; ``codec.own`` is the only module that calls it."""
