# SPDX-License-Identifier: Apache-2.0
"""Bytes on disk -> named, typed, bounds-checked ranges. All parsing of files happens here, and nowhere is a model's name known.

A reader validates before it allocates: every count, size and offset is compared with the bytes that are there. Nothing is mapped;
the C core is handed (file descriptor, offset, rows, cols) of ranges that lie inside the file and reads them itself.
"""
