"""Bytes and a box to pixels: JPEG headers, the native core, libjpeg-turbo, DALI."""
