"""The writable tree ``incoming/``: a real folder of the archive, its acceptance, its stubs."""
