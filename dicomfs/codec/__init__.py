"""Bands of frames to bytes and back, without loss."""
