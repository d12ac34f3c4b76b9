"""Part 10 files and their parts: where the bytes lie, what the attributes say, how a file is named."""
