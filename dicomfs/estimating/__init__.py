"""Estimating: what an archive of some files would take, from a sample of segments, before there is one."""
